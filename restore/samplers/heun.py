"""Heun's rule in the noise level: the sampler of EDM, deterministic and with churn.

Karras, Aittala, Aila, Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*,
NeurIPS 2022, arXiv:2206.00364: algorithm 1 with `sigma(t) = t`, and algorithm 2.

    symbol                name here           meaning
    d_i, d_i'             eps                 slope (y - D) / s of the flow at either end of a step
    S_churn               churn               noise added over all steps, in levels
    S_tmin, S_tmax        lowest, highest     levels between which it is added
    S_noise               inflation           factor on its standard deviation
    gamma_i               gamma               rise of the level, min(S_churn / N, sqrt(2) - 1)
    t_hat                 up                  the raised level, (1 + gamma) s
    N                     -                   steps of the paper: ours, and the final denoising

The slope of `y = x / alpha` in the level `s = sigma / alpha` is the expected noise, on every
schedule; steps are the trapezoidal rule for it. The paper's N-th step, an Euler step to level 0,
is the final denoising, so that N levels cost 2N - 1 calls.

Order 2; exact in one step for a point mass. Churn adds noise up to the raised level and lets the
flow take it away again: with `inflation` 1 the law of `x_t` stays what it is. A schedule's highest
level bounds how far up it goes. The final denoising has no churn.

Cost: two calls a step.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from restore.samplers.grid import Point, at_lam
from restore.samplers.sampler import Path, Sampler, transfer

STEEPEST = math.sqrt(2) - 1  # a step adds at most as much noise as there is


@dataclass(frozen=True, kw_only=True)
class Heun(Sampler):
    """Heun's rule; see the module's docstring."""

    name: ClassVar[str] = "heun"
    paper: ClassVar[str] = "Karras et al. 2022, EDM, algorithm 1"
    order: ClassVar[str] = "2"

    def calls(self, steps: int) -> int:
        """Two calls a step."""
        return 2 * steps

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Step from point to point."""
        for t, s in pairwise(path.grid.points):
            x = heun(path, x, t, s)
            yield x


@dataclass(frozen=True, kw_only=True)
class EDMStochastic(Heun):
    """Heun's rule with churn, at the constants of the paper's ImageNet-64 (table 5).

    Args:
        churn: of all steps together, >= 0.
        lowest: level below which none is added, in units of the images. The paper's levels are for
            images over [-1, 1], these are half of them, for images over [0, 1].
        highest: level above which none is added.
        inflation: factor on the std of the noise added, above 1 against a network that takes away
            too much.
    """

    name: ClassVar[str] = "edm-stochastic"
    paper: ClassVar[str] = "Karras et al. 2022, EDM, algorithm 2"
    random: ClassVar[bool] = True

    churn: float = 40.0
    lowest: float = 0.025
    highest: float = 25.0
    inflation: float = 1.003

    def __post_init__(self) -> None:
        if not (self.churn >= 0 and 0 <= self.lowest <= self.highest and self.inflation >= 0):
            raise ValueError(
                "edm-stochastic needs churn >= 0, 0 <= lowest <= highest and inflation >= 0, found "
                f"churn={self.churn}, lowest={self.lowest}, highest={self.highest}, "
                f"inflation={self.inflation}; correct these."
            )

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Raise the noise, then step down from there."""
        gamma = min(self.churn / (path.grid.steps + 1), STEEPEST)
        top = path.grid.schedule.level_range[1]
        for t, s in pairwise(path.grid.points):
            level = min((1 + gamma) * t.level, top)
            if self.lowest <= t.level <= self.highest and level > t.level:
                up = at_lam(path.grid.schedule, -math.log(level))
                added = math.sqrt(up.level**2 - t.level**2)
                x = up.alpha * (x / t.alpha + self.inflation * added * path.noise(x))
            else:
                up = t
            x = heun(path, x, up, s)
            yield x


def heun(path: Path, x: Tensor, start: Point, end: Point) -> Tensor:
    """Take one step along the mean of the noises at its ends; two calls."""
    eps = path.eps(x, start)
    there = path.eps(transfer(x, start, end, eps), end)
    return transfer(x, start, end, (eps + there) / 2)
