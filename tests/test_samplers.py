"""Samplers as a whole: grids, schedule invariance, the call."""

import math

import pytest
import torch
from flows import error, exact, lam_grid, levels, mixture, slope, start, time_grid

from priors.schedules import DDPM, EDM, VE, VP, RectifiedFlow, SubVP
from restore.samplers import available, named
from restore.samplers import grid as grids
from restore.samplers.adaptive import Adaptive
from restore.samplers.ddim import DDIM
from restore.samplers.grid import Grid

SCHEDULES = [VP(), SubVP(), VE(1e-3, 200.0), EDM(), RectifiedFlow()]

NOT_IN_LAM = (
    "bdia",  # mixes x, not x / alpha, of two points
    *("deis-1", "deis-2", "deis-3"),  # polynomials in the schedule's own time
    "time-shift",  # moves in the schedule's own time
)


@pytest.mark.parametrize(
    "name", [n for n, s in available().items() if not s.random and n not in NOT_IN_LAM]
)
@pytest.mark.parametrize("schedule", SCHEDULES[1:], ids=lambda s: type(s).__name__)
def test_the_same_lam_give_the_same_images_under_every_schedule(name, schedule):
    sampler = named(name)
    prior, ends = mixture(rotated=True), []
    for one in (VP(), schedule):
        grid = grids.from_levels(one, levels(16, noisy=-3.0))
        x = start(prior, grid)
        ends.append(sampler(prior, x, grid, clean=False) / grid[-1].alpha)
    assert float((ends[0] - ends[1]).abs().max()) < 1e-9


def test_ddim_has_order_one():
    assert slope(DDIM(), lam_grid, (64, 128, 256)) == pytest.approx(1, abs=0.1)
    assert slope(DDIM(), time_grid, (64, 128, 256)) == pytest.approx(1, abs=0.1)


def test_ddim_shrinks_unit_variance_by_the_known_factor():
    # on even angles arctan(sigma / alpha) from pi/2 to 0, N steps leave cos(pi / 2N)^N
    for n, value in ((5, 0.778093), (10, 0.883485), (50, 0.975624)):
        ends = (math.pi / 2 - 1e-9, 1e-9)
        grid = grids.from_levels(
            EDM(), torch.tan(torch.linspace(*ends, n + 1, dtype=torch.float64))
        )
        x = torch.full((1, 1, 1, 1), grid[0].level, dtype=torch.float64)  # std 1 at alpha = 0
        out = DDIM()(lambda y, s: y / (1 + s**2), x, grid, clean=False)
        assert float(out) == pytest.approx(value, abs=1e-5)


def test_flow_of_the_rotated_mixture_is_a_rotated_flow():
    grid = lam_grid(4)
    prior = mixture(rotated=True)
    x = start(prior, grid)
    there = exact(prior, x, grid)
    back = prior.flow(there / grid[-1].alpha, grid[-1].level, grid[0].level) * grid[0].alpha
    assert float((back - x).abs().max()) < 1e-8
    assert error(DDIM(), lam_grid(512), prior) < 0.02


def test_bad_grids_are_refused_in_one_sentence():
    for call in (
        lambda: Grid(VP(), (0.5,)),
        lambda: Grid(VP(), (0.5, 0.6)),
        lambda: Grid(VP(), (0.5, 0.0)),
        lambda: Grid(RectifiedFlow(), (1.0, 0.5)),
    ):
        with pytest.raises(ValueError, match="strictly falling"):
            call()
    with pytest.raises(ValueError, match="did you mean 'edm'"):
        grids.build("edn", EDM(), 4, 10.0, 0.1)
    with pytest.raises(ValueError, match="levels"):
        grids.build("lambda", DDPM(), 4, 200.0, 0.1)


def test_a_budget_counts_the_final_denoising():
    prior = mixture()
    for sampler in available().values():
        if isinstance(sampler, Adaptive):  # its calls are not known before
            continue
        for budget in range(sampler.calls(1) + 1, 15):
            steps = sampler.steps_within(budget)
            assert sampler.calls(steps) + 1 <= budget < sampler.calls(steps + 1) + 1
            count = 0

            def counted(y, s):
                nonlocal count
                count += 1
                return prior(y, s)

            grid = lam_grid(steps)
            sampler(counted, start(prior, grid), grid, noise=torch.zeros_like)
            assert count == sampler.calls(steps) + 1
