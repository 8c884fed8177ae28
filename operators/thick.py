"""Thick slices: a volume that was measured in fewer slices than it is wanted in."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from .noise import noise_model
from .separable import refuse_other_size
from .svd import SVD, Decomposed
from .validate import image_size, whole


class ThickSlices(Decomposed, LinearPhysics):
    """Every slice is the mean of `thickness` voxels in the middle of `factor`; `A A^T = I / t`.

    Args:
        factor: voxels from one slice to the next.
        thickness: t, voxels that a slice averages.
        axis: spatial axis across the slices.
        **options: `img_size` and `noise_model`, as everywhere in deepinv.
    """

    unit: Tensor

    def __init__(self, factor: int, thickness: int, axis: int, **options: Any) -> None:
        super().__init__(**options)
        self.img_size = options["img_size"]  # deepinv does not pass it on
        self.factor, self.thickness, self.axis = factor, thickness, axis
        self.register_buffer("unit", torch.ones(()), persistent=False)  # moves with the operator

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Average: `(B, C, D, H, W)` to fewer along the axis."""
        refuse_other_size(x, "images", self.img_size[1:])
        return self._averaged(x).mean(3 + self.axis)

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        """Adjoint: every slice spread over the voxels that it averages, gaps zero."""
        size = list(self.img_size[1:])
        size[self.axis] = self.slices
        refuse_other_size(y, "measurements", size)
        x = y.new_zeros(*y.shape[:2], *self.img_size[1:])
        self._averaged(x).copy_((y / self.thickness).unsqueeze(3 + self.axis))
        return x

    def svd(self) -> SVD:
        """`U = I`, all singular values `t^-1/2`."""
        root = self.thickness**0.5
        return SVD(
            s=self.unit / root,
            Vt=lambda x: root * self.A(x),
            V=lambda c: root * self.A_adjoint(c),
            U=lambda c: c,
            Ut=lambda y: y,
        )

    @property
    def slices(self) -> int:
        """Number of thick slices."""
        return self.img_size[1 + self.axis] // self.factor

    def _averaged(self, x: Tensor) -> Tensor:
        """View of the voxels that count, with their place in the slice as axis `3 + axis`."""
        gap = (self.factor - self.thickness) // 2
        apart = x.unflatten(2 + self.axis, (self.slices, self.factor))
        return apart.narrow(3 + self.axis, gap, self.thickness)


def thick(
    image_shape: Sequence[int],
    *,
    factor: int = 4,
    thickness: int | None = None,
    axis: int = 0,
    noise: float = 0.0,
) -> ThickSlices:
    """Thick slices: means of `factor` voxels along one axis, or of fewer with gaps between.

    Args:
        image_shape: `(C, D, H, W)` of one clean volume, whose side `factor` divides.
        factor: voxels from the middle of one slice to that of the next.
        thickness: voxels that a slice averages, in the middle of its `factor`, all of them by
            default; 1 leaves out slices.
        axis: spatial axis across the slices: 0 for D, 1 for H, 2 for W.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, C, D, H, W)` to `(B, C, D / factor, H, W)`, or along another axis.

    Raises:
        ValueError: no volume, bad numbers, or a side that `factor` does not divide.
    """
    shape = image_size(image_shape, dims=(3,))
    axis = whole("axis", axis, low=0, high=2, do="choose 0 (D), 1 (H) or 2 (W)")
    factor = whole("factor", factor, low=1, do="give the voxels that become one")
    if thickness is None:
        thickness = factor
    whole("thickness", thickness, low=1, high=factor, do="give the voxels that a slice averages")
    side = shape[1 + axis]
    if side % factor:
        crop = side - side % factor
        do = f"crop it to {crop}" if crop else "choose a smaller factor"
        raise ValueError(
            f"the volume has {side} voxels across the slices, which {factor} does not divide; {do}."
        )
    return ThickSlices(factor, thickness, axis, img_size=shape, noise_model=noise_model(noise))


def image_shape(
    measured: tuple[int, ...], *, factor: int = 4, axis: int = 0, **_: object
) -> tuple[int, ...]:
    """Shape of the clean volume behind thick slices of shape `(C, D, H, W)`."""
    shape = list(image_size(measured, dims=(3,)))
    axis = whole("axis", axis, low=0, high=2, do="choose 0 (D), 1 (H) or 2 (W)")
    shape[1 + axis] *= whole("factor", factor, low=1, do="give the voxels that become one")
    return tuple(shape)
