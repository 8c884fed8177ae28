"""Exponential Adams-Bashforth: polynomials in lam, integrated exactly.

Hochbruck, Ostermann, *Exponential integrators*, Acta Numerica 2010, section 2.6, applied to the two
forms of the probability flow; with `h` the length of a step in `lam`,

    data     x' = (sigma' / sigma) x + alpha' h int_0^1 e^{-(1-u) h} D(u h) du
    noise    x' = (alpha' / alpha) x - sigma' h int_0^1 e^{(1-u) h} eps(u h) du

    symbol    name here    meaning
    k         k            evaluations that a step combines, and the order
    w_j       weights      `adams_weights`: combinations of the functions phi_1 .. phi_k of -h or h

Exact when the denoised image (data) or the noise (noise) is a polynomial in `lam` of degree below
k along the trajectory; hence both are for a point mass. k = 1 is DDIM either way. Data with k = 2
is DPM-Solver++ 2M with `phi_2 / phi_1` in place of 1/2; noise is DEIS with polynomials in `lam`.

Cost: one call a step; two and three calls in the first for k = 3 and 4 with `start="rk"`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from operators.validate import one_of
from restore.samplers.grid import Point
from restore.samplers.multistep import Evaluation, Multistep, combine
from restore.samplers.phi import adams_weights
from restore.samplers.sampler import Path

Prediction = Literal["data", "noise"]


@dataclass(frozen=True, kw_only=True)
class Adams(Multistep):
    """Exponential Adams-Bashforth; see the module's docstring.

    Args:
        prediction: which function the polynomial goes through, "data" or "noise".
    """

    paper: ClassVar[str] = "Hochbruck & Ostermann 2010, exponential Adams"
    variants: ClassVar[tuple[str, ...]] = ("adams-2", "adams-3")

    prediction: Prediction = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("prediction", self.prediction, ("data", "noise"))

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return f"adams-{self.k}"

    def evaluate(self, path: Path, x: Tensor, at: Point) -> Tensor:
        """Return the denoised image or the noise."""
        return path.D(x, at) if self.prediction == "data" else path.eps(x, at)

    def advance(
        self, path: Path, x: Tensor, t: Point, s: Point, past: Sequence[Evaluation]
    ) -> Tensor:
        """Add the integral to what is left of `x`."""
        h, nodes = s.lam - t.lam, [at.lam - t.lam for at, _ in past]
        if self.prediction == "data":
            moved = combine(adams_weights(nodes, h), past)
            return s.sigma / t.sigma * x + s.alpha * h * moved
        moved = combine(adams_weights(nodes, h, form=1.0), past)
        return s.alpha / t.alpha * x - s.sigma * h * moved
