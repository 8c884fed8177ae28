"""One DICOM file: its header, and where its pixels are."""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import _read_file_meta_info, read_dataset, read_partial, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medical.dicom.elements import Attributes
from medical.dicom.guard import META, Reader, inflate
from medical.refusal import Refusal

PIXELS = {0x7FE00008: "f", 0x7FE00009: "f", 0x7FE00010: "i"}  # float, double, whole numbers
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Pixels:
    """Where the pixels of a file are.

    Attributes:
        kind: "i" or "f".
        vr: of the element.
        offset: of the value in the (inflated) file.
        length: of the value, `UNDEFINED` if encapsulated.
    """

    kind: str
    vr: str
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Instance:
    """A DICOM file.

    Attributes:
        path: never to be printed.
        where: "file 7 of 12".
        header: everything before the pixels.
        syntax: transfer syntax.
        size: bytes of the (inflated) file.
        stored: bytes on disk.
        pixels: None for files without.
    """

    path: Path
    where: str
    header: Dataset
    syntax: UID
    size: int
    stored: int
    pixels: Pixels | None

    @property
    def attributes(self) -> Attributes:
        """Values of the header."""
        return Attributes((self.header,), self.where)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The (inflated) file."""
        with self.path.open("rb") as file:
            if self.syntax != DeflatedExplicitVRLittleEndian:
                yield file
                return
            _read_meta(file)
            start = file.tell()
            yield BytesIO(b"\0" * start + inflate(file, self.where))


def is_dicom(path: Path) -> bool:
    """Whether a file looks like DICOM from within: by its preamble, or by a first element."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or _looks_like_element(start[:8])


def open_instance(path: Path, where: str) -> Instance:
    """Read the header of a DICOM file.

    Raises:
        Refusal: it is damaged, or has no transfer syntax and is not of a usual one.
    """
    found: dict[str, Pixels] = {}
    size = stored = os.stat(path).st_size
    with path.open("rb") as file:
        reader = Reader(file, size, META)
        try:
            meta = _read_meta(cast(BinaryIO, reader))
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                start = file.tell()
                data = b"\0" * start + inflate(file, where)
                size, reader = len(data), Reader(BytesIO(data), len(data))
                reader.seek(start)
                stop = _stop(reader, found)
                header = read_dataset(cast(BinaryIO, reader), False, True, stop_when=stop)
            else:
                reader.seek(0)
                reader = Reader(file, size)
                read = read_partial(
                    cast(BinaryIO, reader), stop_when=_stop(reader, found), force=True
                )
                header, meta = _without_file(read), read.file_meta
        except Refusal:
            raise
        except Exception:
            reader.refuse_excess()
            raise Refusal(
                "E_TRUNCATED", f"{where} has a damaged header; copy it again, or remove it."
            ) from None
        reader.refuse_excess()
    header.file_meta = meta
    return Instance(
        path=path,
        where=where,
        header=header,
        syntax=_syntax(header, where),
        size=size,
        stored=stored,
        pixels=found.get("pixels"),
    )


def _read_meta(file: BinaryIO) -> FileMetaDataset:
    read_preamble(file, force=True)
    return _read_file_meta_info(file)


def _stop(reader: Reader, found: dict[str, Pixels]) -> Callable[[BaseTag, str | None, int], bool]:
    """A callback that ends pydicom's reading at the pixels and keeps where they are."""

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in PIXELS and length:
            found["pixels"] = Pixels(PIXELS[tag], vr or "OW", reader.tell(), length)
        return tag in PIXELS

    return stop


def _without_file(read: FileDataset) -> Dataset:
    """The dataset alone: pydicom's keeps the file's name and a handle to it."""
    plain = Dataset(read)
    plain.set_original_encoding(*read.original_encoding, read.original_character_set)
    return plain


def _syntax(header: Dataset, where: str) -> UID:
    """Transfer syntax; for a file that does not say it, the one that its elements are written in.

    Raises:
        Refusal: neither makes sense.
    """
    declared = header.file_meta.get("TransferSyntaxUID")
    if declared:
        return UID(str(declared))
    if not any(keyword in header for keyword in ("SOPClassUID", "StudyInstanceUID", "Rows")):
        raise Refusal(
            "E_TRANSFER_SYNTAX",
            f"{where} does not say its transfer syntax and is not of a usual one; export it again.",
        )
    implicit, little = header.original_encoding
    if not little:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _looks_like_element(start: bytes) -> bool:
    """Whether 8 bytes begin a dataset without preamble: group 2 or 8, in either byte order."""
    if len(start) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", start)
        explicit = start[4:6].isalpha() and start[4:6].isupper()
        if group in (2, 8) and element <= 0x0102 and (explicit or length <= 1024):
            return True
    return False
