"""DICOMDIR: the table of contents of a medium."""

from pathlib import Path

from medical.dicom.elements import Attributes
from medical.dicom.file import is_dicom, open_instance
from medical.refusal import Refusal

DIRECTORY = "1.2.840.10008.1.3.10"


def listed_files(path: Path) -> list[Path] | None:
    """Files that a DICOMDIR lists, None for a file that is none.

    Raises:
        Refusal: it is damaged, or lists what is absent or outside its folder.
    """
    if not is_dicom(path):
        return None
    instance = open_instance(path, "file 1 of 1")
    if instance.header.file_meta.get("MediaStorageSOPClassUID") != DIRECTORY:
        return None
    base = path.resolve().parent
    records = instance.attributes.items("DirectoryRecordSequence")
    parts = [Attributes((r,), "the DICOMDIR").words("ReferencedFileID") for r in records]
    return sorted({_inside(base, p) for p in parts if p})


def _inside(base: Path, parts: tuple[str, ...]) -> Path:
    """The file that a DICOMDIR refers to.

    Raises:
        Refusal: it is outside the DICOMDIR's folder, or not there.
    """
    if any(p in ("", ".", "..") or "/" in p or "\\" in p or "\0" in p for p in parts):
        raise _outside()
    for spelt in (parts, tuple(p.lower() for p in parts)):
        target = base.joinpath(*spelt)
        try:
            resolved = target.resolve(strict=True)
        except (OSError, RuntimeError):  # absent, or a loop of links
            continue
        if not resolved.is_relative_to(base):
            raise _outside()
        if resolved.is_file():
            return target
    raise Refusal(
        "E_MISSING_FILES",
        "the DICOMDIR lists a file that is not there; copy the whole medium, or give the folder of "
        "the series.",
    )


def _outside() -> Refusal:
    return Refusal(
        "E_PATH",
        "the DICOMDIR lists a file outside its own folder; give the folder of the series instead.",
    )
