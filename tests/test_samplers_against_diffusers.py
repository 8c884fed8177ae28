"""Our samplers beside other libraries' on one denoiser, one grid and one noise, step by step.

diffusers computes coefficients in float32 from tables in float32: agreement is to that precision.
"""

from types import SimpleNamespace

import pytest
import torch
from flows import mixture

from priors.schedules import VP, Discrete
from restore.samplers.adams import Adams
from restore.samplers.ddim import DDIM
from restore.samplers.deis import DEIS
from restore.samplers.dpm_solver_pp import DPMSolverPPM, SDEDPMSolverPP
from restore.samplers.grid import Grid
from restore.samplers.phi import phi
from restore.samplers.pndm import PNDM
from restore.samplers.sampler import Path

diffusers = pytest.importorskip("diffusers")

STEPS = 12


def table(scheduler):
    """The schedule of a diffusers scheduler."""
    return Discrete(tuple(scheduler.alphas_cumprod.double().tolist()))


def first(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, 3, 11, dtype=torch.float64, generator=generator)


def noises(count):
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randn(1, 1, 3, 11, dtype=torch.float64, generator=generator) for _ in range(count)
    ]


def theirs(scheduler, keyword="", steps=STEPS, **options):
    """All states of a diffusers scheduler that predicts noise, and the timesteps it asks for."""
    prior, schedule = mixture(), table(scheduler)
    scheduler.set_timesteps(steps)
    x, states, z = first(), [], noises(len(scheduler.timesteps))
    for t, fresh in zip(scheduler.timesteps, z, strict=True):
        alpha, sigma = float(schedule.alpha(int(t))), float(schedule.sigma(int(t)))
        x = x.double()
        eps = (x - alpha * prior(x / alpha, sigma / alpha)) / sigma
        given = {keyword: fresh} if keyword else {}
        x = scheduler.step(eps, t, x, **given, **options).prev_sample
        states.append(x.double())
    return states, scheduler.timesteps.tolist()


def ours(sampler, schedule, timesteps):
    """All states on a grid of these timesteps, then the clean image."""
    grid = Grid(schedule, tuple(map(float, timesteps)))
    fresh = iter(noises(grid.steps))
    path = Path(mixture(), grid, lambda like: next(fresh))
    states = list(sampler.steps(path, first()))
    return [*states, path.D(states[-1], grid[-1])]


def apart(a, b):
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("spacing", "steps"), [("leading", 12), ("trailing", 10)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim(spacing, steps, eta):
    # elsewhere diffusers steps to t - 1000 // steps, which is not the next time that it asks for
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing=spacing)
    states, times = theirs(scheduler, "variance_noise" if eta else "", steps=steps, eta=eta)
    assert apart(states, ours(DDIM(eta=eta), table(scheduler), times)) < 1e-5


@pytest.mark.parametrize("steps", [12, 20])
def test_dpm_solver_pp_2m(steps):
    # their last step to no noise is one of order 1: our final denoising
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=2)
    states, times = theirs(scheduler, steps=steps)
    assert apart(states, ours(DPMSolverPPM(k=2), table(scheduler), times)) < 1e-5


@pytest.mark.parametrize("k", [1, 2])
def test_sde_dpm_solver_pp(k):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        solver_order=k, algorithm_type="sde-dpmsolver++"
    )
    states, times = theirs(scheduler, "variance_noise")
    assert apart(states, ours(SDEDPMSolverPP(k=k), table(scheduler), times)) < 1e-5


def test_dpm_solver_pp_3m_differs_by_half_of_its_third_term():
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3)
    states, times = theirs(scheduler, steps=20)  # from 15 on no other order comes in at the end
    schedule, prior = table(scheduler), mixture()
    grid = Grid(schedule, tuple(map(float, times)))
    for i in range(2, grid.steps):
        # our step from their three states
        h, r0, r1 = grid.h(i), grid.h(i - 1) / grid.h(i), grid.h(i - 2) / grid.h(i)
        points, x = (
            grid.points[i - 2 : i + 2],
            states[i - 3 : i] if i > 2 else [first(), *states[:2]],
        )
        D = [prior(y / p.alpha, p.level) for y, p in zip(x, points[:3], strict=True)]
        near, far = (D[2] - D[1]) / r0, (D[1] - D[0]) / r1
        bend = (near - far) / (r0 + r1)
        slope = near + r0 * bend
        whole = phi(1, -h) * D[2] + phi(2, -h) * slope + 2 * phi(3, -h) * bend
        start, end = points[2], points[3]
        full = end.sigma / start.sigma * x[2] + end.alpha * h * whole
        half = full - end.alpha * h * phi(3, -h) * bend
        assert float((states[i] - half).abs().max()) < 1e-5


def test_pndm():
    # the last step is left out: theirs extrapolates noise to the clean image, ours denoises
    scheduler = diffusers.PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=True)
    states, times = theirs(scheduler, steps=10)
    grid = sorted(set(times), reverse=True)
    mine = ours(PNDM(start="plms"), table(scheduler), grid)
    assert apart(states[1:-1], mine[:-1]) < 1e-5

    scheduler = diffusers.PNDMScheduler(skip_prk_steps=False, set_alpha_to_one=True)
    states, times = theirs(scheduler, steps=10)
    mine = ours(PNDM(middle="t"), table(scheduler), grid)
    assert apart([*states[3:12:4], *states[12:-1]], mine[:-1]) < 1e-5


@pytest.mark.parametrize("k", [1, 2, 3])
def test_deis_of_diffusers_is_ours_in_lam(k):
    # "logrho": polynomials in log s = -lam, where the paper's tAB has them in t; theirs ends at the
    # level of its first timestep rather than at the clean image
    scheduler = diffusers.DEISMultistepScheduler(solver_order=k)
    states, times = theirs(scheduler, steps=20)
    for same in (DEIS(degree=k - 1, variable="lam"), Adams(k=k, prediction="noise")):
        assert apart(states[:-1], ours(same, table(scheduler), times)[:-1]) < 1e-4


@pytest.mark.parametrize("k", [1, 2, 3])
def test_adams_samplers_of_azula_are_ours(k):
    azula = pytest.importorskip("azula.sample")
    schedule, prior = VP(), mixture()

    class Theirs(torch.nn.Module):
        def schedule(self, t):
            return schedule.alpha(t), schedule.sigma(t)

        def forward(self, x, t):
            alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
            return SimpleNamespace(mean=prior(x / alpha, sigma / alpha))

    options = {"start": 0.9, "stop": 0.02, "steps": 8, "silent": True, "dtype": torch.float64}
    grid = Grid(schedule, tuple(torch.linspace(0.9, 0.02, 9, dtype=torch.float64).tolist()))
    for name, same in (
        ("xEABSampler", Adams(k=k)),
        ("zEABSampler", Adams(k=k, prediction="noise")),
        ("zABSampler", DEIS(degree=k - 1, variable="level")),
    ):
        there = getattr(azula, name)(Theirs(), order=k, **options)(first())
        assert float((there - same(prior, first(), grid, clean=False)).abs().max()) < 1e-9
