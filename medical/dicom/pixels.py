"""Stored numbers of images, frame by frame, all there or refused, not yet rescaled."""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from numpy.typing import NDArray
from pydicom.encaps import generate_frames

from medical.dicom.decode import decoded, encapsulated
from medical.dicom.file import Instance
from medical.dicom.frames import Slice
from medical.dicom.guard import refuse_bloat
from medical.refusal import Refusal

ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def frames(instance: Instance, wanted: Sequence[Slice]) -> Iterator[tuple[Slice, NDArray]]:
    """Decode images of one file, in its order.

    Args:
        instance: the file.
        wanted: its images.

    Yields:
        Image, stored numbers `(rows, columns)`.

    Raises:
        Refusal: cut off, damaged, not what the header says, or no decoder.
    """
    by_number = {each.frame: each for each in wanted}
    refuse_too_short(instance, wanted[0])
    with instance.open() as file:
        streams = _compressed if encapsulated(instance) else _native
        for number, data in streams(instance, file, wanted[0]):
            if number in by_number:
                each = by_number[number]
                yield each, decoded(each, data)


def frame_bytes(each: Slice) -> int:
    """Bytes of an image once decoded."""
    rows, columns = each.size
    return rows * columns * ((each.attributes.whole("BitsAllocated") or 16) // 8)


def refuse_too_short(instance: Instance, any_frame: Slice) -> None:
    """Refuse a file with fewer bytes than its pixels need, before anything is read.

    Raises:
        Refusal: "E_TRUNCATED", with both numbers; "E_TOO_LARGE" for compressed data that would
            inflate absurdly.
    """
    assert instance.pixels is not None
    need = frame_bytes(any_frame) * (instance.attributes.whole("NumberOfFrames") or 1)
    there = instance.size - instance.pixels.offset
    if encapsulated(instance):
        refuse_bloat(need, there, instance.where)
        return
    there = min(there, instance.pixels.length)
    if there < need:
        raise Refusal(
            "E_TRUNCATED",
            f"{instance.where} has {there} bytes of pixels, expected {need}; copy it again.",
        )


def _native(instance: Instance, file: BinaryIO, one: Slice) -> Iterator[tuple[int, bytes]]:
    assert instance.pixels is not None
    size = frame_bytes(one)
    for number in range(instance.attributes.whole("NumberOfFrames") or 1):
        file.seek(instance.pixels.offset + number * size)
        yield number, file.read(size)


def _compressed(instance: Instance, file: BinaryIO, one: Slice) -> Iterator[tuple[int, bytes]]:
    assert instance.pixels is not None
    count = instance.attributes.whole("NumberOfFrames") or 1
    file.seek(instance.pixels.offset)
    _refuse_broken_items(file, instance)
    file.seek(instance.pixels.offset)
    number = -1
    try:
        for number, data in enumerate(generate_frames(file, number_of_frames=count)):
            if number < count:
                yield number, data
    except (ValueError, struct.error, OSError) as error:
        if isinstance(error, Refusal):
            raise
        raise Refusal(
            "E_TRUNCATED", f"{instance.where} has damaged compressed pixels; copy it again."
        ) from None
    if number + 1 != count:
        raise Refusal(
            "E_TRUNCATED",
            f"{instance.where} has {number + 1} compressed pictures, expected {count}; copy it "
            "again.",
        )


def _refuse_broken_items(file: BinaryIO, instance: Instance) -> None:
    """Walk over the items of encapsulated pixels; all must be there, with the delimiter."""
    while (head := file.read(8))[:4] != END:
        if head[:4] != ITEM or len(head) < 8:  # also behind the end of the file
            raise Refusal(
                "E_TRUNCATED",
                f"{instance.where} has {instance.size} bytes and ends within its compressed "
                "pixels; copy it again.",
            )
        file.seek(int.from_bytes(head[4:], "little"), os.SEEK_CUR)
