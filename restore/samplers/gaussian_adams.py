"""Gaussian Adams: DPM-Solver-v3 without statistics, exact for white images of given mean and width.

Zheng, Lu, Chen, Zhu, *DPM-Solver-v3*, NeurIPS 2023, arXiv:2310.13268, with the coefficients of data
`N(m, c^2 I)` in place of a model's statistics (`GaussianStatistics`), whose integrals are
elementary.

    symbol    name here     meaning
    y, s      -             x / alpha, and its noise sigma / alpha
    m, c      mean, std     those of clean pixels, roughly
    R         -             sqrt(c^2 + s^2), std of y
    G         -             denoiser of N(m, c^2 I): m + (c / R)^2 (y - m)
    q         -             (D - G) R / s, what the polynomial in `lam` goes through
    k         k             evaluations that a step combines, and the order

In these coordinates the flow is

    d((y - m) / R) / dlam = (s / R^2) q,

and `q / c` is what the preconditioned network of Karras et al. 2022, arXiv:2206.00364, predicts: of
unit size at every level, zero for white images. For c = 0 it is exponential Adams for the data, and
with m = 0, c = 1 the REAB method of the library Azula.

Cost: one call a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.validate import number
from restore.samplers.grid import Point
from restore.samplers.multistep import Evaluation, Multistep, combine, lagrange, quadrature
from restore.samplers.sampler import Path


@dataclass(frozen=True, kw_only=True)
class GaussianAdams(Multistep):
    """Adams-Bashforth in the frame of a Gaussian; see the module's docstring.

    Args:
        mean: rough mean of a pixel of clean images; 0.5 suits photographs in [0, 1].
        std: its rough standard deviation; 0.25 suits them.
    """

    paper: ClassVar[str] = "after Zheng et al. 2023, DPM-Solver-v3"
    variants: ClassVar[tuple[str, ...]] = ("gaussian-adams-2", "gaussian-adams-3")

    mean: float = 0.5
    std: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        number("std", self.std, low=0, do="give that of the images")

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return f"gaussian-adams-{self.k}"

    def evaluate(self, path: Path, x: Tensor, at: Point) -> Tensor:
        """Return `q`."""
        y, R = x / at.alpha, self._radius(at)
        G = self.mean + (self.std / R) ** 2 * (y - self.mean)
        return R / at.level * (path.D(x, at) - G)

    def advance(
        self, path: Path, x: Tensor, t: Point, s: Point, past: Sequence[Evaluation]
    ) -> Tensor:
        """Integrate `q` between the frames of both ends."""
        lam, w = quadrature(t.lam, s.lam)
        kernel = torch.exp(-lam) / (self.std**2 + torch.exp(-2 * lam))
        weights = (lagrange([at.lam for at, _ in past], lam) * kernel * w).sum(1)
        z = (x / t.alpha - self.mean) / self._radius(t) + combine(weights, past)
        return s.alpha * (self.mean + self._radius(s) * z)

    def _radius(self, at: Point) -> float:
        return (self.std**2 + at.level**2) ** 0.5
