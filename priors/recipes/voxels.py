"""Painting in voxels: soft edges, smooth random fields, distances, ellipsoids."""

import numpy as np
import torch
from numpy.random import Generator
from scipy import ndimage
from torch.nn import functional as F

from priors.recipes.scan_files import Voxels


def smoothstep(x: Voxels, low: float | Voxels, high: float | Voxels) -> Voxels:
    """Rise from 0 at `low` to 1 at `high`, smoothly."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def paint(hu: Voxels, weight: Voxels, value: float | Voxels) -> None:
    """Cover `hu` with `value` where `weight` is 1, in place."""
    hu += weight * (value - hu)


def field(shape: tuple[int, ...], scale: float, rng: Generator) -> Voxels:
    """Smooth random field of unit variance that varies over `scale` voxels."""
    coarse = [max(2, round(n / scale) + 1) for n in shape]
    values = torch.from_numpy(rng.standard_normal(coarse, dtype=np.float32))[None, None]
    while min(coarse) < min(shape) / 8:  # in steps of two and smoothed, or its knots show
        coarse = [2 * n - 1 for n in coarse]
        values = F.interpolate(values, coarse, mode="trilinear", align_corners=True)
        values = F.avg_pool3d(F.pad(values, [1] * 6, mode="replicate"), 3, 1)
    fine = F.interpolate(values / values.std(), shape, mode="trilinear", align_corners=True)
    return fine[0, 0].numpy()


def depth_in(mask: Voxels) -> Voxels:
    """Signed distance to the surface of a mask, in voxels, positive inside, slightly rounded.

    Measured at half resolution, which is an eighth of the work.
    """
    padded = F.pad(torch.from_numpy(mask)[None, None], [0, 1] * 3, mode="replicate")
    half = (F.avg_pool3d(padded, 2)[0, 0] > 0.5).numpy()
    # distances to voxel centres across the surface, which lies half a voxel before them
    inside = np.asarray(ndimage.distance_transform_edt(half)) - 0.5
    outside = np.asarray(ndimage.distance_transform_edt(~half)) - 0.5
    signed = np.where(half, inside, -outside).astype(np.float32)
    signed = 2 * ndimage.gaussian_filter(signed, 0.9)
    # half-resolution voxel n lies at 2 n + 0.5
    fine = F.interpolate(
        torch.from_numpy(signed)[None, None], scale_factor=2, mode="trilinear", align_corners=False
    )
    return fine[0, 0, : mask.shape[0], : mask.shape[1], : mask.shape[2]].numpy()


def ball(
    shape: tuple[int, ...], centre: np.ndarray, radii: np.ndarray
) -> tuple[tuple[slice, ...], Voxels]:
    """Return the box around an ellipsoid, and the distance from its surface in it, inside > 0."""
    low = np.maximum(np.floor(centre - radii - 3), 0).astype(int)
    high = np.minimum(np.ceil(centre + radii + 4), shape).astype(int)
    box = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
    axes = np.ogrid[box]
    radius = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)) ** 0.5
    return box, ((1 - radius) * radii.min()).astype(np.float32)


def extent(mask: Voxels) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest voxel of a mask along every axis."""
    sides = [np.nonzero(mask.max(tuple({0, 1, 2} - {a})) > 0.5)[0] for a in range(3)]
    return np.array([s[0] for s in sides], float), np.array([s[-1] for s in sides], float)
