"""Spectra: what is left of the bands when a detector is sensitive to several at once."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from .downsample import downsample
from .files import read_plane
from .noise import noise_model
from .repaired import Repaired
from .separable import Constant
from .svd import SVD, Decomposed
from .validate import image_size, whole

# ITU-R BT.601 luma
LUMA = (0.299, 0.587, 0.114)


class Response(Decomposed, LinearPhysics):
    """Every pixel's spectrum through one small matrix `R (k, bands)`.

    Args:
        shape: `(bands, *spatial)` of one image.
        matrix: `R`.
        **kwargs: for deepinv's `LinearPhysics`.
    """

    def __init__(self, shape: tuple[int, ...], matrix: Tensor, **kwargs: Any) -> None:
        super().__init__(img_size=shape, **kwargs)
        self.image_shape = shape
        self.matrix = Constant(matrix.detach().to("cpu", torch.float64))
        factors = torch.linalg.svd(self.matrix.master, full_matrices=False)
        self._factors = [Constant(part) for part in factors]

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Mix: `(B, bands, ...)` to `(B, k, ...)`."""
        return _mix(self.matrix(x), x)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, k, ...)` to `(B, bands, ...)`."""
        return _mix(self.matrix(y).T, y)

    def svd(self) -> SVD:
        """That of the matrix, at every pixel."""
        U, s, Vt = self._factors
        spatial = len(self.image_shape) - 1
        return SVD(
            s.master.reshape(-1, *[1] * spatial),
            lambda x: _mix(Vt(x), x),
            lambda c: _mix(Vt(c).T, c),
            lambda c: _mix(U(c), c),
            lambda y: _mix(U(y).T, y),
        )


class Fusion(Repaired, LinearPhysics):
    """A small image of all bands beside a large one of few: one row of numbers.

    Args:
        small: downsampling of all bands.
        sharp: response of the camera with few bands.
        **kwargs: for deepinv's `LinearPhysics`.
    """

    def __init__(self, small: LinearPhysics, sharp: Response, **kwargs: Any) -> None:
        super().__init__(img_size=sharp.image_shape, **kwargs)
        self.small, self.sharp = small, sharp
        probe = torch.zeros(1, *sharp.image_shape)
        self.shapes = tuple(small.A(probe).shape[1:]), tuple(sharp.A(probe).shape[1:])

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Both cameras: `(B, bands, H, W)` to `(B, m)`, the small image first; see `split`."""
        return torch.cat([self.small.A(x).flatten(1), self.sharp.A(x).flatten(1)], 1)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, m)` to `(B, bands, H, W)`."""
        small, sharp = self.split(y)
        return self.small.A_adjoint(small) + self.sharp.A_adjoint(sharp)

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The two images `(B, bands, H/f, W/f)` and `(B, k, H, W)` in a measurement `(B, m)`."""
        first = torch.Size(self.shapes[0]).numel()
        return y[:, :first].unflatten(1, self.shapes[0]), y[:, first:].unflatten(1, self.shapes[1])


def decolorise(image_shape: Sequence[int], *, noise: float = 0.0) -> Response:
    """Grey from colour: `y = 0.299 R + 0.587 G + 0.114 B` (ITU-R BT.601 luma).

    Args:
        image_shape: `(3, H, W)` of one clean image, or `(3, D, H, W)` of one volume.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, 3, ...)` to `(B, 1, ...)`.

    Raises:
        ValueError: the image is not in colour, or negative noise.
    """
    shape = image_size(
        image_shape, channels=3, dims=(2, 3), hint="only a colour image can lose its colour"
    )
    return Response(shape, torch.tensor([LUMA]), noise_model=noise_model(noise))


def response(
    image_shape: Sequence[int],
    *,
    channels: int = 3,
    file: Path | str | None = None,
    noise: float = 0.0,
) -> Response:
    """A camera of few broad bands: `y = R x` at every pixel of a hyperspectral cube.

    Args:
        image_shape: `(bands, H, W)` of one clean cube.
        channels: number of broad bands; their curves are Gaussians, evenly spaced over the bands,
            whose full width at half maximum is the spacing, each with unit sum.
        file: picture or `.npy` array `(k, bands)` with the response curves of a real camera;
            replaces `channels`.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, bands, H, W)` to `(B, k, H, W)`.

    Raises:
        ValueError: more channels than bands, or curves of another number of bands.
        FileNotFoundError: there is no such file.
    """
    shape = image_size(image_shape)
    return Response(shape, _curves(shape[0], channels, file), noise_model=noise_model(noise))


def fusion(
    image_shape: Sequence[int],
    *,
    factor: int = 4,
    channels: int = 3,
    file: Path | str | None = None,
    noise: float = 0.0,
) -> Fusion:
    """Hyperspectral super-resolution: all bands at low resolution and few at high.

    Args:
        image_shape: `(bands, H, W)` of one clean cube; `factor` divides `H` and `W`.
        factor: how many times smaller the image of all bands is, through a Gaussian filter.
        channels: bands of the sharp image, as in `response`.
        file: response curves, as in `response`.
        noise: standard deviation of Gaussian noise on both, in units of the image.

    Returns:
        Linear operator from `(B, bands, H, W)` to `(B, m)`; its `split` gives the two images.

    Raises:
        ValueError: see `downsample` and `response`.
        FileNotFoundError: there is no such file.
    """
    shape = image_size(image_shape)
    small = downsample(shape, factor=factor, filter="gaussian")
    sharp = response(shape, channels=channels, file=file)
    return Fusion(small, sharp, noise_model=noise_model(noise))


def image_shape(measured: tuple[int, ...], **_: object) -> tuple[int, ...]:
    """Shape `(3, ...)` of the clean image behind a grey one `(1, ...)`."""
    grey = image_size(measured, channels=1, dims=(2, 3), hint="a decolorised image is grey")
    return (3, *grey[1:])


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("kb,nb...->nk...", matrix, x)


def _curves(bands: int, channels: int, file: Path | str | None) -> Tensor:
    if file is not None:
        curves = read_plane(file)
        if curves.shape[1] != bands:
            raise ValueError(
                f"the response in '{file}' is for {curves.shape[1]} bands but the image has "
                f"{bands}; give one row a channel and one column a band."
            )
        return curves
    channels = whole("channels", channels, low=1, high=bands, do="give fewer than the bands")
    spacing = bands / channels
    centre = (torch.arange(channels, dtype=torch.float64) + 0.5) * spacing - 0.5
    width = spacing / 2.3548  # full width at half maximum to standard deviation
    apart = torch.arange(bands, dtype=torch.float64) - centre[:, None]
    curves = torch.exp(-0.5 * (apart / max(width, 0.3)) ** 2)
    return curves / curves.sum(1, keepdim=True)
