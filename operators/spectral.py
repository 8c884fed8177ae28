"""Colour: what is left of the channels."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

from deepinv.physics import Decolorize
from torch import Tensor

from .noise import noise_model
from .repaired import per_image
from .validate import image_size

# ITU-R BT.601 luma
LUMA = (0.299, 0.587, 0.114)


class Luma(Decolorize):
    """deepinv's `Decolorize`, whose `prox_l2` would lose the colours of `z`."""

    mask: Tensor

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """`argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2`, exact because `A A^T = |w|^2`.

        Args:
            z: images `(B, 3, H, W)`.
            y: measurements `(B, 1, H, W)`.
            gamma: weight of the data, one number or one per image `(B,)`.

        Returns:
            Images `(B, 3, H, W)`.
        """
        weight = per_image(gamma, z)
        return z + weight / (1 + weight * self.mask**2) * self.A_adjoint(y - self.A(z))


def decolorise(image_shape: Sequence[int], *, noise: float = 0.0) -> Decolorize:
    """Grey from colour: `y = 0.299 R + 0.587 G + 0.114 B` (ITU-R BT.601 luma).

    Args:
        image_shape: `(3, H, W)` of one clean image.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Operator from `(B, 3, H, W)` to `(B, 1, H, W)`.

    Raises:
        ValueError: the image is not in colour, or negative noise.
    """
    shape = image_size(image_shape, channels=3, hint="only a colour image can lose its colour")
    physics = Luma(channels=3, srf=LUMA, noise_model=noise_model(noise))
    physics.img_size = shape
    return physics


def image_shape(measured: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape `(3, H, W)` of the clean image behind a grey one `(1, H, W)`."""
    return (3, *image_size(measured, channels=1, hint="a decolorised image is grey")[1:])
