"""How a NIfTI file stores numbers, so that they come back as they were.

    read from a NIfTI file, every value still one of its    as there, with its slope
    Hounsfield units, all whole, within 16 bits             int16
    anything else                                           float32

Nothing is ever rescaled to fill a type: that is how labels stop being whole numbers and how zero
stops being zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medical.nifti.source import NiftiSource
from medical.refusal import Refusal
from medical.volume import Volume

Slice = NDArray[np.float32]

LABELS = ("uint8", "uint16", "uint32")
TYPES = (*LABELS, "int8", "int16", "int32", "float32", "float64")


@dataclass(frozen=True)
class Storage:
    """A type on disk, with `value = slope * stored + intercept`."""

    dtype: np.dtype
    slope: float = 1.0
    intercept: float = 0.0

    def store(self, values: Slice) -> NDArray | None:
        """The numbers that stand for values, None where some value has none."""
        if self.dtype.kind == "f":
            return values.astype(self.dtype)
        stored = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        ends = np.iinfo(self.dtype)
        if stored.min() < ends.min or stored.max() > ends.max:
            return None
        back = stored * self.slope + self.intercept
        return stored.astype(self.dtype) if (back.astype(np.float32) == values).all() else None

    def exact(self, volume: Volume) -> bool:
        """Whether every value of a volume has a number that stands for it."""
        return all(self.store(values) is not None for values in slices(volume))


def slices(volume: Volume) -> Iterator[Slice]:
    """All `(I, J)` of a volume, in the order of a file: channel by channel, k by k."""
    for channel in volume.data:
        for k in range(volume.grid[2]):
            yield channel[:, :, k].numpy(force=True)


def choose(volume: Volume, dtype: str | None) -> Storage:
    """Find how to store a volume.

    Args:
        volume: what to store.
        dtype: a word of `TYPES`, "label" for the smallest of `LABELS` that holds all values, or
            None for the table in the module's docstring.

    Raises:
        ValueError: no such type.
        Refusal: E_NIFTI_DTYPE: values that the type does not hold exactly.
    """
    if dtype is None:
        return _unasked(volume)
    if dtype not in ("label", *TYPES):
        raise ValueError(f"dtype is '{dtype}', expected label or one of {', '.join(TYPES)}.")
    for name in LABELS if dtype == "label" else (dtype,):
        storage = Storage(np.dtype(name))
        if storage.dtype.kind == "f" or storage.exact(volume):
            return storage
    low, high = float(volume.data.min()), float(volume.data.max())
    raise Refusal(
        "E_NIFTI_DTYPE",
        f"values from {low:g} to {high:g} are not all whole numbers that {dtype} holds; round them "
        "first, or write float32.",
    )


def _unasked(volume: Volume) -> Storage:
    source = volume.source
    if isinstance(source, NiftiSource) and source.dtype.kind in "iu":
        as_read = Storage(source.dtype, source.slope, source.intercept)
        if as_read.exact(volume):
            return as_read
    hounsfield = Storage(np.dtype(np.int16))
    if volume.units == "HU" and hounsfield.exact(volume):
        return hounsfield
    return Storage(np.dtype(np.float32))
