"""Any sampler under a solver: the exact posterior by every integrator, and refusals."""

import math
from itertools import pairwise

import pytest
import torch
from toys import affine_map, dense, first_of_pairs, pairs

import operators
from priors import Dirac, Gaussian
from priors.bases import Hartley
from priors.schedules import EDM, VP, log_levels
from restore.guided import step, suited, walk, walk_moving
from restore.problem import stream
from restore.samplers import available, named
from restore.samplers.adams import Adams
from restore.samplers.ddim import DDIM
from restore.samplers.grid import from_levels
from restore.solvers.ddnm import DDNM
from restore.solvers.flowchef import FlowChef
from restore.solvers.mmps import MMPS
from restore.solvers.pigdm import PiGDM

F64 = torch.float64


def fits(name, moves=False):
    try:
        suited(name, "mmps", moves=moves)
    except ValueError:
        return False
    return True


FIT = [name for name in available() if fits(name)]
ODE = [name for name in FIT if not named(name).random]
MOVING = [name for name in available() if fits(name, moves=True)]
SECOND = [name for name in ODE if named(name).order[:1] in "234"]
SHAPE = (1, 3, 4)


@pytest.fixture(scope="module")
def posed():
    """Twelve correlated pixels, half of them seen; mean and covariance of the posterior."""
    prior = Gaussian.power_law(SHAPE)
    operator = operators.parse("mask:keep=0.5", SHAPE, noise=0.05).to(F64)
    y = operators.measure(operator, prior.sample(1, torch.Generator().manual_seed(5)), seed=7)
    exact = prior.posterior(y, operator, 0.05)
    eye = torch.eye(12, dtype=F64).reshape(12, *SHAPE)
    C = prior.covariance(eye).flatten(1)
    A = operator.A(eye).flatten(1).T
    K = C @ A.T @ torch.linalg.inv(A @ C @ A.T + 0.05**2 * torch.eye(len(A), dtype=F64))
    assert torch.allclose((C - K @ A @ C).diagonal().sqrt(), exact.std.flatten())
    return prior, operator, y, exact.mean.flatten(), C - K @ A @ C


def mmps(sampler, levels):
    """Solves to rounding: what is left of error is the integrator's."""
    return MMPS(levels=levels, tol=1e-10, max_iter=40, sampler=sampler)


def errors(solver, posed):
    """Of the mean, over the posterior's std, and of the std, largest over the pixels."""
    prior, operator, y, mean, C = posed
    M, b, gap = affine_map(solver, y, operator, prior, SHAPE)
    assert gap < 1e-8
    # the flow of N(mean, C) from the first level, started at N(0.5, s^2), to the last
    w, V = torch.linalg.eigh(C)
    first, last = solver.sigma_max, solver.sigma_min
    R = V @ torch.diag(((w + last**2) / (w + first**2)).sqrt()) @ V.T
    std = C.diagonal().sqrt()
    found, exact = (M @ M.T).diagonal().sqrt(), first * (R @ R.T).diagonal().sqrt()
    bias = (b - mean - R @ (0.5 - mean)) / std
    return float(bias.abs().max()), float((found / exact - 1).abs().max())


# -- the posterior ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SECOND)
def test_every_second_order_sampler_reaches_the_posterior(name, posed):
    """To a hundredth of a std at 54 steps; the error falls with the order."""
    coarse, fine = (errors(mmps(name, levels), posed) for levels in (19, 55))
    assert max(fine) < 0.01
    # steps three times shorter: 9 at second order; 6 leaves room for what is not yet the limit
    assert fine[1] < coarse[1] / 6 or fine[1] < 1e-6


@pytest.mark.parametrize("name", [n for n in ODE if n not in SECOND])
def test_first_order_samplers_come_nearer_with_the_levels(name, posed):
    coarse, fine = (errors(mmps(name, levels), posed)[1] for levels in (19, 55))
    assert fine < coarse / 2.4  # 3 in the limit
    assert fine < 0.1


@pytest.mark.parametrize("name", [n for n in FIT if n not in ODE])
def test_random_samplers_have_the_posterior_for_their_law(name, posed):
    """Mean and spread of 400 draws, each within four standard errors and the steps' own error."""
    prior, operator, y, mean, C = posed
    x = mmps(name, 60)(y, operator, prior, samples=400, batch_size=400).samples[:, 0].flatten(1)
    std = C.diagonal().sqrt()
    assert float(((x.mean(0) - mean) / std).abs().max()) < 4 / math.sqrt(400) + 0.05
    ratio = float((x.var(0).sum() / C.trace()).sqrt())
    assert ratio == pytest.approx(1, abs=4 * math.sqrt(1 / (2 * 400)) + 0.1)


def test_the_default_is_the_exponential_multistep_step_as_written_before(posed):
    """Its own recursion, with the conditional mean of a Gaussian in closed form."""
    _, _, _, mean, C = posed
    eye = torch.eye(12, dtype=F64)

    def D_y(x, s):
        return mean + (x - mean) @ (C @ torch.linalg.inv(C + s**2 * eye))

    levels = log_levels(24, 10.0, 0.003).tolist()
    x = 0.5 + levels[0] * torch.randn(SHAPE, generator=stream(0, 0), dtype=F64).flatten()
    previous, h_previous = None, 1.0
    for s, t in pairwise(levels):
        h, D = math.log(s / t), D_y(x, s)
        slope = 0 * D if previous is None else (D - previous) / h_previous
        x = math.exp(-h) * x - math.expm1(-h) * D + (h + math.expm1(-h)) * slope
        previous, h_previous = D, h
    prior, operator, y, *_ = posed
    found = mmps("adams-2", 24)(y, operator, prior).samples.flatten()
    torch.testing.assert_close(found, x, rtol=0, atol=1e-8)
    assert MMPS().sampler == "adams-2"


@pytest.mark.parametrize("name", FIT)
def test_pigdm_has_the_posterior_where_its_model_holds(name):
    """Pixels of one variance c: mean c y / (c + sigma_y^2), variance c sigma_y^2 / (c + ...)."""
    count = 4000 if named(name).random else 400
    shape, c, noise = (1, 1, count), 1.0, 0.3
    prior = Gaussian(torch.zeros(shape), Hartley(), torch.full(shape, c), value_range=(-1.0, 1.0))
    operator = operators.denoise(shape, noise=noise).to(F64)
    y = torch.full((1, *shape), 0.8, dtype=F64)
    x = PiGDM(steps=200, sampler=name)(y, operator, prior).samples.flatten()
    mean, variance = c * 0.8 / (c + noise**2), c * noise**2 / (c + noise**2)
    assert float(x.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / count) + 0.02)
    chance = 4 * math.sqrt(2 / count)
    assert float(x.var()) == pytest.approx(variance, rel=chance + 0.15)  # ddim shrinks by 11 %


# -- estimates and calls ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda s: MMPS(levels=5, sampler=s), FIT),
        (lambda s: PiGDM(steps=5, sampler=s), FIT),
        (lambda s: PiGDM(steps=1, sampler=s), FIT),
        (lambda s: PiGDM(steps=5, weighting="code", sampler=s), MOVING),
        (lambda s: DDNM(steps=5, sampler=s), MOVING),
        (lambda s: DDNM(steps=5, travel_repeat=2, sampler=s), MOVING),
        (lambda s: FlowChef(steps=5, sampler=s), MOVING),
    ],
    ids=["mmps", "pigdm", "pigdm-1", "pigdm-code", "ddnm", "ddnm-travel", "flowchef"],
)
def test_estimates_and_calls_are_as_many_as_told(make, names, posed):
    prior, operator, y, *_ = posed
    for name in names:
        solver, seen = make(name), []
        result = solver(y, operator, prior, callback=seen.append)
        assert [s.index for s in seen] == list(range(solver.length)), name
        assert torch.equal(seen[-1].x, result.samples[0])
        sampler = named(name)
        if isinstance(solver, MMPS):  # the end keeps the noise of the last level
            assert result.cost.forwards == sampler.calls(4)
        elif isinstance(solver, PiGDM) and solver.weighting == "bayes":
            steps = solver.steps - 1
            assert result.cost.forwards == (sampler.calls(steps) if steps else 0) + 1
        else:  # single steps, and the end
            passes = solver.length - 1
            clean = 2 if isinstance(solver, DDNM) and solver.travel_repeat > 1 else 1
            assert result.cost.forwards <= sampler.calls(1) * passes + clean, name
            assert result.cost.forwards >= solver.length


@pytest.mark.parametrize("name", MOVING)
def test_null_space_fits_the_data_whatever_the_sampler(name):
    prior = pairs(0.6, 3)
    operator, y = first_of_pairs(3, value=0.7)
    found = DDNM(steps=12, sampler=name)(y, operator, prior).samples[0]
    torch.testing.assert_close(operator.A(found), y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_null_space_by_any_integrator_has_one_limit(noise):
    """That of DDIM without fresh noise: `eta` is DDIM's alone, and steps of all orders agree."""
    operator, y = first_of_pairs(2, value=0.7, noise=noise)

    def restored(**options):
        return DDNM(**options)(y, operator, pairs(0.6, 2), seed=3).samples

    limit = restored(steps=400, eta=0.0)
    others = [n for n in MOVING if n != "ddim" and not named(n).random]
    assert others
    for name in others:
        found = restored(steps=100, sampler=name)
        assert torch.equal(found, restored(steps=100, sampler=name, eta=0.1)), name
        if noise == 0:
            assert float((found - limit).abs().max()) < 0.05, name  # first order, at 100 steps


@pytest.mark.parametrize("name", [n for n in MOVING if not named(n).random])
def test_flowchef_samples_the_noiseless_posterior_by_any_integrator(name):
    """Two pixels of correlation 0.9, the first seen to be 1: the other's mean is 0.9."""
    operator, y = first_of_pairs()
    solver = FlowChef(steps=400, kappa=0.5, sampler=name)
    M, b, _ = affine_map(solver, y, operator, pairs(0.9), (1, 1, 2))
    assert float((b - torch.tensor([1, 0.9], dtype=F64)).abs().max()) < 0.02
    assert float((M @ M.T)[1, 1]) == pytest.approx(0.19, rel=0.1)


def test_a_point_mass_stays_itself_under_every_sampler():
    x = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=F64)
    operator = operators.parse("mask:keep=0.5", SHAPE, noise=0.05).to(F64)
    for name in FIT:
        found = PiGDM(steps=6, sampler=name)(x * 0, operator, Dirac(x)).samples[0]
        torch.testing.assert_close(found, x, rtol=0, atol=1e-9, msg=name)


# -- the walks -------------------------------------------------------------------------------------


def test_a_walk_is_the_sampler_itself_and_its_estimates_the_latest_calls():
    prior = dense(torch.diag(torch.tensor([0.3, 1.2], dtype=F64)))
    levels = log_levels(7, 5.0, 0.1).tolist()
    x = torch.tensor([3.0, -4.0], dtype=F64).reshape(1, 1, 1, 2)
    made = []

    def D(y, s):
        made.append(prior(y, s))
        return made[-1]

    for sampler in (DDIM(), Adams(k=2), named("dpm-solver-2")):
        made.clear()
        estimates = list(walk(sampler, D, x, levels, torch.zeros_like))
        torch.testing.assert_close(estimates[-1], sampler(prior, x, from_levels(EDM(), levels)))
        assert len(estimates) == 7
        per_step = sampler.calls(6) // 6
        for i, estimate in enumerate(estimates[:-1]):
            assert torch.equal(estimate, made[per_step * (i + 1) - 1])
        noisy = list(walk(sampler, D, x, levels, torch.zeros_like, clean=False))[-1]
        torch.testing.assert_close(prior(noisy, levels[-1]), estimates[-1])


def test_a_displacement_adds_up_and_asks_the_guide_once_a_step():
    """Under a denoiser that is constant the moves are all there is."""
    guided, times = [], (0.9, 0.5, 0.2)
    x = torch.ones((1, 1, 1, 2), dtype=F64)

    def guide(y, s):
        guided.append(s)
        return 0 * y, 0 * y + 0.1

    def denoise(y, s):
        return 0 * y

    schedule = VP()
    walked = list(
        walk_moving(named("heun"), guide, denoise, x, times, torch.zeros_like, schedule=schedule)
    )
    assert guided == pytest.approx([float(schedule.level(t)) for t in times])
    assert all(bool((E == 0.1).all()) for E in walked)
    assert len(walked) == 3
    y, D = step(DDIM(), lambda y, s: 0 * y, x, 2.0, 1.0, torch.zeros_like)
    torch.testing.assert_close(y, x / 2)  # eps = x / 2 at level 2, kept at level 1
    assert bool((D == 0).all())


# -- refusals --------------------------------------------------------------------------------------


def test_samplers_that_cannot_drive_a_solver_are_refused_with_one_that_can():
    cases = [
        (lambda: MMPS(sampler="dpm-solver-adaptive"), "in a number not known before"),
        (lambda: MMPS(sampler="rk45"), "in a number not known before"),
        (lambda: PiGDM(sampler="time-shift"), "by their variance"),
        (lambda: PiGDM(weighting="code", sampler="adams-2"), "remembers steps"),
        (lambda: DDNM(sampler="adams-2"), "remembers steps"),
        (lambda: FlowChef(sampler="adams-2"), "remembers steps"),
    ]
    for make, word in cases:
        with pytest.raises(ValueError, match=word) as info:
            make()
        message = str(info.value)
        assert "\n" not in message
        other = message.rstrip(".").rsplit("use ", 1)[1]
        assert other in MOVING
    with pytest.raises(ValueError, match=r"unknown sampler 'hoyn'.*heun"):
        MMPS(sampler="hoyn")
    # the same solvers without moves take memory
    assert PiGDM(sampler="adams-2").length == PiGDM().length
