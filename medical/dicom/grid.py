"""Whether slices are cut from one grid: where they say they are, how they lie, how fine."""

from collections.abc import Sequence

import numpy as np

from medical.dicom.frames import Slice
from medical.refusal import Refusal


def refuse_no_grid(slices: Sequence[Slice]) -> None:
    """Refuse slices that lack geometry, or that do not share directions, sizes and spacings.

    Raises:
        Refusal: that.
    """
    for each in slices:
        _refuse_bad_geometry(each)
    first = slices[0]
    directions = np.array([s.orientation for s in slices])
    if np.abs(directions - directions[0]).max() > 1e-3:
        count = len(np.unique(directions.round(3), axis=0))
        raise Refusal(
            "E_MIXED_ORIENTATION",
            f"found {count} orientations in {len(slices)} slices, expected parallel ones; a radial "
            "series or localizers are no volume, separate the stacks.",
        )
    sizes = {s.size for s in slices}
    fine = np.array([s.pixel_spacing for s in slices])
    if len(sizes) > 1 or np.abs(fine / fine[0] - 1).max() > 1e-3:
        raise Refusal(
            "E_MIXED_GRID",
            f"found {len(sizes)} sizes and pixel spacings from {fine.min():.4g} to "
            f"{fine.max():.4g} mm in one series, expected one grid; separate the slices.",
        )
    if len({s.attributes.text("FrameOfReferenceUID") for s in slices}) > 1:
        raise Refusal(
            "E_FRAME_OF_REFERENCE",
            "slices of one series are in different frames of reference, expected one; separate "
            f"them ({first.where} begins the first).",
        )


def _refuse_bad_geometry(each: Slice) -> None:
    if each.position is None or each.orientation is None:
        raise Refusal(
            "E_NO_GEOMETRY",
            f"{each.where} does not say where in the patient it is (no position or orientation), "
            "expected slices of a scanner; restore it as a picture.",
        )
    if each.pixel_spacing is None:
        raise Refusal(
            "E_BAD_GEOMETRY",
            f"{each.where} has no PixelSpacing (spacing at the detector does not count), expected "
            "two positive numbers; export it again.",
        )
    row, column, fine = each.orientation[:3], each.orientation[3:], each.pixel_spacing
    finite = all(np.isfinite(v).all() for v in (each.position, each.orientation, fine))
    off = max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) if finite else 1
    if off > 2e-3 or not (fine > 0).all():  # squares of lengths that are off by 1e-3
        raise Refusal(
            "E_BAD_GEOMETRY",
            f"{each.where} has directions that are not orthonormal, or numbers that are not finite "
            "and positive, in its geometry; export it again.",
        )
