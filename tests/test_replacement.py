"""Replacement with a score SDE: its recursion, its structural bias, what it gets right."""

import math
from itertools import pairwise

import deepinv
import pytest
import torch
from toys import F64, first_of_pairs, pairs

import operators
from priors import Dirac, Gaussian
from priors.schedules import VE, VP, SubVP
from restore.problem import Problem, stream
from restore.solvers.replacement import Replacement, _known, langevin_step


def levels(solver):
    """The paper's levels, from the schedules."""
    if solver.sde == "ve":
        t = torch.linspace(1, 0, solver.steps, dtype=F64)
        schedule = VE(solver.sigma_min, solver.sigma_max)
    else:
        t = torch.linspace(1, 1e-3, solver.steps, dtype=F64)
        schedule = VP() if solver.sde == "vp" else SubVP()
    return [*zip(schedule.alpha(t).tolist(), schedule.sigma(t).tolist(), strict=True), (1.0, 0.0)]


def recursion(solver, C, P, y):
    """Mean and covariance of the result without corrector, step by step."""
    eye = torch.eye(len(C), dtype=F64)
    hide = eye - P
    grid = levels(solver)
    mean, cov = P @ y, grid[0][1] ** 2 * hide
    for (alpha, sigma), (alpha_s, sigma_s) in pairwise(grid):
        score = -torch.linalg.inv(alpha**2 * C + sigma**2 * eye)
        rho = alpha / alpha_s
        G2 = sigma**2 - (rho * sigma_s) ** 2
        if solver.predictor == "ancestral":
            T, noise = (eye + G2 * score) / rho, G2 * (sigma_s / sigma) ** 2
        else:
            T, noise = (2 - rho) * eye + G2 * score, G2 * (sigma_s > 0)
        mean, cov = T @ mean, T @ cov @ T.T + noise * eye
        mean = hide @ mean + alpha_s * P @ y
        cov = hide @ cov @ hide + sigma_s**2 * P
    return mean, cov


def run(solver, rho, count, seen=True):
    """Result `(count, 2)` of independent pairs, the first pixel seen to be 1."""
    operator, y = first_of_pairs(count)
    if not seen:
        operator = deepinv.physics.Inpainting((1, count, 2), mask=0 * y).to(F64)
        y = 0 * y
    result = solver(y, operator, pairs(rho, count, value_range=(0.0, 1.0)))
    return result.samples.reshape(count, 2)


def correlated(rho):
    return torch.tensor([[1.0, rho], [rho, 1.0]], dtype=F64)


FIRST = torch.diag(torch.tensor([1.0, 0.0], dtype=F64))
ONE = torch.tensor([1.0, 0.0], dtype=F64)


@pytest.mark.parametrize(
    ("rho", "mean", "variance"), [(0.5, 0.267, 0.832), (0.9, 0.6253, 0.3148), (0.99, 0.866, 0.0546)]
)
def test_published_bias_of_a_hidden_pixel(rho, mean, variance):
    """VE 50 -> 0.01, 1000 steps, no corrector; the truth is rho and 1 - rho^2."""
    found_mean, cov = recursion(Replacement(corrections=0), correlated(rho), FIRST, ONE)
    assert float(found_mean[1]) == pytest.approx(mean, abs=6e-4)
    assert float(cov[1, 1]) == pytest.approx(variance, abs=6e-4)


def test_the_bias_is_structural():
    """Four times the predictor steps change the third digit only."""
    for steps, mean, variance in ((1000, 0.6253, 0.3148), (4000, 0.6263, 0.3120)):
        solver = Replacement(steps=steps, corrections=0)
        found_mean, cov = recursion(solver, correlated(0.9), FIRST, ONE)
        assert float(found_mean[1]) == pytest.approx(mean, abs=6e-4)
        assert float(cov[1, 1]) == pytest.approx(variance, abs=6e-4)


def test_the_solver_has_that_bias():
    """The default SDE and steps, without corrector, on twelve thousand pairs."""
    count = 12_000
    x = run(Replacement(corrections=0), 0.9, count)
    assert float(x[:, 1].mean()) == pytest.approx(0.6253, abs=4 * math.sqrt(0.315 / count))
    assert float(x[:, 1].var()) == pytest.approx(0.3148, rel=4 * math.sqrt(2 / count))
    torch.testing.assert_close(x[:, 0], torch.ones(count, dtype=F64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("predictor", ["reverse-diffusion", "ancestral"])
@pytest.mark.parametrize("sde", ["ve", "vp", "sub-vp"])
def test_every_sde_and_predictor_follows_its_recursion(sde, predictor):
    count, rho = 20_000, 0.9
    solver = Replacement(sde=sde, predictor=predictor, steps=60, corrections=0)
    for seen in (True, False):
        # in VP coordinates the image is 0.5 + 0.5 x
        unit, origin = (1.0, 0.0) if sde == "ve" else (0.5, 0.5)
        operator, y = first_of_pairs(count)
        prior = pairs(rho, count, value_range=(0.0, 1.0))
        centred = Gaussian(
            prior.mean + origin, prior.basis, prior.variances * unit**2, value_range=(0.0, 1.0)
        )
        mask = y if seen else 0 * y
        operator = deepinv.physics.Inpainting((1, count, 2), mask=mask).to(F64)
        x = solver((origin + unit * mask) * mask, operator, centred).samples.reshape(count, 2)
        x = (x - origin) / unit
        P = FIRST if seen else 0 * FIRST
        mean, cov = recursion(solver, correlated(rho), P, ONE)
        bound = 4 * (cov.diagonal() / count).sqrt() + 1e-9
        assert bool(((x.mean(0) - mean).abs() < bound).all())
        variance = cov.diagonal()
        assert bool(
            ((x.var(0) - variance).abs() < 4 * math.sqrt(2 / count) * variance + 1e-9).all()
        )
        gap = torch.cov(x.T)[0, 1] - cov[0, 1]
        product = (variance.prod() + cov[0, 1] ** 2) / count
        assert float(gap.abs()) < 4 * float(product.sqrt()) + 1e-9


@pytest.mark.parametrize("sde", ["ve", "vp", "sub-vp"])
def test_without_data_the_priors_covariance_is_met_at_first_order(sde):
    gaps = []
    for steps in (500, 1000, 2000):
        solver = Replacement(sde=sde, steps=steps, corrections=0)
        _, cov = recursion(solver, correlated(0.9), 0 * FIRST, ONE)
        gaps.append(float((cov - correlated(0.9)).abs().max()))
    for a, b in pairwise(gaps):
        assert math.log2(a / b) == pytest.approx(1, abs=0.2)


def test_independent_pixels_are_left_alone():
    """Correlation 0: no bias, the hidden pixel has its prior."""
    mean, cov = recursion(Replacement(corrections=0), correlated(0.0), FIRST, ONE)
    assert abs(float(mean[1])) < 1e-12
    assert float(cov[1, 1]) == pytest.approx(1, abs=0.02)


def test_corrector_steps_reduce_the_bias():
    count = 3000
    means = [
        float(run(Replacement(steps=150, corrections=m, snr=0.03), 0.9, count)[:, 1].mean())
        for m in (0, 2, 4)
    ]
    error = math.sqrt(2 * 0.32 / count)
    assert means[0] + 2 * error < means[1]
    assert means[1] + 2 * error < means[2]
    assert means[2] < 0.9
    # the paper's own corrector brings these two pixels near the truth
    x = run(Replacement(steps=150), 0.9, count)[:, 1]
    assert float(x.mean()) == pytest.approx(0.89, abs=4 * math.sqrt(0.2 / count))
    assert float(x.var()) == pytest.approx(0.20, rel=4 * math.sqrt(2 / count))


def test_langevin_step_is_twice_the_squared_ratio():
    """e = 2 a (r |z| / |s|)^2, image by image; on N(0, v) it is about 2 r^2 v."""
    generator = torch.Generator().manual_seed(0)
    v, r, n = 0.3, 0.16, 20_000
    x = v**0.5 * torch.randn((2, 1, 1, n), generator=generator, dtype=F64)
    z = torch.randn((2, 1, 1, n), generator=generator, dtype=F64)
    score = -x / v
    score[1] *= 3
    e = langevin_step(score, z, r, 0.9).flatten()
    assert float(e[0]) == pytest.approx(2 * 0.9 * r**2 * v, rel=8 / math.sqrt(n))
    assert float(e[1]) == pytest.approx(2 * 0.9 * r**2 * v / 9, rel=8 / math.sqrt(n))
    assert not langevin_step(0 * score, z, r).any()


def test_corrector_leaves_its_level_where_it_is_but_for_its_step():
    """Frozen e on N(0, v): stationary variance v / (1 - e / (2 v))."""
    v, e, count = 0.5, 0.1, 50_000
    generator = torch.Generator().manual_seed(0)
    x = v**0.5 * torch.randn(count, generator=generator, dtype=F64)
    for _ in range(60):
        z = torch.randn(count, generator=generator, dtype=F64)
        x = x - e * x / v + math.sqrt(2 * e) * z
    assert float(x.var()) == pytest.approx(v / (1 - e / (2 * v)), rel=4 * math.sqrt(2 / count))


def task(operator, y, shape):
    return Problem(
        y=y,
        operator=operator,
        prior=Dirac(torch.zeros((1, *shape))),
        shape=(len(y), *shape),
        sigma_y=torch.zeros((len(y), 1, 1, 1), dtype=F64),
        streams=[stream(0, 0)],
        observed=torch.ones_like(y),
    )


def test_grey_is_one_axis_of_an_orthogonal_change_of_channels():
    """The paper's matrix, first column (1, 1, 1) / sqrt 3, built by QR."""
    shape = (3, 4, 5)
    x = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0), dtype=F64)
    average = deepinv.physics.Decolorize(channels=3, srf="average").to(F64)
    start = torch.cat([torch.ones(3, 1, dtype=F64), torch.eye(3, dtype=F64)[:, :2]], 1)
    Q = torch.linalg.qr(start)[0]
    torch.testing.assert_close(Q.T @ Q, torch.eye(3, dtype=F64), rtol=0, atol=1e-12)
    rotated = torch.einsum("cd,bchw->bdhw", Q, x)
    rotated[:, 1:] = 0
    expected = torch.einsum("cd,bdhw->bchw", Q, rotated)
    P, known = _known(task(average, average.A(x), shape), 0.1)
    torch.testing.assert_close(P(x), expected, rtol=0, atol=1e-6)  # deepinv's thirds are float32
    torch.testing.assert_close(known, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [operators.decolorise, operators.mask, operators.denoise])
@pytest.mark.parametrize("sde", ["ve", "vp", "sub-vp"])
def test_the_measurement_is_met_exactly_and_without_noise(sde, make):
    shape = (3, 6, 5)
    operator = make(shape).to(F64)
    prior = Gaussian.power_law(shape)
    y = operator.A(prior.sample(2, torch.Generator().manual_seed(0)))
    result = Replacement(sde=sde, steps=20)(y, operator, prior, samples=2)
    for x in result.samples:
        torch.testing.assert_close(operator.A(x), y, rtol=0, atol=1e-6)
    if make is not operators.denoise:
        assert not torch.equal(result.samples[0], result.samples[1])


def test_projection_is_a_projection_on_what_was_measured():
    """P = P^T = P^2, A P = A; weak singular values are not measured."""
    shape = (1, 4, 4)
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn((2, 1, *shape), generator=generator, dtype=F64)
    for make in (operators.mask, operators.denoise):
        operator = make(shape).to(F64)
        P, known = _known(task(operator, operator.A(x), shape), 0.1)
        torch.testing.assert_close(P(P(x)), P(x), rtol=0, atol=1e-12)
        torch.testing.assert_close((v * P(x)).sum(), (P(v) * x).sum())
        torch.testing.assert_close(operator.A(P(x)), operator.A(x), rtol=0, atol=1e-12)
        torch.testing.assert_close(known, P(x), rtol=0, atol=1e-12)
    weights = torch.tensor([1.0, 0.5, 0.05, 0.0], dtype=F64).expand(shape)
    weak = deepinv.physics.Inpainting(shape, mask=weights[None]).to(F64)
    P, known = _known(task(weak, weak.A(x), shape), 0.1)
    kept = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=F64)
    torch.testing.assert_close(P(x), kept * x, rtol=0, atol=1e-12)
    torch.testing.assert_close(known, kept * x, rtol=0, atol=1e-12)


def test_masks_of_a_batch_keep_their_own_cutoff():
    masks = torch.ones((2, 1, 4, 4), dtype=F64)
    masks[1] *= 0.01
    operator = deepinv.physics.Inpainting((1, 4, 4), mask=masks).to(F64)
    x = torch.rand((2, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=F64)
    P, known = _known(task(operator, operator.A(x), (1, 4, 4)), 0.1)
    torch.testing.assert_close(P(x), x)
    torch.testing.assert_close(known, x)


def test_noise_of_the_measurement_is_copied():
    """The known weakness: noiseless by construction, whatever sigma_y."""
    shape = (1, 6, 6)
    operator = operators.mask(shape, keep=0.5, noise=0.2).to(F64)
    prior = Gaussian.power_law(shape)
    y = operators.measure(operator, prior.sample(1, torch.Generator().manual_seed(0)), seed=1)
    mask = operator.A(torch.ones((1, *shape), dtype=F64))
    x = Replacement(steps=10)(y, operator, prior).samples[0]
    torch.testing.assert_close(x * mask, y * mask, rtol=0, atol=1e-9)


def test_a_point_mass_prior_fills_the_hole_with_its_point():
    x = torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(1), dtype=F64)
    operator = operators.mask((1, 6, 6), keep=0.5).to(F64)
    for sde in ("ve", "vp", "sub-vp"):
        result = Replacement(sde=sde, steps=30)(operator.A(x), operator, Dirac(x))
        torch.testing.assert_close(result.samples[0], x, rtol=0, atol=1e-3)


def test_two_images_and_samples_do_not_touch_each_other():
    """Norms of the corrector are per image."""
    shape = (1, 6, 6)
    operator = operators.mask(shape, keep=0.5).to(F64)
    prior = Gaussian.power_law(shape)
    y = operator.A(prior.sample(2, torch.Generator().manual_seed(0)))
    y[1] *= 3
    solver = Replacement(steps=8, corrections=2)
    both = solver(y, operator, prior, samples=3, seed=0, batch_size=3).samples
    alone = solver(y[1:], operator, prior, samples=3, seed=0, batch_size=1).samples
    torch.testing.assert_close(alone, both[:, 1:], rtol=0, atol=1e-9)


def test_an_operator_without_a_decomposition_is_refused():
    operator = deepinv.physics.LinearPhysics(A=lambda x, **_: x, A_adjoint=lambda y, **_: y)
    with pytest.raises(ValueError, match="needs an operator with a fast singular value"):
        Replacement()(torch.zeros(1, 1, 4, 4), operator, Gaussian.power_law((1, 4, 4)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Replacement(steps=1),
        lambda: Replacement(sigma_min=60.0),
        lambda: Replacement(sde="vpe"),
        lambda: Replacement(predictor="euler"),
    ],
)
def test_impossible_constants_are_refused(make):
    with pytest.raises(ValueError, match=r"found|unknown"):
        make()
