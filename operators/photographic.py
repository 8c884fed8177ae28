"""Clipping: a detector that shows nothing darker than black and brighter than white."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

from deepinv.physics import Physics
from torch import Tensor

from .noise import noise_model
from .validate import image_size, number


class Clip(Physics):
    """`y = clip(centre + gain (x - centre), 0, 1)`.

    Args:
        shape: `(C, *spatial)` of one image.
        gain: how many times brighter.
        centre: the grey level that stays as it is.
        **options: for deepinv's `Physics`.
    """

    def __init__(self, shape: tuple[int, ...], gain: float, centre: float, **options: Any) -> None:
        super().__init__(**options)
        self.img_size, self.gain, self.centre = shape, gain, centre

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Expose and clip: `(B, C, ...)` to the same."""
        return (self.centre + self.gain * (x - self.centre)).clamp(0, 1)

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """The inverse where nothing was clipped; clipped pixels stay at the limit of exposure."""
        return self.centre + (y - self.centre) / self.gain


def hdr(
    image_shape: Sequence[int], *, gain: float = 2.0, centre: float = 0.5, noise: float = 0.0
) -> Clip:
    """Dynamic range cut off at both ends: `y = clip(centre + gain (x - centre), 0, 1)`.

    With the defaults this is the task of Zhang et al., *Improving Diffusion Inverse Problem Solving
    with Decoupled Noise Annealing* (2024): `clip(2 x, -1, 1)` of images in [-1, 1].

    Args:
        image_shape: `(C, H, W)` of one clean image, or `(C, D, H, W)` of one volume.
        gain: contrast, above 1 to clip anything.
        centre: the grey level that stays.
        noise: standard deviation of Gaussian noise after clipping, in units of the image.

    Returns:
        Nonlinear operator from `(B, C, ...)` to the same.

    Raises:
        ValueError: bad numbers.
    """
    shape = image_size(image_shape, dims=(2, 3))
    gain = number("gain", gain, above=0, high=1e6, do="give a contrast, for example 2")
    centre = number("centre", centre, low=0, high=1, do="give the grey level that stays")
    return Clip(shape, gain, centre, noise_model=noise_model(noise))


def saturate(image_shape: Sequence[int], *, exposure: float = 2.0, noise: float = 0.0) -> Clip:
    """Overexposed: `y = min(exposure x, 1)` of images that are not negative.

    Args:
        image_shape: `(C, H, W)` of one clean image, or `(C, D, H, W)` of one volume.
        exposure: how many times too much light.
        noise: standard deviation of Gaussian noise after clipping, in units of the image.

    Returns:
        Nonlinear operator from `(B, C, ...)` to the same.

    Raises:
        ValueError: a bad number.
    """
    shape = image_size(image_shape, dims=(2, 3))
    exposure = number("exposure", exposure, above=0, high=1e6, do="give a factor, for example 2")
    return Clip(shape, exposure, 0.0, noise_model=noise_model(noise))
