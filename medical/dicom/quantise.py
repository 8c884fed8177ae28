"""Physical numbers as the 16-bit integers of a file, with the slope that the file really holds.

A number `v` is stored as `q = round((v - intercept) / slope)`. A decimal string of DICOM has at
most 16 characters, so that 1/3 is not itself in a file; `q` follows from the slope as written,
not from the one that was meant.

Three codings, in this order:

    its own     the slope and intercept each slice came with, if all numbers are on their ladder:
                what nobody changed comes back exactly
    HU          slope 1: off by at most half a Hounsfield unit
    any other   zero stays zero, the largest magnitude takes all bits: off by at most 1.6e-5 of it
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.valuerep import DSfloat

from medical.refusal import Refusal

PADDING = -32768
"""Stored where nothing was measured; such files are signed and hold it nowhere else."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How the numbers of one slice are stored.

    Args:
        slope: as written.
        intercept: as written.
        signed: int16, otherwise uint16.
    """

    slope: str
    intercept: str
    signed: bool

    @property
    def dtype(self) -> np.dtype:
        """Of the stored integers, little endian."""
        return np.dtype("<i2" if self.signed else "<u2")

    def store(self, values: NDArray, valid: NDArray | None = None) -> NDArray:
        """Integers for numbers; `PADDING` where they are not valid."""
        stored = _ladder(values, float(self.slope), float(self.intercept))
        if valid is not None:
            stored = np.where(valid, stored, PADDING)
        return stored.astype(self.dtype)

    def read(self, stored: NDArray) -> NDArray[np.float32]:
        """Numbers for integers, as any reader computes them."""
        return (stored * float(self.slope) + float(self.intercept)).astype(np.float32)


def decimal(number: float) -> str:
    """A decimal string of at most 16 characters, as precise as that allows."""
    return str(DSfloat(float(number), auto_format=True))


def codings(
    slices: NDArray,
    *,
    valid: NDArray | None = None,
    units: str,
    own: Sequence[tuple[str, str]] | None = None,
) -> list[Coding]:
    """One coding a slice.

    Args:
        slices: `(K, ...)`, numbers in `units`.
        valid: of the same shape; others are stored as padding.
        units: "HU" are stored as whole numbers.
        own: slope and intercept as the source's files write them, one pair a slice.

    Raises:
        Refusal: "E_RANGE" for Hounsfield units outside of 16 bits.
    """
    masks = [None] * len(slices) if valid is None else list(valid)
    if own is not None:
        found = [_own(v, m, *c) for v, m, c in zip(slices, masks, own, strict=True)]
        if (kept := [coding for coding in found if coding is not None]) and len(kept) == len(own):
            return kept
    low, high = _ends(slices, valid)
    if units == "HU":
        intercept = next((c[1] for c in own or () if float(c[1]).is_integer()), "0")
        return [_hounsfield(low, high, intercept, padded=valid is not None)] * len(slices)
    signed = low < 0 or valid is not None
    largest = max(high, -low) or 1.0
    # a little more, so that shortening the decimal cannot lead one step past the last
    slope = decimal(largest / (32767 if signed else 65535) * (1 + 1e-9))
    return [Coding(slope=slope, intercept="0", signed=signed)] * len(slices)


def _own(values: NDArray, valid: NDArray | None, slope: str, intercept: str) -> Coding | None:
    """The source's own coding, if it stores these numbers to the last bit of float32."""
    numbers = values if valid is None else values[valid]
    if not numbers.size:
        numbers = np.full(1, float(intercept), np.float32)
    stored = _ladder(numbers, float(slope), float(intercept))
    coding = Coding(slope=slope, intercept=intercept, signed=valid is not None or stored.min() < 0)
    scale = max(float(np.abs(numbers).max()), abs(float(intercept)))
    exact = np.abs(coding.read(stored) - numbers).max() <= 2**-22 * scale
    return coding if exact and _fits(stored.min(), stored.max(), coding.signed) else None


def _hounsfield(low: float, high: float, intercept: str, *, padded: bool) -> Coding:
    for offset in (intercept, "0"):
        stored = _ladder(np.array([low, high]), 1.0, float(offset))
        signed = padded or stored[0] < 0
        if _fits(stored[0], stored[1], signed):
            return Coding(slope="1", intercept=offset, signed=signed)
    raise Refusal(
        "E_RANGE",
        f"values reach from {low:.4g} to {high:.4g} HU, expected a range that 16 bits hold in "
        "steps of 1 HU; clip the volume first.",
    )


def _ladder(values: NDArray, slope: float, intercept: float) -> NDArray[np.float64]:
    return np.rint((values.astype(np.float64) - intercept) / slope)


def _fits(low: float, high: float, signed: bool) -> bool:
    return bool(low > PADDING and high <= 32767 if signed else low >= 0 and high <= 65535)


def _ends(slices: NDArray, valid: NDArray | None) -> tuple[float, float]:
    numbers = slices if valid is None else slices[valid]
    return (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
