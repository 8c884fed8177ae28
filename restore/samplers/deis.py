"""DEIS: Adams-Bashforth for the noise, with polynomials in time.

Zhang, Chen, *Fast Sampling of Diffusion Models with Exponential Integrator*, ICLR 2023,
arXiv:2204.13902: tAB-DEIS (section 3) and rhoAB-DEIS (appendix).

    symbol    name here    meaning
    r         degree       degree of the polynomial: r + 1 evaluations, order r + 1
    C_ij      weights      int l_j ds, with l_j the Lagrange polynomials in `variable`
    t, rho    variable     the schedule's time; the level `s = sigma / alpha`; or `lam`

A step is `y' = y + sum_j C_j eps_{n-j}` for `y = x / alpha`, from `dy / ds = eps`. Quadrature in
`lam` finds the integrals to rounding on smooth schedules. Exact when the noise is a polynomial of
that degree in the variable along the trajectory; degree 0 is DDIM. With "t" the result depends on
the schedule. With "lam" it is exponential Adams for the noise, `adams.Adams`.

Cost: one call a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operators.validate import one_of, whole
from priors.schedules import Schedule
from restore.samplers.grid import Point
from restore.samplers.multistep import Evaluation, Multistep, combine, lagrange, quadrature
from restore.samplers.sampler import Path

Variable = Literal["t", "level", "lam"]


@dataclass(frozen=True, kw_only=True)
class DEIS(Multistep):
    """DEIS; see the module's docstring.

    Args:
        degree: of the polynomial, 0 to 3.
        variable: of the polynomial: "t", "level" or "lam".
    """

    paper: ClassVar[str] = "Zhang & Chen 2023, DEIS"
    variants: ClassVar[tuple[str, ...]] = ("deis-1", "deis-2", "deis-3")

    k: int = field(init=False, repr=False)
    degree: int = 3
    variable: Variable = "t"

    def __post_init__(self) -> None:
        whole("degree", self.degree, low=0, high=3, do="choose within")
        one_of("variable", self.variable, ("t", "level", "lam"))
        object.__setattr__(self, "k", self.degree + 1)
        super().__post_init__()

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return f"deis-{self.degree}"

    def evaluate(self, path: Path, x: Tensor, at: Point) -> Tensor:
        """Return the noise."""
        return path.eps(x, at)

    def advance(
        self, path: Path, x: Tensor, t: Point, s: Point, past: Sequence[Evaluation]
    ) -> Tensor:
        """Move `x / alpha` by the integral over the level."""
        lam, w = quadrature(t.lam, s.lam)
        nodes = self._places(
            path.grid.schedule, torch.tensor([at.lam for at, _ in past], dtype=torch.float64)
        )
        basis = lagrange(nodes, self._places(path.grid.schedule, lam))
        weights = -(basis * torch.exp(-lam) * w).sum(1)  # ds = -e^-lam dlam
        return s.alpha * (x / t.alpha + combine(weights, past))

    def _places(self, schedule: Schedule, lam: Tensor) -> Tensor:
        if self.variable == "lam":
            return lam
        level = torch.exp(-lam)
        return level if self.variable == "level" else schedule.time(level)
