"""Sheared stacks made straight, uneven ones even: linear interpolation, on request only."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medical.dicom.order import Stack

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def straighten(data: Array, valid: Mask | None, stack: Stack, fill: float) -> tuple[Array, Mask]:
    """Shift slices sideways onto one grid that is wide enough for all.

    Args:
        data: `(N, J, I)`, measured slices.
        valid: of the same shape.
        stack: with its shifts.
        fill: where no slice reaches.

    Returns:
        `(N, J', I')` numbers and where they are valid: between measured voxels that are.
    """
    assert stack.sideways is not None
    (left, right), (top, bottom) = stack.margin.tolist()
    room = ((top, bottom), (left, right))
    size = (len(data), data.shape[1] + top + bottom, data.shape[2] + left + right)
    out, inside = np.full(size, fill, dtype=np.float32), np.zeros(size, dtype=bool)
    for k, (along_columns, along_rows) in enumerate(stack.sideways):
        measured = np.ones(data.shape[1:], bool) if valid is None else valid[k]
        shift = (along_rows, along_columns)
        whole = np.pad(measured.astype(np.float32), room)
        inside[k] = ndimage.shift(whole, shift, order=1) > 1 - 1e-4
        moved = ndimage.shift(np.pad(data[k], room, mode="edge"), shift, order=1, mode="nearest")
        out[k][inside[k]] = moved[inside[k]]
    return out, inside


def even(data: Array, valid: Mask | None, stack: Stack, fill: float) -> tuple[Array, Mask]:
    """Interpolate slices to even spacing.

    Args:
        data: `(N, J, I)`, measured slices.
        valid: of the same shape.
        stack: with their places in units of the spacing.
        fill: where nothing is valid.

    Returns:
        `(K, J, I)` numbers and where they are valid: not further than one spacing from a measured
        slice, between valid voxels.
    """
    places, count = stack.lattice.places, stack.lattice.count
    out = np.full((count, *data.shape[1:]), fill, dtype=np.float32)
    inside = np.zeros(out.shape, dtype=bool)
    for k in range(count):
        above = int(np.clip(np.searchsorted(places, k), 1, len(places) - 1))
        below, gap = above - 1, places[above] - places[above - 1]
        share = min(1.0, (k - places[below]) / gap)
        out[k] = (1 - share) * data[below] + share * data[above]
        near = min(share, 1 - share) * gap <= 1.01
        both = (
            True if valid is None else (valid[below] | (share == 1)) & (valid[above] | (share == 0))
        )
        inside[k] = near & both
        out[k][~inside[k]] = fill
    return out, inside
