"""Runge-Kutta on the probability flow, in the frame where a Gaussian stands still.

Kutta 1901 (the classical rule); the change of variable is that of the preconditioned network of
Karras et al. 2022, arXiv:2206.00364, table 1, applied to the ODE.

    symbol       name here        meaning
    y            y                x / alpha, image plus noise of std s
    m, c         mean, variance   those of the images, any rough numbers
    r            radius           sqrt(c + s^2), std of y
    z            z                (y - m) / r
    G            -                denoiser of N(m, c I): m + c / r^2 (y - m)

The flow `dy/ds = (y - D) / s` is, with `tau = log s`,

    dz/dtau = (G - D) / r,

whose right side is how far the denoiser is from that of white images: bounded at every level, and
zero for them, which any step carries exactly. The solution does not depend on `m` and `c`.

Order 4 in uniform `tau`, without memory. Cost: four calls a step.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from torch import Tensor

from restore.samplers.grid import Point
from restore.samplers.sampler import Path, Sampler

State = tuple[Tensor, ...]
Velocity = Callable[[float, State], State]
"""Noise level and state -> derivative of the state in the log of the level."""


class Frame(NamedTuple):
    """Coordinates `z = (y - mean) / sqrt(variance + s^2)`; numbers or tensors like one image."""

    mean: float | Tensor = 0.5
    variance: float | Tensor = 1 / 12

    def radius(self, s: float) -> float | Tensor:
        """Return the std of `y` at level `s`."""
        return (self.variance + s**2) ** 0.5

    def enter(self, y: Tensor, s: float) -> Tensor:
        """Return `z` of `y` at level `s`."""
        return (y - self.mean) / self.radius(s)

    def leave(self, z: Tensor, s: float) -> Tensor:
        """Return `y` of `z` at level `s`."""
        return self.mean + self.radius(s) * z

    def gain(self, s: float) -> float | Tensor:
        """Return the derivative `c / (c + s^2)` of the Gaussian's denoiser."""
        return self.variance / (self.variance + s**2)

    def velocity(self, y: Tensor, D: Tensor, s: float) -> Tensor:
        """Return `dz / dtau`."""
        return (self.mean + self.gain(s) * (y - self.mean) - D) / self.radius(s)


class Tableau(NamedTuple):
    """An explicit Runge-Kutta rule: rows `a` of the stages after the first, weights `b`."""

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


HEUN = Tableau(((1.0,),), (1 / 2, 1 / 2))
CLASSICAL = Tableau(((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


def step(f: Velocity, state: State, start: float, end: float, tableau: Tableau) -> State:
    """Carry a state from noise level `start` to `end`, lower or higher, by one step."""
    h = math.log(end / start)

    def moved(row: tuple[float, ...]) -> State:
        return tuple(
            x + sum(h * w * k[j] for w, k in zip(row, slopes, strict=True) if w)
            for j, x in enumerate(state)
        )

    slopes = [f(start, state)]
    for row in tableau.a:
        level = end if sum(row) == 1 else start * math.exp(h * sum(row))
        slopes.append(f(level, moved(row)))
    return moved(tableau.b)


@dataclass(frozen=True, kw_only=True)
class RungeKutta(Sampler):
    """The classical fourth-order rule; see the module's docstring.

    Args:
        mean: rough mean of the images.
        variance: rough variance of a pixel, positive; of numbers spread evenly over [0, 1] by
            default.
    """

    name: ClassVar[str] = "rk4"
    paper: ClassVar[str] = "Kutta 1901, in the variables of Karras et al. 2022"
    order: ClassVar[str] = "4"

    mean: float = 0.5
    variance: float = 1 / 12

    def __post_init__(self) -> None:
        if not self.variance > 0:
            raise ValueError(
                f"rk4 needs a variance above zero, found {self.variance}; give that of the images."
            )

    def calls(self, steps: int) -> int:
        """Four calls a step."""
        return 4 * steps

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Walk in the frame."""
        frame = Frame(self.mean, self.variance)

        def f(s: float, state: State) -> State:
            y = frame.leave(state[0], s)
            return (frame.velocity(y, path.D(y, Point(s, 1.0, s)), s),)

        z = frame.enter(x / path.grid[0].alpha, path.grid[0].level)
        for t, s in pairwise(path.grid.points):
            (z,) = step(f, (z,), t.level, s.level, CLASSICAL)
            yield s.alpha * frame.leave(z, s.level)
