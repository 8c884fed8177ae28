"""What compressed pictures say of themselves, before any decoder believes them."""

import itertools
import struct
from dataclasses import dataclass

from medical.refusal import Refusal

TILES = 1024  # of a JPEG 2000 picture; decoders spend kilobytes on each
OTHER_FRAMES = (0xC2, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # DICOM has none


@dataclass(frozen=True)
class Picture:
    """What a compressed picture says of itself."""

    kind: str  # "JPEG", "JPEG-LS", "JPEG 2000"
    rows: int
    columns: int
    samples: int
    bits: int
    tiles: int = 1


def picture(stream: bytes) -> Picture | None:
    """Read the head of a JPEG, JPEG-LS or JPEG 2000 picture, None if it has none."""
    try:
        if stream[:2] == b"\xff\xd8":
            return _jpeg(stream)
        return _jpeg2000(_codestream(stream))
    except (struct.error, IndexError):
        return None


def _jpeg(stream: bytes) -> Picture | None:
    at = 2
    while stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        (length,) = struct.unpack_from(">H", stream, at + 2)
        if marker in (0xC0, 0xC1, 0xC3, 0xF7):  # baseline, extended, lossless, LS
            bits, rows, columns, samples = struct.unpack_from(">BHHB", stream, at + 4)
            kind = "JPEG-LS" if marker == 0xF7 else "JPEG"
            return Picture(kind, rows, columns, samples, bits)
        if marker in OTHER_FRAMES or marker == 0xDA:  # a scan without a frame
            return None
        at += 2 + length
    return None


def _codestream(stream: bytes) -> bytes:
    """The code stream in a JP2 file, or what is one already."""
    if stream[4:8] != b"jP  ":
        return stream
    at = 0
    while True:
        length, kind = struct.unpack_from(">I4s", stream, at)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", stream, at + 8)
            header = 16
        if kind == b"jp2c":
            return stream[at + header :]
        if length < header:
            return b""
        at += length


def _jpeg2000(stream: bytes) -> Picture | None:
    if stream[:4] != b"\xff\x4f\xff\x51":
        return None
    x, y, x0, y0, tile_x, tile_y, *_ = struct.unpack_from(">8I", stream, 8)
    samples, depth = struct.unpack_from(">HB", stream, 40)
    tiles = -(-x // max(1, tile_x)) * -(-y // max(1, tile_y))
    return Picture("JPEG 2000", y - y0, x - x0, samples, (depth & 0x7F) + 1, tiles)


def refuse_other_picture(stream: bytes, rows: int, columns: int, where: str) -> Picture:
    """Refuse a compressed picture that is not the one its header promises.

    Raises:
        Refusal: no picture, another size, more than one sample a pixel, absurdly many tiles.
    """
    found = picture(stream)
    if found is None:
        raise Refusal(
            "E_TRUNCATED", f"{where} holds no compressed picture where one is due; copy it again."
        )
    size = (found.rows, found.columns, found.samples)
    if size != (rows, columns, 1) or found.tiles > TILES:
        raise Refusal(
            "E_BAD_VALUE",
            f"{where} holds a compressed picture of {size[0]} x {size[1]} pixels, {size[2]} "
            f"samples each, in {found.tiles} tiles, but its header says {rows} x {columns}, one "
            "sample; the file is damaged.",
        )
    return found


def refuse_broken_runs(stream: bytes, segments: int, where: str) -> None:
    """Refuse run-length data whose table of segments makes no sense; decoders trust it.

    Args:
        stream: one frame.
        segments: expected: one for every byte of a pixel.
        where: which frame.

    Raises:
        Refusal: that.
    """
    table = struct.unpack_from("<16I", stream) if len(stream) >= 64 else (0,) * 16
    starts = [*table[1 : segments + 1], len(stream)]
    growing = all(a < b for a, b in itertools.pairwise(starts))
    if table[0] != segments or starts[0] < 64 or not growing:
        raise Refusal("E_TRUNCATED", f"{where} has damaged run-length data; copy it again.")
