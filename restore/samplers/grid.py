"""The noise levels that a sampler visits: points of a schedule, from noise to image.

A point is `x_t = alpha x_0 + sigma eps`, known by its half log-SNR `lam = log(alpha / sigma)` or by
its level `s = sigma / alpha`, the noise of `x_t / alpha`. Integrators of the probability-flow ODE
depend on the `lam` of their points alone: the same `lam` give the same `x_t / alpha_t` under VP, VE
and rectified flow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from operators.words import nearest
from priors.schedules import Schedule, edm_levels, log_levels


@dataclass(frozen=True)
class Point:
    """One noise level: `x_t = alpha x_0 + sigma eps` at time `t`; `alpha` and `sigma` positive."""

    t: float
    alpha: float
    sigma: float

    @property
    def level(self) -> float:
        """Noise `sigma / alpha` of `x_t / alpha`, in units of the images."""
        return self.sigma / self.alpha

    @property
    def lam(self) -> float:
        """Half log-SNR `log(alpha / sigma)`."""
        return -math.log(self.level)


@dataclass(frozen=True)
class Grid:
    """Points of falling noise on a schedule: n steps are n + 1 points.

    Args:
        schedule: gives `alpha` and `sigma`.
        times: at least two times of strictly falling noise, all of it positive. The clean image is
            not a point: samplers end with one denoising at the last.
        rising: whether the noise rises instead, from image to noise; see `reversed`.

    Raises:
        ValueError: fewer than two times, or noise that does not fall or is not positive and finite.
    """

    schedule: Schedule
    times: tuple[float, ...]
    rising: bool = False

    def __post_init__(self) -> None:
        times = self.times[::-1] if self.rising else self.times
        levels = [float(self.schedule.level(t)) for t in times]
        falling = all(b < a for a, b in pairwise(levels))
        if len(levels) < 2 or not falling or not levels[-1] > 0 or not math.isfinite(levels[0]):
            raise ValueError(
                "a grid needs two or more times of strictly falling, positive, finite noise, found "
                f"levels {', '.join(f'{s:.4g}' for s in levels[:6])}; start where alpha > 0 and "
                "stop before the noise is zero."
            )

    @property
    def steps(self) -> int:
        """Number of steps, one less than points."""
        return len(self.times) - 1

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """All points, noisiest first."""
        return tuple(
            Point(t, float(self.schedule.alpha(t)), float(self.schedule.sigma(t)))
            for t in self.times
        )

    def __getitem__(self, i: int) -> Point:
        """Return point `i`; -1 is the last."""
        return self.points[i]

    def h(self, i: int) -> float:
        """Step in `lam` from point `i` to `i + 1`, positive; negative where the noise rises."""
        return self[i + 1].lam - self[i].lam

    def between(self, i: int, r: float) -> Point:
        """Point a fraction `r` in `lam` of the way from point `i` to `i + 1`."""
        return at_lam(self.schedule, self[i].lam + r * self.h(i))

    def reversed(self) -> "Grid":
        """The same points the other way round."""
        return Grid(self.schedule, self.times[::-1], not self.rising)


def at_lam(schedule: Schedule, lam: float) -> Point:
    """Return the point of a schedule with a given half log-SNR."""
    t = float(schedule.time(math.exp(-lam)))
    return Point(t, float(schedule.alpha(t)), float(schedule.sigma(t)))


def from_levels(schedule: Schedule, levels: Sequence[float] | Tensor) -> Grid:
    """Grid through given noise levels `sigma / alpha`, falling, in units of the images."""
    times = schedule.time(torch.as_tensor(levels, dtype=torch.float64))
    return Grid(schedule, tuple(times.tolist()))


def uniform_lambda(schedule: Schedule, steps: int, high: float, low: float) -> Grid:
    """Points evenly spaced in `lam`: levels in geometric progression from `high` to `low`."""
    return from_levels(schedule, log_levels(steps + 1, high, low))


def edm(schedule: Schedule, steps: int, high: float, low: float, rho: float = 7.0) -> Grid:
    """Levels evenly spaced in `s^(1 / rho)` (arXiv:2206.00364, equation 5)."""
    return from_levels(schedule, edm_levels(steps + 1, high, low, rho))


def uniform_time(
    schedule: Schedule, steps: int, high: float, low: float, power: float = 1.0
) -> Grid:
    """Times evenly spaced in `t^(1 / power)` between those of levels `high` and `low`."""
    first, last = (float(schedule.time(s)) ** (1 / power) for s in (high, low))
    times = torch.linspace(first, last, steps + 1, dtype=torch.float64) ** power
    return Grid(schedule, tuple(times.tolist()))


def quadratic_time(schedule: Schedule, steps: int, high: float, low: float) -> Grid:
    """Times evenly spaced in `sqrt(t)` (DDIM, arXiv:2010.02502, appendix D.2)."""
    return uniform_time(schedule, steps, high, low, power=2.0)


def uniform_level(schedule: Schedule, steps: int, high: float, low: float) -> Grid:
    """Levels evenly spaced: the only grid on which fixed Adams-Bashforth weights are right."""
    return edm(schedule, steps, high, low, rho=1.0)


GRIDS: dict[str, Callable[[Schedule, int, float, float], Grid]] = {
    "edm": edm,
    "lambda": uniform_lambda,
    "time": uniform_time,
    "quadratic": quadratic_time,
    "level": uniform_level,
}


def build(name: str, schedule: Schedule, steps: int, high: float, low: float) -> Grid:
    """Build a grid by name.

    Args:
        name: a word of `GRIDS`.
        schedule: gives `alpha` and `sigma`.
        steps: number of steps, one less than points.
        high: noise level of the first point, in units of the images.
        low: noise level of the last, positive.

    Raises:
        ValueError: unknown name, fewer than one step, or levels that the schedule does not reach.
    """
    if name not in GRIDS:
        raise ValueError(f"unknown grid '{name}'; {nearest(name, list(GRIDS))}")
    first, last = schedule.level_range
    slack = 1 + 1e-9
    if steps < 1 or not last * slack >= high > low >= first / slack or not low > 0:
        raise ValueError(
            f"a grid needs at least one step and levels {last:g} >= high > low >= {first:g}, low "
            f"above zero, found {steps} steps from {high:g} to {low:g}; correct these."
        )
    return GRIDS[name](schedule, steps, high, low)
