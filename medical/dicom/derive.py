"""The header of a derived image: what it keeps of its source's, and what it says of itself.

PS3.3 C.7.6.1: the same study, patient and frame of reference; a series and UIDs of its own; what
was done to which image, by what; nothing that was true of the source's pixels only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medical.dicom.attributes import copied
from medical.dicom.codes import DISCLAIMER, PROCESSING, SOURCE, item, software, version
from medical.dicom.planes import Origin

# of a classic file per slice, whatever frames the source's were in
CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2.1": "1.2.840.10008.5.1.4.1.1.2",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2": "1.2.840.10008.5.1.4.1.1.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4.1": "1.2.840.10008.5.1.4.1.1.4",  # Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.4": "1.2.840.10008.5.1.4.1.1.4",  # Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.130": "1.2.840.10008.5.1.4.1.1.128",  # Enhanced PET
    "1.2.840.10008.5.1.4.1.1.128.1": "1.2.840.10008.5.1.4.1.1.128",  # Legacy Converted Enhanced PET
}

# true of the source's pixels only, or of its being one of many frames
_STALE = {
    "ConcatenationUID",
    "DataSetTrailingPadding",
    "DigitalSignaturesSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
    "DimensionOrganizationType",
    "DoubleFloatPixelData",
    "EncryptedAttributesSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "FloatPixelData",
    "FrameIncrementPointer",
    "HistogramSequence",
    "IconImageSequence",
    "InstanceCreatorUID",
    "LargestImagePixelValue",
    "LargestPixelValueInSeries",
    "MACParametersSequence",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "PixelAspectRatio",
    "PixelData",
    "PixelDataProviderURL",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "RealWorldValueMappingSequence",
    "ReferencedFrameNumber",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "SharedFunctionalGroupsSequence",
    "SmallestImagePixelValue",
    "SourceImageSequence",
    "SmallestPixelValueInSeries",
    "VOILUTFunction",
    "VOILUTSequence",
    "VolumetricProperties",
    "WindowCenter",
    "WindowCenterWidthExplanation",
    "WindowWidth",
}


def new_uid() -> UID:
    """A UID from a random UUID, which needs no registered root."""
    return generate_uid(None)  # pyright: ignore[reportArgumentType] - as its documentation says


@dataclass(frozen=True, kw_only=True)
class Series:
    """What all images of a derived series have in common.

    Args:
        description: what the series is called, behind the source's own description.
        story: what was done, for DerivationDescription.
        number_offset: added to the source's SeriesNumber.
        derivation: codes of what was done.
    """

    description: str
    story: str
    number_offset: int
    derivation: tuple[Dataset, ...]
    uid: UID = field(default_factory=new_uid)
    now: datetime = field(default_factory=datetime.now)


def tell(algorithm: str, parameters: Mapping[str, object]) -> str:
    """What was done, in at most 1024 plain characters: the disclaimer first, lest it be cut."""
    settings = ", ".join(f"{name} {value}" for name, value in parameters.items())
    text = f"{DISCLAIMER}. {algorithm}{': ' if settings else ''}{settings}. By {software()}."
    return plain(text)[:1024]


def plain(text: str) -> str:
    """Printable characters of every DICOM character set, in one line."""
    ascii_ = text.encode("ascii", "replace").decode().replace("\\", "/")
    return " ".join(ascii_.split())


def derive(origin: Origin, series: Series, number: int) -> FileDataset:
    """A header for the image `number` (from 1) of a derived series, without pixels.

    Where the image lies is the source's until `Planes.tags` replace it.
    """
    header = inherited(origin.header)
    kind = str(header.get("SOPClassUID", None) or SecondaryCaptureImageStorage)
    header.SOPClassUID = UID(CLASSES.get(kind, kind))
    header.SOPInstanceUID = new_uid()
    header.SeriesInstanceUID = series.uid
    header.SeriesNumber = int(header.get("SeriesNumber", None) or 0) + series.number_offset
    own = str(header.get("SeriesDescription", "") or "")[: 62 - len(series.description)]
    header.SeriesDescription = f"{own}, {series.description}" if own else series.description
    header.InstanceNumber = number
    kinds = [str(kind) for kind in header.get("ImageType", None) or ()]
    third = kinds[2] if len(kinds) > 2 else "OTHER"
    if header.get("Modality") == "CT":  # which knows two words only
        third = "LOCALIZER" if third == "LOCALIZER" else "AXIAL"
    header.ImageType = ["DERIVED", "SECONDARY", third, "RESTORED"]
    header.DerivationDescription = series.story
    header.DerivationCodeSequence = list(series.derivation)
    if sources := [_reference(near) for near in origin.near if "SOPInstanceUID" in near]:
        header.SourceImageSequence = sources
    _date(header, series.now)
    header.ContributingEquipmentSequence = [
        *(header.get("ContributingEquipmentSequence", None) or ()),
        _equipment(series.now),
    ]
    return _file(header)


def inherited(header: Dataset) -> Dataset:
    """What a derived image has in common with its source; a copy."""
    kept = copied(header)
    for element in list(kept):
        if element.keyword in _STALE or element.keyword.endswith("LookupTableData"):
            del kept[element.tag]
    return kept


def _reference(source: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.get("SOPClassUID", "")
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if "ReferencedFrameNumber" in source:
        reference.ReferencedFrameNumber = source.ReferencedFrameNumber
    reference.PurposeOfReferenceCodeSequence = [item(SOURCE)]
    return reference


def _date(header: Dataset, now: datetime) -> None:
    """When the image came to be; when the patient was scanned stays."""
    header.InstanceCreationDate = header.ContentDate = f"{now:%Y%m%d}"
    header.InstanceCreationTime = header.ContentTime = f"{now:%H%M%S}"
    if header.get("Modality") != "PT":  # where the time of the series is what decay starts from
        header.SeriesDate, header.SeriesTime = header.ContentDate, header.ContentTime


def _equipment(now: datetime) -> Dataset:
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [item(PROCESSING)]
    equipment.Manufacturer = "The restore authors"
    equipment.ManufacturerModelName = "restore"
    equipment.SoftwareVersions = version()
    equipment.ContributionDateTime = f"{now:%Y%m%d%H%M%S}"
    equipment.ContributionDescription = DISCLAIMER
    return equipment


def _file(header: Dataset) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return FileDataset("", header, preamble=b"\0" * 128, file_meta=meta)
