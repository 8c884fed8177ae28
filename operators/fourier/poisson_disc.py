"""Variable-density Poisson discs on a grid: random samples that keep their distance.

Incoherent like random samples, but without their clusters and gaps, which waste time and amplify
noise in parallel imaging (Lustig and Pauly, SPIRiT, Magnetic Resonance in Medicine 64, 2010).
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..validate import seeded

JITTER = 0.25  # relative, of a radius: without it the steps of the grid show as rings
SURPLUS = 0.01  # share of samples that may be too many before the last ones are dropped


def poisson_disc(centre: Tensor, measured: int, seed: int) -> Tensor:
    """Measure the centre and, around it, samples whose distance grows linearly with frequency.

    A sample of radius `r = 1 + slope rho`, within a quarter of it, keeps later ones out of the disc
    `|q - p| < r`, in steps of the grid; `rho` is the distance from the centre, 1 at the border of
    each axis. The slope is searched for so that exactly `measured` samples remain.

    Args:
        centre: the samples that are always measured, a rectangle `(H, W)`, boolean.
        measured: number of samples, not fewer than the centre has.
        seed: of the order in which samples are tried.

    Returns:
        `(H, W)`, boolean.
    """
    rho = _frequency(centre)
    generator = seeded(seed)
    order = torch.randperm(centre.numel(), generator=generator)
    uneven = 1 + JITTER * (2 * torch.rand(centre.shape, generator=generator).numpy() - 1)
    order = order[~centre.flatten()[order]].numpy()
    wanted, taken = measured - int(centre.sum()), order
    low, high, slope = 0.0, math.inf, 1.0
    for _ in range(30):
        if len(taken) <= (1 + SURPLUS) * wanted:
            break
        thrown = throw((1 + slope * rho) * uneven, order)
        if len(thrown) >= wanted:
            low, taken = slope, thrown
        else:
            high = slope
        slope = 2 * slope if high == math.inf else (low + high) / 2
    plane = centre.flatten().clone()
    plane[torch.from_numpy(taken[:wanted])] = True
    return plane.reshape(centre.shape)


def throw(radius: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Take the samples in order, each unless it lies in the disc of one taken before.

    Args:
        radius: of the disc around every sample, `(H, W)`, in steps of the grid.
        order: flat indices of the samples to be tried.

    Returns:
        Flat indices of those that were taken, in order.
    """
    height, width = radius.shape
    reach = min(math.ceil(radius.max()), max(height, width))
    stride = width + 2 * reach  # a margin, so that discs need no clipping
    steps = np.arange(-reach, reach + 1)
    square = (steps[:, None] ** 2 + steps**2).ravel()
    nearest = np.argsort(square, kind="stable")
    offsets = (steps[:, None] * stride + steps).ravel()[nearest]
    inside = np.searchsorted(square[nearest], radius.ravel()[order] ** 2)
    places = (order // width + reach) * stride + order % width + reach
    free = np.ones((height + 2 * reach) * stride, dtype=bool)
    look, kept = free.data, []
    for i, (place, count) in enumerate(zip(places.tolist(), inside.tolist(), strict=True)):
        if look[place]:
            kept.append(i)
            free[place + offsets[:count]] = False
    return order[kept]


def _frequency(centre: Tensor) -> np.ndarray:
    """Distance from the centre, 1 at the border of each axis."""
    squares = np.zeros(tuple(centre.shape))
    for axis, n in enumerate(centre.shape):
        half = int(centre.any(dim=1 - axis).sum()) / 2
        away = np.maximum(np.abs(np.arange(n) - n // 2) - half, 0)
        squares += (away / max(away.max(), 1)).reshape(-1, *[1] * (1 - axis)) ** 2
    return np.sqrt(squares)
