"""Which files at a path are images: told by what is in them, never by their names."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import UID, UID_dictionary

from medical.dicom.dicomdir import listed_files
from medical.dicom.file import Instance, is_dicom, open_instance
from medical.refusal import Refusal

Paths = str | Path | Sequence[str | Path]

MASKS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
NO_READER = {*MASKS, "1.2.840.10008.5.1.4.1.1.481.2"}  # and RT dose


@dataclass
class Found:
    """Images at a path.

    Attributes:
        images: in the order of their paths.
        skipped: how many files of which kind were no images.
        unread: how many of these are images that other readers are for.
    """

    images: list[Instance] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unread: int = 0

    def refuse_none(self) -> None:
        """Refuse that there are no images.

        Raises:
            Refusal: "E_UNSUPPORTED_SOP" or "E_NO_IMAGES", with counts of what there is.
        """
        if self.images:
            return
        counts = ", ".join(f"{n} {kind}" for kind, n in sorted(self.skipped.items()))
        if self.unread:
            raise Refusal(
                "E_UNSUPPORTED_SOP",
                f"found {counts}, expected images of a scanner; masks and doses are no scans, give "
                "the series that they belong to.",
            )
        raise Refusal(
            "E_NO_IMAGES",
            f"found no DICOM images ({counts or 'no files at all'}); give the folder of a series, "
            "unpacked.",
        )


def discover(path: Paths) -> Found:
    """Find images in a folder and below it, in a list of files, in a DICOMDIR or in one file.

    Links to folders are not followed; links to files are.

    Raises:
        FileNotFoundError: nothing is there.
        Refusal: a damaged file, a DICOMDIR that points outside its folder, no images.
    """
    found = Found()
    paths = list(_paths(path, found.skipped))
    for n, one in enumerate(paths, 1):
        _take(one, f"file {n} of {len(paths)}", found)
    found.refuse_none()
    return found


def _paths(path: Paths, skipped: Counter[str]) -> Iterator[Path]:
    if not isinstance(path, str | Path):
        for one in path:
            if not Path(one).is_file():
                raise FileNotFoundError("a file of the list does not exist; check the list.")
            yield Path(one)
        return
    path = Path(path)
    if path.is_dir():
        yield from _walk(path, skipped)
    elif path.is_file():
        listed = listed_files(path)
        yield from [path] if listed is None else listed
    else:
        raise FileNotFoundError("there is no such file or folder; check the path.")


def _walk(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        skipped["linked folders"] += sum(os.path.islink(os.path.join(root, f)) for f in folders)
        for name in sorted(names):
            try:
                regular = stat.S_ISREG(os.stat(os.path.join(root, name)).st_mode)
            except OSError:  # a link to nowhere, or to itself
                regular = False
            if regular:
                yield Path(root, name)
            else:
                skipped["links to nowhere or special files"] += 1
    skipped += Counter()  # drops zeros


def _take(path: Path, where: str, found: Found) -> None:
    """Open a file and keep it if it is an image."""
    try:
        if not is_dicom(path):
            _refuse_remains(path, where)
            found.skipped["not DICOM"] += 1
            return
    except PermissionError:
        raise Refusal("E_UNREADABLE", f"{where} may not be read; change its permissions.") from None
    instance = open_instance(path, where)
    kind = instance.attributes.text("SOPClassUID")
    if kind in NO_READER:
        found.unread += 1
    elif instance.pixels is not None:
        found.images.append(instance)
        return
    elif "Rows" in instance.header or not kind or _name(kind).endswith("Image Storage"):
        raise Refusal(
            "E_TRUNCATED", f"{where} ends before its pixels; copy it again, or remove it."
        )
    found.skipped[_name(kind)] += 1


def _refuse_remains(path: Path, where: str) -> None:
    """Refuse what a copy that failed early leaves: nothing, or a piece of an empty preamble.

    Files with a name that no slice would have are let pass.
    """
    named = path.name.startswith((".", "_")) or path.suffix.lower() not in ("", ".dcm", ".ima")
    size = path.stat().st_size
    if size <= 132 and not named and not path.read_bytes().strip(b"\0DICM"):
        raise Refusal(
            "E_TRUNCATED", f"{where} has only {size} bytes, all empty; copy it again, or remove it."
        )


def _name(kind: str) -> str:
    """Name of a kind of DICOM object; of those that everybody knows."""
    return UID(kind).name if kind in UID_dictionary else "of an unknown kind"


def described(skipped: Counter[str]) -> str:
    """A note on what was skipped, "" if nothing was."""
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(skipped.items()))
    return f"Skipped what is no image: {counts}." if counts else ""
