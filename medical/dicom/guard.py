"""Files that would fill the memory or the afternoon, refused before they do.

A few kilobytes can claim to be a picture of 65535 x 65535 pixels, inflate a thousandfold, or hold a
million empty elements. Whatever grows is measured while it grows, and held against what is there.
"""

import zlib
from typing import BinaryIO

from medical.refusal import Refusal

FREE = 2**26  # bytes that anything may inflate to
RATIO = 500  # of pictures to their streams, beyond that; noise-free phantoms reach 350
DEFLATE = 100  # of inflated to deflated bytes, beyond that
READS = 200_000  # of a header, and one more for every 256 bytes: 300 a frame, if it has a picture
HEADER = 2**26  # bytes
META = 2**20  # bytes of the group before it
VALUE = 2**16  # bytes of a value that is split into a list
CHARACTER_SET = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")  # pydicom splits it at once


class Reader:
    """A file whose reads are counted and never ask for more than there is.

    pydicom reads as many bytes as a length field says, which may be 4 GB in a file of 1 kB.

    Args:
        file: seekable.
        size: bytes in it.
        most: bytes that may be read.
    """

    def __init__(self, file: BinaryIO, size: int, most: int = HEADER) -> None:
        self.file, self.size, self.most = file, size, most
        self.reads = self.bytes = 0
        self.seek, self.tell = file.seek, file.tell
        self._tag = b""

    def read(self, count: int = -1) -> bytes:
        """Up to so many bytes, fewer at the end.

        Raises:
            Refusal: more reads or bytes than a header has.
        """
        if count < 0 or count > 4096:
            rest = max(0, self.size - self.file.tell())
            count = rest if count < 0 else min(count, rest)
            self.bytes += count
        self.reads += 1
        if count > VALUE and self._tag in CHARACTER_SET:
            self.bytes = self.most + 1
        self.refuse_excess()
        data = self.file.read(count)
        if len(data) == 8:  # the head of an element
            self._tag = data[:4]
        return data

    def refuse_excess(self) -> None:
        """Raise again what pydicom may have swallowed."""
        most = READS + self.size // 256
        if self.reads > most or self.bytes > self.most:
            raise Refusal(
                "E_TOO_LARGE",
                f"a header takes more than {most} reads or {self.most >> 20} MB, which no scan's "
                "does; the file is damaged or made to fill the memory.",
            )


def refuse_bloat(inflated: int, stored: int, where: str, ratio: int = RATIO) -> None:
    """Refuse what would inflate far more than any scan does.

    Args:
        inflated: bytes that there are, or would be.
        stored: bytes they come from.
        where: which file or series.
        ratio: that is allowed, beyond `FREE`.

    Raises:
        Refusal: that.
    """
    if inflated > max(FREE, ratio * stored):
        raise Refusal(
            "E_TOO_LARGE",
            f"{where} has {stored} bytes that would inflate to {inflated} or more, expected at "
            f"most {ratio} times as many; it is damaged or made to fill the memory.",
        )


def inflate(file: BinaryIO, where: str) -> bytes:
    """Inflate the rest of a file of a deflated transfer syntax.

    Raises:
        Refusal: it is cut off, damaged, or would fill the memory.
    """
    stored, engine, out = file.read(), zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    rest = stored
    try:
        while rest and not engine.eof:
            out += engine.decompress(rest, 2**20)
            rest = engine.unconsumed_tail
            refuse_bloat(len(out), len(stored) - len(rest), where, DEFLATE)
    except zlib.error:
        raise Refusal("E_TRUNCATED", f"{where} does not inflate; copy it again.") from None
    if not engine.eof:
        raise Refusal("E_TRUNCATED", f"{where} ends in its compressed part; copy it again.")
    return bytes(out)
