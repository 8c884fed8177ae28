"""deepinv's form of our operators, as a user of deepinv would build them."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from deepinv.physics import (
    MRI,
    Blur,
    BlurFFT,
    CompressiveSpectralImaging,
    Downsampling,
    LinearPhysics,
    MultiCoilMRI,
    Tomography,
)
from torch import Tensor

import operators

Shape = tuple[int, ...]
Build = Callable[[Shape], LinearPhysics]


def tomography(shape: Shape, angles: int = 60) -> LinearPhysics:
    """Parallel beams with the exact adjoint; square slices only."""
    if shape[1] != shape[2]:
        raise ValueError(f"the slice is {shape[1]}x{shape[2]} pixels, expected a square.")
    return Tomography(angles=angles, img_width=shape[1], adjoint_via_backprop=True, normalize=False)


def downsampling(shape: Shape, factor: int = 4) -> LinearPhysics:
    """Circular boundary, the bicubic filter."""
    return Downsampling(img_size=shape, filter="bicubic", factor=factor, padding="circular")


def mri(shape: Shape) -> LinearPhysics:
    """One coil, a quarter of the columns."""
    return MRI(mask=_columns(shape[1:]), img_size=shape)


def multicoil_mri(shape: Shape, coils: int = 8) -> LinearPhysics:
    """The coil maps of ours."""
    maps = operators.birdcage((shape[1], shape[2]), coils)
    return MultiCoilMRI(mask=_columns(shape[1:]), coil_maps=maps, img_size=shape)


def blur(shape: Shape, sigma: float = 2.0) -> LinearPhysics:
    """Circular, by Fourier transforms; a Gaussian in two dimensions or three."""
    kernel = _gaussian(sigma, len(shape) - 1)[None, None]
    if len(shape) == 3:
        return BlurFFT(img_size=shape, filter=kernel)
    return Blur(filter=kernel, padding="circular", use_fft=True)


def cassi(shape: Shape) -> LinearPhysics:
    """One disperser, random aperture."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    return CompressiveSpectralImaging((channels, height, width), mode="sd", rng=generator)


# name in a specification -> deepinv's form
RIVALS: dict[str, Build] = {
    "blur": blur,
    "downsample": downsampling,
    "ct": tomography,
    "mri": mri,
    "mri:coils=8": multicoil_mri,
    "cassi": cassi,
}


@contextmanager
def hushed() -> Iterator[None]:
    """Without deepinv's warnings about its own defaults and casts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _columns(size: Shape) -> Tensor:
    order = torch.randperm(size[-1], generator=torch.Generator().manual_seed(0))
    kept = torch.zeros(size[-1])
    kept[order[: size[-1] // 4]] = 1
    return kept.expand(size).clone()


def _gaussian(sigma: float, dims: int) -> Tensor:
    t = torch.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    profile = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = torch.ones(())
    for _ in range(dims):
        kernel = kernel[..., None] * profile
    return kernel / kernel.sum()
