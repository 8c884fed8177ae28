"""A volume on another grid, in world coordinates: axes may be flipped, exchanged and oblique."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medical.geometry import Affine, place
from medical.volume import Volume

Grid = tuple[Affine, tuple[int, int, int]]
"""An affine and voxels `(I, J, K)`."""

_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))  # of a Gaussian whose full width at half maximum is 1
_MARGIN = 4  # widths of that Gaussian, around what is cut out of a volume
_TIE = 1e-3  # of a voxel


@dataclass(frozen=True)
class Sampled:
    """Numbers on another grid.

    Attributes:
        data: `(C, I, J, K)` float32.
        inside: `(I, J, K)`, whether the volume measured there.
    """

    data: NDArray[np.float32]
    inside: NDArray[np.bool_]


def smooth(volume: Volume, grid: Grid, *, fill: float) -> Sampled:
    """Interpolate linearly, after a Gaussian where the new grid is coarser.

    The Gaussian makes a resolution of one old voxel into one of a new voxel (Cardoso et al. 2015,
    "Scale factor point spread function matching", MICCAI). Linear interpolation never leaves the
    range of the numbers, as splines do at the edge of a hot lesion.

    Args:
        volume: to be resampled.
        grid: the new one.
        fill: where the volume does not reach.
    """
    affine, shape = grid
    to_old = np.linalg.inv(volume.affine) @ affine
    coarser = np.linalg.norm(to_old[:3, :3], axis=1)
    sigma = _SIGMA * np.sqrt(np.maximum(coarser**2 - 1, 0))
    inside = _inside(volume, to_old, shape)
    out = np.full((len(volume.data), *shape), fill, np.float32)
    if not inside.any():
        return Sampled(out, inside)
    start, window = _window(volume, to_old, shape, np.ceil(_MARGIN * sigma).astype(int) + 1)
    to_window = to_old.copy()
    to_window[:3, 3] -= start
    for old, new in zip(volume.data.numpy(), out, strict=True):
        part = old[window]
        if sigma.max() > 0:
            part = cast(Any, ndimage.gaussian_filter)(part, sigma, mode="nearest", truncate=_MARGIN)
        moved = _at(part, to_window, shape, order=1)
        new[inside] = moved[inside]
    return Sampled(out, inside)


def nearest(volume: Volume, grid: Grid, *, fill: float = 0.0) -> Sampled:
    """Numbers of the nearest voxels, for masks: halfway between two of them the smaller.

    Rounding halves to one side would shift a mask by up to half a new voxel.

    Args:
        volume: to be resampled.
        grid: the new one.
        fill: where the volume does not reach.
    """
    affine, shape = grid
    to_old = np.linalg.inv(volume.affine) @ affine
    inside = _inside(volume, to_old, shape)
    out = np.full((len(volume.data), *shape), fill, np.float32)
    sides = [to_old.copy(), to_old.copy()]
    sides[0][:3, 3] += _TIE
    sides[1][:3, 3] -= _TIE
    for old, new in zip(volume.data.numpy(), out, strict=True):
        below, above = (_at(old, side, shape, order=0) for side in sides)
        new[inside] = np.minimum(below, above)[inside]
    return Sampled(out, inside)


def _at(
    image: NDArray[np.float32], to_old: Affine, shape: tuple[int, int, int], *, order: int
) -> NDArray[np.float32]:
    transform = cast(Any, ndimage.affine_transform)
    return transform(
        image, to_old[:3, :3], to_old[:3, 3], output_shape=shape, order=order, mode="nearest"
    )


def _inside(volume: Volume, to_old: Affine, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Where a voxel of the new grid has its centre in a measured voxel of the old."""
    steps = [np.arange(n, dtype=np.float64) for n in shape]
    inside = np.ones(shape, bool)
    for row, count in zip(to_old[:3], volume.grid, strict=True):
        i, j, k = (step * along for step, along in zip(steps, row[:3], strict=True))
        index = i[:, None, None] + j[:, None] + (k + row[3])
        inside &= (index >= -0.5 - _TIE) & (index <= count - 0.5 + _TIE)
    if volume.valid is not None:
        measured = volume.valid.numpy().astype(np.float32)
        inside &= _at(measured, to_old, shape, order=0) > 0
    return inside


def _window(
    volume: Volume, to_old: Affine, shape: tuple[int, int, int], margin: NDArray[np.int_]
) -> tuple[NDArray[np.int_], tuple[slice, ...]]:
    """Which part of the old grid the new one needs: its first voxel, and slices."""
    ends = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij"), -1).reshape(-1, 3)
    index = place(to_old, ends)
    last = np.array(volume.grid)
    low = np.clip(np.floor(index.min(0)).astype(int) - margin, 0, last - 1)
    high = np.clip(np.ceil(index.max(0)).astype(int) + margin + 1, low + 1, last)
    return low, tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
