"""Time-Shift: the variance it restores, in closed form."""

import math

import numpy as np
import pytest
import torch
from flows import lam_grid, time_grid

from priors.schedules import VE, VP
from restore.samplers.ddim import DDIM
from restore.samplers.grid import Grid
from restore.samplers.sampler import Path
from restore.samplers.time_shift import RULES, TimeShift

F64 = torch.float64


def plain(c: float):
    return lambda y, s: y * c**2 / (c**2 + s**2)


def start(grid: Grid, c: float, count: int = 1) -> torch.Tensor:
    """Images of `count` pixels whose variance is exactly that of the marginal."""
    x = torch.linspace(-1, 1, 64, dtype=F64)
    x = x / x.std() * math.hypot(grid[0].alpha * c, grid[0].sigma)
    return x.reshape(1, 1, 8, 8).expand(count, 1, 8, 8).clone()


def ratio(sampler, grid: Grid, c: float) -> float:
    """Standard deviation that is left at the last point, relative to the marginal's."""
    out = sampler(plain(c), start(grid, c), grid, clean=False)
    return float(out.std()) / math.hypot(grid[-1].alpha * c, grid[-1].sigma)


def recursion(grid: Grid, c: float, window: int, rule: str | None, cutoff: int = 0) -> float:
    """Follow the standard deviation alone, with times searched exhaustively."""
    schedule, times = grid.schedule, np.array(grid.times)
    span = times[0] - times[-1]
    std = math.hypot(grid[0].alpha * c, grid[0].sigma)
    for t, s in zip(grid.points, grid.points[1:], strict=False):
        asked = t.t
        if rule and t.t > times[-1] + cutoff * span / 1000:
            near = t.t + np.arange(-window, window + 1) * span / 1000
            near = np.clip(near, times[-1], times[0])
            a, b = schedule.alpha(torch.tensor(near)), schedule.sigma(torch.tensor(near))
            expected = b**2 + (a * c) ** 2 * (rule == "marginal")
            asked = float(near[int((expected - std**2).abs().argmin())])
        a, b = float(schedule.alpha(asked)), float(schedule.sigma(asked))
        eps = b / ((a * c) ** 2 + b**2)
        std *= abs(s.alpha * (1 - t.sigma * eps) / t.alpha + s.sigma * eps)
    return std / math.hypot(grid[-1].alpha * c, grid[-1].sigma)


@pytest.mark.parametrize("rule", ["marginal", "noise"])
@pytest.mark.parametrize("schedule", [VP(), VE(1e-3, 200.0)], ids=["VP", "VE"])
@pytest.mark.parametrize(("window", "cutoff"), [(5, 0), (30, 300), (50, 0)])
def test_standard_deviations_follow_the_recursion(rule, schedule, window, cutoff):
    grid = time_grid(10, schedule)
    sampler = TimeShift(window=window, cutoff=cutoff, rule=rule, std=0.5)
    known = recursion(grid, 0.5, window, rule, cutoff)
    assert ratio(sampler, grid, 0.5) == pytest.approx(known, rel=1e-9)


def test_variances_are_those_of_the_docstring():
    grid = time_grid(10)
    for cutoff, known in ((0, (0.803, 0.837, 0.797)), (100, (0.803, 0.795, 0.821))):
        marginal, noise = (TimeShift(rule=r, std=0.5, cutoff=cutoff, window=30) for r in RULES)
        found = [ratio(sampler, grid, 0.5) for sampler in (DDIM(), marginal, noise)]
        assert found == pytest.approx(list(known), abs=6e-4)


def test_variance_tells_nothing_about_unit_data_under_vp():
    grid = time_grid(10)
    x = start(grid, 1.0)
    shifted = TimeShift(window=50, cutoff=0, std=1.0)(plain(1.0), x, grid)
    # variance falls below 1, which every time expects alike: only rounding could move it
    assert ratio(DDIM(), grid, 1.0) == pytest.approx(0.8536, abs=1e-4)
    assert torch.equal(shifted, DDIM()(plain(1.0), x, grid))


def test_a_window_of_nothing_or_a_cutoff_of_all_is_the_plain_sampler():
    grid = lam_grid(8)
    x = start(grid, 0.5)
    for sampler in (TimeShift(window=0), TimeShift(cutoff=1000)):
        assert torch.equal(sampler(plain(0.5), x, grid), DDIM()(plain(0.5), x, grid))


def test_images_do_not_influence_each_other():
    grid = lam_grid(8)
    scale = torch.tensor([0.6, 1.0, 1.3], dtype=F64).reshape(3, 1, 1, 1)
    x = start(grid, 0.5, 3) * scale
    sampler = TimeShift(window=30, cutoff=0, std=0.5)
    path = Path(plain(0.5), grid)
    for together in sampler.steps(path, x):
        assert together.shape == x.shape
    assert path.calls == 8  # of every image, though not all at once
    together = sampler(plain(0.5), x, grid)
    alone = torch.cat([sampler(plain(0.5), one[None], grid) for one in x])
    assert float((together - alone).abs().max()) < 1e-12
    # and they did move to different times
    assert float((together / scale - together[:1] / scale[:1]).abs().max()) > 1e-3


def test_bad_constants_are_refused():
    with pytest.raises(ValueError, match="did you mean 'marginal'"):
        TimeShift(rule="marginl")
    with pytest.raises(ValueError, match="window >= 0"):
        TimeShift(window=-1)
