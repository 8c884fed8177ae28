"""Blur kernels: point spreads that sum to one, of two or three axes.

A kernel that is a product of one-dimensional ones is given as these, a tuple with one for every
axis: they are what is fast to apply and to decompose.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import read_plane
from .validate import number, whole

Taps = tuple[Tensor, ...]  # one kernel (K,) for every axis


def gaussian_taps(sigma: float, name: str = "sigma") -> Tensor:
    """Gaussian point spread of standard deviation `sigma` pixels, cut at four of them.

    Returns:
        `(K,)` with `K = 2 ceil(4 sigma) + 1`, float64.

    Raises:
        ValueError: sigma is not in (0, 256].
    """
    sigma = number(name, sigma, above=0, high=256, do="give a standard deviation in pixels")
    radius = math.ceil(4 * sigma)
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    g = torch.exp(-0.5 * (t / sigma) ** 2)
    return g / g.sum()


def gaussian_kernel(sigma: float) -> Tensor:
    """Gaussian point spread as a plane; see `gaussian_taps`.

    Returns:
        `(K, K)`, float64.
    """
    return outer((gaussian_taps(sigma),) * 2)


def box_taps(width: int) -> Tensor:
    """Even mean of `width` pixels, such as the area of a large detector.

    Returns:
        `(width,)`, float64.

    Raises:
        ValueError: a width outside [1, 1024].
    """
    width = whole("width", width, low=1, high=1024, do="give the box's width in pixels")
    return torch.full((width,), 1 / width, dtype=torch.float64)


def disk_kernel(radius: float, dims: int = 2) -> Tensor:
    """Defocus of a round aperture: an even disk, or ball, whose rim is shared by distance.

    Args:
        radius: pixels.
        dims: number of axes.

    Returns:
        `(K, K)` or `(K, K, K)` of odd sides, float64.

    Raises:
        ValueError: a radius outside (0, 256].
    """
    radius = number("radius", radius, above=0, high=256, do="give the disk's radius in pixels")
    reach = max(0, math.ceil(radius + 0.5) - 1)
    t = torch.arange(-reach, reach + 1, dtype=torch.float64).square()
    squares = t
    for _ in range(dims - 1):
        squares = squares[..., None] + t
    kernel = (radius + 0.5 - squares.sqrt()).clamp(0, 1)
    return kernel / kernel.sum()


def motion_kernel(length: float, angle: float) -> Tensor:
    """Straight, even camera motion over `length` pixels.

    The path is sampled every pixel and each sample shared among its four neighbours, so an odd
    length along a row or a column is exactly a box of that many pixels.

    Args:
        length: pixels covered by the motion, at least 1.
        angle: degrees, counter-clockwise from the rows.

    Returns:
        `(K, L)` of odd sides, float64.

    Raises:
        ValueError: a length outside [1, 1024], or an angle outside [-360, 360].
    """
    length = number("length", length, low=1, high=1024, do="give the motion's length in pixels")
    angle = number("angle", angle, low=-360, high=360, do="give degrees from the horizontal")
    half = (length - 1) / 2
    t = torch.linspace(-half, half, math.ceil(length), dtype=torch.float64)
    # rounding takes away the 1e-16 that would otherwise open a second row or column
    row = (-t * math.sin(math.radians(angle))).round(decimals=9)
    column = (t * math.cos(math.radians(angle))).round(decimals=9)
    high, wide = math.ceil(row.abs().max()), math.ceil(column.abs().max())
    grid_row = torch.arange(-high, high + 1, dtype=torch.float64)
    grid_column = torch.arange(-wide, wide + 1, dtype=torch.float64)
    share_row = (1 - (grid_row[:, None] - row).abs()).clamp(min=0)
    share_column = (1 - (grid_column[:, None] - column).abs()).clamp(min=0)
    kernel = share_row @ share_column.T
    return kernel / kernel.sum()


def file_kernel(path: str | Path, dims: int = 2) -> Tensor:
    """Kernel from a picture or a `.npy` array, scaled to sum to one.

    Args:
        path: the file; a kernel of three axes can only be a `.npy` array.
        dims: number of axes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, or not a kernel.
    """
    array = read_plane(path) if dims == 2 else _read_volume(Path(path))
    return normalised(array, dims, f"the kernel in '{path}'")


def normalised(kernel: Tensor, dims: int = 2, what: str = "the kernel") -> Tensor:
    """Scale a kernel to sum to one.

    Args:
        kernel: `(K, L)`, or `(J, K, L)` for three axes, any real dtype.
        dims: number of axes.
        what: its name for the refusal.

    Returns:
        The same shape, float64.

    Raises:
        ValueError: another number of axes, not finite, or its sum is not positive.
    """
    if kernel.ndim != dims or kernel.numel() == 0 or kernel.is_complex():
        expected = "a real plane (K, L)" if dims == 2 else "a real volume (J, K, L)"
        raise ValueError(f"{what} has shape {tuple(kernel.shape)}, expected {expected}.")
    kernel = kernel.detach().to("cpu", torch.float64)
    total = kernel.sum()
    if not torch.isfinite(kernel).all() or total <= 0:
        raise ValueError(
            f"{what} sums to {total.item():g}, expected finite values with a positive sum; "
            "give a point spread function."
        )
    return kernel / total


def outer(taps: Taps) -> Tensor:
    """The kernel that is the product of one-dimensional ones."""
    kernel = taps[0]
    for each in taps[1:]:
        kernel = kernel[..., None] * each
    return kernel


def separate(kernel: Tensor) -> Taps | None:
    """One-dimensional kernels whose product this one is, to rounding, or None.

    A kernel that sums to one can only be the product of its own marginals.
    """
    axes = range(kernel.ndim)
    taps = tuple(kernel.sum([i for i in axes if i != axis]) for axis in axes)
    gap = (outer(taps) - kernel).abs().max()
    return taps if gap <= 1e-13 * kernel.abs().max() else None


def _read_volume(file: Path) -> Tensor:
    if not file.is_file():
        raise FileNotFoundError(f"{str(file)!r} is not a file; give a .npy array (J, K, L).")
    try:
        array = np.load(file, allow_pickle=False)
        return torch.from_numpy(array.astype(np.result_type(array, np.float64)))
    except Exception as error:  # numpy raises several kinds
        raise ValueError(
            f"'{file}' cannot be read as a .npy array of numbers, expected a kernel (J, K, L); "
            "save it with numpy.save."
        ) from error
