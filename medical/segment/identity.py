"""Whether two scans are of one patient in one position, as far as their headers say.

What the headers hold is compared and never shown.
"""

from medical.dicom.elements import Attributes
from medical.dicom.quiet import quiet
from medical.dicom.source import DicomSource
from medical.refusal import Refusal
from medical.volume import Volume


def refuse_strangers(pet: Volume, ct: Volume, *, registered: bool = False) -> None:
    """Refuse scans that do not lie on each other.

    Scans that were not read from DICOM say nothing, and neither do attributes that are empty.

    Args:
        pet: as it was read.
        ct: as it was read.
        registered: whether the user says that different frames of reference do not matter.

    Raises:
        Refusal: "E_OTHER_PATIENT", "E_FRAME_OF_REFERENCE".
    """
    if _differ(pet, ct, "PatientID") or _differ(pet, ct, "PatientBirthDate"):
        raise Refusal(
            "E_OTHER_PATIENT",
            "the PET and the CT are of different patients by their PatientID or PatientBirthDate; "
            "give scans of one patient.",
        )
    if not registered and _differ(pet, ct, "FrameOfReferenceUID"):
        raise Refusal(
            "E_FRAME_OF_REFERENCE",
            "the PET and the CT have different frames of reference, so that places in them cannot "
            "be compared; register one to the other, and then say so (registered).",
        )


def _differ(pet: Volume, ct: Volume, keyword: str) -> bool:
    found = _values(pet, keyword) | _values(ct, keyword)
    return len(found) > 1


def _values(volume: Volume, keyword: str) -> set[str]:
    if not isinstance(volume.source, DicomSource):
        return set()
    with quiet():
        return {
            text
            for header in volume.source.headers
            if (text := Attributes((header,), "a scan").text(keyword))
        }
