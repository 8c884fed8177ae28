"""Denoising: the instrument saw the image itself, `A = I`."""

from collections.abc import Sequence

from deepinv.physics import Denoising

from .noise import noise_model
from .validate import image_size


def denoise(image_shape: Sequence[int], *, noise: float = 0.0) -> Denoising:
    """Noise only: `y = x + n`.

    Args:
        image_shape: `(C, H, W)` of one clean image.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Operator from `(B, C, H, W)` to `(B, C, H, W)`.

    Raises:
        ValueError: a bad shape or negative noise.
    """
    physics = Denoising(noise_model=noise_model(noise))
    physics.img_size = image_size(image_shape)
    return physics
