"""ResShift against its closed forms."""

import math

import pytest
import torch
from trained_toys import gaussian_prior, measured

import restore
from restore.samplers.sampler import Path
from restore.samplers.sum_constrained import SumConstrained
from restore.trained.resshift import ResShift, ResShiftSchedule, sampled_variance

# sqrt(eta) for kappa = 2, p = 0.3 in [-1, 1]
TABLE = {
    (15, 0.04): ".0200 .1172 .1763 .2336 .2916 .3510 .4124 .4759 .5417 .6099 .6807 .7540 .8300 "
    ".9086 .9900",
    (4, 0.2): ".1000 .5201 .7614 .9900",
}


@pytest.mark.parametrize(("steps", "min_noise"), TABLE)
def test_the_schedule_is_the_papers(steps, min_noise):
    schedule = ResShiftSchedule(steps, 2.0, 0.3, min_noise)
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    expected = [float(v) for v in TABLE[steps, min_noise].split()]
    assert schedule.eta(t).sqrt().tolist() == pytest.approx(expected, abs=6e-5)
    # halved constants on [0, 1] give the same shares of the degraded image
    halved = ResShiftSchedule(steps, 1.0, 0.3, min_noise / 2)
    assert halved.eta(t).tolist() == pytest.approx(schedule.eta(t).tolist(), rel=1e-12)


def test_time_is_the_inverse_of_the_level():
    schedule = ResShiftSchedule(15, 1.0, 0.3, 0.02)
    t = torch.linspace(1, 15, 57, dtype=torch.float64)
    assert float((schedule.time(schedule.level(t)) - t).abs().max()) < 1e-9


def test_the_step_is_the_posterior_of_the_chain():
    # Bayes: x_{t-1} | x_0 and x_t | x_{t-1}, both Gaussian with the residual's mean shift
    solver, generator = ResShift(), torch.Generator().manual_seed(0)
    x_0, y_0, x_t = (
        torch.randn(1, 1, 2, 2, generator=generator, dtype=torch.float64) for _ in "abc"
    )
    for i in range(solver.grid.steps):
        t, s = solver.grid[i], solver.grid[i + 1]
        eta_t, eta_s = 1 - t.alpha, 1 - s.alpha
        before, step = s.sigma**2, t.sigma**2 - s.sigma**2
        prior_mean = (1 - eta_s) * x_0 + eta_s * y_0
        seen = x_t - (eta_t - eta_s) * (y_0 - x_0)  # x_t = x_{t-1} + a e_0 + noise
        variance = 1 / (1 / before + 1 / step)
        mean = variance * (prior_mean / before + seen / step)

        class Pair:
            points = (t, s)

        path = Path(lambda z, level: x_0 - y_0, Pair, torch.ones_like)
        with_noise = next(SumConstrained().steps(path, x_t - y_0)) + y_0
        assert float((with_noise - mean - variance**0.5).abs().max()) < 1e-12
        paper = eta_s / eta_t * x_t + (eta_t - eta_s) / eta_t * x_0
        assert float((paper - mean).abs().max()) < 1e-12
        assert variance == pytest.approx(eta_s * (eta_t - eta_s) / eta_t, rel=1e-12)  # kappa = 1


@pytest.mark.parametrize(
    ("steps", "min_noise", "ratios"),
    [(15, 0.02, (0.259, 0.535, 0.765)), (4, 0.1, (0.160, 0.254, 0.309))],
)
def test_samples_have_the_variance_that_the_recursion_says(steps, min_noise, ratios):
    schedule = ResShiftSchedule(steps, 1.0, 0.3, min_noise)
    for v, ratio in zip((0.01, 0.1, 1.0), ratios, strict=True):  # v in [-1, 1] units
        assert sampled_variance(schedule, v / 4) / (v / 4) == pytest.approx(ratio, abs=6e-4)
    v = 0.025
    y, physics = measured(side=64)
    result = restore.solve(
        y, physics, gaussian_prior(0.5, v), ResShift(steps=steps, min_noise=min_noise), samples=24
    )
    n = result.samples.numel()
    spread = float(result.samples.var()) / sampled_variance(schedule, v)
    assert spread == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    # the mean keeps a known share of y_0 - m: what the start drops, through every gain
    assert float(result.samples.mean()) == pytest.approx(0.5, abs=0.002)
    assert result.cost.forwards == steps


def test_without_noise_it_is_deterministic_and_many_steps_reach_the_posterior():
    y, physics = measured(side=8)
    prior = gaussian_prior(0.5, 0.01)
    one, two = (
        restore.solve(y, physics, prior, ResShift(eta=0.0), seed=3).samples for _ in range(2)
    )
    assert torch.equal(one, two)
    assert sampled_variance(ResShiftSchedule(400, 1.0, 0.3, 0.002), 0.25) > 0.9 * 0.25


def test_weights_for_something_else_are_refused_in_one_sentence():
    import operators

    y, physics = measured(noise=0.1)
    for prior, said in (
        (gaussian_prior(noise=0.4), "noise 0.4, found noise 0.1"),
        (gaussian_prior(operator="blur:sigma=1"), "trained for 'blur:sigma=1'.*found 'denoise'"),
    ):
        with pytest.raises(ValueError, match=said):
            restore.solve(y, physics, prior, ResShift())
    with pytest.raises(ValueError, match="needs a network trained on pairs"):
        restore.solve(y, physics, "natural-gray", ResShift())
    with pytest.raises(ValueError, match="needs a prior of images"):
        restore.solve(y, physics, gaussian_prior(), "red-diff")
    with pytest.raises(ValueError, match="not a prior of images"):
        gaussian_prior()(y, 0.1)
    same = operators.parse("blur:sigma=1.0", (1, 16, 16), noise=0.1)  # other words, same operator
    result = restore.solve(y, same, gaussian_prior(operator="blur:sigma=1"), ResShift())
    assert result.cost.forwards == 15


def test_a_consistent_image_is_the_posterior_of_a_white_error():
    # one step, no noise: D is the network's mean, fitted to y under N(D, error^2 I)
    y, physics = measured(side=8, noise=0.1)
    prior = gaussian_prior(0.5, 0.04)
    plain, fitted = (
        restore.solve(y, physics, prior, ResShift(eta=0.0, boundary="zero", consistent=c)).samples
        for c in (False, True)
    )
    schedule = ResShift().schedule
    s = float(schedule.level(1.0))
    error = 0.2 * s / math.hypot(0.2, s)  # the last step decides
    share = 0.1**2 / (0.1**2 + error**2)
    assert float((fitted - 0.7).abs().max()) < float((plain - 0.7).abs().max())
    solo = ResShift(eta=0.0, boundary="zero", consistent=True)
    *_, before, last = [step.x for step in _steps(solo, y, physics, prior)]
    z = (before - y) / float(schedule.alpha(1.0))
    D = y + prior.residual(z, y, s)
    assert float((last - (share * D + (1 - share) * y)).abs().max()) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_are_compared_in_the_precision_of_the_measurement(dtype):
    import operators

    y = torch.full((1, 1, 32, 32), 0.5, dtype=dtype)
    prior = gaussian_prior(operator="blur:sigma=1")
    same, other = (
        operators.parse(f"blur:sigma={sigma}", (1, 32, 32), noise=0.1).to(dtype)
        for sigma in (1, 1.1)
    )
    assert restore.solve(y, same, prior, ResShift()).samples.dtype == dtype
    with pytest.raises(ValueError, match="trained for 'blur:sigma=1'"):
        restore.solve(y, other, prior, ResShift())


def _steps(solver, y, physics, prior):
    seen = []
    restore.solve(y, physics, prior, solver, callback=seen.append)
    return seen
