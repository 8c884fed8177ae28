"""The header of a NIfTI file, version 1 or 2, in either byte order, checked.

version 1: 348 bytes, magic "n+1" or "ni1" (a pair of files) at byte 344
version 2: 540 bytes, magic "n+2" or "ni2" at byte 4
"""

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from medical.refusal import Refusal

SIZES = {348: 1, 540: 2}
"""Bytes of a header, by which its version is known."""
_MAGIC = {b"n+1\0": False, b"ni1\0": True, b"n+2\0\r\n\x1a\n": False, b"ni2\0\r\n\x1a\n": True}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a reader needs of a header.

    Attributes:
        fields: nibabel's header, for its affines.
        version: 1 or 2.
        pair: whether the voxels are in a file of their own.
        dtype: of the voxels, byte order included.
        grid: voxels `(I, J, K)`.
        frames: length of the fourth axis.
        channels: length of the fifth axis, vectors.
        offset: byte at which voxels begin.
        slope: value = slope * stored + intercept.
        intercept: see `slope`.
    """

    fields: Any
    version: int
    pair: bool
    dtype: np.dtype
    grid: tuple[int, int, int]
    frames: int
    channels: int
    offset: int
    slope: float
    intercept: float

    @property
    def raw(self) -> int:
        """Bytes of all voxels of the file."""
        return prod(self.grid) * self.frames * self.channels * self.dtype.itemsize


def header_size(start: bytes) -> int:
    """Bytes of the header that begins with these four.

    Raises:
        Refusal: E_NIFTI_MAGIC.
    """
    for order in "<>":
        (size,) = struct.unpack(f"{order}i", start[:4].ljust(4, b"\0"))
        if size in SIZES:
            return size
    raise Refusal("E_NIFTI_MAGIC", "this is not a NIfTI file; it begins with no such header.")


def parse(block: bytes) -> Header:
    """Read a header from its bytes.

    Raises:
        Refusal: E_NIFTI_MAGIC, E_NIFTI_HEADER, E_NIFTI_TYPE, E_NIFTI_4D.
    """
    size = header_size(block)
    magic = block[344:348] if size == 348 else block[4:12]
    if magic not in _MAGIC:
        raise Refusal(
            "E_NIFTI_MAGIC",
            "the header lacks the mark of NIfTI; an Analyze file says nothing about left and right "
            "and is not read; convert it.",
        )
    order = "<" if struct.unpack("<i", block[:4])[0] == size else ">"
    fields = (Nifti1Header if size == 348 else Nifti2Header)(block, order, check=False)
    grid, frames, channels = _axes(fields)
    pair, offset = _MAGIC[magic], float(fields["vox_offset"])
    if not (offset.is_integer() and (0 if pair else size) <= offset < 2**40):
        raise Refusal(
            "E_NIFTI_HEADER", f"voxels begin at byte {offset:g}, expected {size + 4} or more."
        )
    slope, intercept = _scaling(fields)
    return Header(
        fields=fields,
        version=SIZES[size],
        pair=pair,
        dtype=_dtype(fields),
        grid=grid,
        frames=frames,
        channels=channels,
        offset=int(offset),
        slope=slope,
        intercept=intercept,
    )


def _axes(fields: Any) -> tuple[tuple[int, int, int], int, int]:
    """Grid, frames and channels."""
    dims = [int(n) for n in fields["dim"]]
    count, sizes = dims[0], dims[1:]
    if not 1 <= count <= 7 or min(sizes[:count]) < 1:
        raise Refusal(
            "E_NIFTI_HEADER",
            f"the header counts {count} axes of lengths {sizes[: max(0, min(count, 7))]}, expected "
            "1 to 7 axes of at least one voxel; write the file again.",
        )
    i, j, k, frames, channels, *rest = sizes[:count] + [1] * (7 - count)
    if max(rest) > 1:
        raise Refusal(
            "E_NIFTI_4D",
            f"the file has {count} axes of lengths {sizes[:count]}, expected three, a fourth of "
            "frames and a fifth of channels; cut it into volumes.",
        )
    return (i, j, k), frames, channels


def _dtype(fields: Any) -> np.dtype:
    try:
        dtype = fields.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise Refusal(
            "E_NIFTI_TYPE", f"voxels are of unknown type {int(fields['datatype'])}; convert them."
        ) from error
    if dtype.fields is not None:
        raise Refusal(
            "E_NIFTI_COLOUR", "voxels are colours, expected one number each; convert them."
        )
    if dtype.kind not in "iufc" or dtype.itemsize > 8 * (1 + (dtype.kind == "c")):
        raise Refusal(
            "E_NIFTI_TYPE", f"voxels are of type {dtype}, expected at most 64 bits; convert them."
        )
    return dtype


def _scaling(fields: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means that there is none."""
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        raise Refusal(
            "E_NIFTI_HEADER",
            f"values are {slope:g} * stored + {intercept:g}, expected finite numbers; mend "
            "scl_slope and scl_inter.",
        )
    return slope, intercept
