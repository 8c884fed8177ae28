"""Who a scan is of, taken out of its header: the Basic Profile of DICOM PS3.15, annex E.

What the profile says of each attribute (table E.1-1, edition 2026c) comes from `dicom-anonymizer`.
On top of the table every private attribute, overlay, curve and value of unknown kind is removed,
every person's name emptied, every UID outside the standard's own replaced, and every text that
still holds a word of a name or number that was taken out is replaced. New UIDs, days and
pseudonyms are keyed hashes: one key gives one patient the same ones in every call.

Not done, and not claimed: pixels stay as they are. Text burned into them, and faces that can be
drawn from a head, are the caller's to look for; modalities known for burned-in text are refused
until somebody says that he looked.
"""

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import overload

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from medical.dicom.codes import DEIDENTIFICATION, item, software
from medical.dicom.quiet import quiet
from medical.dicom.source import DicomSource
from medical.identifiers import Words
from medical.profile import Profile, cleaned
from medical.refusal import Refusal, alias

SUSPECTS = {"US", "IVUS", "OT", "ES", "XC", "SC", "DOC"}
"""Modalities whose pixels often show who the patient is."""


@overload
def deidentify(
    scans: DicomSource,
    *,
    key: bytes | None = ...,
    shift_dates: bool = ...,
    characteristics: bool = ...,
    phi_checked: bool = ...,
) -> DicomSource: ...
@overload
def deidentify(
    scans: Iterable[Dataset],
    *,
    key: bytes | None = ...,
    shift_dates: bool = ...,
    characteristics: bool = ...,
    phi_checked: bool = ...,
) -> list[Dataset]: ...
def deidentify(
    scans: DicomSource | Iterable[Dataset],
    *,
    key: bytes | None = None,
    shift_dates: bool = True,
    characteristics: bool = False,
    phi_checked: bool = False,
) -> DicomSource | list[Dataset]:
    """De-identify headers or whole files; the given ones stay as they are.

    Args:
        scans: data sets that belong together, with or without pixels; or a volume's source, from
            which `medical.dicom.write` then derives.
        key: see `Profile`; a new one that nobody keeps if None, so that UIDs agree among these
            data sets only.
        shift_dates: see `Profile`.
        characteristics: see `Profile`.
        phi_checked: somebody has looked at the pixels and found no text or face in them.

    Returns:
        New data sets, that share their pixels with the old ones; or a new source.

    Raises:
        Refusal: "E_PHI_PIXELS" for pixels that often show the patient, unless `phi_checked`.
    """
    headers = list(scans.headers if isinstance(scans, DicomSource) else scans)
    if not phi_checked:
        for number, scan in enumerate(headers, 1):
            refuse_suspects(scan, f"image {number} of {len(headers)}")
    profile = Profile(
        key=key or secrets.token_bytes(32), shift_dates=shift_dates, characteristics=characteristics
    )
    with quiet():  # warnings quote values
        words = Words.of(headers)
        clean = [_deidentified(scan, profile, words) for scan in headers]
    if isinstance(scans, DicomSource):
        series = alias(str(clean[0].get("SeriesInstanceUID", "")))
        return replace(scans, headers=tuple(clean), series=series)
    return clean


def refuse_suspects(scan: Dataset, name: str = "the image") -> None:
    """Refuse an image whose pixels may show who the patient is.

    Raises:
        Refusal: "E_PHI_PIXELS".
    """
    kinds = {str(kind).upper() for kind in scan.get("ImageType", None) or ()}
    capture = "Secondary Capture" in getattr(scan.get("SOPClassUID", ""), "name", "")
    found = (
        "is of modality " + scan.Modality
        if scan.get("Modality", "") in SUSPECTS
        else "is marked as having burned-in text"
        if scan.get("BurnedInAnnotation", "NO") == "YES"
        else "is a secondary image or a screenshot"
        if capture or kinds & {"SECONDARY", "SCREEN SAVE"}
        else ""
    )
    if found:
        raise Refusal(
            "E_PHI_PIXELS",
            f"{name} {found}, expected pixels that cannot show who the patient is; look at all of "
            "them, then say so with phi_checked.",
        )


def _deidentified(scan: Dataset, profile: Profile, words: Words) -> Dataset:
    patient = str(scan.get("PatientID", "") or scan.get("PatientName", ""))
    clean = cleaned(scan, profile, profile.shift(patient), words)
    clean.PatientID = clean.PatientName = profile.pseudonym(patient)
    _say_so(clean, profile)
    if (old := getattr(scan, "file_meta", None)) is None:
        return clean
    meta = FileMetaDataset()
    for keyword in ("MediaStorageSOPClassUID", "TransferSyntaxUID"):
        if keyword in old:
            setattr(meta, keyword, old[keyword].value)
    if "SOPInstanceUID" in clean:
        meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    implicit, little = scan.original_encoding
    return FileDataset(
        "",
        clean,
        preamble=b"\0" * 128,
        file_meta=meta,
        is_implicit_VR=bool(implicit),
        is_little_endian=little is not False,
    )


def _say_so(clean: Dataset, profile: Profile) -> None:
    """Write into a header that, and by what rules, it was de-identified."""
    kept = {"basic": True, "dates": profile.shift_dates, "patient": profile.characteristics}
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = f"PS3.15 Basic Profile by {software()}; pixels as they were"
    clean.DeidentificationMethodCodeSequence = [
        item(DEIDENTIFICATION[rule]) for rule, used in kept.items() if used
    ]
    modified = "MODIFIED" if profile.shift_dates else "REMOVED"
    clean.LongitudinalTemporalInformationModified = modified
