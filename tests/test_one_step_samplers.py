"""Samplers without memory: orders, what they do exactly, the laws of the random ones."""

import math

import pytest
import torch
from flows import error, exact, lam_grid, mixture, slope, start, time_grid

from priors.schedules import DDPM, EDM, VE, VP
from restore.samplers import available
from restore.samplers import grid as grids
from restore.samplers.adaptive import DPMSolverAdaptive
from restore.samplers.ddim import DDIM
from restore.samplers.dpm_solver import DPMSolver, DPMSolverFast
from restore.samplers.heun import EDMStochastic, Heun
from restore.samplers.predictor_corrector import PREDICTORS, PredictorCorrector
from restore.samplers.rk45 import RK45
from restore.samplers.sampler import Path

F64 = torch.float64
NAMES = (
    "dpm-solver-2",
    "dpm-solver-3",
    "dpm-solver-fast",
    "dpm-solver-adaptive",
    "heun",
    "edm-stochastic",
    "predictor-corrector",
    "rk45",
)
COUNTS = (64, 128, 256)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


class Directions:
    """Noise whose k-th draw is the k-th unit vector: pixels are the weights of the draws."""

    def __init__(self):
        self.drawn = 0

    def __call__(self, like):
        self.drawn += 1
        unit = torch.zeros_like(like)
        unit[..., self.drawn] = 1
        return unit


def law(sampler, grid, mean=0.7, std=0.6, draws=1):
    """Mean and variance at the last point for pixels `N(mean, std^2)`; linear, hence exact."""

    def denoise(y, s, m):
        return m + std**2 / (std**2 + s**2) * (y - m)

    at = grid[0]
    x = torch.full((1, 1, 1, 1), at.alpha * mean, dtype=F64)
    out = sampler(lambda y, s: denoise(y, s, mean), x, grid, noise=torch.zeros_like, clean=False)

    x = torch.zeros(1, 1, 1, draws * grid.steps + 1, dtype=F64)
    x[..., 0] = math.hypot(at.alpha * std, at.sigma)
    weights = sampler(lambda y, s: denoise(y, s, 0.0), x, grid, noise=Directions(), clean=False)
    return float(out), float(weights.square().sum())


def law_errors(sampler_of, make, counts, draws=1, mean=0.7, std=0.6):
    """Errors of mean and variance on grids of growing length."""
    errors = []
    for n in counts:
        grid = make(n)
        found = law(sampler_of(n), grid, mean, std, draws)
        end = grid[-1]
        truth = end.alpha * mean, (end.alpha * std) ** 2 + end.sigma**2
        errors.append([abs(a - b) for a, b in zip(found, truth, strict=True)])
    return torch.tensor(errors, dtype=F64).T


def falls(errors, counts):
    """Order of convergence: least-squares slope."""
    n = torch.tensor(counts, dtype=F64).log()
    e, n = errors.log() - errors.log().mean(), n - n.mean()
    return -float((n * e).sum() / (n * n).sum())


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lam_grid, time_grid])
@pytest.mark.parametrize(
    ("sampler", "order"), [(DPMSolver(k=2), 2), (DPMSolver(k=3), 3), (Heun(), 2)]
)
def test_errors_on_the_mixture_fall_with_the_order(sampler, order, make):
    assert slope(sampler, make, COUNTS) == pytest.approx(order, abs=0.15)


def test_dpm_solver_1_is_ddim():
    prior, grid = mixture(rotated=True), time_grid(6)
    x = start(prior, grid)
    ours, theirs = (s(prior, x, grid) for s in (DPMSolver(k=1), DDIM()))
    assert float((ours - theirs).abs().max()) < 1e-12


@pytest.mark.parametrize("make", [lam_grid, time_grid])
def test_the_last_step_of_fast_sets_its_order(make):
    # one last step of order k leaves an error h^(k + 1)
    assert slope(DPMSolverFast(), make, (257, 512, 1025)) == pytest.approx(3, abs=0.15)
    assert slope(DPMSolverFast(), make, (256, 511, 1024)) == pytest.approx(2, abs=0.15)


def test_fast_spends_every_budget_to_the_last_call():
    prior, sampler = mixture(), DPMSolverFast()
    for budget in range(2, 31):
        count = 0

        def counted(y, s):
            nonlocal count
            count += 1
            return prior(y, s)

        grid = lam_grid(sampler.steps_within(budget))
        sampler(counted, start(prior, grid), grid)
        assert count == budget
    # the paper's: K = floor(NFE / 3) + 1 steps
    assert [sampler.orders(n) for n in (3, 9)] == [(2, 1), (3, 3, 2, 1)]
    assert [sampler.orders(n) for n in (1, 2, 10, 11)] == [(1,), (2,), (3, 3, 3, 1), (3, 3, 3, 2)]
    assert all(len(sampler.orders(n)) == n // 3 + 1 for n in range(1, 31))


def test_fast_takes_the_steps_of_dpm_solver_3():
    prior, fine = mixture(), time_grid(8)
    x = start(prior, fine)
    passed = list(DPMSolverFast().steps(Path(prior, fine), x))
    coarse = grids.Grid(fine.schedule, fine.times[0:7:3])
    taken = list(DPMSolver(k=3).steps(Path(prior, coarse), x))
    for a, b in zip(passed[2:6:3], taken, strict=True):
        assert float((a - b).abs().max()) < 1e-13


@pytest.mark.parametrize(
    "sampler",
    [DPMSolverFast(), DPMSolverAdaptive(rtol=1e-3, atol=1e-3), RK45()],
    ids=lambda s: s.name,
)
def test_states_passed_over_lie_on_the_trajectory(sampler):
    prior, grid = mixture(rotated=True), time_grid(60)
    x = start(prior, grid)
    states = list(sampler.steps(Path(prior, grid), x))
    assert len(states) == grid.steps
    ddim = list(DDIM().steps(Path(prior, grid), x))
    for i, (ours, theirs) in enumerate(zip(states, ddim, strict=True)):
        truth = exact(prior, x, grid, i + 1)
        ours, theirs = ((s - truth).abs().max() for s in (ours, theirs))
        assert float(ours) < max(0.3 * float(theirs), 2e-3)


# --- what is exact --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler", [DDIM(), DPMSolver(k=2), DPMSolver(k=3), Heun()], ids=lambda s: f"{s}"
)
def test_one_step_is_exact_on_a_point_mass(sampler):
    m, eps = normal(1, 1, 4, 4), normal(1, 1, 4, 4, seed=1)
    for grid in (lam_grid(1), lam_grid(1, VE(1e-3, 200.0))):
        a, b = grid[0], grid[-1]
        out = sampler(lambda y, s: m, a.alpha * m + a.sigma * eps, grid, clean=False)
        # rounding of the noisiest state, carried to the end by at most the change of scale
        assert float((out - b.alpha * m - b.sigma * eps).abs().max()) < 1e-13 * a.level


@pytest.mark.parametrize(
    ("sampler", "degree"), [(DPMSolver(k=1), 0), (DPMSolver(k=2), 0), (DPMSolver(k=3), 1)]
)
def test_dpm_solvers_are_exact_on_noise_of_low_degree_in_lam(sampler, degree):
    # int lam^j ds, s = e^-lam
    primitives = (
        lambda lam: math.exp(-lam),
        lambda lam: (lam + 1) * math.exp(-lam),
        lambda lam: (lam**2 + 2 * lam + 2) * math.exp(-lam),
    )
    grid = grids.from_levels(VP(), [2.0, 1.0, 0.7])
    for j, primitive in enumerate(primitives[: degree + 2]):

        def denoise(y, s, j=j):
            return y - s * (-math.log(s)) ** j

        x = normal(1, 1, 2, 2)
        out = sampler(denoise, x, grid, clean=False) / grid[-1].alpha
        truth = x / grid[0].alpha + primitive(grid[-1].lam) - primitive(grid[0].lam)
        off = float((out - truth).abs().max())
        assert off < 1e-13 if j <= degree else off > 1e-3


def test_ddim_with_all_noise_fresh_is_the_first_order_sde_solver():
    grid = time_grid(1, noisy=-1.0)
    a, b, h = grid[0], grid[1], grid.h(0)
    x, D, z = (normal(1, 1, 4, 4, seed=k) for k in range(3))
    out = DDIM(eta=1.0)(lambda y, s: D, x, grid, noise=lambda like: z, clean=False)
    kept, fresh = math.exp(-h), -math.expm1(-2 * h)  # SDE-DPM-Solver++(1), arXiv:2211.01095
    theirs = b.sigma / a.sigma * kept * x + b.alpha * fresh * D + b.sigma * math.sqrt(fresh) * z
    assert float((out - theirs).abs().max()) < 1e-14


# --- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lam_grid, time_grid])
def test_variance_of_ancestral_sampling_converges_with_order_one(make):
    counts = (128, 256, 512)
    mean, variance = law_errors(lambda n: DDIM(eta=1.0), make, counts)
    assert falls(variance, counts) == pytest.approx(1, abs=0.1)
    assert float(mean.max()) < 1e-12  # a mean moves with alpha, exactly


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_predictors_converge_in_law_with_order_one(predictor):
    counts = (256, 512, 1024)
    sampler = PredictorCorrector(predictor=predictor, corrections=0)
    mean, variance = law_errors(lambda n: sampler, time_grid, counts)
    assert falls(variance, counts) == pytest.approx(1, abs=0.15)
    if predictor == "reverse-diffusion":
        assert falls(mean, counts) == pytest.approx(1, abs=0.15)
    else:
        assert float(mean.max()) < 1e-12


def test_correctors_of_shrinking_step_converge_in_law_with_order_one():
    counts = (128, 256, 512)
    mean, variance = law_errors(lambda n: PredictorCorrector(step=8 / n), time_grid, counts, 2)
    assert falls(mean, counts) == pytest.approx(1, abs=0.15)
    assert falls(variance, counts) == pytest.approx(1, abs=0.15)


def test_the_ancestral_predictor_is_ddim_with_all_noise_fresh():
    prior, grid = mixture(rotated=True), time_grid(12)
    x, ends = start(prior, grid), []
    for sampler in (PredictorCorrector(predictor="ancestral", corrections=0), DDIM(eta=1.0)):
        generator = torch.Generator().manual_seed(3)

        def noise(like, generator=generator):
            return torch.randn(like.shape, dtype=F64, generator=generator)

        ends.append(sampler(prior, x, grid, noise=noise))
    assert float((ends[0] - ends[1]).abs().max()) < 1e-11


def test_predictors_are_the_discrete_steps_of_ve_and_vp():
    x, eps, z = (normal(1, 1, 4, 4, seed=k) for k in range(3))

    def one(predictor, grid):
        sampler = PredictorCorrector(predictor=predictor, corrections=0)
        at = grid[0]
        return sampler(
            lambda y, s: y - s * eps, x, grid, noise=lambda like: z, clean=False
        ), -eps / at.sigma

    def close(a, b):
        return float((a - b).abs().max()) < 1e-12

    table = grids.Grid(DDPM(), (600.0, 599.0))
    beta = float(torch.linspace(1e-4, 2e-2, 1000, dtype=F64)[600])
    root = math.sqrt(1 - beta)
    out, s = one("reverse-diffusion", table)
    assert close(out, (2 - root) * x + beta * s + math.sqrt(beta) * z)
    out, s = one("ancestral-large", table)
    assert close(out, (x + beta * s) / root + math.sqrt(beta) * z)

    exploding = grids.from_levels(VE(), [3.0, 2.5])
    rise = 3.0**2 - 2.5**2
    out, s = one("reverse-diffusion", exploding)
    assert close(out, x + rise * s + math.sqrt(rise) * z)
    out, s = one("ancestral", exploding)
    assert close(out, x + rise * s + math.sqrt(2.5**2 * rise / 3.0**2) * z)


def test_the_corrector_on_vp_is_damped_by_one_minus_beta():
    x, eps, z = (normal(1, 1, 4, 4, seed=k) for k in range(3))
    grid, draws = grids.Grid(DDPM(), (900.0, 899.0)), iter((torch.zeros_like(z), z))
    out = PredictorCorrector()(
        lambda y, s: y - s * eps, x, grid, noise=lambda like: next(draws), clean=False
    )
    beta = float(torch.linspace(1e-4, 2e-2, 1000, dtype=F64)[900])
    predicted = (2 - math.sqrt(1 - beta)) * x - beta * eps / grid[0].sigma
    g = -eps / grid[1].sigma
    e = 2 * (1 - beta) * (0.16 * float(z.norm() / g.norm())) ** 2
    assert float((out - predicted - e * g - math.sqrt(2 * e) * z).abs().max()) < 1e-12


def test_langevin_at_a_fixed_step_settles_at_the_known_variance():
    std, grid, steps = 0.6, time_grid(1, noisy=-1.0), 60
    at, sampler = grid[0], PredictorCorrector(step=0.5)
    v, e = (at.alpha * std) ** 2 + at.sigma**2, 0.5 * at.sigma**2
    path = Path(lambda y, s: std**2 / (std**2 + s**2) * y, grid, Directions())
    x = torch.zeros(1, 1, 1, steps + 1, dtype=F64)
    for _ in range(steps):
        x = sampler.correct(path, x, at)
    settled = v / (1 - e / (2 * v))
    assert float(x.square().sum()) == pytest.approx(settled, rel=1e-9)
    assert settled > 1.2 * v


def test_langevin_at_a_fixed_snr_inflates_white_images_by_its_square():
    n, r, generator = 512 * 512, 0.16, torch.Generator().manual_seed(0)
    grid = time_grid(1, noisy=-1.0)
    at = grid[0]
    v = at.alpha**2 * 0.36 + at.sigma**2

    def noise(like):
        return torch.randn(like.shape, dtype=F64, generator=generator)

    path = Path(lambda y, s: 0.36 / (0.36 + s**2) * y, grid, noise)
    x = math.sqrt(v) * noise(torch.empty(1, 1, 512, 512))
    for _ in range(40):  # each step forgets 2 r^2 of the start: (1 - 2 r^2)^80 is 1.5 %
        x = PredictorCorrector(snr=r).correct(path, x, at)
    error = 5 * math.sqrt(2 / n)  # five standard errors of a variance, 1.4 %
    assert error < r**2
    assert float(x.var()) / v == pytest.approx(1 + r**2, abs=error)


def test_correctors_do_not_couple_the_images_of_a_batch():
    prior, grid = mixture(), time_grid(4)
    x = torch.cat([start(prior, grid), 3 * start(prior, grid)])
    draws = [normal(2, 1, 3, 11, seed=k) for k in range(8)]

    def run(x, rows):
        waiting = iter(draws)
        sampler = PredictorCorrector()
        return sampler(prior, x, grid, noise=lambda like: next(waiting)[rows])

    together = run(x, slice(0, 2))
    alone = torch.cat([run(x[i : i + 1], slice(i, i + 1)) for i in range(2)])
    assert float((together - alone).abs().max()) < 1e-12


# --- churn ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=lambda s: type(s).__name__)
def test_churn_keeps_the_law_around_a_point_mass(schedule):
    grid = lam_grid(12, schedule)
    m, a, b = normal(1, 1, 1, 13), grid[0], grid[-1]

    def spread(inflation):
        x = a.alpha * m
        x[..., 0] += a.sigma
        noise = Directions()
        sampler = EDMStochastic(churn=3.0, lowest=0.0, highest=1e3, inflation=inflation)
        out = sampler(lambda y, s: m, x, grid, noise=noise, clean=False)
        assert noise.drawn == 12
        return float(((out - b.alpha * m) / b.sigma).norm())

    assert spread(1.0) == pytest.approx(1, abs=1e-11)
    assert spread(1.1) > 1.02


def test_churn_raises_levels_within_its_bounds_and_the_schedule_s():
    asked = []

    def denoise(y, s):
        asked.append(s)
        return y / (1 + s**2)

    top = 50.0
    grid = grids.from_levels(VE(0.01, top), [top, 5.0, 1.0, 0.1])
    sampler = EDMStochastic(churn=0.8, lowest=0.5, highest=100.0)
    sampler(denoise, normal(1, 1, 2, 2), grid, noise=torch.zeros_like)
    # gamma = 0.8 over three steps and the final denoising
    assert asked == pytest.approx([top, 5.0, 1.2 * 5.0, 1.0, 1.2 * 1.0, 0.1, 0.1])
    asked.clear()
    EDMStochastic(churn=0.8, highest=3.0, lowest=2.0)(denoise, normal(1, 1, 2, 2), grid)
    assert asked == pytest.approx([top, 5.0, 5.0, 1.0, 1.0, 0.1, 0.1])


def test_without_churn_it_is_heun():
    prior, grid = mixture(), time_grid(5)
    x = start(prior, grid)
    assert torch.equal(EDMStochastic(churn=0.0)(prior, x, grid), Heun()(prior, x, grid))


# --- steps of their own ---------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "small"), [(2, -4), (3, -5)])
def test_errors_of_the_adaptive_solver_fall_with_the_tolerance(k, small):
    # two orders differ by h^k, which is held at the tolerance; the error is h^k after all steps
    tolerances = torch.logspace(small, small - 2, 3, dtype=F64)
    grid = lam_grid(1)
    errors = torch.tensor(
        [error(DPMSolverAdaptive(k=k, atol=t, rtol=t), grid) for t in tolerances.tolist()],
        dtype=F64,
    )
    assert falls(errors, (1 / tolerances).tolist()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "sampler", [DPMSolverAdaptive(), RK45(rtol=1e-3, atol=1e-3)], ids=lambda s: s.name
)
def test_adaptive_samplers_treat_an_image_alone_as_in_a_batch(sampler):
    prior, grid = mixture(rotated=True), time_grid(3)
    x = torch.cat([start(prior, grid), 5 * start(prior, grid), normal(1, 1, 3, 11)])
    together = sampler(prior, x, grid, clean=False)
    alone = torch.cat([sampler(prior, one, grid, clean=False) for one in x.split(1)])
    assert torch.equal(together, alone)
    assert torch.equal(together, sampler(prior, x, grid, clean=False))


def test_rk45_is_a_reference():
    for prior in (mixture(), mixture(rotated=True)):
        # a tolerance holds for one step; there are a few tens of them
        assert error(RK45(), lam_grid(1), prior) < 50 * 1e-5
        assert error(RK45(method="DOP853", rtol=1e-11, atol=1e-11), time_grid(3), prior) < 1e-9


@pytest.mark.parametrize("name", ["dpm-solver-adaptive", "rk45"])
def test_adaptive_samplers_refuse_what_they_cannot_know_or_follow(name):
    sampler, grid = available()[name], lam_grid(2)
    with pytest.raises(ValueError, match="tolerances"):
        sampler.steps_within(20)
    with pytest.raises(ValueError, match="no step short enough"):
        sampler(lambda y, s: y * math.nan, normal(1, 1, 2, 2), grid)


# --- the call -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_dtype_and_shape_are_those_of_the_image(name):
    grid = grids.build("edm", DDPM(), 5, 80.0, 0.02)
    x = grid[0].sigma * normal(2, 1, 4, 4).float()
    out = available()[name](lambda y, s: 0.5 + 0.0 * y, x, grid, noise=torch.zeros_like)
    assert out.dtype == torch.float32
    assert out.shape == x.shape
    assert float((out - 0.5).abs().max()) < 1e-6


def test_senseless_constants_are_refused():
    for make in (
        lambda: DPMSolver(k=4),
        lambda: DPMSolverAdaptive(k=1),
        lambda: DPMSolverAdaptive(theta=1.0),
        lambda: EDMStochastic(churn=-1.0),
        lambda: EDMStochastic(lowest=2.0, highest=1.0),
        lambda: PredictorCorrector(snr=0.0),
        lambda: RK45(atol=0.0),
    ):
        with pytest.raises(ValueError, match="found"):
            make()
    with pytest.raises(ValueError, match="did you mean 'ancestral'"):
        PredictorCorrector(predictor="ancestor")
    with pytest.raises(ValueError, match="choose one of DOP853, RK45"):
        RK45(method="RK4")
