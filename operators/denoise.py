"""Denoising: the instrument saw the image itself, `A = I`."""

from collections.abc import Sequence

from deepinv.physics import Denoising
from torch import Tensor

from .noise import noise_model
from .validate import image_size


class Identity(Denoising):
    """deepinv's `Denoising`, which also tells what it does to a spectrum."""

    def gram_spectrum(self, power: Tensor) -> Tensor:
        """Spectrum of `A C A^T` for a stationary covariance `C` of spectrum `power`: the same."""
        return power


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
    physics = Identity(noise_model=noise_model(noise))
    physics.img_size = image_size(image_shape)
    return physics
