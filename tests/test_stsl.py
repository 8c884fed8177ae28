"""STSL: what its second-order term is and is not, its recursion, its start."""

import math
from itertools import pairwise

import deepinv
import pytest
import torch
from toys import F64, affine_map, dense, first_of_pairs, matrix_operator, pairs

import operators
from priors import Dirac, Gaussian, GaussianMixture
from priors.schedules import DDPM, VP
from restore.problem import Problem, stream
from restore.solvers.stsl import STSL
from restore.space import Space

ONE = torch.ones((1, 1, 1, 1), dtype=F64)  # |A|^2


def covariance(n, seed=0):
    root = torch.randn((n, n), generator=torch.Generator().manual_seed(seed), dtype=F64)
    return root @ root.T / n + 0.1 * torch.eye(n, dtype=F64)


def blind(prior, n, count):
    """A problem without data, `count` samples of one image `(1, 1, n)`."""
    return Problem(
        y=torch.zeros((count, 1, 1, 1), dtype=F64),
        operator=matrix_operator(torch.zeros(1, n), (1, 1, n)),
        prior=prior,
        shape=(count, 1, 1, n),
        sigma_y=torch.ones((count, 1, 1, 1), dtype=F64),
        streams=[stream(0, i) for i in range(count)],
        observed=torch.ones((count, 1, 1, 1), dtype=F64),
    )


@pytest.fixture(scope="module")
def mixture():
    """Weights 0.3 and 0.7, means (-1, 0.5) and (1.2, -0.3), variance 0.2, noise included."""
    sigma = 0.1
    parts = [
        dense((0.2 - sigma**2) * torch.eye(2, dtype=F64), torch.tensor(m, dtype=F64))
        for m in ([-1.0, 0.5], [1.2, -0.3])
    ]
    return GaussianMixture([0.3, 0.7], parts), sigma


def trace_of_hessian(prior, z, sigma):
    """Trace of the Hessian of log p_t at `z` `(N, 2)`, with alpha = 1, differentiable."""
    shape = (-1, 1, 1, 2)

    def score(z):
        return ((prior(z.reshape(shape), sigma) - z.reshape(shape)) / sigma**2).reshape(-1, 2)

    s = score(z)
    rows = [torch.autograd.grad(s[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2)]
    return rows[0] + rows[1]


def test_the_term_stands_for_the_trace_smoothed_at_the_width_of_its_probe(mixture):
    """E eps^T (s(z + delta eps) - s(z)) / delta, with the published widths and values."""
    prior, sigma = mixture
    count = 400_000
    eps = torch.randn((count, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
    z = torch.tensor([[0.2, 0.1]], dtype=F64)
    point = z.clone().requires_grad_()
    assert float(trace_of_hessian(prior, point, sigma).detach()) == pytest.approx(4.969, abs=0.002)

    def score(z):
        z = z.reshape(-1, 1, 1, 2)
        return ((prior(z, sigma) - z) / sigma**2).reshape(-1, 2)

    for delta, value in ((0.01, 4.99), (0.3, 2.28), (1.0, -5.44)):
        probes = (eps * (score(z + delta * eps) - score(z))).sum(1) / delta
        error = float(probes.std()) / math.sqrt(count)
        assert float(probes.mean()) == pytest.approx(value, abs=0.03 + 4 * error)
        near = (z + delta * eps[:20_000]).requires_grad_()
        smoothed = trace_of_hessian(prior, near, sigma).detach()
        error = math.hypot(error, float(smoothed.std()) / math.sqrt(len(smoothed)))
        assert float(probes.mean()) == pytest.approx(float(smoothed.mean()), abs=4 * error)


@pytest.mark.parametrize(("delta", "unit"), [(1.0, "one"), (0.3, "one"), (3.0, "sigma")])
def test_its_gradient_is_that_of_the_smoothed_trace(delta, unit, mixture):
    prior, sigma = mixture
    count, eta = 8000, 0.7
    task = blind(prior, 2, count)
    z = torch.tensor([1.0, 0.0], dtype=F64)
    solver = STSL(eta=eta, delta=delta, delta_unit=unit)
    found = solver.gradient(task, Space(task), z.expand(count, 1, 1, 2), 1.0, sigma, ONE).reshape(
        -1, 2
    )
    width = delta * (sigma if unit == "sigma" else 1)
    eps = torch.randn((100_000, 2), generator=torch.Generator().manual_seed(5), dtype=F64)
    near = (z + width * eps).requires_grad_()
    trace = trace_of_hessian(prior, near, sigma).sum()
    expected = eta / 2 * torch.autograd.grad(trace, near)[0]
    error = torch.hypot(found.std(0) / count**0.5, expected.std(0) / len(eps) ** 0.5)
    assert bool(((found.mean(0) - expected.mean(0)).abs() < 4 * error).all())
    assert bool((expected.mean(0).abs() > 4 * error).any())  # there is something to see


def test_descending_on_it_narrows_the_conditional():
    """Minimising the trace lowers Cov[x_0 | x_t] on a mixture: the sign is right."""
    parts = [
        dense(0.05 * torch.eye(2, dtype=F64), torch.tensor(m, dtype=F64))
        for m in ([-1.0, 0.5], [1.2, -0.3])
    ]
    prior, sigma = GaussianMixture([0.5, 0.5], parts), 1.0
    task = blind(prior, 2, 64)
    space, solver = Space(task), STSL(eta=0.3, delta=0.1)
    z = torch.tensor([0.1, 0.1], dtype=F64).expand(64, 1, 1, 2)

    def trace(z):
        return trace_of_hessian(prior, z.reshape(-1, 2).requires_grad_(), sigma).mean().item()

    before = trace(z.clone())
    for _ in range(40):
        z = z - solver.gradient(task, space, z, 1.0, sigma, ONE)
    assert trace(z) < before - 0.01


def test_on_a_gaussian_the_second_order_term_does_nothing():
    """The published weakness: an affine score has no second-order gradient, for any probe."""
    C = covariance(3)
    operator = matrix_operator(torch.tensor([[1.0, 0.5, -0.2]]), (1, 1, 3))
    y = torch.full((1, 1, 1, 1), 0.7, dtype=F64)
    first = STSL(steps=10, inner=3, eta=0.0)(y, operator, dense(C), samples=2).samples
    for solver in (
        STSL(steps=10, inner=3, eta=0.02),
        STSL(steps=10, inner=3, eta=0.02, delta=0.3, delta_unit="sigma"),
    ):
        torch.testing.assert_close(
            solver(y, operator, dense(C), samples=2).samples, first, rtol=0, atol=1e-8
        )


def test_without_it_the_probes_are_drawn_all_the_same():
    """eta = 0: any delta, bit by bit, and both orders see the same chance on a mixture."""
    operator, y = first_of_pairs()
    parts = [dense(0.1 * torch.eye(2), torch.full((2,), m)) for m in (-1.0, 1.0)]
    prior = GaussianMixture([1, 1], parts)
    kwargs = {"steps": 5, "inner": 2, "start": "noise"}
    a = STSL(eta=0.0, **kwargs)(y, operator, prior, samples=3).samples
    b = STSL(eta=0.0, delta=0.1, **kwargs)(y, operator, prior, samples=3).samples
    assert torch.equal(a, b)
    c = STSL(eta=1e-9, **kwargs)(y, operator, prior, samples=3).samples
    torch.testing.assert_close(a, c, rtol=0, atol=1e-6)
    assert not torch.equal(STSL(eta=0.02, **kwargs)(y, operator, prior, samples=3).samples, a)


def test_every_step_is_the_recursion_of_the_paper():
    """From noise on a Gaussian: z <- z - 2 lam J^T A^T (A D - y), K times, then DDIM."""
    n, steps, inner, lam = 3, 12, 2, 0.2
    C, m = covariance(n), torch.tensor([0.3, -0.2, 0.1], dtype=F64)
    A = torch.tensor([[1.0, 0.5, -0.2], [0.0, 0.3, 0.4]], dtype=F64)
    A = A / torch.linalg.matrix_norm(A, 2)
    y = torch.tensor([0.7, -0.4], dtype=F64)
    eye, table = torch.eye(n, dtype=F64), DDPM()
    times = torch.linspace(999, 0, steps).round()
    levels = list(zip(table.alpha(times).tolist(), table.sigma(times).tolist(), strict=True))
    M, b = eye, torch.zeros(n, dtype=F64)
    for i, (alpha, sigma) in enumerate(levels):
        J = alpha * C @ torch.linalg.inv(alpha**2 * C + sigma**2 * eye)

        def D(M, b, J=J, alpha=alpha):
            return J @ M, m + J @ (b - alpha * m)

        for _ in range(inner):
            D_M, D_b = D(M, b)
            M = M - 2 * lam * J.T @ A.T @ A @ D_M
            b = b - 2 * lam * J.T @ A.T @ (A @ D_b - y)
        D_M, D_b = D(M, b)
        alpha_s, sigma_s = levels[i + 1] if i + 1 < steps else (1.0, 0.0)
        M = alpha_s * D_M + sigma_s * (M - alpha * D_M) / sigma
        b = alpha_s * D_b + sigma_s * (b - alpha * D_b) / sigma
    solver = STSL(steps=steps, inner=inner, lam=lam, step="constant", eta=0.02, start="noise")
    found_M, found_b, gap = affine_map(
        solver, y.reshape(1, 1, 2, 1), matrix_operator(A, (1, 1, n)), dense(C, m), (1, 1, n)
    )
    assert gap < 1e-7
    torch.testing.assert_close(found_M, M, rtol=0, atol=1e-7)
    torch.testing.assert_close(found_b, b, rtol=0, atol=1e-7)


def test_it_shares_the_bias_of_dps():
    """Scalar N(0, 1), y = 0.8, sigma_y = 0.3: mean beyond 0.734 towards y, variance below 0.083."""
    operator = matrix_operator(torch.eye(2), (1, 1, 2), noise=0.3)
    y = torch.full((1, 1, 2, 1), 0.8, dtype=F64)
    M, b, _ = affine_map(
        STSL(step="constant", start="noise"), y, operator, dense(torch.eye(2)), (1, 1, 2)
    )
    assert float(b[0]) > 0.734 + 0.03
    assert float((M @ M.T)[0, 0]) < 0.083 / 2


def test_inner_steps_contract_the_residual():
    """r <- (1 - 2 lam A J J^T A^T) r for a frozen Gaussian level."""
    C = covariance(3)
    A = torch.tensor([[1.0, 0.5, -0.2], [0.0, 0.3, 0.4]], dtype=F64)
    A = A / torch.linalg.matrix_norm(A, 2)
    task = blind(dense(C), 3, 1)
    task.operator, task.y = matrix_operator(A, (1, 1, 3)), torch.ones((1, 1, 2, 1), dtype=F64)
    space, lam, alpha, sigma = Space(task), 0.3, 0.8, 0.6
    J = alpha * C @ torch.linalg.inv(alpha**2 * C + sigma**2 * torch.eye(3, dtype=F64))
    contraction = torch.eye(2, dtype=F64) - 2 * lam * A @ J @ J.T @ A.T
    z = torch.tensor([0.3, -0.6, 0.2], dtype=F64).reshape(1, 1, 1, 3)

    def residual(z):
        return task.A(space.decode(space.denoise(z, alpha, sigma))).flatten() - 1

    for eta in (0.0, 0.02):
        moved = z - STSL(lam=lam, step="constant", eta=eta).gradient(
            task, space, z, alpha, sigma, ONE
        )
        torch.testing.assert_close(residual(moved), contraction @ residual(z), rtol=0, atol=1e-9)


def test_the_normalised_step_is_the_constant_one_over_the_residual():
    """step = "norm": lam / (|A| |r|) in place of lam / |A|^2, r the residual of D."""
    C = covariance(3)
    A = torch.tensor([[1.0, 0.5, -0.2], [0.0, 0.3, 0.4]], dtype=F64)
    task = blind(dense(C), 3, 1)
    task.operator, task.y = matrix_operator(A, (1, 1, 3)), torch.ones((1, 1, 2, 1), dtype=F64)
    space, alpha, sigma = Space(task), 0.8, 0.6
    z = torch.tensor([0.3, -0.6, 0.2], dtype=F64).reshape(1, 1, 1, 3)
    gain = torch.linalg.matrix_norm(A, 2).square().reshape(1, 1, 1, 1)
    D = space.denoise(z, alpha, sigma)
    length = float((task.A(D) - task.y).norm())
    norm, constant = (
        STSL(step=step, eta=0.0).gradient(task, space, z, alpha, sigma, gain)
        for step in ("norm", "constant")
    )
    torch.testing.assert_close(norm * length, constant * gain.sqrt(), rtol=1e-12, atol=0)


def test_a_constant_step_diverges_where_images_have_a_strong_component():
    """J reaches sqrt(c) / 2 at mid noise: lam = 0.1 is stable on c = 1, not on c = 400."""
    operator = matrix_operator(torch.eye(2), (1, 1, 2), noise=0.1)
    y = torch.full((1, 1, 2, 1), 0.5, dtype=F64)
    table = DDPM()
    alpha, sigma = table.alpha(torch.arange(1000)), table.sigma(torch.arange(1000))
    for c, largest in ((1.0, 1.0), (400.0, 10.0)):
        J = (alpha * c / (alpha**2 * c + sigma**2)).max()
        assert float(J) == pytest.approx(largest, rel=0.01)
    for c, status in ((1.0, "ok"), (400.0, "diverged")):
        prior = dense(c * torch.eye(2))
        found = STSL(lam=0.1, step="constant", eta=0.0)(y, operator, prior)
        assert found.status == status
        assert STSL(lam=0.1, eta=0.0)(y, operator, prior).status == "ok"


def test_the_inversion_loses_first_order_in_the_steps():
    """DDIM up and down returns the start but for an error that halves with the step."""
    C = torch.diag(torch.tensor([0.5, 2.0, 0.05], dtype=F64))
    init = torch.tensor([0.5, -1.0, 0.2], dtype=F64).reshape(1, 1, 1, 3)
    operator = matrix_operator(torch.eye(3), (1, 1, 3))
    errors = []
    for steps in (50, 100, 200):
        solver = STSL(steps=steps, inner=0)
        x = solver(torch.zeros((1, 1, 3, 1), dtype=F64), operator, dense(C), init=init).samples[0]
        errors.append(float((x - init).norm() / init.norm()))
    assert 0.02 < errors[0] < 0.3  # fifty steps are not lossless
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize(
    ("steps", "error"), [(25, 0.174), (50, 0.091), (100, 0.047), (400, 0.0119), (1000, 0.0048)]
)
def test_published_loss_of_an_inversion(steps, error):
    """The DDIM step on variances 0.5, 2 and 0.05, VP SDE, even in log SNR from t = 0.001 to 1."""
    table, c = VP(), torch.tensor([0.5, 2.0, 0.05], dtype=F64)
    ends = table.level(torch.tensor([1e-3, 1.0])).log()
    t = table.time(torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=F64).exp())
    alpha, sigma = table.alpha(t), table.sigma(t)
    gain = torch.ones(3, dtype=F64)
    order = [*range(steps + 1), *range(steps - 1, -1, -1)]
    for i, j in pairwise(order):
        J = alpha[i] * c / (alpha[i] ** 2 * c + sigma[i] ** 2)
        gain = gain * (alpha[j] * J + sigma[j] * (1 - alpha[i] * J) / sigma[i])
    assert float((gain - 1).abs().max()) == pytest.approx(error, rel=0.06)


def test_more_steps_fit_the_data():
    operator, y = first_of_pairs(6)
    gaps = []
    for inner in (1, 5):
        x = STSL(steps=30, inner=inner)(y, operator, pairs(0.9, 6)).samples[0]
        gaps.append(float((operator.A(x) - y).abs().max()))
    assert gaps[1] < gaps[0]
    assert gaps[1] < 0.05


def test_default_calls_are_those_it_claims():
    prior = pairs(0.9)
    operator, y = first_of_pairs()
    cost = STSL()(y, operator, prior).cost
    assert (cost.forwards, cost.vjps) == (599, 500)
    cost = STSL(eta=0.0)(y, operator, prior).cost
    assert (cost.forwards, cost.vjps) == (349, 250)


def test_a_point_mass_prior_gives_its_point():
    x = torch.rand((1, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=F64)
    operator = operators.denoise((1, 4, 4), noise=0.1).to(F64)
    result = STSL(steps=5)(1 - x, operator, Dirac(x))
    torch.testing.assert_close(result.samples[0], x, rtol=0, atol=1e-12)


def test_a_nonlinear_operator_is_taken_but_not_glued():
    operator = deepinv.physics.Physics(A=lambda x, **_: x**3)
    prior = Gaussian.power_law((1, 6, 6))
    truth = prior.sample(1, torch.Generator().manual_seed(0))
    y = truth**3
    result = STSL(steps=20)(y, operator, prior, init=torch.full_like(truth, 0.5))
    start = float((0.5**3 - y).norm())
    assert float((result.samples[0] ** 3 - y).norm()) < start / 4
    with pytest.raises(ValueError, match="needs a linear operator; set gamma=0"):
        STSL(gamma=0.1)(y, operator, prior, init=truth)


@pytest.mark.parametrize(
    "make", [lambda: STSL(steps=1), lambda: STSL(lam=-1.0), lambda: STSL(delta=0.0)]
)
def test_impossible_constants_are_refused(make):
    with pytest.raises(ValueError, match="found"):
        make()
