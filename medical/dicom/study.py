"""A study of its own for a volume that came without one: complete, and of nobody.

What a kind of image must state is stated truthfully or left empty where DICOM allows it. A tracer,
its dose and its time cannot be left empty or made up, so that a PET volume becomes a secondary
image with its geometry and unit instead of a PET image.
"""

from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from medical.dicom.derive import new_uid
from medical.dicom.planes import Origin, Planes
from medical.volume import Volume

_EMPTY = (  # type 2 of the patient, study, series, equipment and image modules
    "AccessionNumber",
    "Laterality",
    "Manufacturer",
    "PatientBirthDate",
    "PatientSex",
    "PositionReferenceIndicator",
    "ReferringPhysicianName",
    "AcquisitionNumber",
)


def nobodys(volume: Volume, planes: Planes) -> list[Origin]:
    """Headers for a volume without source, one a plane, that refer to no other image."""
    rows, columns = planes.slices.shape[1:]
    header = Dataset()
    for keyword in _EMPTY:
        setattr(header, keyword, None)
    now = datetime.now()
    header.StudyInstanceUID, header.FrameOfReferenceUID = (new_uid() for _ in range(2))
    header.SeriesInstanceUID = new_uid()
    # empty numbers would make all such studies one patient's
    header.PatientID = header.PatientName = f"ANON-{str(header.StudyInstanceUID)[-12:]}"
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = "never had a patient"
    header.StudyID, header.SeriesNumber = "1", 0
    header.StudyDate, header.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    header.Modality, header.SOPClassUID = volume.modality, _kind(header, volume)
    header.PatientPosition = "HFS" if volume.modality in ("CT", "MR") else None
    header.Rows, header.Columns = rows, columns
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BurnedInAnnotation = "NO"
    return [Origin(header, same=False, near=())] * len(planes.slices)


def _kind(header: Dataset, volume: Volume) -> UID:
    if volume.modality == "CT":
        header.KVP = None
        return CTImageStorage
    if volume.modality == "MR":
        header.ScanningSequence, header.SequenceVariant = "RM", "NONE"  # research mode
        header.ScanOptions = header.MRAcquisitionType = None
        header.RepetitionTime = header.EchoTime = header.EchoTrainLength = None
        return MRImageStorage
    header.ConversionType = "WSD"  # made on a workstation
    return SecondaryCaptureImageStorage
