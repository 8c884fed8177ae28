"""Folders that appear whole or not at all, and never over what somebody wants to keep."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset


def check_free(folder: Path, sources: Sequence[Dataset], *, overwrite: bool) -> None:
    """Refuse a folder that is taken, unless by an earlier result that may be replaced.

    Args:
        folder: to be made.
        sources: headers of the images that the result derives from, which nothing may replace.
        overwrite: whether an earlier result may be replaced.

    Raises:
        FileExistsError: it holds files that are kept.
        FileNotFoundError: there is no folder to put it in.
    """
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"folder '{folder.parent}' does not exist; create it first.")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise FileExistsError(f"'{folder}' is no folder; name another.")
    files = list(folder.iterdir())
    if files and not overwrite:
        raise FileExistsError(f"'{folder}' holds files; name another folder or pass --overwrite.")
    kept = {str(header.get("SOPInstanceUID", "")) for header in sources}
    if not all(_result(file, kept) for file in files):
        raise FileExistsError(
            f"'{folder}' holds other files than an earlier result; name another folder."
        )


def _result(file: Path, kept: set[str]) -> bool:
    """Whether a file is a result of this software, and none of those to keep."""
    if file.suffix != ".dcm" or not file.is_file():
        return False
    try:
        header = dcmread(file, stop_before_pixels=True)
    except Exception:  # no DICOM at all
        return False
    makers = header.get("ContributingEquipmentSequence", None) or ()
    by_us = any(maker.get("ManufacturerModelName", "") == "restore" for maker in makers)
    return by_us and str(header.get("SOPInstanceUID", "")) not in kept


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to fill, that takes its name when all went well, and is gone otherwise."""
    token = secrets.token_hex(4)
    part, old = (folder.with_name(f".{folder.name}-{token}{end}") for end in ("", "-old"))
    part.mkdir()
    try:
        yield part
        if folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
