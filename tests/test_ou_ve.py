"""OU-VE against the ODEs of its moments, and its samples against recursions without chance."""

import math

import pytest
import torch
from trained_toys import gaussian_prior, measured

import restore
from restore.samplers.predictor_corrector import PredictorCorrector
from restore.samplers.sampler import Path
from restore.trained.ou_ve import OUVE, OUVESchedule, ReverseDiffusion, start_bias
from restore.trained.pairs import Batch

PAPER = OUVESchedule(1.5, 0.05, 0.5)  # for data in [-1, 1]

# N, legacy step lengths -> what is left of y - m, and variance over that of the data, in [-1, 1]
TABLE = {
    (10, True, 0.01): ("-.043", "1.02"),
    (10, True, 0.1): (".025", "1.04"),
    (10, False, 0.01): (".030", "1.00"),
    (10, False, 0.1): (".064", ".909"),
    (30, True, 0.01): (".009", ".962"),
    (30, True, 0.1): (".041", ".964"),
    (30, False, 0.01): (".013", ".961"),
    (30, False, 0.1): (".043", ".957"),
    (1000, True, 0.01): (".034", ".945"),
    (1000, True, 0.1): (".049", ".935"),
    (1000, False, 0.01): (".0045", ".956"),
    (1000, False, 0.1): (".033", ".992"),
}


def rounded(text):
    """Number, and a unit of its last digit."""
    return pytest.approx(float(text), abs=10 ** -len(text.split(".")[1]))


def recursion(steps, legacy, v, theta=1.5, smin=0.05, smax=0.5, t_eps=0.03, c=0.0):
    """Share of `m - y` and variance of the samples: Euler steps written out, one pixel."""
    L = math.log(smax / smin)
    times = [1 + (t_eps - 1) * i / (steps - 1) for i in range(steps)]

    def sigma2(t):
        return smin**2 * L / (theta + L) * (math.exp(2 * L * t) - math.exp(-2 * theta * t))

    V = sigma2(1.0)
    for i, t in enumerate(times):
        last = i == steps - 1
        h = 1 / steps if legacy else (t if last else t - times[i + 1])
        alpha = math.exp(-theta * t)
        D, g2 = alpha**2 * v + sigma2(t), 2 * L * (smin * math.exp(L * t)) ** 2
        c = c * (1 + theta * h) - g2 * h / D * (c - alpha)
        V = (1 + theta * h - g2 * h / D) ** 2 * V + (0 if last else g2 * h)
    return c, V


def mean_share(solver, v, first=0.0, alpha=0.0):
    """Share of `m - y` of a walk without noise, by the solver itself; linear, hence exact."""
    m = 0.3
    gain = gaussian_prior(m, v).network
    y = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    path = Path(lambda z, s: gain(z, y, s), solver.grid, torch.zeros_like)
    u = torch.full_like(y, first * m)
    for step in solver.walker.steps(path, u):
        u = step
    return float((solver.finish(path, u) / m).mean())


def test_the_marginals_solve_the_odes_of_mean_and_variance():
    theta, L, n = 1.5, math.log(10), 20000
    P, mean, h = 0.0, 1.0, 1 / n
    for i in range(n):  # midpoint rule, error 1e-8
        t = i * h
        slope = -2 * theta * P + 2 * L * (0.05 * math.exp(L * t)) ** 2
        middle = P + h / 2 * slope
        P += h * (-2 * theta * middle + 2 * L * (0.05 * math.exp(L * (t + h / 2))) ** 2)
        mean *= 1 - theta * h + (theta * h) ** 2 / 2
        if i + 1 in (600, 10000, 20000):
            at = (i + 1) * h
            assert float(PAPER.sigma(at)) == pytest.approx(math.sqrt(P), rel=1e-6)
            assert float(PAPER.alpha(at)) == pytest.approx(mean, rel=1e-6)
    assert float(PAPER.sigma(1.0)) == pytest.approx(0.38898, abs=5e-6)
    assert float(PAPER.sigma(0.03)) == pytest.approx(0.01883, abs=5e-6)
    assert float(PAPER.alpha(1.0)) == pytest.approx(0.22313, abs=5e-6)
    assert float(PAPER.diffusion(0.7)) == pytest.approx(2 * L * (0.05 * 10**0.7) ** 2)
    # halved constants on [0, 1] make half the noise
    assert float(OUVESchedule().sigma(0.4)) == pytest.approx(float(PAPER.sigma(0.4)) / 2, rel=1e-12)


def test_limits_and_the_way_back():
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    assert float(PAPER.sigma(0.0)) == 0
    still = OUVESchedule(0.0, 0.05, 0.5)  # no drift: a variance-exploding diffusion
    exploding = 0.05 * (10 ** (2 * t) - 1).sqrt()
    assert float((still.sigma(t) - exploding).abs().max()) < 1e-14
    assert float((PAPER.time(PAPER.level(t)) - t).abs().max()) < 1e-12


@pytest.mark.parametrize(("steps", "legacy", "v"), TABLE)
def test_the_papers_sampler_is_the_recursion(steps, legacy, v):
    c, V = recursion(steps, legacy, v)
    bias, ratio = TABLE[steps, legacy, v]
    assert 1 - c == rounded(bias)
    assert V / v == rounded(ratio)
    solver = OUVE(sampler="reverse-diffusion", steps=steps, corrections=0, legacy=legacy)
    assert mean_share(solver, v / 4) == pytest.approx(c, abs=1e-12)


@pytest.mark.parametrize("legacy", [False, True])
def test_samples_have_the_variance_of_the_recursion(legacy):
    v = 0.025  # a quarter of 0.1
    solver = OUVE(sampler="reverse-diffusion", steps=10, corrections=0, legacy=legacy)
    y, physics = measured(side=64)
    result = restore.solve(y, physics, gaussian_prior(0.5, v), solver, samples=16)
    c, V = recursion(10, legacy, 0.1)
    n = result.samples.numel()
    assert float(result.samples.var()) / (V / 4) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    bias = (float(result.samples.mean()) - 0.5) / (0.7 - 0.5)  # of y_0 - m
    assert bias == pytest.approx(1 - c, abs=5 * math.sqrt(V / 4 / n) / 0.2)


@pytest.mark.parametrize("v", [0.0025, 0.025])
def test_what_the_start_forgets_is_known_and_the_right_mean_brings_it_back(v):
    schedule, alpha = OUVESchedule(), float(OUVESchedule().alpha(1.0))
    for sampler, random in (("ddim", False), ("ancestral", True)):
        # the last point is denoised, where an ODE would go on
        last = 1.0 if random else math.sqrt(v / (v + OUVE().grid[-1].level ** 2))
        limit = last * start_bias(schedule, v, random=random)
        # first order in 1 / N: half the error at twice the steps
        errors = [
            abs(1 - mean_share(OUVE(sampler=sampler, steps=n), v) - limit) for n in (200, 400)
        ]
        assert errors[0] < 6e-3
        assert 0.4 * errors[0] < errors[1] < 0.6 * errors[0] or errors[0] < 1e-12
        assert (
            abs(1 - mean_share(OUVE(sampler=sampler, steps=400), v, first=alpha))
            < errors[0] + 1e-12
        )
    c, _ = recursion(1000, False, 4 * v, c=alpha)
    assert abs(1 - c) < 2.5e-3  # 0.0045 and 0.033 from y
    # of an ODE several times that of an SDE
    ode, sde = (start_bias(schedule, v, random=random) for random in (False, True))
    assert (ode, sde) == (
        pytest.approx({0.0025: 0.0573, 0.025: 0.1785}[v], abs=1e-4),
        pytest.approx({0.0025: 0.00328, 0.025: 0.03185}[v], abs=1e-5),
    )


def test_a_predicted_start_has_no_bias_and_costs_a_call():
    y, physics = measured(side=64)
    prior = gaussian_prior(0.5, 0.025)
    left, forwards = [], []
    for start in ("degraded", "predicted"):
        result = restore.solve(y, physics, prior, OUVE(start=start, sampler="adams-2"), samples=16)
        left.append((float(result.samples.mean()) - 0.5) / 0.2)
        forwards.append(result.cost.forwards)
    n = result.samples.numel()
    assert left[0] == pytest.approx(0.18, abs=0.01)
    assert abs(left[1]) < 5 * math.sqrt(0.025 / n) / 0.2 + 1e-4
    assert forwards == [10, 11]


def test_the_corrector_settles_at_four_thirds_of_the_variance():
    # noise alone, D = sigma^2: read the factor and the noise of one step, then its fixed point
    solver = OUVE(sampler="reverse-diffusion", steps=8)
    at = solver.grid[0]
    corrector = PredictorCorrector(step=2 * solver.snr**2)
    ones = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def one(x, z):
        path = Path(lambda y, s: torch.zeros_like(y), solver.grid, lambda like: z)
        return float(corrector.correct(path, x, at))

    factor, noise = one(ones, 0 * ones), one(0 * ones, ones)
    e = 2 * (solver.snr * at.sigma) ** 2
    assert factor == pytest.approx(1 - e / at.sigma**2, abs=1e-15)
    settled = noise**2 / (1 - factor**2)
    assert settled == pytest.approx(at.sigma**2 / (1 - e / (2 * at.sigma**2)), rel=1e-12)
    assert settled == pytest.approx(4 / 3 * at.sigma**2, rel=1e-12)


def test_the_corrector_comes_first_and_both_cost_a_call():
    solver = OUVE(sampler="reverse-diffusion", steps=6)
    y, physics = measured(side=4)
    assert restore.solve(y, physics, gaussian_prior(), solver).cost.forwards == 12
    without = OUVE(sampler="reverse-diffusion", steps=6, corrections=0)
    assert restore.solve(y, physics, gaussian_prior(), without).cost.forwards == 6
    levels = []
    path = Path(lambda y, s: levels.append(s) or y, solver.grid, torch.zeros_like)
    *_, u = solver.walker.steps(path, torch.zeros(1, 1, 2, 2))
    solver.finish(path, u)
    assert levels == [solver.grid[i].level for i in range(6) for _ in "ab"]
    assert isinstance(solver.walker, ReverseDiffusion)


def test_the_loss_is_that_of_the_noise():
    # with the exact network half the mean of v / (v + s^2) over uniform times is left
    v = 0.01
    prior = gaussian_prior(0.0, v)

    def pairs(generator):
        x_0 = v**0.5 * torch.randn(64, 1, 32, 32, generator=generator)
        return Batch(x_0, torch.zeros_like(x_0))

    class Network:
        device = torch.device("cpu")

    draws = torch.Generator().manual_seed(0)
    loss = OUVE.loss(pairs, Network())
    values = torch.stack([loss(prior.network, draws) for _ in range(40)])
    t = torch.linspace(0.03, 1, 20001, dtype=torch.float64)
    expected = (v / (v + OUVESchedule().level(t) ** 2)).mean() / 2
    assert float(values.mean()) == pytest.approx(
        float(expected), abs=5 * float(values.std()) / math.sqrt(40)
    )


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"sampler": "ddmi"}, "did you mean 'ddim'"),
        ({"start": "zero"}, "start 'zero' is unknown"),
        ({"smin": 0.3}, "needs 0 < smin < smax"),
        ({"steps": 1}, "of at least 2"),
        ({"snr": 0.0}, "snr > 0"),
    ],
)
def test_impossible_constants_are_refused(constants, said):
    with pytest.raises(ValueError, match=said):
        OUVE(**constants)
