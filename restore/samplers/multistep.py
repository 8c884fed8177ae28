"""The base of samplers with memory: each step integrates a polynomial through past evaluations.

A multistep method evaluates something once a point (the image, the noise, a mixture of both),
puts a polynomial of degree k - 1 through its k latest values and integrates that exactly under the
weight that its form of the ODE gives. With k evaluations it has order k.

**Start.** There is no past at first. To begin with DDIM and use one evaluation more each step costs
nothing and leaves one error of `O(h^2)`, which is invisible where `D` hardly changes (a start from
noise) and limits the order to 2 where it does (a start from a degraded image). "rk" takes the first
step as a Runge-Kutta step, whose last inner evaluation then serves as past: k - 2 calls more in
all, and the order is k from wherever one starts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from operators.validate import one_of, whole
from restore.samplers.grid import Point
from restore.samplers.sampler import Path, Sampler

Evaluation = tuple[Point, Tensor]
"""A point and what was found there."""

Start = Literal["ddim", "rk"]

INNER: dict[int, tuple[float, ...]] = {1: (), 2: (), 3: (1 / 2,), 4: (1 / 3, 2 / 3)}
"""Inner places of the first step under `rk`, in lam; the step uses 0 and the last of them."""


@dataclass(frozen=True, kw_only=True)
class Multistep(Sampler):
    """Base class; see the module's docstring. Subclasses give `advance`, some also `evaluate`.

    Args:
        k: evaluations that a step combines, 1 to 4.
        start: "ddim" begins with order 1 and rises, "rk" with a Runge-Kutta step.
    """

    memory: ClassVar[bool] = True

    k: int = 2
    start: Start = "ddim"

    def __post_init__(self) -> None:
        whole("k", self.k, low=1, high=max(INNER), do="choose within")
        one_of("start", self.start, ("ddim", "rk"))

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of convergence."""
        limited = self.k > 2 and self.start == "ddim"
        return f"{self.k}, 2 from low noise" if limited else f"{self.k}"

    def evaluate(self, path: Path, x: Tensor, at: Point) -> Tensor:
        """Return what the polynomial goes through; one call."""
        return path.D(x, at)

    def advance(
        self, path: Path, x: Tensor, t: Point, s: Point, past: Sequence[Evaluation]
    ) -> Tensor:
        """Carry `x` from `t` to `s` along the polynomial through all of `past`, of any places."""
        raise NotImplementedError

    def calls(self, steps: int) -> int:
        """One a step, and those inside the first."""
        return steps + (len(INNER[self.k]) if self.start == "rk" else 0)

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Evaluate, forget all but the k latest values, advance."""
        past: list[Evaluation] = []
        for i, (t, s) in enumerate(pairwise(path.grid.points)):
            past = [(t, self.evaluate(path, x, t)), *past][: self.k]
            if i == 0 and self.start == "rk":
                past = self._begin(path, x, past[0])
            x = self.advance(path, x, t, s, past)
            yield x

    def _begin(self, path: Path, x: Tensor, first: Evaluation) -> list[Evaluation]:
        """Evaluate inside the first step; keep the value at the furthest place, the best one."""
        past = [first]
        for r in INNER[self.k]:
            inner = path.grid.between(0, r)
            u = self.advance(path, x, first[0], inner, past)
            past = [first, (inner, self.evaluate(path, u, inner))]
        return past


def lagrange(nodes: Sequence[float] | Tensor, at: Tensor) -> Tensor:
    """Values `(K, *at.shape)` of the K polynomials that are one at their node, zero at the rest."""
    at, nodes = at.double(), torch.as_tensor(nodes, dtype=torch.float64)
    basis = []
    for j, here in enumerate(nodes):
        others = torch.cat((nodes[:j], nodes[j + 1 :]))
        basis.append(((at[..., None] - others) / (here - others)).prod(-1))
    return torch.stack(basis)


def quadrature(start: float, end: float) -> tuple[Tensor, Tensor]:
    """Places and weights of the 40-point Gauss-Legendre rule from `start` to `end`, float64."""
    u, w = gauss_legendre(40)
    return start + (end - start) * u, (end - start) * w


@lru_cache
def gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Places and weights of the n-point rule on [0, 1], float64."""
    u, w = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((1 + u) / 2), torch.from_numpy(w / 2)


def combine(weights: Sequence[float] | Tensor, past: Sequence[Evaluation]) -> Tensor:
    """Return the weighted sum of the values."""
    values = [value for _, value in past]
    total = float(weights[0]) * values[0]
    for w, value in zip(weights[1:], values[1:], strict=True):
        total = total + float(w) * value
    return total
