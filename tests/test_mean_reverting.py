"""Mean-reverting diffusion and MR Sampler against their closed forms."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from trained_toys import GaussianPairs, gaussian_prior, measured

import restore
from operators.validate import seeded
from priors.training import Recipe
from restore.samplers import grid as grids
from restore.samplers.adams import Adams
from restore.samplers.ddim import DDIM
from restore.samplers.dpm_solver_pp import SDEDPMSolverPP
from restore.samplers.grid import Grid
from restore.samplers.mr_sampler import MRSamplerSDE
from restore.samplers.sampler import Path
from restore.trained.mean_reverting import SAMPLERS, EulerMaruyama, MeanReverting
from restore.trained.pair_prior import PairPrior
from restore.trained.restorer import unmeasured
from restore.trained.reverting import (
    KINDS,
    CosineReverting,
    FromPrediction,
    SteadyReverting,
    from_residual,
    to_residual,
)
from restore.trained.training import Plan, Training

F64 = torch.float64
STEADY = SteadyReverting(sigma_inf=0.2)
ODES = [Adams(k=k, prediction=p) for k in (1, 2) for p in ("data", "noise")]
SDES = [MRSamplerSDE(k=k, prediction=p) for k in (1, 2) for p in ("data", "noise")]


def gaussian(c, d=0.0):
    """Denoiser of pixels N(d, c)."""
    return lambda z, s: d + c / (c + s**2) * (z - d)


def flow(x, start, end, c, d=0.0):
    """Exact probability flow of pixels N(d, c) between two points."""
    gain = math.sqrt((end.alpha**2 * c + end.sigma**2) / (start.alpha**2 * c + start.sigma**2))
    return end.alpha * d + gain * (x - start.alpha * d)


def one(value):
    return torch.full((1, 1, 1, 1), value, dtype=F64)


def lam_grid(steps, schedule=STEADY, high=1.0, low=0.01):
    return grids.uniform_lambda(schedule, steps, *(float(schedule.level(t)) for t in (high, low)))


def time_grid(steps):
    return Grid(STEADY, tuple(torch.linspace(1, 0.01, steps + 1, dtype=F64).tolist()))


def law(sampler, grid, c, d=0.0, variance=None, clean=False):
    """Mean and variance of a sampler's pixels: it is linear in the start and in every noise."""
    spread = variance or grid[0].sigma ** 2
    mean = float(sampler(gaussian(c, d), one(0.0), grid, noise=torch.zeros_like, clean=clean))
    unit = torch.eye(
        grid.steps + 1, dtype=F64
    )  # pixel k sees the k-th noise alone, the start first
    drawn = iter(unit[1:])
    start = spread**0.5 * unit[0].reshape(1, 1, 1, -1)
    out = sampler(gaussian(c), start, grid, noise=lambda _: next(drawn), clean=clean)
    return mean, float(out.square().sum())


# --- schedules


@pytest.mark.parametrize("clean", [False, True])
def test_the_cosine_schedule_is_the_papers_table(clean):
    schedule = CosineReverting(clean=clean)
    x = [math.cos((i / 102 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(103)]
    theta = [1 - v / x[0] for v in x[1:-1]]  # T + 1 of them
    sums = [sum(theta[: i + 1]) - (theta[0] if clean else 0) for i in range(101)]
    dt = -math.log(0.005) / sums[-1]
    t = torch.arange(101, dtype=F64)
    alpha = torch.tensor([math.exp(-dt * v) for v in sums], dtype=F64)
    assert float((schedule.alpha(t) - alpha).abs().max()) < 1e-14
    assert float((schedule.sigma(t) - 50 / 255 * (1 - alpha**2).sqrt()).abs().max()) < 1e-13
    assert float(schedule.alpha(100.0)) == pytest.approx(0.005, rel=1e-12)
    low, high = schedule.level_range
    assert -math.log(high) == pytest.approx(-3.669, abs=1e-3)
    assert low == 0 if clean else -math.log(low) == pytest.approx(6.111, abs=1e-3)
    if not clean:
        assert float(schedule.alpha(0.0)) == pytest.approx(0.9999, abs=5e-5)
        assert float(schedule.sigma(0.0)) == pytest.approx(0.0022, abs=5e-5)


@pytest.mark.parametrize("schedule", [STEADY, CosineReverting(), CosineReverting(clean=True)])
def test_time_is_the_inverse_of_the_level(schedule):
    t = torch.linspace(0, 1 if schedule is STEADY else 100, 257, dtype=F64)
    assert float((schedule.time(schedule.level(t)) - t).abs().max()) < 1e-9
    between = schedule.alpha(t) ** 2 + (schedule.sigma(t) / schedule.sigma_inf) ** 2
    assert float((between - 1).abs().max()) < 1e-13  # also off the table


def test_the_chain_has_the_marginals_that_the_schedule_says():
    # exact transitions w <- A w + sigma_inf sqrt(1 - A^2) z, from a clean w = 1
    schedule, mean, variance = CosineReverting(clean=True), 1.0, 0.0
    t = torch.arange(101, dtype=F64)
    for d in schedule.reversion(t).diff().tolist():
        a2 = math.exp(-2 * d)
        mean, variance = mean * math.exp(-d), a2 * variance + schedule.sigma_inf**2 * (1 - a2)
    assert mean == pytest.approx(0.005, rel=1e-12)
    assert variance == pytest.approx(float(schedule.sigma(100.0)) ** 2, rel=1e-12)


# --- MR Sampler is an exponential integrator of x - mu


def paper_step(kind, prediction, x, mu, t, s, X, E, X1, E1, r, z):
    """One step as the authors write it, in x and mu; X1, E1 None at order 1."""
    h = s.lam - t.lam
    D1 = 0 if X1 is None else ((X - X1) if prediction == "data" else (E - E1)) / r
    if kind == "ode" and prediction == "data":
        p2 = (math.exp(-h) - 1) / h + 1
        rest = 1 - s.sigma / t.sigma + s.sigma / t.sigma * t.alpha - s.alpha
        return s.sigma / t.sigma * x + s.alpha * ((1 - math.exp(-h)) * X + p2 * D1) + mu * rest
    q2 = (math.exp(h) - 1) / h - 1
    if kind == "ode":
        moved = s.sigma * ((math.exp(h) - 1) * E + q2 * D1)
        return s.alpha / t.alpha * x - moved + mu * (1 - s.alpha / t.alpha)
    if prediction == "data":
        share = 1 - math.exp(-2 * h)
        kept = s.sigma / t.sigma * math.exp(-h)
        moved = s.alpha * (share * X + (1 - share / (2 * h)) * D1)
        rest = 1 - s.alpha / t.alpha * math.exp(-2 * h) - s.alpha * share
        assert kept + s.alpha * share + rest == pytest.approx(1, abs=1e-14)
        return kept * x + moved + s.sigma * math.sqrt(share) * z + mu * rest
    moved = 2 * s.sigma * ((math.exp(h) - 1) * E + q2 * D1)
    fresh = s.sigma * math.sqrt(math.exp(2 * h) - 1) * z
    return s.alpha / t.alpha * x - moved + fresh + mu * (1 - s.alpha / t.alpha)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("sampler", ["mr-ode-1", "mr-ode-2", "mr-sde-1", "mr-sde-2"])
def test_the_solver_is_the_papers_recursion(sampler, prediction):
    class Bent(nn.Module):  # nothing special, not linear
        def forward(self, z, y_0, s):
            return torch.tanh(z + y_0) / (1 + s)

    solver = MeanReverting(steps=6, sampler=sampler, prediction=prediction, spacing="time")
    prior = gaussian_prior()
    prior.network = Bent()
    mu = torch.rand(1, 1, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    result = solver.around(prior, mu, seed=4)[0]

    noise = unmeasured(prior, mu, restore.problem.stream(4, 0)).noise
    points, past = solver.grid.points, None
    x = mu + solver.sigma_inf * noise()
    for i, (t, s) in enumerate(pairwise(points)):
        X = mu + Bent()((x - mu) / t.alpha, mu, t.level)
        E = (x - mu - t.alpha * (X - mu)) / t.sigma
        z = noise() if "sde" in sampler else None
        last = past if sampler.endswith("2") and past else (None, None)
        r = solver.grid.h(i - 1) / solver.grid.h(i) if i else None
        x = paper_step(sampler[3:6], prediction, x, mu, t, s, X, E, *last, r, z)
        past = (X, E)
    assert float((result - x).abs().max()) < 1e-12 * float(x.abs().max() + 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_degraded_image_enters_nowhere_else(sampler):
    # a network of x - mu alone: moving mu moves the outcome along
    class OfResidual(nn.Module):
        def forward(self, z, y_0, s):
            return torch.sin(z) / (1 + s)

    prior, solver = gaussian_prior(), MeanReverting(steps=6, sampler=sampler)
    prior.network = OfResidual()
    mu = torch.rand(1, 1, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(2))
    moved, still = (solver.around(prior, y, seed=1)[0] for y in (mu, torch.zeros_like(mu)))
    assert float((moved - mu - still).abs().max()) < 1e-12


def test_first_orders_are_ddim():
    grid, x = lam_grid(9), torch.linspace(-1, 1, 9, dtype=F64).reshape(1, 1, 3, 3)

    def bent(z, s):
        return torch.tanh(z) / (1 + s)

    def run(sampler):
        return sampler(bent, x, grid, noise=torch.cos, clean=False)

    for prediction in ("data", "noise"):
        same = run(Adams(k=1, prediction=prediction)) - run(DDIM())
        assert float(same.abs().max()) < 1e-12
    for other in (SDEDPMSolverPP(k=1), DDIM(eta=1.0)):
        assert float((run(MRSamplerSDE(k=1)) - run(other)).abs().max()) < 1e-12
    assert float((run(MRSamplerSDE(k=1, prediction="noise")) - run(DDIM())).abs().max()) > 0.01


def test_second_order_differs_from_dpm_solver_in_the_weight_of_the_slope_alone():
    grid, x = lam_grid(2), one(0.3)
    h, (_, t, s) = grid.h(1), grid.points
    before, now = iter((one(0.1), one(0.7))), iter((one(0.1), one(0.7)))
    ours = MRSamplerSDE(k=2)(lambda *_: next(now), x, grid, noise=torch.zeros_like, clean=False)
    theirs = SDEDPMSolverPP(k=2)(
        lambda *_: next(before), x, grid, noise=torch.zeros_like, clean=False
    )
    share = 1 - math.exp(-2 * h)
    slope = (0.7 - 0.1) / (grid.h(0) / h)
    weight = (1 - share / (2 * h)) - share / 2
    assert float(ours - theirs) == pytest.approx(s.alpha * weight * slope, rel=1e-12)
    assert t.alpha < s.alpha


def test_the_posterior_step_is_gaussian_conditioning():
    schedule, w_0 = CosineReverting(clean=True), 0.4
    for i in (2, 50, 100):
        t, s = Grid(schedule, (float(i), float(i) - 1)).points
        A = t.alpha / s.alpha
        # the joint law of (w_{t-1}, w_t) given w_0
        mean = torch.tensor([s.alpha, t.alpha], dtype=F64) * w_0
        C = torch.tensor([[s.sigma**2, A * s.sigma**2], [A * s.sigma**2, t.sigma**2]], dtype=F64)
        w_t = 0.25
        expected = float(mean[0] + C[0, 1] / C[1, 1] * (w_t - mean[1]))
        variance = float(C[0, 0] - C[0, 1] ** 2 / C[1, 1])
        B, c = t.alpha, s.alpha  # the paper's closed form
        paper = A * (1 - c**2) / (1 - B**2) * w_t + c * (1 - A**2) / (1 - B**2) * w_0
        assert paper == pytest.approx(expected, abs=1e-12)
        inf2 = schedule.sigma_inf**2
        assert inf2 * (1 - A**2) * (1 - c**2) / (1 - B**2) == pytest.approx(variance, rel=1e-9)
        for z in (0.0, 1.0):
            steps = DDIM(eta=1.0).steps(
                Path(lambda *_: one(w_0), Grid(schedule, (t.t, s.t)), lambda _, z=z: one(z)),
                one(w_t),
            )
            assert float(next(steps)) == pytest.approx(expected + z * variance**0.5, abs=1e-12)
        # and as the loss has it, with the noise of w_t
        d = math.log(s.alpha / t.alpha)
        eps = (w_t - t.alpha * w_0) / t.sigma
        short = math.exp(d) * w_t - 2 * math.sinh(d) * inf2 / t.sigma * eps
        assert short == pytest.approx(expected, abs=1e-12)


# --- exactness and orders


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sampler", ODES, ids=lambda s: f"{s.name}-{s.prediction}")
def test_a_point_mass_is_exact(sampler, steps):
    grid = lam_grid(steps)
    start, end, eps = grid[0], grid[-1], 0.9
    x = one(start.alpha * 0.3 + start.sigma * eps)
    out = sampler(gaussian(0.0, 0.3), x, grid, clean=False)
    assert float(out) == pytest.approx(end.alpha * 0.3 + end.sigma * eps, abs=1e-13)


def test_a_point_mass_is_exact_in_law():
    for steps, k in ((1, 1), (1, 2), (5, 1), (5, 2)):
        grid = lam_grid(steps)
        _, variance = law(MRSamplerSDE(k=k), grid, 0.0)
        assert variance == pytest.approx(grid[-1].sigma ** 2, rel=1e-12)
    # noise with k = 1: v -> ((2 - e^h)^2 v + e^2h - 1), in units of sigma^2 at the next point
    sampler = MRSamplerSDE(k=1, prediction="noise")
    for steps in (40, 200):
        grid = lam_grid(steps)
        e = math.exp(grid.h(0))
        _, variance = law(sampler, grid, 0.0)
        assert variance / grid[-1].sigma ** 2 == pytest.approx((e + 1) / (3 - e), rel=1e-6)
    coarse = lam_grid(5)
    assert coarse.h(0) > math.log(3)
    assert law(sampler, coarse, 0.0)[1] > 10 * coarse[-1].sigma ** 2


# errors of M = 5, 10 .. 160 steps on x_0 ~ N(., 0.05), for one start
ORDERS = {
    ("data", 1): (8.7e-2, 4.7e-2, 2.4e-2, 1.2e-2, 6.2e-3, 3.1e-3),
    ("noise", 2): (4.7e-2, 1.4e-2, 3.9e-3, 1.0e-3, 2.6e-4, 6.4e-5),
    ("data", 2): (1.6e-2, 3.4e-3, 2.0e-3, 5.8e-4, 1.5e-4, 3.9e-5),
}


@pytest.mark.parametrize(("prediction", "k"), ORDERS)
def test_errors_and_orders_are_those_of_theory(prediction, k):
    c, x, errors = 0.05, one(0.308), []
    for steps in (5, 10, 20, 40, 80, 160):
        grid = lam_grid(steps)
        out = Adams(k=k, prediction=prediction)(gaussian(c), x, grid, clean=False)
        errors.append(abs(float(out - flow(x, grid[0], grid[-1], c))))
    assert errors == pytest.approx(ORDERS[prediction, k], rel=0.03)  # two digits are known
    assert math.log2(errors[-2] / errors[-1]) == pytest.approx(k, abs=0.06)


@pytest.mark.parametrize(
    ("c", "variances", "exact"),
    [
        (0.05, (0.0195, 0.0426, 0.0483), 0.0490),
        (0.01, (0.0056, 0.0110, 0.0128), 0.0130),
        (0.002, (0.0042, 0.0053, 0.0058), 0.0058),
    ],
)
def test_the_variance_of_the_sde_comes_from_below_with_order_one(c, variances, exact):
    def variance(steps):  # from the exact law
        grid, v = time_grid(steps), None
        for t, s in pairwise(grid.points):
            v = t.alpha**2 * c + t.sigma**2 if v is None else v
            kept, share = math.exp(2 * (t.lam - s.lam)), -math.expm1(2 * (t.lam - s.lam))
            gain = t.alpha * c / (t.alpha**2 * c + t.sigma**2)
            v = (s.alpha / t.alpha * kept + s.alpha * share * gain) ** 2 * v
            v += s.sigma**2 * share
        return v

    end = time_grid(10)[-1]
    truth = end.alpha**2 * c + end.sigma**2
    assert truth == pytest.approx(exact, abs=6e-5)
    assert [variance(n) for n in (10, 100, 1000)] == pytest.approx(variances, abs=6e-5)
    start = time_grid(10)[0]
    program = law(MRSamplerSDE(k=1), time_grid(10), c, variance=start.alpha**2 * c + start.sigma**2)
    assert program[1] == pytest.approx(variance(10), rel=1e-10)
    gaps = [truth - variance(n) for n in (1000, 2000)]
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.05)


def test_second_order_of_the_sde_is_second_order_in_variance():
    c = 0.05

    def gap(sampler, steps):
        grid = lam_grid(steps)
        start, end = grid[0], grid[-1]
        v = law(sampler, grid, c, variance=start.alpha**2 * c + start.sigma**2)[1]
        return abs(v - end.alpha**2 * c - end.sigma**2)

    for prediction in ("data", "noise"):
        for k in (1, 2):
            sampler = MRSamplerSDE(k=k, prediction=prediction)
            assert math.log2(gap(sampler, 128) / gap(sampler, 256)) == pytest.approx(k, abs=0.15)


def test_the_start_drops_a_known_share_of_the_residual():
    c, d, grid = 0.03, 0.4, lam_grid(2000)
    start, end = grid[0], grid[-1]
    out = Adams(k=2)(gaussian(c, d), one(0.0), grid, clean=False)
    gain = math.sqrt((end.alpha**2 * c + end.sigma**2) / (start.alpha**2 * c + start.sigma**2))
    bias = float(out) - end.alpha * d
    assert bias == pytest.approx(-start.alpha * d * gain, rel=1e-3)
    assert abs(bias) < 0.01 * d


# --- IR-SDE's own samplers, and what they cost


EULER = MeanReverting(steps=100, sampler="euler-maruyama", spacing="time")  # its own table


def distance(solver, c, d=0.1):
    """Wasserstein-2 distance of a solver's pixels to N(d, c), d the residual's mean."""
    grid, clean = solver.grid, solver.last == "denoise"
    mean, variance = law(solver.walker, grid, c, d, solver.sigma_inf**2, clean)
    return math.hypot(mean - d, math.sqrt(variance) - math.sqrt(c))


def test_euler_maruyama_converges_with_order_one():
    c = 0.01
    schedule = SteadyReverting(sigma_inf=0.2)
    for sampler in (EulerMaruyama(sigma_inf=0.2), EulerMaruyama(sigma_inf=0.2, ode=True)):
        gaps = []
        for steps in (200, 400):
            grid = grids.uniform_time(schedule, steps, float(schedule.level(1.0)), 0.02)
            start, end = grid[0], grid[-1]
            v = law(sampler, grid, c, variance=start.alpha**2 * c + start.sigma**2)[1]
            gaps.append(abs(v - end.alpha**2 * c - end.sigma**2))
        assert math.log2(gaps[0] / gaps[1]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("std", [0.01, 0.02, 0.03, 0.05])
def test_five_calls_are_as_near_in_law_as_a_hundred_of_euler_maruyama(std):
    five = distance(MeanReverting(steps=5), std**2)
    assert five < distance(EULER, std**2)
    assert distance(MeanReverting(steps=5), (2 * std) ** 2) < distance(
        replace(EULER, steps=20), (2 * std) ** 2
    )
    # at five calls each it is a thirtieth at most
    assert five < distance(replace(EULER, steps=5), std**2) / 30


def test_a_known_image_needs_five_calls_where_euler_maruyama_errs_after_a_hundred():
    mine = distance(MeanReverting(steps=5, last="denoise"), 0.0)
    assert mine < 1e-12 < 0.003 < distance(EULER, 0.0)


@pytest.mark.parametrize("sampler", ["mr-ode-2", "mr-sde-2", "posterior", "euler-maruyama"])
@pytest.mark.parametrize("last", ["step", "denoise"])
def test_samples_have_the_law_that_the_recursion_says(sampler, last):
    c, m, value = 0.0025, 0.5, 0.7
    solver = MeanReverting(steps=8, sampler=sampler, last=last)
    y, physics = measured(side=48, value=value)
    result = restore.solve(y, physics, gaussian_prior(m, c), solver, samples=8)
    mean, variance = law(
        solver.walker, solver.grid, c, m - value, solver.sigma_inf**2, last == "denoise"
    )
    n = result.samples.numel()
    assert float(result.samples.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))
    near = 5 * math.sqrt(variance / n)
    assert float(result.samples.mean()) == pytest.approx(value + mean, abs=near)
    assert result.cost.forwards == 8


# --- predictions, training


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_go_there_and_back(kind):
    generator, schedule = torch.Generator().manual_seed(0), CosineReverting()
    u_0, eps = (torch.randn(3, 1, 4, 4, generator=generator, dtype=F64) for _ in "ab")
    t = torch.tensor([3.0, 41.5, 99.0], dtype=F64)
    alpha, sigma = (f(t).reshape(-1, 1, 1, 1) for f in (schedule.alpha, schedule.sigma))
    w = alpha * u_0 + sigma * eps
    inf = schedule.sigma_inf
    truth = {"noise": eps, "data": u_0, "velocity": inf * alpha * eps - sigma / inf * u_0}
    value = from_residual(kind, u_0, w, t, schedule)
    assert float((value - truth[kind]).abs().max()) < 1e-12
    assert float((to_residual(kind, value, w, t, schedule) - u_0).abs().max()) < 1e-12
    # round the ring: noise -> data -> velocity -> noise
    v = from_residual("velocity", to_residual("noise", eps, w, t, schedule), w, t, schedule)
    again = from_residual("noise", to_residual("velocity", v, w, t, schedule), w, t, schedule)
    assert float((again - eps).abs().max()) < 1e-11  # noise over a hundredth of an image at t = 3


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_the_authors_kind_restore(kind):
    solver, exact = MeanReverting(steps=4), GaussianPairs(0.5, 0.01)
    schedule = solver.schedule

    class Theirs(nn.Module):  # sees x_t, mu and t
        def forward(self, x, mu, t):
            w = x - mu
            u_0 = exact(w / schedule.alpha(t).reshape(-1, 1, 1, 1), mu, schedule.level(t))
            return mu + u_0 if kind == "data" else from_residual(kind, u_0, w, t, schedule)

    prior = gaussian_prior(0.5, 0.01)
    theirs = PairPrior(prior.card, FromPrediction(Theirs(), kind, schedule), prior.trained)
    y, _ = measured(count=2, side=4)
    same = solver.around(theirs, y, seed=2) - solver.around(prior, y, seed=2)
    assert float(same.abs().max()) < 1e-10


def test_the_loss_is_least_at_the_truth():
    c, d = 0.01, -0.2
    device = torch.device("cpu")

    class Network(nn.Module):
        spread = 0.1

    network = Network()
    network.device = device

    def pairs(generator):
        y_0 = torch.full((64, 1, 8, 8), 0.7)
        return y_0 + d + c**0.5 * torch.randn(y_0.shape, generator=generator), y_0

    loss = MeanReverting.loss(pairs, network)

    def value(gain, offset):
        def call(z, y_0, s):
            s = s.reshape(-1, 1, 1, 1)
            return d + offset + gain * c / (c + s**2) * (z - d)

        return float(loss(call, torch.Generator().manual_seed(0)))

    best = value(1.0, 0.0)
    for gain, offset in ((0.9, 0.0), (1.1, 0.0), (1.0, 0.02), (1.0, -0.02)):
        assert value(gain, offset) > best
    # each time counts |eps' - eps| 2 sinh(d) sigma_inf / sigma: a known mean for exact predictions
    t = torch.arange(1, 101, dtype=F64)
    schedule = MeanReverting().schedule
    step = schedule.reversion(t) - schedule.reversion(t - 1)
    s = schedule.level(t)
    left = (c * s**2 / (c + s**2)).sqrt() / s  # std of the noise given z
    weight = 2 * torch.sinh(step) * schedule.sigma_inf / schedule.sigma(t)
    expected = float((weight * left).mean()) * math.sqrt(2 / math.pi)
    spread = float((weight * left).std()) * math.sqrt(2 / math.pi) / math.sqrt(64)  # of the times
    assert best == pytest.approx(expected, abs=5 * spread)


def test_a_network_trained_on_it_restores():
    scenes = [(255 * u).to(torch.uint8) for u in torch.rand(2, 1, 128, 128, generator=seeded(0))]
    recipe = Recipe(steps=2, warmup=1, bfloat16=False)
    plan = Plan(
        family="mean-reverting",
        operator="denoise",
        noise=(0.1, 0.1),
        size="small",
        patch=32,
        recipe=recipe,
    )
    training = Training(plan, scenes)
    assert all(math.isfinite(done.loss) for done in training.run(None))
    y_0 = torch.rand(1, 1, 32, 32, generator=seeded(1))
    solver = MeanReverting(steps=3)
    assert bool(torch.isfinite(solver.around(training.prior("mine"), y_0)).all())


def test_bad_words_and_numbers_are_refused_in_one_sentence():
    for constants, said in (
        ({"sampler": "mr-ode-3"}, "did you mean"),
        ({"steps": 0}, "whole number"),
        ({"steps": 1, "last": "denoise"}, "at least 2"),
        ({"clean": True}, "last='denoise'"),
        ({"sigma_inf": 0.0}, "above 0"),
        ({"spacing": "cosine"}, "choose one of"),
    ):
        with pytest.raises(ValueError, match=said):
            MeanReverting(**constants)
    with pytest.raises(ValueError, match="choose one of"):
        FromPrediction(nn.Identity(), "flux", CosineReverting())
    with pytest.raises(ValueError, match="k is 3"):
        MRSamplerSDE(k=3)
