"""Which affine of a NIfTI file to believe.

A file may hold two: `sform`, any affine, and `qform`, a rotation; each with a code that says which
world it leads to, 0 for none. Files where both are given and disagree, and files with neither, have
led to mirrored brains; they are refused until the caller says what holds.
"""

from typing import Literal

import numpy as np
from nibabel.spatialimages import HeaderDataError

from medical import geometry
from medical.assemble import refuse_shear
from medical.geometry import Affine
from medical.nifti.header import Header
from medical.refusal import Refusal

Choice = Literal["auto", "sform", "qform", "guess"]

_TURNED, _SHIFTED = 1e-3, 0.1  # a qform's float32 quaternion is off by up to 6e-4 near half turns
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}  # of unknown, m, mm, um
_GUESS = "the file does not say where left is; voxels were taken to run to the patient's left."


def orient(header: Header, choice: Choice, *, sheared: bool) -> tuple[Affine, int, tuple[str, ...]]:
    """Affine in RAS+ mm, code of its world, and notes for the user.

    Args:
        header: of the file.
        choice: "auto" takes the sform, or else the qform, and refuses where they disagree; "guess"
            takes what Analyze files meant where there is neither.
        sheared: accept voxel axes that are not at right angles.

    Raises:
        Refusal: E_NIFTI_NO_ORIENTATION, E_NIFTI_CONFLICT, E_NIFTI_AFFINE, E_NIFTI_SHEAR,
            E_NIFTI_HEADER.
        ValueError: no such choice.
    """
    if choice not in ("auto", "sform", "qform", "guess"):
        raise ValueError(f"orientation '{choice}' is none; give auto, sform, qform or guess.")
    which = _which(header, choice)
    if which == "guess":
        affine = _as_affine(header.fields.get_base_affine(), header, "voxel size")
        return affine, 0, (_GUESS,)
    affine = _form(header, which)
    if choice == "auto" and _codes(header)[0] > 0 and _codes(header)[1] > 0:
        _refuse_conflict(header, affine)
    if not sheared:
        refuse_shear(affine, "NIFTI")
    return affine, int(header.fields[f"{which}_code"]), ()


def _codes(header: Header) -> tuple[int, int]:
    return int(header.fields["sform_code"]), int(header.fields["qform_code"])


def _which(header: Header, choice: Choice) -> Choice:
    """The form to take."""
    sform, qform = (code > 0 for code in _codes(header))
    if choice == "auto" and (sform or qform):
        return "sform" if sform else "qform"
    if choice == "guess" and not (sform or qform):
        return "guess"
    if choice == "auto":
        raise Refusal(
            "E_NIFTI_NO_ORIENTATION",
            "the file has neither sform nor qform, so that nobody knows where left is; mend the "
            "header, or pass orientation='guess' to let voxels run to the patient's left.",
        )
    if choice == "guess" or not {"sform": sform, "qform": qform}[choice]:
        there = " and ".join(n for n, on in (("sform", sform), ("qform", qform)) if on)
        raise Refusal(
            "E_NIFTI_NO_ORIENTATION",
            f"orientation is '{choice}' but the file has {there or 'neither sform nor qform'}; "
            f"pass orientation='{'auto' if there else 'guess'}'.",
        )
    return choice


def _form(header: Header, which: Choice) -> Affine:
    get = header.fields.get_sform if which == "sform" else header.fields.get_qform
    try:
        matrix = get()
    except (HeaderDataError, ValueError) as error:  # of nibabel, about quaternions
        raise Refusal(
            "E_NIFTI_AFFINE",
            f"the {which} holds no rotation; mend the header, or pass orientation to take the "
            "other form.",
        ) from error
    return _as_affine(matrix, header, which)


def _as_affine(matrix: Affine, header: Header, name: str) -> Affine:
    unit = int(header.fields["xyzt_units"]) & 7
    if unit not in _MILLIMETRES:
        raise Refusal(
            "E_NIFTI_HEADER", f"unit of length {unit} is unknown, expected m, mm or um; mend it."
        )
    scaled = np.array(matrix, dtype=np.float64)
    scaled[:3] *= _MILLIMETRES[unit]
    try:
        return geometry.as_affine(scaled)
    except ValueError as error:
        raise Refusal(
            "E_NIFTI_AFFINE",
            f"the {name} maps voxels to no volume of space, or is not finite; mend the header, or "
            "pass orientation to take the other form.",
        ) from error


def _refuse_conflict(header: Header, sform: Affine) -> None:
    """Refuse a qform that does not say what the sform says, as far as it can."""
    qform = _form(header, "qform")
    a, b = geometry.spacing(sform), geometry.spacing(qform)
    turned = np.abs(sform[:3, :3] / a - qform[:3, :3] / b).max()
    shifted = np.abs(sform[:3, 3] - qform[:3, 3]).max() / a.min()
    if turned > _TURNED or shifted > _SHIFTED or (np.abs(a - b) > _TURNED * a).any():
        raise Refusal(
            "E_NIFTI_CONFLICT",
            f"sform and qform disagree: directions by {turned:.2g}, origins by {shifted:.2g} "
            f"voxels, voxel sizes by {np.abs(a - b).max():.2g} mm; pass orientation='sform' or "
            "'qform'.",
        )
