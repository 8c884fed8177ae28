"""Samplers that choose their own steps, and DPM-Solver-12 and -23 among them.

Lu et al. 2022, arXiv:2206.00927, DPM-Solver-12 and DPM-Solver-23; the step is controlled as in
Jolicoeur-Martineau et al. 2021, arXiv:2105.14080.

    symbol             name here    meaning
    epsilon_atol       atol         absolute tolerance
    epsilon_rtol       rtol         relative tolerance
    theta              theta        caution: the step is that of error 1, times this
    h_init             h            first step in lam
    E                  miss         distance of two orders in tolerances, RMS over the image
    x_prev             before       last solution of the lower order, whose size rtol refers to

A step is kept when `E <= 1`; kept or not, the next is `theta h E^(-1/k)`. Errors are measured in
`x / sqrt(alpha^2 + sigma^2)`, the variables of VP, so that every schedule takes the same steps.

Images walk one by one, each with steps of its own. The authors take the largest error of the batch;
then what an image becomes depends on its neighbours. The price is a batch of one.

Only the ends of the grid steer the walk; images at points between are read off the step that passes
them. Cost: k calls an attempt; how many is not known before.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.samplers.dpm_solver import step
from restore.samplers.grid import Point, at_lam
from restore.samplers.sampler import Path, Sampler

SHORTEST = 1e-8  # step in lam at which a denoiser is given up as not smooth


@dataclass(frozen=True, kw_only=True)
class Adaptive(Sampler):
    """Base of samplers that choose their own steps: image by image, at an unknown cost."""

    def alone(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Walk with one image `(1, C, *spatial)`; yield it at each later point of the grid."""
        raise NotImplementedError

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Walk with each image by itself."""
        walks = [list(self.alone(path, one)) for one in x.split(1)]
        for states in zip(*walks, strict=True):
            yield torch.cat(states)

    def calls(self, steps: int) -> int:
        """Refuse: the calls follow from the images.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"sampler '{self.name}' chooses its own steps, and its calls are not known before it "
            "has run; give it tolerances, or choose a sampler of known cost."
        )


@dataclass(frozen=True, kw_only=True)
class DPMSolverAdaptive(Adaptive):
    """DPM-Solver-12 or -23; see the module's docstring.

    Args:
        k: the higher order, 2 or 3, and the calls an attempt.
        atol: absolute tolerance, in units of `x / sqrt(alpha^2 + sigma^2)`. The paper's is two grey
            levels of 256 in images over [-1, 1].
        rtol: relative tolerance.
        theta: in (0, 1).
        h: first step in `lam`.
    """

    name: ClassVar[str] = "dpm-solver-adaptive"
    paper: ClassVar[str] = "Lu et al. 2022, DPM-Solver-12 and -23"
    order: ClassVar[str] = "by tolerance"

    k: int = 3
    atol: float = 0.0078
    rtol: float = 0.05
    theta: float = 0.9
    h: float = 0.05

    def __post_init__(self) -> None:
        if self.k not in (2, 3) or not (self.atol > 0 and self.rtol >= 0 and self.h > 0):
            raise ValueError(
                "dpm-solver-adaptive needs k = 2 or 3, atol > 0, rtol >= 0 and h > 0, found "
                f"k={self.k}, atol={self.atol}, rtol={self.rtol}, h={self.h}; correct these."
            )
        if not 0 < self.theta < 1:
            raise ValueError(
                f"dpm-solver-adaptive needs 0 < theta < 1, found {self.theta}; try 0.9."
            )

    def alone(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Try a step with two orders; keep it when they agree.

        Raises:
            ValueError: when no step is short enough.
        """
        at, *ahead = path.grid.points
        last, h = ahead[-1], self.h
        before = x / _size(at)
        while ahead:
            far = at.lam + h < last.lam
            end = at_lam(path.grid.schedule, at.lam + h) if far else last
            tried = step(path, x, at, end, self.k)
            low, high = tried.lower(end) / _size(end), tried.to(end) / _size(end)

            # distance of the two orders in tolerances
            size = torch.maximum(low.abs(), before.abs())
            miss = float(((high - low) / (self.rtol * size).clamp_min(self.atol)).square().mean())
            miss = math.sqrt(miss)

            h = self.theta * tried.h * max(miss, 1e-12) ** (-1 / self.k)
            if miss <= 1:
                passed = [p for p in ahead if p.lam < end.lam] if far else ahead
                for point in passed:
                    yield tried.to(point)
                ahead = ahead[len(passed) :]
                x, at, before = tried.to(end), end, low
            elif not h > SHORTEST:
                raise ValueError(
                    f"'{self.name}' found no step short enough at noise level {at.level:.3g}; the "
                    "denoiser there is not finite or not smooth, or the tolerances are too small."
                )


def _size(at: Point) -> float:
    return math.hypot(at.alpha, at.sigma)
