"""What cameras do to light after the lens: clipping and compression."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from deepinv.physics import Physics
from torch import Tensor

from .noise import noise_model
from .validate import image_size, number, whole


class Clip(Physics):
    """`y = clip(centre + gain (x - centre), 0, 1)`.

    Args:
        gain: how many times brighter.
        centre: the grey level that stays as it is.
        **kwargs: for deepinv's `Physics`.
    """

    def __init__(self, gain: float, centre: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gain, self.centre = gain, centre

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Expose and clip: `(B, C, ...)` to the same."""
        return (self.centre + self.gain * (x - self.centre)).clamp(0, 1)

    def A_dagger(self, y: Tensor, **kwargs: Any) -> Tensor:
        """The inverse where nothing was clipped; clipped pixels stay at the limit of exposure."""
        return self.centre + (y - self.centre) / self.gain


class Jpeg(Physics):
    """JPEG compression with 4:2:0 chroma, by kornia's differentiable codec.

    Attributes:
        surrogate: what stands for the derivative of rounding, which is zero.
    """

    surrogate: ClassVar[str] = "cubic rounding"

    def __init__(self, quality: float, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.quality, self.channels = quality, channels

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Compress and decompress: `(B, C, H, W)` to the same."""
        from kornia.enhance import jpeg_codec_differentiable

        colour = x.expand(-1, 3, -1, -1)
        quality = torch.full((len(x),), self.quality, dtype=x.dtype, device=x.device)
        y = jpeg_codec_differentiable(colour, quality)
        return y if self.channels == 3 else y.mean(1, keepdim=True)

    def A_dagger(self, y: Tensor, **kwargs: Any) -> Tensor:
        """The compressed image itself."""
        return y


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
    image_size(image_shape, dims=(2, 3))
    gain = number("gain", gain, above=0, high=1e6, do="give a contrast, for example 2")
    centre = number("centre", centre, low=0, high=1, do="give the grey level that stays")
    return Clip(gain, centre, noise_model=noise_model(noise))


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
    image_size(image_shape, dims=(2, 3))
    exposure = number("exposure", exposure, above=0, high=1e6, do="give a factor, for example 2")
    return Clip(exposure, 0.0, noise_model=noise_model(noise))


def jpeg(image_shape: Sequence[int], *, quality: int = 10, noise: float = 0.0) -> Jpeg:
    """JPEG compression: 8x8 cosine transforms, quantised, with half-size chroma.

    Rounding `r(q)` is replaced by `r(q) + (q - r(q))^3` (Shin and Song 2017), in the measurement
    too, so that autograd sees a slope: a step off the true file by at most an eighth of a
    quantisation step.

    Args:
        image_shape: `(1, H, W)` or `(3, H, W)` of one clean image.
        quality: from 1, coarse, to 100.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Nonlinear operator from `(B, C, H, W)` to the same.

    Raises:
        ValueError: other than 1 or 3 channels, or a bad quality.
    """
    channels = image_size(image_shape)[0]
    if channels not in (1, 3):
        raise ValueError(
            f"the image has {channels} channels, expected 1 or 3; give grey or colour."
        )
    quality = whole("quality", quality, low=1, high=100, do="give the usual number")
    return Jpeg(float(quality), channels, noise_model=noise_model(noise))
