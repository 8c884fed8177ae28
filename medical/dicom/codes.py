"""Coded words: what was done, in which unit, of which kind; and the software that says so.

From the context groups of DICOM PS3.16 as pydicom carries them.
"""

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

DISCLAIMER = "Research use, not for diagnosis"

DERIVATIONS: dict[str, Code] = {  # CID 7203
    "smoothing": codes.DCM.Smoothing,
    "resampling": codes.DCM.SpatialResampling,
    "editing": codes.DCM.VolumeEditing,
}

SOURCE = codes.DCM.SourceImageForImageProcessingOperation  # CID 7202
PROCESSING = codes.DCM.ProcessingEquipment  # CID 7005

DEIDENTIFICATION: dict[str, Code] = {  # CID 7050
    "basic": codes.DCM.BasicApplicationConfidentialityProfile,
    "dates": codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption,
    "patient": codes.DCM.RetainPatientCharacteristicsOption,
}

UNITS: dict[str, Code] = {
    "HU": codes.UCUM.HounsfieldUnit,
    "SUV": Code("{SUVbw}g/ml", "UCUM", "Standardized Uptake Value body weight"),
    "Bq/ml": codes.UCUM.BecquerelsPerMilliliter,
    "mm": codes.UCUM.Millimeter,
    "1": codes.UCUM.NoUnits,
    "a.u.": codes.UCUM.ArbitraryUnit,
}

QUANTITIES: dict[str, Code] = {
    "standard deviation": codes.SCT.StandardDeviation,
    "attenuation": codes.DCM.AttenuationCoefficient,
    "uptake": codes.DCM.StandardizedUptakeValue,
}

SEGMENTS: dict[str, tuple[Code, Code]] = {  # category (CID 7150), type (CID 7151 and others)
    "lesion": (
        codes.SCT.MorphologicallyAbnormalStructure,
        Code("52988006", "SCT", "Lesion"),
    ),
    "tumour": (
        codes.SCT.MorphologicallyAbnormalStructure,
        Code("108369006", "SCT", "Neoplasm"),
    ),
    "brain": (codes.SCT.AnatomicalStructure, codes.SCT.Brain),
    "bone": (codes.SCT.AnatomicalStructure, codes.SCT.Bone),
    "heart": (codes.SCT.AnatomicalStructure, codes.SCT.Heart),
    "kidney": (codes.SCT.AnatomicalStructure, codes.SCT.Kidney),
    "liver": (codes.SCT.AnatomicalStructure, codes.SCT.Liver),
    "lung": (codes.SCT.AnatomicalStructure, codes.SCT.Lung),
    "tissue": (codes.SCT.Tissue, codes.SCT.Tissue),
}

FAMILY = codes.DCM.ArtificialIntelligence  # CID 7162


def item(code: Code) -> Dataset:
    """A code as the item of a sequence."""
    entry = Dataset()
    entry.CodeValue, entry.CodingSchemeDesignator = code.value, code.scheme_designator
    entry.CodeMeaning = code.meaning
    return entry


def software() -> str:
    """Name and version of this software."""
    return f"restore {version()}"


def version() -> str:
    """Version of this software."""
    from restore import __version__

    return __version__
