"""What an unrolled network sees of a measurement: `A^T y` and `A^T A`, of one scale."""

import copy
from collections.abc import Sequence

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from operators.svd import has_svd, svd
from operators.tomography.projector import largest_singular_value


class Normal:
    """What was measured of images, as `b = A^T y` and `G = A^T A`, scaled to `|G| = 1`.

    Args:
        operator: linear.
        y: measurements `(B, ...)`.
        image_shape: `(C, *spatial)` of one image.

    Attributes:
        b: `(B, C, *spatial)`.
        exact: whether G is a projection, so that `x - (G x - b)` fits the measurement exactly.
        share: numbers measured per number sought, at most 1; of a random projection the mean of G.

    Raises:
        ValueError: the operator is not linear.
    """

    def __init__(self, operator: Physics, y: Tensor, image_shape: Sequence[int]) -> None:
        if not isinstance(operator, LinearPhysics):
            raise ValueError(
                f"an unrolled network needs a linear operator, found {type(operator).__name__}."
            )
        self.operator, self.scale = operator, 1.0
        b = operator.A_adjoint(y)
        self.exact = _is_projection(operator)
        if not self.exact:
            v = torch.rand((1, *image_shape), generator=torch.Generator().manual_seed(0)).to(b)
            self.scale = largest_singular_value(operator.A, operator.A_adjoint, v + 0.5) ** -2
        self.b = self.scale * b
        numbers = y[0].numel() * (2 if y.is_complex() else 1)
        self.share = min(1.0, numbers / b[0].numel())

    def to(self, device: torch.device) -> "Normal":
        """Move to a device."""
        moved = copy.copy(self)
        moved.operator, moved.b = self.operator.to(device), self.b.to(device)
        return moved

    def of(self, y: Tensor) -> "Normal":
        """Return the same for other measurements `(B, ...)` of the operator."""
        other = copy.copy(self)
        other.b = self.scale * self.operator.A_adjoint(y)
        return other

    def gram(self, x: Tensor) -> Tensor:
        """Apply G, in the precision of single numbers at least."""
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            return self.scale * self.operator.A_adjoint(self.operator.A(x))


def _is_projection(operator: LinearPhysics) -> bool:
    """Whether every singular value is 0 or 1."""
    if not has_svd(operator):
        return False
    s = torch.as_tensor(svd(operator).s)
    return bool((((s - 1).abs() < 1e-5) | (s.abs() < 1e-5)).all())
