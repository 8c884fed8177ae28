"""Bytes of one frame to numbers: decompressed, with the bits that count and their sign."""

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import RLELossless

from medical.dicom.codestream import refuse_broken_runs, refuse_other_picture
from medical.dicom.file import UNDEFINED, Instance
from medical.dicom.frames import Slice
from medical.refusal import Refusal


def refuse_undecodable(each: Slice) -> None:
    """Refuse colours, odd numbers of bits and unreadable compression, from the header alone.

    Raises:
        Refusal: that.
    """
    a, instance = each.attributes, each.instance
    kind, samples = a.text("PhotometricInterpretation"), a.whole("SamplesPerPixel")
    if kind not in ("MONOCHROME1", "MONOCHROME2") or samples not in (1, None):
        raise Refusal(
            "E_PHOTOMETRIC",
            f"{each.where} is a colour picture, expected grey values that measure something; "
            "restore it as a picture.",
        )
    if "MOSAIC" in a.words("ImageType"):
        raise Refusal(
            "E_UNSUPPORTED_SOP",
            f"{each.where} is a mosaic, many slices tiled in one picture; export it as an enhanced "
            "series, or convert it to NIfTI with the vendor's rules.",
        )
    assert instance.pixels is not None
    allowed = (32, 64) if instance.pixels.kind == "f" else (8, 16, 32)
    if a.whole("BitsAllocated") not in allowed:
        raise Refusal(
            "E_UNSUPPORTED_SOP",
            f"{each.where} has {a.whole('BitsAllocated')} bits a pixel, expected "
            f"{' or '.join(map(str, allowed))}; masks of one bit are no scans.",
        )
    bits, high = _bits(each)
    if instance.pixels.kind == "i" and not (
        0 < bits <= high + 1 <= (a.whole("BitsAllocated") or 0)
    ):
        raise a.bad("BitsStored")
    _decoder(instance)


def encapsulated(instance: Instance) -> bool:
    """Whether pixels are compressed."""
    assert instance.pixels is not None
    return instance.pixels.length == UNDEFINED


def _bits(each: Slice) -> tuple[int, int]:
    a = each.attributes
    allocated = a.whole("BitsAllocated") or 16
    bits = a.whole("BitsStored") or allocated
    high = a.whole("HighBit")
    return bits, bits - 1 if high is None else high


def _decoder(instance: Instance) -> Decoder:
    """Pydicom's decoder of a transfer syntax.

    Raises:
        Refusal: "E_TRANSFER_SYNTAX" for what nobody decodes, "E_DECODER" naming a package.
    """
    syntax = instance.syntax
    name = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Refusal(
            "E_TRANSFER_SYNTAX",
            f"{instance.where} is stored as {name}, which cannot be read; export it uncompressed.",
        ) from None
    if not decoder.is_available:
        raise Refusal(
            "E_DECODER",
            f"{instance.where} is compressed as {name} and no decoder is installed; install "
            f"restore-imaging[dicom], or {_package(name)}.",
        )
    if syntax.is_encapsulated != encapsulated(instance):
        raise Refusal(
            "E_TRANSFER_SYNTAX",
            f"{instance.where} says it is stored as {name}, but its pixels are not; export it "
            "again.",
        )
    return decoder


def _package(name: str) -> str:
    """What decodes a family of transfer syntaxes."""
    if "JPEG-LS" in name:
        return "pyjpegls"
    codec = "openjpeg" if "2000" in name else "libjpeg"
    return f"pylibjpeg and pylibjpeg-{codec}"


def decoded(each: Slice, data: bytes) -> NDArray:
    """Numbers `(rows, columns)` of one frame, as stored.

    Raises:
        Refusal: the data are not what the header says, or no decoder takes them.
    """
    instance, a = each.instance, each.attributes
    assert instance.pixels is not None
    if instance.pixels.kind == "f":
        order = "<" if instance.syntax.is_little_endian else ">"
        kind = f"{order}f{(a.whole('BitsAllocated') or 32) // 8}"
        return np.frombuffer(data, kind).reshape(each.size)
    signed = a.whole("PixelRepresentation") == 1
    bits, high = _bits(each)
    if encapsulated(instance):
        bits, high = _bits_of_stream(each, data, bits, high, signed)
    rows, columns = each.size
    allocated = a.whole("BitsAllocated") or 16
    options = {
        "rows": rows,
        "columns": columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": a.text("PhotometricInterpretation"),
        "bits_allocated": allocated,
        "bits_stored": min(bits, allocated),
        "pixel_representation": int(signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": instance.pixels.vr,
        "correct_unused_bits": False,  # done below, where HighBit counts too
    }
    try:
        source = encapsulate([data], has_bot=False) if encapsulated(instance) else data
        stored, _ = _decoder(instance).as_array(source, raw=True, **options)  # type: ignore[arg-type]
    except (KeyboardInterrupt, SystemExit, MemoryError, Refusal):
        raise
    except BaseException:  # each decoder has its own, and one of them panics
        raise Refusal(
            "E_TRUNCATED",
            f"{each.where} has pixels that no decoder understands; copy it again.",
        ) from None
    return _meaningful_bits(stored, bits, high, signed)


def _bits_of_stream(
    each: Slice, data: bytes, bits: int, high: int, signed: bool
) -> tuple[int, int]:
    """BitsStored and HighBit of what comes out of a decoder.

    Raises:
        Refusal: the stream is not of this picture.
    """
    if each.instance.syntax == RLELossless:
        refuse_broken_runs(data, (each.attributes.whole("BitsAllocated") or 16) // 8, each.where)
        return bits, high
    found = refuse_other_picture(data, *each.size, each.where)
    # the stream knows better, but JPEG's does not know of signs
    if found.kind != "JPEG" or (found.bits > bits and not signed):
        bits = found.bits
    return bits, bits - 1


def _meaningful_bits(stored: NDArray, bits: int, high: int, signed: bool) -> NDArray:
    """Drop what is beside BitsStored (old overlays live there) and extend the sign."""
    allocated = stored.dtype.itemsize * 8
    if bits >= allocated:
        return stored
    kind = stored.dtype.newbyteorder("=")
    raw = stored.astype(kind).view(f"u{stored.dtype.itemsize}") << (allocated - 1 - high)
    return raw.view(f"{'i' if signed else 'u'}{stored.dtype.itemsize}") >> (allocated - bits)
