"""Blur kernels: non-negative planes that sum to one."""

import math
from pathlib import Path

import torch
from torch import Tensor

from .files import read_plane
from .validate import number


def gaussian_kernel(sigma: float) -> Tensor:
    """Gaussian point spread of standard deviation `sigma` pixels, cut at four of them.

    Returns:
        `(K, K)` with `K = 2 ceil(4 sigma) + 1`, float64.

    Raises:
        ValueError: sigma is not in (0, 256].
    """
    sigma = number("sigma", sigma, above=0, high=256, do="give a standard deviation in pixels")
    radius = math.ceil(4 * sigma)
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    g = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = torch.outer(g, g)
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


def file_kernel(path: str | Path) -> Tensor:
    """Kernel from a picture or a `.npy` array, scaled to sum to one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, or not a kernel.
    """
    return normalised(read_plane(path), f"the kernel in '{path}'")


def normalised(kernel: Tensor, what: str = "the kernel") -> Tensor:
    """Scale a plane to sum to one.

    Args:
        kernel: `(K, L)`, any real dtype.
        what: its name for the refusal.

    Returns:
        `(K, L)`, float64.

    Raises:
        ValueError: not a plane, not finite, or its sum is not positive.
    """
    if kernel.ndim != 2 or kernel.numel() == 0 or kernel.is_complex():
        raise ValueError(f"{what} has shape {tuple(kernel.shape)}, expected a real plane (K, L).")
    plane = kernel.detach().to("cpu", torch.float64)
    total = plane.sum()
    if not torch.isfinite(plane).all() or total <= 0:
        raise ValueError(
            f"{what} sums to {total.item():g}, expected finite values with a positive sum; "
            "give a point spread function."
        )
    return plane / total
