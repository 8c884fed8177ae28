"""PNDM: the classical Adams-Bashforth weights on the noise.

Liu, Ren, Lin, Zhao, *Pseudo Numerical Methods for Diffusion Models on Manifolds*, ICLR 2022,
arXiv:2202.09778, sections 3.2 and 3.3. Every step moves `x` along a noise `e`, with

    linear multistep    e = (55 e_n - 59 e_{n-1} + 37 e_{n-2} - 9 e_{n-3}) / 24
    Runge-Kutta         e = (e1 + 2 e2 + 2 e3 + e4) / 6, e2 and e3 half-way, e4 at the end
    improved Euler      e = (e1 + e2) / 2, e2 at the end

    method                            k    start
    F-PNDM, algorithm 2               4    "rk": three Runge-Kutta steps
    S-PNDM, appendix                  2    "plms": one improved Euler step
    PLMS of latent diffusion          4    "plms", then weights of order 2, 3 and 4

The weights are right for even steps of the level `s = sigma / alpha` only. There F-PNDM has order
4, if the point half-way is half-way in `s`; the paper's is half-way in `t` (`middle`), which costs
its first steps an order, as "plms" does. On other grids the order is 2, as the paper claims.

Exact in one step for a point mass. Cost: one call a step; three more in each of the first three
steps for "rk", one more in all for "plms".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import log
from typing import ClassVar, Literal

from torch import Tensor

from operators.validate import one_of, whole
from restore.samplers.grid import Grid, Point, at_lam
from restore.samplers.sampler import Path, Sampler, transfer

ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Weights of the latest slopes, newest first, over one even step."""


@dataclass(frozen=True, kw_only=True)
class PNDM(Sampler):
    """PNDM; see the module's docstring.

    Args:
        k: noises that a step combines, 1 to 4.
        start: "rk" or "plms".
        middle: where a Runge-Kutta step evaluates half-way, in "level" or "t".
    """

    paper: ClassVar[str] = "Liu et al. 2022, PNDM"
    memory: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("pndm", "plms")

    k: int = 4
    start: Literal["rk", "plms"] = "rk"
    middle: Literal["level", "t"] = "level"

    def __post_init__(self) -> None:
        whole("k", self.k, low=1, high=4, do="choose within")
        one_of("start", self.start, ("rk", "plms"))
        one_of("middle", self.middle, ("level", "t"))

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return "pndm" if self.start == "rk" else "plms"

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of convergence."""
        best = self.start == "rk" and self.middle == "level"
        even = self.k if best else min(self.k, 3)
        return f"{even}" if even < 3 else f"2, {even} on grids even in level"

    def calls(self, steps: int) -> int:
        """One a step, and those of the start."""
        if self.k == 1:
            return steps
        return steps + (3 * min(self.k - 1, steps) if self.start == "rk" else 1)

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Find the noise of the step, move along it."""
        past: list[Tensor] = []
        for i, (t, s) in enumerate(pairwise(path.grid.points)):
            past = [path.eps(x, t), *past][: self.k]
            if len(past) < self.k and self.start == "rk":
                e = self._runge_kutta(path, x, t, s, past[0])
            elif i == 0 and self.k > 1:
                e = (past[0] + path.eps(transfer(x, t, s, past[0]), s)) / 2
            else:
                weights = ADAMS_BASHFORTH[len(past)]
                e = sum((w * p for w, p in zip(weights, past, strict=True)), 0 * x)
            x = transfer(x, t, s, e)
            yield x

    def _runge_kutta(self, path: Path, x: Tensor, t: Point, s: Point, e1: Tensor) -> Tensor:
        middle = self._between(path.grid, t, s)
        e2 = path.eps(transfer(x, t, middle, e1), middle)
        e3 = path.eps(transfer(x, t, middle, e2), middle)
        e4 = path.eps(transfer(x, t, s, e3), s)
        return (e1 + 2 * e2 + 2 * e3 + e4) / 6

    def _between(self, grid: Grid, t: Point, s: Point) -> Point:
        if self.middle == "level":
            return at_lam(grid.schedule, -log((t.level + s.level) / 2))
        half, schedule = (t.t + s.t) / 2, grid.schedule
        return Point(half, float(schedule.alpha(half)), float(schedule.sigma(half)))
