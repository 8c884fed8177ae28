"""RED-diff: its objective, the forms of its code, the noise it fits and where to stop."""

import math
from dataclasses import replace

import deepinv
import pytest
import torch
from toys import F64, dense, first_of_pairs, matrix_operator, pairs, two_modes

import operators
from priors import Gaussian, GaussianMixture
from priors.bases import Hartley
from priors.schedules import DDPM
from restore.solvers.red_diff import WEIGHTINGS, REDDiff


def white(variance, count, mean=0.0):
    """`count` independent pixels."""
    shape = (1, 1, count)
    variances = torch.full(shape, variance, dtype=F64)
    return Gaussian(torch.full(shape, mean), Hartley(), variances, value_range=(-1.0, 1.0))


def blind(count):
    mask = torch.zeros((1, 1, 1, count), dtype=F64)
    return deepinv.physics.Inpainting((1, 1, count), mask=mask).to(F64), mask


def identity(count, noise=0.3):
    return operators.denoise((1, 1, count), noise=noise).to(F64)


THEORY = {"reduction": "sum", "optimiser": "sgd"}


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_every_weighting_follows_its_own_recursion(weighting):
    """Levels s <= 0.9, SGD: M <- (1 - eta h) M + eta (y + lam w/s R m), h = 1 + lam w/s R."""
    c, y, m, lam, eta, count, steps = 0.5, 0.8, 0.1, 0.25, 0.2, 4000, 60
    table = DDPM()
    solver = REDDiff(steps=steps, lr=eta, lam=lam, weighting=weighting, s_max=0.9, **THEORY)
    times = torch.arange(1000)
    times = times[table.level(times) <= 0.9]
    times = times[:: len(times) // steps][:steps].flip(0)
    M = y
    V = 0.0
    for s in table.level(times):
        weight = lam * float(WEIGHTINGS[weighting](s) / s)
        R = float(s**2 / (c + s**2))
        h = 1 + weight * R
        M = (1 - eta * h) * M + eta * (y + weight * R * m)
        V = (1 - eta * h) ** 2 * V + (eta * weight * float(s) * c / (c + float(s) ** 2)) ** 2
    measured = torch.full((1, 1, 1, count), y, dtype=F64)
    mu = solver(measured, identity(count), white(c, count, m)).samples.flatten()
    assert float(mu.mean()) == pytest.approx(M, abs=5 * math.sqrt(V / count) + 1e-9)
    assert float(mu.var()) == pytest.approx(V, rel=5 * math.sqrt(2 / count))


def test_one_step_is_the_gradient_of_its_objective():
    """Nonlinear denoiser: E[mu - D] = grad s^2 E[-log p(mu + s eps)], by quadrature in 1-D."""
    prior, count, mu_0 = two_modes(variance=0.05, distance=0.6), 8000, 0.3
    table = DDPM()
    time = 380
    s = float(table.level(torch.tensor(time)))
    solver = REDDiff(
        steps=1, lr=1.0, lam=1.0, s_min=0.999 * s, s_max=1.001 * s, start="middle", **THEORY
    )
    operator, zero = blind(2)
    init = torch.full((1, 1, 1, 2), mu_0, dtype=F64)
    x = solver(zero, operator, prior, samples=count, batch_size=count, init=init).samples
    step = (mu_0 - x).reshape(count, 2)
    mu = torch.full((2,), mu_0, dtype=F64, requires_grad=True)
    nodes = torch.linspace(-6, 6, 121, dtype=F64)
    grid = torch.cartesian_prod(nodes, nodes)
    weight = torch.softmax(-grid.square().sum(1) / 2, 0)
    noisy = (mu + s * grid).reshape(-1, 1, 1, 2)
    logs = [part.log_prob(noisy, s) + math.log(0.5) for part in prior.components]
    loss = -(weight * torch.logsumexp(torch.stack(logs), 0)).sum() * s**2
    expected = torch.autograd.grad(loss, mu)[0]
    error = step.std(0) / math.sqrt(count)
    assert bool(((step.mean(0) - expected).abs() < 4 * error).all())
    assert bool((expected.abs() > 8 * error).all())


def test_at_rest_on_a_frozen_level_it_is_a_quadratic_fit():
    """mu* = (A^T A + lam R)^-1 (A^T y + lam R m), R = s^2 (C + s^2)^-1, for a correlated prior."""
    C = torch.tensor([[1.0, 0.6, 0.1], [0.6, 0.9, 0.3], [0.1, 0.3, 0.4]], dtype=F64)
    m = torch.tensor([0.2, -0.1, 0.3], dtype=F64)
    A = torch.tensor([[1.0, 0.4, 0.0], [0.0, 0.3, 0.8]], dtype=F64)
    y = torch.tensor([0.7, -0.2], dtype=F64)
    lam, s = 0.5, float(DDPM().level(torch.tensor(400)))
    R = s**2 * torch.linalg.inv(C + s**2 * torch.eye(3, dtype=F64))
    rest = torch.linalg.solve(A.T @ A + lam * R, A.T @ y + lam * R @ m)
    count, eta = 300, 0.05
    solver = REDDiff(steps=600, lr=eta, lam=lam, s_min=0.999 * s, s_max=1.001 * s, **THEORY)
    operator = matrix_operator(A, (1, 1, 3), noise=0.1)
    found = solver(
        y.reshape(1, 1, 2, 1), operator, dense(C, m), samples=count, batch_size=count
    ).samples.reshape(count, 3)
    error = found.std(0) / math.sqrt(count)
    assert bool(((found.mean(0) - rest).abs() < 4 * error + 1e-4).all())


def test_it_fits_the_noise_unless_stopped():
    """The published weakness, and where to stop: lam s_min^2 = sigma_y^2 gives Bayes' mean."""
    c, y, sigma_y, lam, count = 1.0, 0.8, 0.3, 1.0, 4000
    measured = torch.full((1, 1, 1, count), y, dtype=F64)
    solver = REDDiff(steps=1000, lr=0.2, lam=lam, **THEORY)
    overfit = solver(measured, identity(count, sigma_y), white(c, count)).samples
    assert float(overfit.mean()) == pytest.approx(y, abs=2e-3)  # for any noise, any lam
    # at rest on s, R = s^2 / (c + s^2), so lam R = sigma_y^2 / c is met at this level
    s = math.sqrt(sigma_y**2 * c / (lam * c - sigma_y**2))
    frozen = REDDiff(steps=400, lr=0.05, lam=lam, s_min=0.99 * s, s_max=1.01 * s, **THEORY)
    stopped = frozen(measured, identity(count, sigma_y), white(c, count)).samples
    bayes = c * y / (c + sigma_y**2)
    assert float(stopped.mean()) == pytest.approx(bayes, abs=3e-3)
    assert abs(y - bayes) > 0.05


def test_stopping_early_denoises_what_running_on_fits():
    """Pairs seen whole through noise: stopped at s_min the misfit rises to about its due."""
    count, sigma_y = 1500, 0.3
    prior = pairs(0.95, count)
    operator = operators.denoise((1, count, 2), noise=sigma_y).to(F64)
    truth = prior.sample(1, torch.Generator().manual_seed(0))
    y = operators.measure(operator, truth, seed=1)
    kwargs = {"steps": 500, "lr": 0.2, "lam": 1.0, **THEORY}
    run_on = REDDiff(**kwargs)(y, operator, prior)
    stopped = REDDiff(s_min=sigma_y, **kwargs)(y, operator, prior)
    gain = [float((r.samples[0] - truth).square().mean()) for r in (run_on, stopped)]
    assert gain[0] == pytest.approx(sigma_y**2, rel=0.1)  # all of the noise is there
    assert gain[1] < 0.8 * gain[0]  # Bayes' mean has 0.66


@pytest.mark.parametrize(("lr", "spread"), [(0.5, 0.93), (0.1, 0.38), (0.02, 0.145)])
def test_adam_leaves_an_artificial_spread(lr, spread):
    """Nothing observed, c = 1, 1000 steps: seeds differ by the optimiser, not by a posterior."""
    count = 3000
    operator, zero = blind(count)
    mu = REDDiff(lr=lr)(zero, operator, white(1.0, count)).samples
    assert float(mu.std()) == pytest.approx(spread, rel=0.08)


def test_a_heavy_prior_alone_returns_its_mean():
    """lam -> infinity and no data: mu -> m."""
    operator, zero = blind(400)
    solver = REDDiff(steps=300, lr=0.2, lam=1.0, s_min=1.0, **THEORY)
    mu = solver(zero, operator, white(0.5, 400, 0.4)).samples
    assert float(mu.mean()) == pytest.approx(0.4, abs=0.06)


def test_the_consistent_branch_is_chosen():
    """Modes at -1 and 1, data of 0.3 with large weight: every run ends on the positive side."""
    operator = matrix_operator(100 * torch.eye(2), (1, 1, 2), noise=1.0)
    y = torch.full((1, 1, 2, 1), 30.0, dtype=F64)
    x = REDDiff(steps=300)(y, operator, two_modes(), samples=50, batch_size=50).samples
    assert bool((x > 0).all())


# -- the forms of its code -----------------------------------------------------------------------


def test_the_mri_form_starts_zero_filled_and_divides_by_the_power_of_the_data():
    """One SGD step from A^T y: 2 A^T (A mu - y) / |y|^2 and the mean of mu - D."""
    shape = (2, 8, 8)
    operator = operators.mri(shape, acceleration=2, noise=0.01).to(F64)
    prior = Gaussian.power_law(shape)
    y = operators.measure(operator, prior.sample(1, torch.Generator().manual_seed(0)), seed=1)
    mri = REDDiff.mri()
    assert (mri.start, mri.data, mri.lr, mri.lam) == ("adjoint", "relative", 0.1, 0.25)
    solver = REDDiff(steps=1, lam=0.0, optimiser="sgd", lr=3.0, start="middle", data="relative")
    x = solver(y, operator, prior).samples[0]
    half = torch.full((1, *shape), 0.5, dtype=F64)
    expected = half - 3.0 * 2 * operator.A_adjoint(operator.A(half) - y) / y.square().sum()
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-9)
    start = REDDiff(steps=1, lam=0.0, lr=1e-12, start="adjoint")(y, operator, prior).samples[0]
    torch.testing.assert_close(start, operator.A_adjoint(y), rtol=0, atol=1e-9)


def test_the_relative_form_does_not_depend_on_the_unit_of_the_data():
    """k-space in other units, gain in the operator: the same image."""
    C = torch.tensor([[1.0, 0.6], [0.6, 0.9]], dtype=F64)
    A = torch.tensor([[1.0, 0.4]], dtype=F64)
    y = torch.full((1, 1, 1, 1), 0.7, dtype=F64)
    solver = REDDiff(steps=30, data="relative", start="middle")
    a = solver(y, matrix_operator(A, (1, 1, 2)), dense(C)).samples
    b = solver(1e3 * y, matrix_operator(1e3 * A, (1, 1, 2)), dense(C)).samples
    torch.testing.assert_close(a, b, rtol=0, atol=1e-8)
    plain = REDDiff(steps=30, start="middle")
    c = plain(1e3 * y, matrix_operator(1e3 * A, (1, 1, 2)), dense(C)).samples
    assert float((c - plain(y, matrix_operator(A, (1, 1, 2)), dense(C)).samples).abs().max()) > 1e-3


def test_the_relative_form_keeps_the_images_of_a_batch_apart():
    operator, y = first_of_pairs(3)
    pair = torch.cat([y, 5 * y])
    solver = REDDiff(steps=10, data="relative")
    together = solver(pair, operator, pairs(0.9, 3)).samples[0, :1]
    alone = solver(y, operator, pairs(0.9, 3)).samples[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


def test_an_mri_reconstruction_beats_its_start():
    """An object in the middle of an empty field: aliases outside it tell the missing samples."""
    shape = (2, 12, 12)
    field = Gaussian.power_law(shape)
    support = torch.zeros(shape, dtype=F64)
    support[:, 3:9, 3:9] = 1
    unit = torch.eye(support.numel(), dtype=F64).reshape(-1, *shape)
    covariance = (support * field.covariance(support * unit)).flatten(1)
    prior = Gaussian.dense(torch.zeros(shape), covariance)
    operator = operators.mri(shape, acceleration=1.5, noise=0.003).to(F64)
    truth = prior.sample(1, torch.Generator().manual_seed(3))
    y = operators.measure(operator, truth, seed=1)
    x = replace(REDDiff.mri(), lr=0.01)(y, operator, prior).samples[0]
    start = float((operator.A_adjoint(y) - truth).norm())
    assert float((x - truth).norm()) < 0.9 * start


def test_the_nonlinear_form_inverts_a_saturating_camera():
    """HDR of the paper: clip(2 x) in [-1, 1], crude inverse y / 2; no linear solver can."""
    clip = deepinv.physics.Physics(A=lambda x, **_: (2 * (2 * x - 1)).clamp(-1, 1))
    clip.A_dagger = lambda y, **_: (y / 2 + 1) / 2
    prior = Gaussian.power_law((1, 12, 12), std=0.25)
    truth = prior.sample(1, torch.Generator().manual_seed(0))
    y = clip.A(truth)
    clipped = y.abs() == 1
    assert 0.1 < float(clipped.double().mean()) < 0.9
    solver = REDDiff.nonlinear()
    assert (solver.lr, solver.lam, solver.start) == (0.5, 0.25, "dagger")
    x = REDDiff(lr=0.05, lam=0.25)(y, clip, prior).samples[0]
    start = (clip.A_dagger(y) - truth)[clipped].square().mean()
    assert float((x - truth)[clipped].square().mean()) < 0.85 * float(start)
    torch.testing.assert_close(clip.A(x)[~clipped], y[~clipped], rtol=0, atol=0.1)


def test_starts_that_an_operator_does_not_have_are_refused():
    squared = deepinv.physics.Physics(A=lambda x, **_: x**2)
    y = torch.full((1, 1, 4, 4), 0.25, dtype=F64)
    prior = Gaussian.power_law((1, 4, 4))
    squared.A_dagger = lambda y, **_: y.sqrt()
    with pytest.raises(ValueError, match="set start='dagger' or 'middle'"):
        REDDiff(steps=2, start="adjoint")(y, squared, prior)


def test_calls_are_as_many_as_steps():
    operator, y = first_of_pairs()
    cost = REDDiff(steps=37)(y, operator, pairs(0.9)).cost
    assert (cost.forwards, cost.vjps) == (37, 0)


def test_levels_outside_the_schedule_are_refused():
    with pytest.raises(ValueError, match="no level of the schedule lies between s_min=200"):
        REDDiff(s_min=200.0)


def test_mixture_is_collapsed_to_one_mode():
    """A posterior with two modes gets a point at one of them, never a spread between."""
    parts = [dense(0.02 * torch.eye(2), torch.tensor([0.0, m])) for m in (-0.8, 0.8)]
    prior = GaussianMixture([1, 1], parts)
    operator, _ = first_of_pairs()
    y = torch.zeros((1, 1, 1, 2), dtype=F64)
    x = REDDiff(steps=1000, lr=0.05)(y, operator, prior, samples=100, batch_size=100).samples
    hidden = x[:, 0, 0, 0, 1].abs()
    assert float((hidden - 0.8).abs().median()) < 0.1
