"""RDDM against its closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from trained_toys import gaussian_prior, measured

import restore
from operators.validate import seeded
from priors.schedules import DDPM
from priors.training import Recipe
from restore.problem import stream
from restore.samplers.ddim import DDIM
from restore.samplers.grid import Grid, Point
from restore.samplers.sampler import Path
from restore.samplers.sum_constrained import SumConstrained
from restore.trained.network import PairNetwork
from restore.trained.pair_prior import PairPrior
from restore.trained.rddm import RDDM, Clocks, RDDMSchedule, TwoHeads, sampled_variance, step
from restore.trained.resshift import ResShiftSchedule
from restore.trained.restorer import unmeasured
from restore.trained.training import Plan, Training

F64 = torch.float64


def drawn(count, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=F64) for _ in range(count)]


def two_heads(prior, noise=None):
    """The prior with a second network, the same by default."""
    heads = TwoHeads(prior.network, noise or prior.network)
    return PairPrior(prior.card, heads, prior.trained)


class Told(nn.Module):
    """Says what it was told, whatever it sees."""

    def __init__(self, u_0):
        super().__init__()
        self.u_0 = u_0

    def forward(self, z, y_0, s):
        return self.u_0.expand_as(z)


class Bent(nn.Module):
    """Nothing special, not linear."""

    def forward(self, z, y_0, s):
        return torch.tanh(z + y_0) / (1 + s)


# --- schedule


def test_the_schedule_is_the_sum_of_its_coefficients():
    for T, a, b in ((1000, 1.0, 1.0), (10, 0.0, 0.0), (50, 0.5, 3.0)):
        schedule = RDDMSchedule(T, 0.25, a, b)
        x = torch.arange(1, T + 1, dtype=F64) / T
        shares, powers = x.flip(0) ** a, x**b  # P(1 - x, a) and P(x, b)
        A, B2 = (shares / shares.sum()).cumsum(0), (0.25 * powers / powers.sum()).cumsum(0)
        t = torch.arange(1, T + 1, dtype=F64)
        assert float((1 - schedule.alpha(t) - A).abs().max()) < 1e-12
        assert float((schedule.sigma(t) ** 2 - B2).abs().max()) < 1e-12
        assert float(schedule.alpha(T)) == 0
        assert float(schedule.sigma(T)) == pytest.approx(0.5, rel=1e-14)
        assert schedule.clocks(0) == Clocks(0.0, 0.0)


def test_the_linear_schedule_has_the_closed_form():
    T, t = 1000, torch.arange(1001, dtype=F64)
    schedule = RDDMSchedule(T, 1.0)
    A, B2 = t * (2 * T - t + 1) / (T * (T + 1)), t * (t + 1) / (T * (T + 1))
    assert float((1 - schedule.alpha(t) - A).abs().max()) < 1e-12
    assert float((schedule.sigma(t) - B2.sqrt()).abs().max()) < 1e-12
    # without cancellation to the last step: alpha = (T - t)(T - t + 1) / T (T + 1)
    left = (T - t) * (T - t + 1) / (T * (T + 1))
    assert float((schedule.alpha(t)[:-1] / left[:-1] - 1).abs().max()) < 1e-12


def test_time_is_the_inverse_of_the_level():
    for schedule in (RDDMSchedule(), RDDMSchedule(40, 0.01, 0.0, 2.0)):
        t = torch.linspace(0, schedule.steps - 0.01, 777, dtype=F64)
        assert float((schedule.time(schedule.level(t)) - t).abs().max()) < 1e-9
        assert float(schedule.time(math.inf)) == schedule.steps


def test_times_are_the_papers_and_never_repeat():
    for steps in (1, 2, 3, 5, 7, 999, 1000):
        # the paper's: linspace(-1, T - 1, S + 1) truncated, one earlier than ours
        exact = [-1 + i * 1000 / steps for i in range(steps, -1, -1)]
        times = RDDM(sampling_steps=steps).times
        assert [t - 1 for t in times] == [math.trunc(round(v, 9)) for v in exact]
        assert len(set(times)) == steps + 1


def test_the_grid_starts_a_hair_before_the_end():
    solver = RDDM()
    first = solver.grid[0]
    assert 0 < first.alpha < 1e-11
    assert first.sigma == pytest.approx(math.sqrt(solver.s), rel=1e-8)
    assert solver.grid.steps + 1 == solver.length == 5


# --- one step, four ways


def test_the_step_is_the_posterior_resshift_and_the_generic_step():
    x_0, y, eps, z = drawn(4, 1, 1, 2, 2)
    r, schedule = y - x_0, RDDMSchedule(100, 0.25)
    shift = ResShiftSchedule(15, 1.0, 0.3, 0.02)
    pairs = [(schedule.clocks(t), schedule.clocks(s)) for t, s in ((100, 60), (50, 49), (7, 3))]
    eta = [float(shift.eta(torch.tensor(t, dtype=F64))) for t in (15, 9, 2, 1)]
    kappa2 = 1.0
    pairs += [
        (Clocks(a, math.sqrt(kappa2 * a)), Clocks(b, math.sqrt(kappa2 * b)))
        for a, b in pairwise(eta)
    ]
    for i, (t, s) in enumerate(pairs):
        x_t = x_0 + t.A * r + t.B * eps
        b2, a = t.B**2 - s.B**2, t.A - s.A
        # Bayes: x_s | x_0 and x_t | x_s, both Gaussian
        variance = 1 / (1 / s.B**2 + 1 / b2)
        mean = variance * ((x_0 + s.A * r) / s.B**2 + (x_t - a * r) / b2)
        tau2 = s.B**2 * (1 - s.B**2 / t.B**2)
        assert tau2 == pytest.approx(variance, rel=1e-12)
        moved = step(x_t, r, eps, t, s, tau2)
        assert float((moved - mean).abs().max()) < 1e-12
        # the paper's three coefficients; that of r vanishes for ResShift
        coefficient = (b2 * s.A - s.B**2 * a) / t.B**2
        paper = s.B**2 / t.B**2 * x_t + coefficient * r + b2 / t.B**2 * x_0
        assert float((paper - mean).abs().max()) < 1e-12
        if i >= 3:
            assert abs(coefficient) < 1e-15
            resshift = s.A / t.A * x_t + (t.A - s.A) / t.A * x_0
            assert float((resshift - mean).abs().max()) < 1e-12
        if t.A == 1:
            continue

        class Pair:  # the generic step, on x - y
            points = (Point(0.0, 1 - t.A, t.B), Point(0.0, 1 - s.A, s.B))

        for noise, expected in ((torch.zeros_like, mean), (lambda _: z, mean + tau2**0.5 * z)):
            walk = SumConstrained().steps(Path(lambda *_: x_0 - y, Pair, noise), x_t - y)
            assert float((next(walk) + y - expected).abs().max()) < 1e-12


def ddpm_clocks(t):
    """The coefficient transformation: A = 1 - sqrt(abar), B = sqrt(1 - abar)."""
    abar = DDPM().alphas_cumprod[t]
    return Clocks(1 - math.sqrt(abar), math.sqrt(1 - abar))


def test_at_the_coefficients_of_ddim_it_is_ddim():
    times = [int(t) for t in torch.linspace(999, 1, 21)]
    weight, bias = drawn(2, 16, 16, seed=3)

    def eps_of(x, t):  # a fixed random network
        return torch.tanh(x.flatten() @ weight / 4 + bias[0] * t / 1000).reshape(x.shape)

    ours, (theirs,) = None, drawn(1, 1, 1, 4, 4)
    ours = theirs
    for t, s in pairwise(times):
        a, b = DDPM().alphas_cumprod[t], DDPM().alphas_cumprod[s]
        eps = eps_of(theirs, t)  # textbook DDIM
        x_0 = (theirs - math.sqrt(1 - a) * eps) / math.sqrt(a)
        theirs = math.sqrt(b) * x_0 + math.sqrt(1 - b) * eps
        clock, later = ddpm_clocks(t), ddpm_clocks(s)
        eps = eps_of(ours, t)  # no degraded image: the residual is -x_0
        r = (ours - clock.B * eps) / (clock.A - 1)
        ours = step(ours, r, eps, clock, later)
    assert float((ours - theirs).abs().max()) < 1e-10
    # and so is the generic sampler on the schedule of DDPM
    grid = Grid(DDPM(), tuple(map(float, times)))
    (x,) = drawn(1, 1, 1, 4, 4)
    at = {round(p.level, 12): p for p in grid.points}

    def denoise(z, level):
        p = at[round(level, 12)]
        return z - level * eps_of(p.alpha * z, p.t)

    for sampler in (SumConstrained(eta=0.0), DDIM()):
        out = sampler(denoise, x, grid, clean=False)
        assert float((out - theirs).abs().max()) < 1e-10


def test_its_random_steps_are_a_known_share_of_ddims():
    t, s = 600, 400
    a, b = DDPM().alphas_cumprod[t], DDPM().alphas_cumprod[s]
    clock, later = ddpm_clocks(t), ddpm_clocks(s)
    ours = later.B**2 * (1 - later.B**2 / clock.B**2)
    ddim = (1 - b) / (1 - a) * (1 - a / b)
    assert ours / ddim == pytest.approx(b, rel=1e-12)
    assert b == pytest.approx(0.193572, abs=1e-6)


# --- heads


def test_heads_that_know_the_truth_agree():
    u_0, eps = drawn(2, 1, 1, 3, 3)
    y = torch.zeros_like(u_0)
    prior = gaussian_prior()
    prior.network = Told(u_0)

    class Knowing(nn.Module):  # u_0 such that the noise in z is the true one
        def forward(self, z, y_0, s):
            return z - s * eps

    both = two_heads(prior, Knowing())
    at = RDDMSchedule(100, 0.25).clocks(40)
    u = (1 - at.A) * u_0 + at.B * eps
    found = [
        RDDM(heads=heads).estimates(p, u, y, at)
        for heads, p in (("residual", prior), ("noise", both), ("both", both))
    ]
    for r, noise in found:
        assert float((r + u_0).abs().max()) < 1e-12
        assert float((noise - eps).abs().max()) < 1e-12


def test_the_noise_head_says_nothing_at_the_start():
    # an error of 1e-3 in the noise: the image's error is that times B / (1 - A)
    u_0, eps = drawn(2, 1, 1, 3, 3)
    prior = gaussian_prior()

    class Knowing(nn.Module):
        def forward(self, z, y_0, s):
            return z - s * (eps + 1e-3)

    prior.network = Knowing()
    solver = RDDM(heads="noise")
    for at, error in ((Clocks(0.5, 0.25), 5e-4), (Clocks(1.0, 0.5), 5e5)):
        u = (1 - at.A) * u_0 + at.B * eps
        r, _ = solver.estimates(prior, u, torch.zeros_like(u), at)
        assert float((r + u_0).abs().mean()) == pytest.approx(error, rel=1e-2)
    # the paper's way out, to clip, gives an image of nothing but its bounds
    clipped = RDDM(heads="noise", clip=0.5)
    r, _ = clipped.estimates(prior, at.B * eps, torch.zeros_like(eps), at)
    assert bool((r.abs() == 0.5).all())
    # with an exact network rounding is error enough
    y, _ = measured(side=8)
    for image, low, high in ((y, 0, 1e-5), (y.float(), 1e-2, math.inf)):
        one, two = (
            RDDM(heads=heads).around(gaussian_prior(), image) for heads in ("residual", "noise")
        )
        assert low < float((one - two).abs().max()) < high


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_path_of_heads_is_the_walk_of_every_family(eta):
    prior, solver = gaussian_prior(), RDDM(sampling_steps=7, eta=eta)
    prior.network = Bent()
    y, _ = measured(side=5)

    def run(walk):
        problem = unmeasured(prior, y, stream(3, 0))
        return list(walk(problem, problem.noise()))

    plain = run(solver.walk)
    along = run(lambda problem, noise: solver.along(problem, noise, solver.path))
    assert len(plain) == len(along) == solver.length
    for a, b in zip(plain, along, strict=True):
        assert float((a - b).abs().max()) < 1e-8  # the grid's hair


def test_both_heads_of_one_network_are_the_residual_head():
    prior = gaussian_prior()
    prior.network = Bent()
    y, physics = measured(side=5)
    one = restore.solve(y, physics, prior, RDDM(), seed=1)
    two = restore.solve(y, physics, two_heads(prior), RDDM(heads="both"), seed=1)
    assert float((one.samples - two.samples).abs().max()) < 1e-6  # noise of a difference, at A = 1
    assert (one.cost.forwards, two.cost.forwards) == (5, 10)
    with pytest.raises(ValueError, match="two heads"):
        restore.solve(y, physics, prior, RDDM(heads="both"))


def test_one_step_is_plain_regression():
    y, physics = measured(side=6)
    prior = gaussian_prior()
    prior.network = Bent()
    result = restore.solve(y, physics, prior, RDDM(sampling_steps=1), seed=5)
    start = 0.5 * unmeasured(prior, y, stream(5, 0)).noise()
    residual = -Bent()(start / 1e-9, y, 0.5 / 1e-9)  # network at A = 1, the noise overwhelming
    assert float((result.samples[0] - (y - residual)).abs().max()) < 1e-9
    assert result.cost.forwards == 1
    exact = restore.solve(y, physics, gaussian_prior(0.5, 0.01), RDDM(sampling_steps=1))
    assert float((exact.samples - 0.5).abs().max()) < 1e-9  # the conditional mean


# --- the law of samples


TABLE = [  # s, v in [-1, 1] units; V / v at S = 2, 5, 10, 100, 1000
    (1.0, 0.1, (0.024, 0.367, 0.621, 0.954, 0.995)),
    (1.0, 1.0, (0.160, 0.510, 0.716, 0.967, 0.997)),
    (0.01, 0.01, (0.160, 0.510, 0.716, 0.967, 0.997)),
    (0.01, 0.1, (0.204, 0.496, 0.7037, 0.9655, 0.9965)),
]


@pytest.mark.parametrize(("s", "v", "ratios"), TABLE)
def test_few_steps_draw_samples_in_as_tabulated(s, v, ratios):
    schedule = RDDMSchedule(1000, s / 4)
    found = [sampled_variance(schedule, n, v / 4) / (v / 4) for n in (2, 5, 10, 100, 1000)]
    assert found == pytest.approx(ratios, abs=6e-4)
    assert (1 - found[3]) / (1 - found[4]) == pytest.approx(10, rel=0.05)  # order 1


@pytest.mark.parametrize("heads", ["residual", "both"])
def test_samples_have_the_variance_that_the_product_says(heads):
    y, physics = measured(side=64)
    v = 0.025
    prior = two_heads(gaussian_prior(0.5, v))
    result = restore.solve(y, physics, prior, RDDM(heads=heads), samples=8)
    expected = sampled_variance(RDDMSchedule(), 5, v)
    n = result.samples.numel()
    assert float(result.samples.var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / n))
    near = 5 * math.sqrt(expected / n)  # the start drops nothing
    assert float(result.samples.mean()) == pytest.approx(0.5, abs=near)


# --- paths


def test_estimates_that_do_not_change_reach_one_image_by_any_path():
    prior, (u_0, eps) = gaussian_prior(), drawn(2, 1, 1, 3, 3)
    prior.network = Told(u_0)

    class Knowing(nn.Module):
        def forward(self, z, y_0, s):
            return z - s * eps

    both, y = two_heads(prior, Knowing()), torch.zeros_like(u_0)

    def end(solver, path=None):
        problem = unmeasured(both, y, stream(0, 0))
        *_, last = solver.along(problem, eps, path or solver.path)
        return last

    jagged = [(1.0, 0.5), (0.3, 0.5), (0.6, 0.1), (0.2, 0.4), (0.9, 0.2), (0.0, 0.0)]
    ends = [end(RDDM(heads="both", route=r)) for r in ("together", "residual first", "noise first")]
    ends.append(end(RDDM(heads="both"), [Clocks(*c) for c in jagged]))
    for x in ends:
        assert (
            float((x - u_0).abs().max()) < 1e-8
        )  # the network's noise is (z - u) / s, z = u / 1e-9


def scale(path, v):
    """Factor on deviations along a path, for pixels of variance v: every estimate is linear."""
    factor = 1.0
    for t, s in pairwise(path):
        alpha, sigma = max(1 - t.A, 1e-9), max(t.B, 1e-6)
        gain = v / (v + (sigma / alpha) ** 2)
        factor *= 1 + (t.A - s.A) * gain / alpha - (t.B - s.B) * (1 - gain) / sigma
    return factor


def test_estimates_that_change_do_not():
    y, physics = measured(side=32)
    v, variances = 0.025, {}
    prior = two_heads(gaussian_prior(0.5, v))
    for route in ("together", "residual first", "noise first"):
        solver = RDDM(heads="both", route=route, sampling_steps=20)
        result = restore.solve(y, physics, prior, solver, samples=4)
        variances[route] = solver.s * scale(solver.path, v) ** 2
        n = result.samples.numel()
        assert float(result.samples.var()) == pytest.approx(
            variances[route], rel=5 * math.sqrt(2 / n), abs=1e-12
        )
        assert result.cost.forwards == (40 if route == "together" else 80)
    assert variances["together"] == pytest.approx(sampled_variance(RDDMSchedule(), 20, v), rel=1e-9)
    assert variances["residual first"] / variances["together"] > 1.05
    many = RDDM(route="residual first", sampling_steps=500)
    assert many.s * scale(many.path, v) ** 2 == pytest.approx(v, rel=0.01)
    # all noise gone first, nothing is left to tell samples apart: the regression
    assert variances["noise first"] < 1e-12


# --- training


def test_the_loss_is_least_at_the_truth():
    c, d, (T, s) = 0.01, -0.2, (1000, 0.25)
    network = TwoHeads(PairNetwork(1, (4, 4, 4, 4), 1, 0.1), nn.Identity())

    def pairs(generator):
        y_0 = torch.full((256, 1, 8, 8), 0.7)
        return y_0 + d + c**0.5 * torch.randn(y_0.shape, generator=generator), y_0

    def value(trained, gain=1.0, offset=0.0, noise_gain=1.0):
        def call(z, y_0, level, head="residual"):
            level = level.reshape(-1, 1, 1, 1)
            own = gain if head == "residual" else noise_gain
            u_0 = d + offset + own * c / (c + level**2) * (z - d)
            return u_0 if head == "residual" else (z - u_0) / level

        return float(RDDM.loss(pairs, trained)(call, torch.Generator().manual_seed(0)))

    for trained in (network.residual, network):
        best = value(trained)
        for wrong in ({"gain": 0.8}, {"gain": 1.2}, {"offset": 0.02}, {"offset": -0.02}):
            assert value(trained, **wrong) > best
    assert value(network, noise_gain=0.8) > value(network)
    # what is left is the mean deviation of u_0 given z, times alike
    schedule, t = RDDMSchedule(T, s), torch.arange(1, T + 1, dtype=F64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    left = (c * sigma**2 / (alpha**2 * c + sigma**2)).sqrt() * math.sqrt(2 / math.pi) / 0.1
    near = 5 * float(left.std()) / math.sqrt(256)  # of the times drawn
    assert value(network.residual) == pytest.approx(float(left.mean()), abs=near)


def test_a_network_of_two_heads_trains_both():
    torch.manual_seed(0)
    network = TwoHeads(*(PairNetwork(1, (4, 4, 4, 4), 1, 0.1) for _ in "ab"))

    def pairs(generator):
        y_0 = torch.rand(2, 1, 16, 16, generator=generator)
        return y_0 + 0.1, y_0

    value = RDDM.loss(pairs, network)(network, torch.Generator().manual_seed(0))
    value.backward()
    assert torch.isfinite(value)
    for head in (network.residual, network.noise):
        grads = [p.grad for p in head.parameters()]
        assert all(g is not None and bool(torch.isfinite(g).all()) for g in grads)
        assert any(bool((g != 0).any()) for g in grads)


def test_bad_words_and_numbers_are_refused_in_one_sentence():
    for constants, said in (
        ({"sampling_steps": 0}, "whole number"),
        ({"sampling_steps": 11, "steps": 10}, "from 1 to 10"),
        ({"s": 0.0}, "above 0"),
        ({"eta": 1.5}, r"in \[0, 1\]"),
        ({"heads": "noisy"}, "did you mean 'noise'"),
        ({"route": "noise-first"}, "did you mean 'noise first'"),
        ({"clip": -1.0}, "above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            RDDM(**constants)


@pytest.mark.parametrize("constants", [{}, {"sampling_steps": 1}, {"route": "residual first"}])
def test_a_network_trained_on_it_restores(constants):
    scenes = [(255 * u).to(torch.uint8) for u in torch.rand(2, 1, 128, 128, generator=seeded(0))]
    recipe = Recipe(steps=2, warmup=1, bfloat16=False)
    plan = Plan(
        family="rddm", operator="denoise", noise=(0.1, 0.1), size="small", patch=32, recipe=recipe
    )
    training = Training(plan, scenes)
    assert all(math.isfinite(done.loss) for done in training.run(None))
    prior = training.prior("mine")
    y_0 = torch.rand(1, 1, 32, 32, generator=seeded(1))  # float32, through levels of 1e11
    assert bool(torch.isfinite(RDDM(**constants).around(prior, y_0)).all())
