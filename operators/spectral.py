"""Colour: what is left of the channels."""

from collections.abc import Sequence

from deepinv.physics import Decolorize

from .noise import noise_model
from .validate import image_size

# ITU-R BT.601 luma
LUMA = (0.299, 0.587, 0.114)


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
    physics = Decolorize(channels=3, srf=LUMA, noise_model=noise_model(noise))
    physics.img_size = shape
    return physics


def image_shape(measured: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape `(3, H, W)` of the clean image behind a grey one `(1, H, W)`."""
    return (3, *image_size(measured, channels=1, hint="a decolorised image is grey")[1:])
