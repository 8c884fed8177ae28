"""Computed tomography: line integrals of a slice from parallel rays."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

from deepinv.physics import Tomography
from deepinv.physics.forward import adjoint_function
from torch import Tensor

from .noise import noise_model
from .repaired import Repaired
from .validate import image_size, whole


class ParallelBeam(Repaired, Tomography):
    """deepinv's `Tomography` whose adjoint follows the measurement's batch, dtype and device.

    deepinv keeps the derivative of one past call, with its activations, always in float32.
    """

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Back-projection, exact: `(B, C, N, angles)` to `(B, C, H, W)`."""
        shape = (*y.shape[:2], self.img_width, self.img_width)
        return adjoint_function(self.A, shape, device=str(y.device), dtype=y.dtype)(y)


def ct(image_shape: Sequence[int], *, angles: int = 60, noise: float = 0.0) -> Tomography:
    """Parallel-beam CT: `angles` projections evenly spread over 180 degrees.

    The operator is divided by its largest singular value, so that its norm is about 1 and `noise`
    is relative to that.

    Args:
        image_shape: `(C, N, N)` of one clean slice, square.
        angles: number of projections. Sampling grids take about `16 angles N^2` bytes, twice.
        noise: standard deviation of Gaussian noise, in units of the normalised sinogram.

    Returns:
        Linear operator from `(B, C, N, N)` to `(B, C, ceil(sqrt(2) N), angles)`.

    Raises:
        ValueError: the slice is not square, or the angles are not 1 to 3600.
    """
    shape = image_size(image_shape)
    if shape[1] != shape[2] or shape[1] < 2:
        raise ValueError(
            f"the slice is {shape[1]}x{shape[2]} pixels, expected a square; "
            f"pad it to {max(shape[1:])}x{max(shape[1:])} with air."
        )
    angles = whole("angles", angles, low=1, high=3600, do="give the number of projections")
    physics = ParallelBeam(
        angles=angles, img_width=shape[1], normalize=True, noise_model=noise_model(noise)
    )
    physics.img_size = shape
    return physics
