"""DPM-Solver: exponential integrators of the expected noise, each step on its own.

Lu, Zhou, Bao, Chen, Li, Zhu, *DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model
Sampling in Around 10 Steps*, NeurIPS 2022, arXiv:2206.00927: DPM-Solver-2 and 3 (algorithms 1 and
2) and DPM-Solver-fast. The flow is, with `h` the length of a step in `lam`,

    x' = (alpha' / alpha) x - sigma' h int_0^1 e^{(1-u) h} eps(u h) du

    symbol      name here    meaning
    k           k            calls a step, and the order
    r_1, r_2    -            places of the inner calls in lam: 1/2 for k = 2; 1/3, 2/3 for k = 3
    D_1, D_2    slope        change of the noise between two calls

k = 1 is DDIM. k = 2 moves along the noise in the middle, k = 3 along the line through the noises at
0 and 2/3; the latter place is what order 3 rests on. All are exact in one step for a point mass.
With noise that is a polynomial in `lam`, k = 2 is exact in degree 0 and k = 3 in degree 1.

No memory: images may be edited between steps, and the starting error of multistep methods is
avoided. Errors in the noise grow by `e^h` over a step, hence strong guidance is better served by
DPM-Solver++.

Cost: k calls a step; "fast" one for every interval of its grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from restore.samplers.grid import Point, at_lam
from restore.samplers.phi import phi
from restore.samplers.sampler import Path, Sampler, transfer


@dataclass(frozen=True)
class Step:
    """The calls of one step, and where they lead.

    Attributes:
        x: state at the start.
        start: its point.
        h: length in `lam`.
        eps: noise at the start, then at the inner places.
    """

    x: Tensor
    start: Point
    h: float
    eps: tuple[Tensor, ...]

    def to(self, point: Point) -> Tensor:
        """Carry `x` to the end of the step, or read off a point on the way."""
        if len(self.eps) == 3:
            slope = (self.eps[2] - self.eps[0]) / (2 / 3 * self.h)
            return curved(self.x, self.start, point, self.eps[0], slope)
        return transfer(self.x, self.start, point, self.eps[-1])

    def lower(self, point: Point) -> Tensor:
        """Carry `x` with the solver of one order less, of the same calls; two calls or three."""
        eps = self.eps[0]
        if len(self.eps) == 3:  # DPM-Solver-2 with r_1 = 1/3
            eps = eps + 3 / 2 * (self.eps[1] - eps)
        return transfer(self.x, self.start, point, eps)


def curved(x: Tensor, start: Point, end: Point, eps: Tensor, slope: Tensor) -> Tensor:
    """Carry `x` exactly along a noise that is `eps` at the start and has a slope in `lam`."""
    h = end.lam - start.lam
    return transfer(x, start, end, eps) - end.sigma * h**2 * phi(2, h) * slope


def step(path: Path, x: Tensor, start: Point, end: Point, k: int) -> Step:
    """Make the `k` calls of one step, k = 1, 2 or 3."""
    h = end.lam - start.lam
    eps = path.eps(x, start)
    if k == 1:
        return Step(x, start, h, (eps,))

    inner = at_lam(path.grid.schedule, start.lam + h / k)
    first = path.eps(transfer(x, start, inner, eps), inner)
    if k == 2:
        return Step(x, start, h, (eps, first))

    later = at_lam(path.grid.schedule, start.lam + 2 * h / 3)
    u = curved(x, start, later, eps, (first - eps) / (h / 3))
    return Step(x, start, h, (eps, first, path.eps(u, later)))


@dataclass(frozen=True, kw_only=True)
class DPMSolver(Sampler):
    """DPM-Solver-k on every interval of a grid; see the module's docstring.

    Args:
        k: calls a step and order, 1, 2 or 3.
    """

    paper: ClassVar[str] = "Lu et al. 2022, DPM-Solver, algorithms 1 and 2"
    variants: ClassVar[tuple[str, ...]] = ("dpm-solver-2", "dpm-solver-3")

    k: int = 3

    def __post_init__(self) -> None:
        if self.k not in (1, 2, 3):
            raise ValueError(f"dpm-solver has k = 1, 2 and 3, found {self.k}; choose one.")

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return f"dpm-solver-{self.k}"

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of convergence."""
        return f"{self.k}"

    def calls(self, steps: int) -> int:
        """Calls of `steps` steps."""
        return self.k * steps

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Step from point to point."""
        for t, s in pairwise(path.grid.points):
            x = step(path, x, t, s, self.k).to(s)
            yield x


@dataclass(frozen=True, kw_only=True)
class DPMSolverFast(Sampler):
    """DPM-Solver-fast: as many steps of order 3 as a budget holds, then 2 and 1 for the rest.

    A step of order k takes k intervals of the grid, so that any number of calls is spent to the
    last. So does the authors' code, except on grids even in `lam`, where it makes all steps equally
    long whatever their order. Inner calls stay at thirds of a step in `lam`, for which the authors'
    code takes the grid's own points: here order 3 holds on every grid. States at points that a step
    passes over are read off its polynomial.

    A last step of order 1 leaves an error of its own, of order 2, however fine the grid: order 3 is
    had with two more calls than a multiple of three.
    """

    name: ClassVar[str] = "dpm-solver-fast"
    paper: ClassVar[str] = "Lu et al. 2022, DPM-Solver-fast"
    order: ClassVar[str] = "3 or 2, by the last step"

    @staticmethod
    def orders(calls: int) -> tuple[int, ...]:
        """Orders of the steps that spend `calls` calls: 3, 3, ..., and 2, 1 or both at the end."""
        threes, rest = divmod(calls, 3)
        if rest:
            return (*[3] * threes, rest)
        return (*[3] * (threes - 1), 2, 1)

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Step over k intervals at a time."""
        i, points = 0, path.grid.points
        for k in self.orders(path.grid.steps):
            passed = points[i + 1 : i + k + 1]
            taken = step(path, x, points[i], passed[-1], k)
            for point in passed:
                x = taken.to(point)
                yield x
            i += k
