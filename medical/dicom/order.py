"""Slices in the order of space, evenly spaced, or the reason why they are not.

The normal is the cross product of the row and the column direction; slices are sorted by where
their positions lie along it, whatever their numbers and names. Nothing is stacked that is no grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medical import geometry
from medical.dicom.frames import Slice
from medical.dicom.grid import refuse_no_grid
from medical.dicom.lattice import SAME_PLACE, Lattice, lattice
from medical.geometry import Affine
from medical.refusal import Refusal

OnTilt = Literal["error", "resample"]
STRAIGHT = 0.1  # degrees between the stack and its normal


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Stack:
    """Slices of one volume.

    Attributes:
        slices: measured ones, along the normal.
        lattice: where they lie along it.
        sideways: `(N, 2)` pixels by which slices are shifted along columns and rows and must be
            moved back, None where the grid is straight.
        step: vector from slice to slice, LPS mm.
        notes: what was noticed.
    """

    slices: tuple[Slice, ...]
    lattice: Lattice
    sideways: NDArray[np.float64] | None
    step: NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def margin(self) -> NDArray[np.int64]:
        """`(2, 2)` columns and rows that straightening adds before and behind."""
        if self.sideways is None:
            return np.zeros((2, 2), dtype=np.int64)
        low, high = self.sideways.min(0), self.sideways.max(0)
        return np.stack([-np.floor(low), np.ceil(high)], 1).astype(np.int64)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels `(I, J, K)` of the volume."""
        rows, columns = self.slices[0].size
        wider, higher = self.margin.sum(1).tolist()
        return columns + wider, rows + higher, self.lattice.count

    @property
    def affine(self) -> Affine:
        """Of the volume, RAS+."""
        first = self.slices[0]
        assert first.orientation is not None
        assert first.pixel_spacing is not None
        assert first.position is not None
        left, top = self.margin[:, 0]
        row, column = first.orientation[:3], first.orientation[3:]
        fine = first.pixel_spacing
        origin = first.position - left * fine[1] * row - top * fine[0] * column
        return geometry.from_dicom(first.orientation, fine, origin, self.step)


def arrange(
    slices: Sequence[Slice],
    *,
    same: Callable[[Slice, Slice], bool],
    on_gap: Literal["error", "resample", "nan-fill"] = "error",
    on_tilt: OnTilt = "error",
    single: bool = False,
) -> Stack:
    """Sort slices and find their grid.

    Args:
        slices: in any order.
        same: whether two slices of one place hold the same numbers, so that one can go.
        on_gap: what to do where slices are missing or unevenly spaced.
        on_tilt: what to do where the stack is sheared.
        single: whether one slice will do.

    Raises:
        Refusal: see the catalogue in `medical.dicom.reader`.
    """
    refuse_no_grid(slices)
    notes: list[str] = []
    slices = _without_copies(_sorted(slices), same, notes)
    if len(slices) == 1:
        _refuse_single(single)
        notes.append("A single slice: its thickness stands for the distance to the next.")
        step = _normal(slices[0]) * _thickness(slices[0], 1.0)
        return Stack(
            slices=tuple(slices),
            lattice=Lattice(np.zeros(1), 1, np.zeros(1, np.int64)),
            sideways=None,
            step=step,
            notes=tuple(notes),
        )
    places = np.array([s.position for s in slices])
    normal = _normal(slices[0])
    along = (places - places[0]) @ normal
    sideways = _sideways(slices[0], places - places[0] - np.outer(along, normal), along, on_tilt)
    grid = lattice(along, places, on_gap)
    _compare_thickness(slices, grid.spacing, notes)
    direction = normal if sideways is not None else (places[-1] - places[0]) / along[-1]
    if sideways is not None:
        notes.append("The stack was sheared; its slices were shifted straight by interpolation.")
    notes += grid.notes
    step = direction * (along[-1] / (grid.count - 1) if grid.exact else grid.spacing)
    return Stack(
        slices=tuple(slices), lattice=grid, sideways=sideways, step=step, notes=tuple(notes)
    )


def _normal(first: Slice) -> NDArray[np.float64]:
    assert first.orientation is not None
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    return normal / np.linalg.norm(normal)


def _along(each: Slice, normal: NDArray[np.float64]) -> float:
    assert each.position is not None
    return float(each.position @ normal)


def _sorted(slices: Sequence[Slice]) -> list[Slice]:
    normal = _normal(slices[0])
    return sorted(slices, key=lambda s: (_along(s, normal), s.instance.where, s.frame))


def _without_copies(
    slices: list[Slice], same: Callable[[Slice, Slice], bool], notes: list[str]
) -> list[Slice]:
    """Drop slices that are there twice, bit for bit."""
    normal = _normal(slices[0])
    kept = slices[:1]
    for each in slices[1:]:
        if _along(each, normal) - _along(kept[-1], normal) >= SAME_PLACE:
            kept.append(each)
        elif not same(kept[-1], each):
            raise Refusal(
                "E_DUPLICATE_POSITION",
                f"{kept[-1].where} and {each.where} show the same place with different numbers, "
                f"expected {len(slices)} places; the series is 4-D or two in one, keep one time "
                "point in a folder of its own.",
            )
    if dropped := len(slices) - len(kept):
        notes.append(f"{dropped} slices were there twice and used once.")
    return kept


def _sideways(
    first: Slice,
    offsets: NDArray[np.float64],
    along: NDArray[np.float64],
    on_tilt: OnTilt,
) -> NDArray[np.float64] | None:
    """Shifts of slices in pixels if they must be undone, None for a straight stack.

    Args:
        first: slice.
        offsets: `(N, 3)` positions without their part along the normal, mm.
        along: the part along the normal, mm.
        on_tilt: what to do if they are not zero.
    """
    assert first.orientation is not None
    assert first.pixel_spacing is not None
    slope = offsets[-1] / along[-1]
    angle = np.degrees(np.arctan(np.linalg.norm(slope)))
    wander = np.linalg.norm(offsets - np.outer(along, slope), axis=1).max()
    slack = max(0.05 * first.pixel_spacing.min(), 1e-3)  # positions are written with few decimals
    tilted = angle > STRAIGHT and np.linalg.norm(offsets[-1]) > slack
    if not tilted and wander <= slack:
        return None
    if on_tilt == "error":
        found = (
            f"sheared by {angle:.1f} degrees, as by a tilted gantry"
            if tilted
            else f"shifted sideways by up to {wander:.3g} mm against each other"
        )
        raise Refusal(
            "E_TILT",
            f"the slices are {found}, expected a straight stack; ask for on_tilt='resample' to "
            "have them interpolated onto one.",
        )
    row, column = first.orientation[:3], first.orientation[3:]
    return np.stack([offsets @ row, offsets @ column], 1) / first.pixel_spacing[::-1]


def _refuse_single(single: bool) -> None:
    if not single:
        raise Refusal(
            "E_TOO_FEW_SLICES",
            "found 1 slice, expected at least 2; give the folder with the whole series, or ask for "
            "single=True.",
        )


def _thickness(each: Slice, otherwise: float) -> float:
    thickness = each.attributes.number("SliceThickness")
    return thickness if thickness and thickness > 0 else otherwise


def _compare_thickness(slices: Sequence[Slice], spacing: float, notes: list[str]) -> None:
    """Note attributes that disagree with the positions, which win."""
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        said = slices[0].attributes.number(keyword)
        if said and abs(abs(said) - spacing) > 0.05 * spacing:
            notes.append(f"{keyword} is {said:.4g} mm, but slices are {spacing:.4g} mm apart.")
