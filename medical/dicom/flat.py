"""Headers of a series as if every slice had been a file, whatever it came in.

A multi-frame file says once what all frames share, and frame by frame what they do not (functional
groups, PS3.3 C.7.6.16). A classic file says it all, under names that are mostly the same.
"""

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from medical.dicom.source import DicomSource

# groups whose attributes a classic image has under the same names
_LIFTED = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "CTXRayDetailsSequence",
    "MRTimingAndRelatedParametersSequence",
)
_PULSES = {"SPIN": "SE", "GRADIENT": "GR", "BOTH": ["SE", "GR"]}


def flat(source: DicomSource) -> list[Dataset | None]:
    """One header a slice of the volume, in slice order, None where none was measured.

    Of a volume that was resampled when it was read: one a measured slice, none is missing. Those of
    frames have a ReferencedFrameNumber, by which a derived image refers to its frame.
    """
    if not source.resampled:
        return [None if place is None else _single(source, *place) for place in source.frames]
    count = [int(header.get("NumberOfFrames", None) or 1) for header in source.headers]
    slices = [_single(source, n, frame) for n in range(len(count)) for frame in range(count[n])]
    cosines = np.array(slices[0].ImageOrientationPatient, np.float64)
    normal = np.cross(cosines[:3], cosines[3:])
    along = [float(np.dot(header.ImagePositionPatient, normal)) for header in slices]
    return [slices[n] for n in np.argsort(along)]


def _single(source: DicomSource, number: int, frame: int) -> Dataset:
    header = source.headers[number]
    return _frame(header, frame) if source.multiframe else header


def _frame(header: Dataset, frame: int) -> Dataset:
    single = Dataset()
    for element in header:
        if not element.keyword.endswith("FunctionalGroupsSequence"):
            single.add(element)
    for name, group in _groups(header, frame):
        if name in _LIFTED:
            for element in group:
                single.add(element)
        elif name == "MREchoSequence" and "EffectiveEchoTime" in group:
            single.EchoTime = group.EffectiveEchoTime
    empty = ["AcquisitionNumber", "PositionReferenceIndicator"]
    if header.get("Modality") == "MR":
        single.ScanningSequence = _PULSES.get(str(header.get("EchoPulseSequence", "")), "RM")
        single.SequenceVariant = "NONE"
        empty += ["ScanOptions", "RepetitionTime", "EchoTime", "EchoTrainLength"]
    elif header.get("Modality") == "CT":
        empty += ["KVP"]
    for keyword in empty:
        if keyword not in single:
            setattr(single, keyword, None)
    single.ReferencedFrameNumber = frame + 1
    return single


def _groups(header: Dataset, frame: int) -> Iterator[tuple[str, Dataset]]:
    """Functional groups that hold for a frame: shared ones, then its own."""
    shared = header.get("SharedFunctionalGroupsSequence", None) or ()
    own = header.get("PerFrameFunctionalGroupsSequence", None) or ()
    for groups in (*shared[:1], *own[frame : frame + 1]):
        for element in groups:
            if element.VR == "SQ" and element.value:
                yield element.keyword, element.value[0]
