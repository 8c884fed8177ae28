"""DPM-Solver-v3: the integrator whose split into linear part and rest is fitted to the model.

Zheng, Lu, Chen, Zhu, *DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model
Statistics*, NeurIPS 2023, arXiv:2310.13268, sections 3.1 to 3.3. With the model's statistics `l`,
`s`, `b` (`model_statistics`) and `y = x / alpha`,

    dy/dlam = -l y - f,   f = (sigma eps - l x) / alpha,   f = e^S (g + B)

and `g`, in which neither the image nor the statistics change any more, is what the polynomial goes
through. Integrals are taken from the start of the step, where `L = S = B = 0`:

    symbol     name here    meaning
    L, S, B    L, S, B      int l, int s, int e^-S b over lam
    g_j        past         e^{-S_j} f_j - B_j of evaluation j
    -          weights      int e^{L + S - L'} l_j dlam, of the Lagrange polynomials l_j

    y' = e^-L' y - int e^{L + S - L'} B dlam - sum_j weights_j g_j

The authors sum trapezoids over the table of the statistics and round the grid to it; here integrals
are of spectral accuracy between any two points.

Exact in one step for Gaussians of diagonal covariance with their statistics. (l, s, b) = (1, 0, 0)
is exponential Adams for the data, (0, -1, 0) for the noise.

**Corrector.** Each evaluation made for the next step is used to take the last one again, with as
many evaluations; `f` is not evaluated anew at the corrected image. **Pseudo-order**: every
derivative is a divided difference of the fewest evaluations, and the corrector takes one more; the
order is 2 at most.

Cost: one call a step. Statistics of one prior do not fit another, nor the same prior guided.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from restore.samplers.grid import Point
from restore.samplers.model_statistics import ModelStatistics
from restore.samplers.multistep import Evaluation, Multistep, gauss_legendre, lagrange
from restore.samplers.sampler import Path

_PANEL, _NODES = 0.5, 10  # longest panel in lam, and points in it


@dataclass(frozen=True, kw_only=True)
class DPMSolverV3(Multistep):
    """DPM-Solver-v3; see the module's docstring.

    Args:
        statistics: of the model: `estimate_statistics.estimate`, `Statistics.load` or closed form.
        k: evaluations that a step combines, and the order; 1 to 3 in the paper.
        corrector: whether to take steps again.
        pseudo: whether derivatives are of pseudo-order, for some five steps.
    """

    paper: ClassVar[str] = "Zheng et al. 2023, DPM-Solver-v3"
    name: ClassVar[str] = "dpm-solver-v3"

    statistics: ModelStatistics
    k: int = 3
    corrector: bool = False
    pseudo: bool = False

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of convergence."""
        return f"{min(self.k + self.corrector, 2)}" if self.pseudo else super().order

    def evaluate(self, path: Path, x: Tensor, at: Point) -> Tensor:
        """Return `f`."""
        l = self.statistics.at(torch.tensor([at.lam], dtype=torch.float64))[0][0].to(x)  # noqa: E741
        return (1 - l) * x / at.alpha - path.D(x, at)

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Evaluate, correct the step that led here, advance."""
        past: list[Evaluation] = []
        origin = x  # of the last step
        for i, (t, s) in enumerate(pairwise(path.grid.points)):
            new = (t, self.evaluate(path, x, t))
            if self.corrector and past:
                nodes = [past[0], new, *past[1:]][: len(past) + self.pseudo]
                x = self.advance(path, origin, past[0][0], t, nodes) if len(nodes) > 1 else x
            past, origin = [new, *past][: self.k], x
            if i == 0 and self.start == "rk":
                past = self._begin(path, x, new)
            x = self.advance(path, x, t, s, past)
            yield x

    def advance(
        self, path: Path, x: Tensor, t: Point, s: Point, past: Sequence[Evaluation]
    ) -> Tensor:
        """Solve the linear part and `B` exactly, integrate the polynomial through `g`."""
        way = _integrate(self.statistics, t.lam, s.lam)
        kernel = torch.exp(way.L + way.S - way.end[0]) * _like(way.w, way.L)
        basis = (_pseudo if self.pseudo else lagrange)([at.lam for at, _ in past], way.lam)

        y = torch.exp(-way.end[0]).to(x) * x / t.alpha - (kernel * way.B).sum(0).to(x)
        for (at, f), polynomial in zip(past, basis, strict=True):
            g = f
            if at.lam != t.lam:
                _, S, B = _integrate(self.statistics, t.lam, at.lam).end
                g = torch.exp(-S).to(x) * f - B.to(x)
            y = y - (kernel * _like(polynomial, kernel)).sum(0).to(x) * g
        return s.alpha * y


@dataclass(frozen=True)
class _Way:
    """Quadrature along a stretch of lam: places and weights `(Q,)`, integrals up to each place."""

    lam: Tensor
    w: Tensor
    L: Tensor
    S: Tensor
    B: Tensor
    end: tuple[Tensor, Tensor, Tensor]


def _integrate(statistics: ModelStatistics, start: float, end: float) -> _Way:
    """Integrate `l`, `s` and `e^-S b` from `start` on, panel by panel."""
    panels = math.ceil(abs(end - start) / _PANEL)
    u, w = gauss_legendre(_NODES)
    h = (end - start) / panels
    rule = h * _collocation()

    zero = torch.zeros(())
    parts, last = [], (zero, zero, zero)
    for p in range(panels):
        lam = start + h * (p + u)
        l, s, b = statistics.at(lam)  # noqa: E741
        L = last[0] + torch.einsum("ij,j...->i...", rule, l)
        S = last[1] + torch.einsum("ij,j...->i...", rule, s)
        B = last[2] + torch.einsum("ij,j...->i...", rule, torch.exp(-S[:-1]) * b)
        parts.append((lam, h * w, L[:-1], S[:-1], B[:-1]))
        last = (L[-1], S[-1], B[-1])
    return _Way(*(torch.cat(part) for part in zip(*parts, strict=True)), end=last)


@lru_cache
def _collocation() -> Tensor:
    """Integrals of a panel's Lagrange polynomials up to each place; in the last row, in all."""
    u, w = gauss_legendre(_NODES)
    inner = torch.stack([r * (lagrange(u, r * u) * w).sum(1) for r in u])
    return torch.cat((inner, w[None]))


def _pseudo(nodes: Sequence[float], at: Tensor) -> Tensor:
    """Polynomials of a Taylor series about the first node whose terms are divided differences."""
    basis = torch.zeros(len(nodes), *at.shape, dtype=at.dtype)
    for i in range(len(nodes)):
        for j in range(i + 1):
            apart = math.prod(nodes[j] - nodes[m] for m in range(i + 1) if m != j)
            basis[j] += (at - nodes[0]) ** i / apart
    return basis


def _like(values: Tensor, tensor: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (tensor.ndim - 1))
