"""Volumes from formats that say where voxels are but not what their numbers mean."""

import numpy as np
import torch
from numpy.typing import NDArray

from medical import geometry
from medical.geometry import Affine
from medical.intensity import looks_like_hounsfield
from medical.refusal import Refusal
from medical.volume import Source, Volume

SHEAR = 0.1
"""Degrees by which voxel axes may depart from right angles."""
_ROUNDED = "some whole numbers are too large for float32 and were rounded."
_HOUNSFIELD = "the numbers look like Hounsfield units; pass modality='CT' if they are."


def assemble(
    parts: NDArray[np.float32],
    affine: Affine,
    source: Source,
    *,
    kind: str,
    fill: float | None,
    modality: str | None,
    units: str | None,
    notes: tuple[str, ...] = (),
    rounded: bool = False,
) -> Volume:
    """Make a volume; nothing about its numbers is guessed.

    Args:
        parts: `(C, I, J, K)`, changed in place where `fill` goes.
        affine: to RAS+ mm.
        source: what the volume is read from.
        kind: "NIFTI" or "NRRD", for the code of a refusal.
        fill: for NaN and infinity; None refuses them.
        modality: what the caller knows, None for "OT".
        units: what the caller knows, None for "HU" of a CT and "a.u." otherwise.
        notes: what the reader noticed so far.
        rounded: whether whole numbers were rounded.

    Raises:
        Refusal: E_..._NOT_FINITE, E_..._EMPTY.
    """
    valid, filled = settle(parts, kind, fill)
    unknown = modality is None and units is None
    hints = (
        filled,
        _ROUNDED if rounded else "",
        _HOUNSFIELD if unknown and looks_like_hounsfield(parts) else "",
    )
    return Volume(
        data=torch.from_numpy(parts),
        affine=affine,
        units=units or ("HU" if modality == "CT" else "a.u."),
        modality=modality or "OT",
        valid=None if valid is None else torch.from_numpy(valid),
        source=source,
        notes=(*notes, *filter(None, hints)),
    )


def settle(
    parts: NDArray[np.float32], kind: str, fill: float | None
) -> tuple[NDArray[np.bool_] | None, str]:
    """Replace voxels that are no finite numbers, and refuse volumes without any content.

    Returns:
        Where all channels were finite, None for everywhere; and a note for the user, or "".
    """
    valid = None
    for part in parts:
        finite = np.isfinite(part)
        if finite.all():
            continue
        if fill is None:
            raise Refusal(
                f"E_{kind}_NOT_FINITE",
                f"{int((~finite).sum())} of {part.size} voxels are NaN or infinite, expected "
                "numbers; pass fill=0 to replace them and mark them as not measured.",
            )
        part[~finite] = fill
        valid = finite if valid is None else valid & finite
    if not (parts.any() if valid is None else parts[:, valid].any()):
        raise Refusal(
            f"E_{kind}_EMPTY", "all voxels are zero, expected a scan; check how it was written."
        )
    note = (
        "" if valid is None else f"{int((~valid).sum())} voxels that were no numbers are {fill:g}."
    )
    return valid, note


def refuse_shear(affine: Affine, kind: str) -> None:
    """Refuse voxel axes that are not at right angles.

    Raises:
        Refusal: E_..._SHEAR.
    """
    if (degrees := geometry.shear(affine)) > SHEAR:
        raise Refusal(
            f"E_{kind}_SHEAR",
            f"voxel axes are {degrees:.2g} degrees off right angles; resample the scan, or pass "
            "sheared=True if slices that are not stacked straight are fine.",
        )
