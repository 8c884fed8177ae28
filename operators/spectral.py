"""Spectra: what is left of the bands when a detector is sensitive to several at once."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from .noise import noise_model
from .separable import Constant
from .svd import SVD, Decomposed
from .validate import image_size, whole

# ITU-R BT.601 luma
LUMA = (0.299, 0.587, 0.114)


class Response(Decomposed, LinearPhysics):
    """Every pixel's spectrum through one small matrix `R (k, bands)`.

    Args:
        shape: `(bands, *spatial)` of one image.
        curves: `R`; kept in float64, follows the precision and device of the images.
        **options: for deepinv's `LinearPhysics`.
    """

    unit: Tensor

    def __init__(self, shape: tuple[int, ...], curves: Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.img_size = shape
        master = curves.detach().to("cpu", torch.float64)
        self.curves = Constant(master)
        self._factors = [Constant(f) for f in torch.linalg.svd(master, full_matrices=False)]
        self.register_buffer("unit", torch.ones(()), persistent=False)  # moves with the operator

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Mix: `(B, bands, *spatial)` to `(B, k, *spatial)`."""
        return _mix(self.curves(x), x)

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        """Adjoint: `(B, k, *spatial)` to `(B, bands, *spatial)`."""
        return _mix(self.curves(y).T, y)

    def svd(self) -> SVD:
        """That of the matrix, at every pixel; coordinates `(B, min(k, bands), *spatial)`."""
        U, s, Vt = self._factors
        return SVD(
            s=s(self.unit).reshape(-1, *[1] * (len(self.img_size) - 1)),
            Vt=lambda x: _mix(Vt(x), x),
            V=lambda c: _mix(Vt(c).T, c),
            U=lambda c: _mix(U(c), c),
            Ut=lambda y: _mix(U(y).T, y),
        )


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
    return Response(
        shape, torch.tensor([LUMA], dtype=torch.float64), noise_model=noise_model(noise)
    )


def response(
    image_shape: Sequence[int],
    *,
    channels: int = 3,
    file: Path | str | None = None,
    curves: Tensor | None = None,
    noise: float = 0.0,
) -> Response:
    """A camera of few broad bands: `y = R x` at every pixel of a hyperspectral cube.

    Args:
        image_shape: `(bands, H, W)` of one clean cube, or `(bands, D, H, W)`.
        channels: number of broad bands; their curves are Gaussians, evenly spaced over the bands,
            whose full width at half maximum is the spacing, each with unit sum.
        file: the curves of a real camera instead, `(k, bands)` numbers: a `.npy` array, or text
            with one line a channel and commas between the bands.
        curves: the same as a tensor `(k, bands)`.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, bands, ...)` to `(B, k, ...)`.

    Raises:
        ValueError: more channels than bands, or curves that are not finite numbers, all zero, or of
            another number of bands.
        FileNotFoundError: there is no such file.
    """
    shape = image_size(image_shape, dims=(2, 3))
    matrix = _curves(shape[0], channels, file, curves)
    return Response(shape, matrix, noise_model=noise_model(noise))


def image_shape(measured: tuple[int, ...], **_: object) -> tuple[int, ...]:
    """Shape `(3, ...)` of the clean image behind a grey one `(1, ...)`."""
    grey = image_size(measured, channels=1, dims=(2, 3), hint="a decolorised image is grey")
    return (3, *grey[1:])


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("kb,nb...->nk...", matrix, x)


def _curves(bands: int, channels: int, file: Path | str | None, curves: Tensor | None) -> Tensor:
    if file is not None and curves is not None:
        raise ValueError("the response is given by file and curves, expected one; drop the other.")
    if file is None and curves is None:
        return _gaussian_curves(bands, channels)
    found = torch.from_numpy(_read_table(file)) if file is not None else torch.as_tensor(curves)
    where = f" in '{file}'" if file is not None else ""
    if found.ndim != 2 or found.shape[1] != bands:
        raise ValueError(
            f"the response{where} has shape {tuple(found.shape)} but the image {bands} bands; "
            "give one row a channel and one column a band."
        )
    if not found.isfinite().all() or not found.any():
        raise ValueError(
            f"the response{where} is zero or not finite, expected sensitivities; repair it."
        )
    return found


def _gaussian_curves(bands: int, channels: int) -> Tensor:
    channels = whole("channels", channels, low=1, high=bands, do="give no more than the bands")
    spacing = bands / channels
    width = spacing / (8 * math.log(2)) ** 0.5  # of a full width at half maximum of the spacing
    centre = (torch.arange(channels, dtype=torch.float64) + 0.5) * spacing - 0.5
    apart = torch.arange(bands, dtype=torch.float64) - centre[:, None]
    curves = torch.exp(-0.5 * (apart / width) ** 2)
    return curves / curves.sum(1, keepdim=True)


def _read_table(file: Path | str) -> np.ndarray:
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"'{file}' is not a file; give a .npy array or a .csv table.")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False).astype(np.float64)
        return np.loadtxt(path, delimiter=",", ndmin=2)
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"'{file}' is not a table of numbers ({str(error).splitlines()[0].rstrip('.')}); save "
            "it again as .npy, or as text with one line a channel and commas between the bands."
        ) from error
