"""Hyperspectral super-resolution: a small image of all bands and a sharp one of few."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from .downsample import AlignedDownsampling, downsample
from .noise import noise_model
from .repaired import Repaired
from .resampling import Boundary, Filter
from .spectral import Response, response
from .validate import image_size


class Fusion(Repaired, LinearPhysics):
    """Two cameras, one blind to detail and one to colour.

    A measurement is one row of numbers `(B, m)`: the small image of all bands `(bands, H/f, W/f)`,
    then the sharp one of few `(k, H, W)`, each flattened in this order of its axes.

    Args:
        small: downsampling of all bands.
        sharp: response of the camera with few bands.
        **options: for deepinv's `LinearPhysics`.
    """

    def __init__(self, small: AlignedDownsampling, sharp: Response, **options: Any) -> None:
        super().__init__(**options)
        self.small, self.sharp = small, sharp
        self.img_size = bands, *size = sharp.img_size
        self._small = (bands, *[n // f for n, f in zip(size, small.factors, strict=True)])
        self._sharp = (len(sharp.curves.master), *size)

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Both cameras: `(B, bands, H, W)` to `(B, m)`; see `split`."""
        return torch.cat([self.small.A(x).flatten(1), self.sharp.A(x).flatten(1)], 1)

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        """Adjoint: `(B, m)` to `(B, bands, H, W)`."""
        small, sharp = self.split(y)
        return self.small.A_adjoint(small) + self.sharp.A_adjoint(sharp)

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The two images `(B, bands, H/f, W/f)` and `(B, k, H, W)` in a measurement `(B, m)`."""
        small, sharp = y.split([math.prod(self._small), math.prod(self._sharp)], 1)
        return small.unflatten(1, self._small), sharp.unflatten(1, self._sharp)


def fusion(
    image_shape: Sequence[int],
    *,
    factor: int = 4,
    filter: Filter = "gaussian",
    sigma: float | None = None,
    boundary: Boundary = "circular",
    channels: int = 3,
    file: Path | str | None = None,
    curves: Tensor | None = None,
    noise: float = 0.0,
) -> Fusion:
    """Hyperspectral super-resolution: all bands at low resolution and few at high.

    Args:
        image_shape: `(bands, H, W)` of one clean cube; `factor` divides `H` and `W`.
        factor: how many times smaller the image of all bands is.
        filter: what makes it small, as in `downsample`.
        sigma: of the Gaussian filter in pixels, `factor / 2` when None.
        boundary: as in `downsample`.
        channels: bands of the sharp image, as in `response`.
        file: response curves, as in `response`.
        curves: response curves, as in `response`.
        noise: standard deviation of Gaussian noise on both, in units of the image.

    Returns:
        Linear operator from `(B, bands, H, W)` to `(B, m)`; its `split` gives the two images.

    Raises:
        ValueError: see `downsample` and `response`.
        FileNotFoundError: there is no such file.
    """
    shape = image_size(image_shape)
    small = downsample(shape, factor=factor, filter=filter, sigma=sigma, boundary=boundary)
    sharp = response(shape, channels=channels, file=file, curves=curves)
    return Fusion(small, sharp, noise_model=noise_model(noise))
