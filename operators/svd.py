"""The singular value decomposition of an operator, where it has a fast one.

`A = U diag(s) V^T` in real coordinates. In them `A` is a list of numbers, so that the
pseudo-inverse, the proximal map and the spectral solvers (DDRM, DDNM) are closed forms.
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from deepinv.physics import BlurFFT, DecomposablePhysics, Physics
from torch import Tensor

from .repaired import Repaired, per_image

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SVD:
    """A thin singular value decomposition `A = U diag(s) V^T`.

    `V` has orthonormal columns, `Vt(V(c)) = c`; those of `U` are orthonormal where `s > 0`. What
    the coordinates do not reach is seen by no measurement: `x - V(Vt(x))` lies in the null space.

    Attributes:
        s: singular values, broadcastable to coordinates `(B, ...)`; at least 0, in any order.
        Vt: images `(B, C, *spatial)` to coordinates `(B, ...)`.
        V: coordinates to images.
        U: coordinates to measurements.
        Ut: measurements to coordinates.
    """

    s: Tensor
    Vt: Map
    V: Map
    U: Map
    Ut: Map


@runtime_checkable
class HasSVD(Protocol):
    """An operator that knows its decomposition."""

    def svd(self) -> SVD:
        """The decomposition."""
        ...


class Decomposed(Repaired):
    """Mixin for operators with a method `svd`: inverses in closed form.

    Attributes:
        cutoff: singular values below `cutoff max(s)` are not inverted.
        dagger_tolerance: what `restore check` demands of `|A A_dagger A x - A x| / |A x|`.
    """

    cutoff: ClassVar[float] = 1e-5
    dagger_tolerance: ClassVar[float | None] = 1e-4

    def svd(self) -> SVD:
        """The decomposition, in the precision and on the device of the operator."""
        raise NotImplementedError

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """Pseudo-inverse `V diag(1/s) U^T y`, without the singular values below the cutoff.

        Args:
            y: measurements `(B, ...)`.

        Returns:
            Images `(B, C, *spatial)`.
        """
        svd = self.svd()
        s = svd.s.to(y)
        keep = s > self.cutoff * s.max()
        return svd.V(torch.where(keep, 1 / torch.where(keep, s, 1), 0) * svd.Ut(y))

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """`argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2`, exact.

        Args:
            z: images `(B, C, *spatial)`.
            y: measurements `(B, ...)`.
            gamma: weight of the data, one number or one per image `(B,)`.

        Returns:
            Images `(B, C, *spatial)`.
        """
        svd = self.svd()
        s, c = svd.s.to(y), svd.Vt(z)
        weight = per_image(gamma, c)
        return z + svd.V(weight * s * (svd.Ut(y) - s * c) / (1 + weight * s.square()))


def svd(physics: Physics) -> SVD:
    """The singular value decomposition of an operator that has a fast one.

    Args:
        physics: one of ours with a method `svd`, or a `DecomposablePhysics` of deepinv.

    Raises:
        ValueError: the operator has none.
    """
    if isinstance(physics, HasSVD):
        return physics.svd()
    if not has_svd(physics):
        raise ValueError(
            f"operator '{getattr(physics, 'spec', type(physics).__name__)}' has no fast singular "
            "value decomposition; choose a solver that does not need one, see `restore solvers`."
        )
    assert isinstance(physics, DecomposablePhysics)
    # deepinv's singular values may be signed gains: the sign goes into U
    mask = torch.as_tensor(physics.mask)
    s = mask.abs()
    sign = torch.where(s > 0, mask / torch.where(s > 0, s, 1), 1)
    return SVD(
        s=s,
        Vt=physics.V_adjoint,
        V=physics.V,
        U=lambda c: physics.U(sign * c),
        Ut=lambda y: sign * physics.U_adjoint(y),
    )


def has_svd(physics: Physics) -> bool:
    """Whether `svd` would succeed; deepinv's `BlurFFT` has coordinates that are not real."""
    decomposable = isinstance(physics, DecomposablePhysics) and not isinstance(physics, BlurFFT)
    return isinstance(physics, HasSVD) or decomposable
