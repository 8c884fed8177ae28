"""What solvers of volumes share: a prior of flat images, slice by slice, and a term between slices.

On flat images they are solvers like any other, without a term. A prior of one channel is also asked
about both channels of a complex image.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from priors import Denoiser
from priors.slicewise import lift
from restore.coupling import Boundary, Coupling, NoCoupling, ZPrior, coupling, refusal
from restore.gain import squared_norm
from restore.problem import Problem
from restore.solver import Solver

_POWER = 20  # iterations for |A^T A|


@dataclass(frozen=True, kw_only=True)
class VolumeSolver(Solver):
    """Base of solvers that restore volumes with a prior of slices; see the module's docstring.

    Args:
        axis: spatial axis that is cut into slices: 0 for D, 1 for H, 2 for W.
        z_prior: "tv", total variation between slices; "quadratic"; "none" leaves them independent.
        rho_rel: rho, penalty of ADMM, over `|A^T A|`.
        lambda_rel: lambda, weight of the term, over `|A^T A|` and, for "tv", the range's width.
        spacing: distance of slices over the side of a pixel.
        boundary: "neumann" compares neighbours; "periodic" also the last slice with the first.
        tv_axes: spatial axes along which the term compares neighbours; `axis` alone when empty.
    """

    restores: ClassVar[str] = "volumes"

    axis: int = 0
    z_prior: ZPrior = "tv"
    rho_rel: float = 0.1
    lambda_rel: float = 0.01
    spacing: float = 1.0
    boundary: Boundary = "neumann"
    tv_axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        axes = self.tv_axes or (self.axis,)
        wrong = refusal(self.z_prior, self.boundary, self.rho_rel, self.lambda_rel, axes)
        if wrong is None and self.axis not in (0, 1, 2):
            wrong = f"axis is {self.axis}, expected 0 (D), 1 (H) or 2 (W); choose one."
        if wrong is None and not self.spacing > 0:
            wrong = (
                f"spacing is {self.spacing}, expected a number above 0; give slices over pixels."
            )
        if wrong is not None:
            raise ValueError(f"{self.name}: {wrong}")

    def lift(self, prior: Denoiser, shape: tuple[int, ...]) -> Denoiser:
        """Ask a prior of flat images slice by slice, one of a channel channel by channel."""
        return lift(prior, shape, axis=self.axis)

    def gain(self, problem: Problem) -> Tensor:
        """`|A^T A|` `(N, 1, ..., 1)`, to which weights are relative."""
        return squared_norm(problem, _POWER)

    def term(self, problem: Problem) -> Coupling:
        """Build the term between slices of the images sought."""
        if len(problem.shape) != 5 or self.z_prior == "none":
            return NoCoupling()
        axes = self.tv_axes or (self.axis,)
        return coupling(
            self.z_prior,
            self.gain(problem),
            rho_rel=self.rho_rel,
            lambda_rel=self.lambda_rel,
            width=2 * problem.scale,
            axes=axes,
            spacing=tuple(self.spacing if axis == self.axis else 1.0 for axis in axes),
            boundary=self.boundary,
        )
