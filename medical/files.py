"""Scans at a path, whatever their format: told by what is in the file, not by its name."""

import gzip
import inspect
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medical.refusal import Refusal
from medical.volume import Volume

_HEAD = 544  # bytes that tell a format

Reader = Callable[..., Volume]


def read(path: str | Path, **options: Any) -> Volume:
    """Read a scan: a folder of DICOM files, one such file, NIfTI, or NRRD.

    Args:
        path: the folder or file.
        **options: of the format's reader: `medical.dicom.read`, `medical.nifti.read` or
            `medical.nrrd.read`.

    Raises:
        FileNotFoundError: nothing is there.
        Refusal: E_FORMAT: another format; or what the reader refuses.
        ValueError: an option that the reader has not.
    """
    path = Path(path)
    name, reader = _reader(path)
    _refuse_unknown(options, reader, f"{name} files are read")
    return reader(path, **options)


def write(volume: Volume, path: str | Path, **options: Any) -> None:
    """Write a scan: NIfTI to a name that ends in `.nii` or `.nii.gz`, else DICOM to a folder.

    Args:
        volume: what to write.
        path: the file or folder.
        **options: of the format's writer: `medical.nifti.write` or `medical.dicom.write`.

    Raises:
        Refusal: E_FORMAT: another ending; or what the writer refuses.
        ValueError: an option that the writer has not.
    """
    from medical import dicom, nifti

    path = Path(path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        name, writer = "NIfTI", nifti.write
    elif path.suffix == "" or path.is_dir():
        name, writer = "DICOM", dicom.write
    else:
        raise Refusal(
            "E_FORMAT",
            f"scans are not written as '{path.suffix}', expected .nii or .nii.gz for a file, or a "
            "folder for DICOM; name one of these.",
        )
    _refuse_unknown(options, writer, f"{name} files are written")
    writer(volume, path, **options)


def _reader(path: Path) -> tuple[str, Reader]:
    """Name of a format, and its reader."""
    from medical import dicom, nifti, nrrd
    from medical.dicom.file import is_dicom

    if path.is_dir():
        return "DICOM", dicom.read
    if not path.is_file():
        raise FileNotFoundError("there is no such file or folder; check the path.")
    head, image = _head(path), path.suffix.lower() in (".hdr", ".img")
    if head[:4] in _sizes():
        return "NIfTI", nifti.read
    if head.startswith(b"NRRD"):
        return "NRRD", nrrd.read
    if head[128:132] == b"DICM" or (not image and is_dicom(path)):
        return "DICOM", dicom.read
    if image:
        return "NIfTI", nifti.read
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return "NIfTI", nifti.read  # which says what is wrong with it
    raise Refusal(
        "E_FORMAT",
        "the file is no scan that can be read, expected DICOM, NIfTI (.nii, .nii.gz, .hdr with "
        ".img) or NRRD (.nrrd, .nhdr); convert it.",
    )


def _head(path: Path) -> bytes:
    """First bytes of a file, unpacked."""
    try:
        with gzip.open(path) as stream:
            return stream.read(_HEAD)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        with path.open("rb") as file:
            return file.read(_HEAD)


def _sizes() -> set[bytes]:
    """How NIfTI files begin."""
    return {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}


def _refuse_unknown(options: dict[str, Any], function: Callable[..., Any], what: str) -> None:
    known = [
        name
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    ]
    if wrong := sorted(options.keys() - set(known)):
        raise ValueError(f"{what} without an option '{wrong[0]}'; there are {', '.join(known)}.")
