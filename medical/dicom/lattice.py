"""Positions along a line: an even lattice, one with holes, or none."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medical.refusal import Refusal

OnGap = Literal["error", "resample", "nan-fill"]
SAME_PLACE = 1e-3  # mm
EVEN = 0.01  # of the spacing, as highdicom has it


@dataclass(frozen=True)
class Lattice:
    """Where measured slices lie on an even lattice.

    Attributes:
        places: `(N,)` of the measured slices, in units of the spacing.
        count: slices of the lattice.
        slots: `(N,)` slices of the lattice that the measured ones are, None if they are between.
        spacing: mm.
        exact: whether the last measured slice is the last of the lattice.
        notes: what was noticed.
    """

    places: NDArray[np.float64]
    count: int
    slots: NDArray[np.int64] | None
    spacing: float = 1.0
    exact: bool = True
    notes: tuple[str, ...] = field(default=())


def lattice(along: NDArray[np.float64], written: NDArray[np.float64], on_gap: OnGap) -> Lattice:
    """Find the lattice of sorted positions.

    Args:
        along: `(N,)` mm along the normal, two or more, growing.
        written: `(N, 3)` the positions that they come from, whose decimals tell their precision.
        on_gap: "error" refuses gaps, "nan-fill" leaves room where whole slices are missing,
            "resample" takes the commonest spacing and interpolates.

    Raises:
        Refusal: the spacing varies, or slices are missing, and `on_gap` does not allow it.
    """
    gaps = np.diff(along)
    spacing = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # of the two in the middle the smaller
    slack = max(EVEN * spacing, SAME_PLACE, min(2 * EVEN * spacing, _last_decimal(written)))
    line = np.linspace(0, along[-1], len(along))
    if np.abs(gaps - spacing).max() <= slack and np.abs(along - line).max() <= 5 * slack:
        mean = float(along[-1]) / len(gaps)
        return Lattice(along / mean, len(along), np.arange(len(along)), mean)
    times = gaps / spacing
    whole = np.maximum(np.rint(times), 1)
    holes = bool((np.abs(times - whole) <= 0.05 + 1e-3 * whole).all() and whole.max() > 1)
    if on_gap == "error" or (on_gap == "nan-fill" and not holes):
        raise _missing(along, gaps, whole, spacing) if holes else _variable(gaps)
    if on_gap == "nan-fill":
        return _with_holes(along, whole)
    count = int(along[-1] / spacing + SAME_PLACE) + 1
    note = f"The slices were unevenly spaced and interpolated to {spacing:.4g} mm."
    return Lattice(along / spacing, count, None, spacing, exact=False, notes=(note,))


def _with_holes(along: NDArray[np.float64], whole: NDArray[np.float64]) -> Lattice:
    slots = np.concatenate([[0], np.cumsum(whole)]).astype(np.int64)
    count = int(slots[-1]) + 1
    note = f"{count - len(along)} slices were missing; they are filled and marked as not valid."
    spacing = float(along[-1]) / (count - 1)
    return Lattice(slots.astype(float), count, slots, spacing, notes=(note,))


def _last_decimal(written: NDArray[np.float64]) -> float:
    """Unit of the last decimal that numbers were written with, at most three: 1, 0.1, ..."""
    for decimals in range(3):
        if np.abs(written - written.round(decimals)).max() < 1e-9:
            return 10.0**-decimals
    return 0.0


def _missing(
    along: NDArray[np.float64],
    gaps: NDArray[np.float64],
    whole: NDArray[np.float64],
    spacing: float,
) -> Refusal:
    holes = np.flatnonzero(whole > 1)
    places = ", ".join(f"{along[h]:.5g} and {along[h + 1]:.5g}" for h in holes[:5])
    more = f", and {len(holes) - 5} more" if len(holes) > 5 else ""
    return Refusal(
        "E_MISSING_SLICES",
        f"{int(whole.sum() - len(gaps))} slices are missing: found {len(along)}, {spacing:.4g} mm "
        f"apart, but nothing between {places}{more} mm from the first; copy the missing files, or "
        "ask for on_gap='nan-fill' or 'resample'.",
    )


def _variable(gaps: NDArray[np.float64]) -> Refusal:
    return Refusal(
        "E_VARIABLE_SPACING",
        f"the slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart, expected one spacing; ask "
        "for on_gap='resample' to have them interpolated.",
    )
