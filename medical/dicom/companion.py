"""What accompanies a series in one multi-frame file: masks of it, maps over it.

highdicom writes such files; here volumes take the form it wants. Frames lie where their source
images say, letter by letter, if the volume has their grid, and where its affine says otherwise.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nibabel import orientations
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medical import geometry
from medical.dicom.attributes import copied
from medical.dicom.codes import version
from medical.dicom.derive import new_uid
from medical.dicom.flat import flat
from medical.dicom.planes import affine_of, on_grid_of, planes, refuse_tilt, turn
from medical.dicom.source import DicomSource
from medical.refusal import Refusal
from medical.volume import Volume

if TYPE_CHECKING:
    import highdicom

_EMPTY = (  # may be unknown, must be there
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)


def source_of(volume: Volume) -> DicomSource:
    """The DICOM source of a volume.

    Raises:
        Refusal: "E_NO_SOURCE": it has none.
    """
    if isinstance(volume.source, DicomSource):
        return volume.source
    raise Refusal(
        "E_NO_SOURCE",
        "the volume did not come from DICOM, but masks and maps refer to DICOM images; write the "
        "volume as a series first and take what `read` makes of that.",
    )


def images(source: DicomSource) -> list[Dataset]:
    """Headers for highdicom: what may be unknown is there, if empty; nothing private."""
    complete = [copied(header) for header in source.headers]
    for header in complete:
        for keyword in _EMPTY:
            if keyword not in header:
                setattr(header, keyword, None)
    return complete


def arranged(numbers: NDArray, like: Volume) -> "NDArray | highdicom.Volume":
    """Numbers `(K, rows, columns, ...)`, the planes of a volume, in the order of its source.

    As an array if frames and source images are the same in number and place, otherwise with a
    geometry of their own.
    """
    source = source_of(like)
    headers = flat(source)
    cut = planes(like, affine_of(headers))
    there = [header for header in headers if header is not None]
    if on_grid_of(cut, headers) and len(there) == len(headers):
        if not source.multiframe:
            return numbers
        frames = [place[1] for place in source.frames if place is not None]
        if len(source.headers) == 1 and len(frames) == int(source.headers[0].NumberOfFrames):
            return numbers[np.argsort(frames)]
    refuse_tilt(cut.affine)
    return _placed(numbers, geometry.LPS_TO_RAS @ cut.affine, there[0])


def _placed(numbers: NDArray, lps: NDArray, header: Dataset) -> "highdicom.Volume":
    import highdicom

    return highdicom.Volume(
        numbers,
        lps[:, [2, 1, 0, 3]],  # indices are slice, row, column there
        "PATIENT",
        frame_of_reference_uid=header.get("FrameOfReferenceUID", None),
        channels={"SegmentNumber": range(1, numbers.shape[3] + 1)} if numbers.ndim == 4 else None,
    )


def identity(source: DicomSource, number_offset: int) -> dict[str, Any]:
    """Who made the file: the part of a call that all of highdicom's classes share."""
    number = int(source.headers[0].get("SeriesNumber", None) or 0)
    return {
        "series_instance_uid": new_uid(),
        "series_number": number + number_offset,
        "sop_instance_uid": new_uid(),
        "instance_number": 1,
        "manufacturer": "The restore authors",
        "manufacturer_model_name": "restore",
        "software_versions": version(),
        "device_serial_number": "0",
    }


def onto(volume: Volume, like: Volume, what: str = "the mask") -> Volume:
    """A volume with its axes exchanged and flipped to be those of another on the same grid.

    Raises:
        Refusal: "E_GRID_MISMATCH": it is on another grid.
    """
    way = turn(volume.affine, like.affine)
    affine = volume.affine @ orientations.inv_ornt_aff(way, volume.grid)
    turned = [orientations.apply_orientation(part, way) for part in volume.data.cpu().numpy()]
    data = torch.from_numpy(np.stack(turned))
    if data.shape[1:] != like.grid or not geometry.same_grid(affine, like.affine, like.grid):
        raise mismatch(what, affine, data.shape[1:], like)
    return Volume(
        data=data, affine=like.affine, units=volume.units, modality=volume.modality,
        source=like.source, notes=volume.notes,
    )  # fmt: skip


def mismatch(what: str, affine: NDArray, shape: Sequence[int], like: Volume) -> Refusal:
    """The refusal of another grid, with both."""
    return Refusal(
        "E_GRID_MISMATCH",
        f"{what} is on a grid of {_told(affine, shape)}, expected the volume's, "
        f"{_told(like.affine, like.grid)}; resample it to that grid first, knowingly.",
    )


def _told(affine: NDArray, shape: Sequence[int]) -> str:
    rows = "; ".join(" ".join(f"{x:.6g}" for x in row) for row in affine[:3])
    return f"{'x'.join(map(str, shape))} with affine [{rows}]"
