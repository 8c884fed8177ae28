"""FlowChef: exactly the noiseless posterior of a Gaussian in the limit, and nothing it is not."""

import math
from dataclasses import replace

import deepinv
import pytest
import torch
from toys import (
    F64,
    affine_map,
    columns,
    dense,
    first_of_pairs,
    linear_latent,
    matrix_operator,
    pairs,
    two_modes,
)

import operators
from priors import Adapter, Card, Dirac, Gaussian
from priors.predictions import from_x0
from priors.schedules import RectifiedFlow
from restore.problem import stream
from restore.solvers.flowchef import FlowChef


def moments(solver, rho=0.9):
    operator, y = first_of_pairs()
    M, b, gap = affine_map(solver, y, operator, pairs(rho), (1, 1, 2))
    assert gap < 1e-9
    covariance = M @ M.T
    return float(b[1]), float(covariance[1, 1]), float(abs(b[0] - 1))


@pytest.mark.parametrize(
    ("steps", "kappa", "mean", "variance", "residual"),
    [
        (50, 0.08, 0.747, 0.335, 0.098),
        (200, 0.08, 0.9154, 0.2050, 5.4e-3),
        (200, 0.5, 0.9066, 0.1884, 1.0e-4),
        (2000, 0.08, 0.9046, 0.1905, 3.9e-5),
        (2000, 0.5, 0.9011, 0.1898, 1.0e-6),
    ],
)
def test_published_moments_of_a_hidden_pixel(steps, kappa, mean, variance, residual):
    """Correlation 0.9, one pixel seen to be 1: exact mean 0.9 and variance 0.19."""
    found = moments(FlowChef(steps=steps, kappa=kappa))
    assert found[0] == pytest.approx(mean, abs=6e-4)
    assert found[1] == pytest.approx(variance, abs=6e-4)
    assert found[2] == pytest.approx(residual, rel=0.06)


def test_error_vanishes_with_the_steps():
    """The variance is first order in the step; the mean nearly so, log(N) / N."""
    few, many = (moments(FlowChef(steps=n, kappa=0.5)) for n in (400, 1600))
    assert 0.19 - few[1] == pytest.approx(4 * (0.19 - many[1]), rel=0.1)
    slower = math.log(400) / 400 / (math.log(1600) / 1600)
    assert few[0] - 0.9 == pytest.approx(slower * (many[0] - 0.9), rel=0.1)


def test_every_step_is_the_recursion_of_the_paper():
    """Mean and covariance by matrices, with u = (x - D) / t, against the solver's own map."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn((4, 4), generator=generator, dtype=F64)
    C, m = root @ root.T / 4 + 0.1 * torch.eye(4), torch.tensor([0.3, -0.2, 0.1, 0.5], dtype=F64)
    A = torch.randn((2, 4), generator=generator, dtype=F64)
    y = torch.tensor([0.7, -0.4], dtype=F64)
    operator = matrix_operator(A, (1, 1, 4))
    steps, kappa = 12, 0.3
    gain = torch.linalg.matrix_norm(A, 2) ** 2
    grid = torch.linspace(1 - 1e-5, 0, steps + 1, dtype=F64)
    eye = torch.eye(4, dtype=F64)
    M, b = grid[0] * eye, torch.zeros(4, dtype=F64)
    for i in range(steps):
        t, t_next = grid[i], grid[i + 1]
        G = (1 - t) * C @ torch.linalg.inv((1 - t) ** 2 * C + t**2 * eye)
        u_M, u_b = (eye - G) @ M / t, (b - m - G @ (b - (1 - t) * m)) / t
        if i < steps - 1:
            hat_M, hat_b = M - t * u_M, b - t * u_b
            M = M - kappa / gain * A.T @ A @ hat_M
            b = b - kappa / gain * A.T @ (A @ hat_b - y)
        M, b = M + u_M * (t_next - t), b + u_b * (t_next - t)
    solver = FlowChef(steps=steps, kappa=kappa)
    found_M, found_b, _ = affine_map(
        solver, y.reshape(1, 1, 2, 1), operator, dense(C, m), (1, 1, 4)
    )
    torch.testing.assert_close(found_M, M, rtol=0, atol=1e-6)
    torch.testing.assert_close(found_b, b, rtol=0, atol=1e-6)


def test_gradient_is_not_passed_through_the_network():
    """With the Jacobian the limit would not be exact; without it the exact mean is reached."""
    C = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64)
    steps, kappa = 2000, 0.5
    grid = torch.linspace(1 - 1e-5, 0, steps + 1, dtype=F64)
    x, eye = torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)
    for i in range(steps):
        t, t_next = grid[i], grid[i + 1]
        G = (1 - t) * C @ torch.linalg.inv((1 - t) ** 2 * C + t**2 * eye)
        u = (x - G @ x) / t
        pull = G.T @ torch.stack([(G @ x)[0] - 1, torch.zeros((), dtype=F64)])
        x = x - kappa * pull * (i < steps - 1) + u * (t_next - t)
    assert abs(float(x[1]) - 0.9) > 0.02
    assert moments(FlowChef(steps=steps, kappa=kappa))[0] == pytest.approx(0.9, abs=2e-3)


def test_displaced_to_the_data_the_denoiser_is_the_noiseless_posteriors():
    """The identity behind the limit, to rounding, at several times."""
    C = torch.tensor([[1.0, 0.6, 0.2], [0.6, 0.8, 0.1], [0.2, 0.1, 0.5]], dtype=F64)
    m = torch.tensor([0.1, -0.3, 0.2], dtype=F64)
    A = torch.tensor([[1.0, 0.5, 0.0]], dtype=F64)
    y = torch.tensor([0.4], dtype=F64)
    K = C @ A.T @ torch.linalg.inv(A @ C @ A.T)
    m_y, C_y = m + K @ (y - A @ m), C - K @ A @ C
    x = torch.tensor([0.9, -1.2, 0.4], dtype=F64)
    for t in (0.9, 0.5, 0.1):
        alpha, prior = 1 - t, dense(C, m)

        def D(x, alpha=alpha, t=t, prior=prior):
            return prior(x.reshape(1, 1, 1, 3) / alpha, t / alpha).flatten()

        G = alpha * C @ torch.linalg.inv(alpha**2 * C + t**2 * torch.eye(3, dtype=F64))
        moved = x + A.T @ torch.linalg.solve(A @ G @ A.T, y - A @ D(x))
        gain = alpha * C_y @ torch.linalg.inv(alpha**2 * C_y + t**2 * torch.eye(3, dtype=F64))
        torch.testing.assert_close(D(moved), m_y + gain @ (x - alpha * m_y), rtol=0, atol=1e-12)


def test_steps_are_stable_while_kappa_times_the_gain_is_below_two():
    """The gain of D reaches (1 + sqrt(1 + c)) / 2 for a variance c: 10.5 for c = 400."""
    c = 400.0
    t = torch.linspace(0, 1, 20_001, dtype=F64)[1:-1]
    gain = float(((1 - t) * c / ((1 - t) ** 2 * c + t**2)).max())
    assert gain == pytest.approx((1 + math.sqrt(1 + c)) / 2, rel=1e-4)
    operator, y = first_of_pairs()
    prior = dense(c * torch.eye(2, dtype=F64))

    def largest(kappa):
        seen = []
        FlowChef(steps=400, kappa=kappa)(
            y, operator, prior, callback=lambda s: seen.append(float(s.x[..., 0].abs().max()))
        )
        return max(seen)

    assert largest(1.9 / gain) < 5 * math.sqrt(c)
    assert largest(4 / gain) > 25 * math.sqrt(c)


def test_without_guidance_it_is_the_flow_of_the_prior():
    """kappa = 0: the covariance converges to C at rate 1 / steps."""
    operator, y = first_of_pairs()
    C = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64)
    gaps = []
    for steps in (100, 400):
        M, b, _ = affine_map(FlowChef(steps=steps, kappa=0.0), y, operator, pairs(0.9), (1, 1, 2))
        assert float(b.abs().max()) < 1e-9
        gaps.append(float((M @ M.T - C).abs().max()))
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.15)


def test_a_guidance_step_contracts_the_residual_and_keeps_u():
    """r <- (1 - kappa A A^T / |A|^2) r, and x_t - t u = x_hat."""
    seen = []

    class Watching(Gaussian):
        def forward(self, x, sigma, **kwargs):
            D = super().forward(x, sigma)
            seen.append((x.clone(), float(sigma), D.clone()))
            return D

    prior = pairs(0.5)
    watching = Watching(prior.mean, prior.basis, prior.variances, value_range=(-1.0, 1.0))
    operator, y = first_of_pairs()
    estimates = []
    kappa = 0.3
    FlowChef(steps=6, kappa=kappa)(y, operator, watching, callback=lambda s: estimates.append(s.x))
    times = [s / (1 + s) for _, s, _ in seen]
    for i in range(5):
        D = seen[i][2]
        r = (operator.A(estimates[i]) - y)[..., 0]
        torch.testing.assert_close(r, (1 - kappa) * (operator.A(D) - y)[..., 0], rtol=1e-9, atol=0)
        u = (seen[i][0] * (1 - times[i]) - D) / times[i]
        x_next = seen[i + 1][0] * (1 - times[i + 1])
        torch.testing.assert_close(x_next - times[i + 1] * u, estimates[i], rtol=0, atol=1e-9)


def test_the_last_step_is_not_guided():
    operator, y = first_of_pairs()
    seen = []

    class Watching(Gaussian):
        def forward(self, x, sigma, **kwargs):
            seen.append(super().forward(x, sigma))
            return seen[-1]

    prior = pairs(0.9)
    watching = Watching(prior.mean, prior.basis, prior.variances, value_range=(-1.0, 1.0))
    result = FlowChef(steps=7)(y, operator, watching)
    torch.testing.assert_close(result.samples[0], seen[-1], rtol=0, atol=1e-12)


def test_a_point_mass_prior_does_not_yield_to_conflicting_data():
    x = torch.full((1, 1, 4, 4), 0.3, dtype=F64)
    operator = operators.parse("denoise", (1, 4, 4)).to(F64)
    result = FlowChef(steps=30, kappa=1.0)(torch.ones_like(x), operator, Dirac(x))
    torch.testing.assert_close(result.samples[0], x, rtol=0, atol=1e-12)


def test_noisy_data_are_fitted_like_clean_ones():
    """sigma_y enters nowhere: the mean is that of the noiseless posterior, not Bayes'."""
    operator, y = first_of_pairs(noise=0.5)
    _, b, _ = affine_map(FlowChef(steps=1000, kappa=0.5), y, operator, pairs(0.9), (1, 1, 2))
    noiseless, bayes = torch.tensor([1, 0.9], dtype=F64), torch.tensor([0.8, 0.72], dtype=F64)
    assert float((b - noiseless).abs().max()) < 0.004
    assert float((b - bayes).abs().min()) > 0.15


def test_the_starting_noise_chooses_the_mode():
    """No data on pixel 2 and a blind pixel 1: each run ends at the mode its noise points to."""
    prior, count = two_modes(), 64
    blind = deepinv.physics.Inpainting((1, 1, 2), mask=torch.zeros((1, 1, 1, 2), dtype=F64))
    result = FlowChef(steps=100)(
        torch.zeros((1, 1, 1, 2), dtype=F64), blind, prior, samples=count, batch_size=count
    )
    found = result.samples[:, 0, 0, 0]
    noise = torch.stack(
        [torch.randn((1, 1, 2), generator=stream(0, i), dtype=F64)[0, 0] for i in range(count)]
    )
    assert bool((found.sum(1).sign() == noise.sum(1).sign()).all())
    assert float((found.abs() - 1).abs().mean()) < 0.2


@pytest.mark.parametrize("spec", ["downsample:factor=2", "mask:keep=0.5", "blur:sigma=1"])
def test_the_papers_own_scale_and_the_normalised_step(spec):
    """kappa = 2 s_g |A|^2 / m reproduces a step on the mean squared error."""
    shape = (1, 12, 12)
    operator = operators.parse(spec, shape).to(F64)
    prior = Gaussian.power_law(shape)
    truth = prior.sample(1, torch.Generator().manual_seed(0))
    y = operators.measure(operator, truth, seed=1)
    unit = torch.eye(144, dtype=F64).reshape(144, *shape)
    gain = torch.linalg.matrix_norm(operator.A(unit).flatten(1), 2) ** 2
    kappa = 0.2
    s_g = kappa / float(gain) * y.numel() / 2
    raw = FlowChef(steps=8, scale=s_g)(y, operator, prior).samples
    own = FlowChef(steps=8, kappa=kappa)(y, operator, prior).samples
    torch.testing.assert_close(raw, own, rtol=0, atol=1e-6)


def test_a_rectified_flow_network_is_driven_as_one_and_others_are_named():
    """A velocity network and the denoiser it stands for give the same images."""
    prior = pairs(0.9, 4)

    class Velocity(torch.nn.Module):
        def forward(self, x_t, t):
            t = t.reshape(-1, 1, 1, 1).to(x_t)
            D = prior(x_t / (1 - t), t / (1 - t))
            return from_x0("flow", D, x_t, 1 - t.flatten(), t.flatten())

    card = Card(name="flow", value_range=(-1.0, 1.0))
    flow = Adapter(Velocity(), RectifiedFlow(), "flow", card=card)
    operator, y = first_of_pairs(4)
    driven = FlowChef(steps=20)(y, operator, flow)
    closed = FlowChef(steps=20)(y, operator, prior)
    torch.testing.assert_close(driven.samples, closed.samples, rtol=0, atol=1e-6)
    assert "flow" not in driven.notes
    assert "no rectified flow" in str(closed.notes["flow"])


def test_the_flow_starts_where_the_priors_levels_end():
    levels = []

    class Bounded(Gaussian):
        def forward(self, x, sigma, **kwargs):
            levels.append(float(sigma))
            return super().forward(x, sigma)

    prior = pairs(0.9)
    bounded = Bounded(prior.mean, prior.basis, prior.variances, value_range=(0.0, 1.0))
    bounded.card = replace(bounded.card, sigma_range=(0.0, 50.0))
    operator, y = first_of_pairs()
    FlowChef(steps=5)(y, operator, bounded)
    assert levels[0] == pytest.approx(50, rel=1e-9)
    assert max(levels) <= 50 * (1 + 1e-9)


def test_a_latent_flow_steps_by_the_sign_of_the_decoders_gradient():
    """Fresh Adam with one step is lr sign(g), the gradient through the decoder only."""
    W = columns(6, 3)
    latents = dense(torch.diag(torch.tensor([1.0, 0.5, 0.2], dtype=F64)))
    prior = linear_latent(latents, W, (1, 1, 6))
    operator = deepinv.physics.Inpainting((1, 1, 6), mask=torch.ones((1, 1, 1, 6), dtype=F64))
    y = torch.linspace(-1, 1, 6, dtype=F64).reshape(1, 1, 1, 6)
    estimates = []
    FlowChef(steps=2, lr=0.05)(y, operator, prior, callback=lambda s: estimates.append(s.x))
    noise = torch.randn((1, 1, 3), generator=stream(0, 0), dtype=F64)[None]
    t = 1 - 1e-5
    D = latents(t * noise / (1 - t), t / (1 - t))
    g = (D.flatten() @ W.T - y.flatten()) @ W
    expected = (D.flatten() - 0.05 * g.sign()) @ W.T
    torch.testing.assert_close(estimates[0].flatten(), expected, rtol=0, atol=1e-6)


def test_latent_and_pixel_forms_agree_on_a_linear_decoder():
    """The latent problem (W, A) is the pixel problem with operator A W."""
    W = columns(6, 3)
    A = torch.randn((2, 6), generator=torch.Generator().manual_seed(3), dtype=F64)
    latents = dense(torch.diag(torch.tensor([1.0, 0.5, 0.2], dtype=F64)))
    y = torch.tensor([0.6, -0.3], dtype=F64).reshape(1, 1, 2, 1)
    kwargs = {"samples": 3, "seed": 0}
    inside = FlowChef(steps=15, scale=0.1, optimiser="gradient")
    a = inside(y, matrix_operator(A, (1, 1, 6)), linear_latent(latents, W, (1, 1, 6)), **kwargs)
    b = inside(y, matrix_operator(A @ W, (1, 1, 3)), latents, **kwargs)
    torch.testing.assert_close(a.samples.flatten(1), b.samples.flatten(1) @ W.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "make",
    [lambda: FlowChef(steps=0), lambda: FlowChef(kappa=1.5), lambda: FlowChef(optimiser="sgd")],
)
def test_impossible_constants_are_refused(make):
    with pytest.raises(ValueError, match=r"found|unknown"):
        make()


def test_guidance_may_stop_early_and_repeat_in_a_level():
    """guided = 0 is the flow of the prior; inner steps contract by (1 - kappa) each."""
    operator, y = first_of_pairs(2)
    free = FlowChef(steps=9, kappa=0.0)(y, operator, pairs(0.9, 2)).samples
    assert torch.equal(FlowChef(steps=9, guided=0)(y, operator, pairs(0.9, 2)).samples, free)
    first = []
    for inner in (1, 3):
        FlowChef(steps=2, kappa=0.3, inner=inner)(
            y, operator, pairs(0.9, 2), callback=lambda s: first.append(s.x[..., 0] - 1)
        )
    torch.testing.assert_close(first[2], first[0] * 0.7**2, rtol=1e-9, atol=0)


def test_a_nonlinear_operator_is_steered_through_its_own_derivative():
    squared = deepinv.physics.Physics(A=lambda x, **_: x**2)
    prior = Gaussian.power_law((1, 6, 6))
    truth = prior.sample(1, torch.Generator().manual_seed(0))
    start = torch.full_like(truth, 0.5)
    x = FlowChef(kappa=0.3)(truth**2, squared, prior, init=start).samples[0]
    assert float((x**2 - truth**2).norm()) < 0.1 * float((start**2 - truth**2).norm())
