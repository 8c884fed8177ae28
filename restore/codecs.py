"""The three file formats of photographs: what stands in the file, neither more nor less.

`decode` hands over the stored integers or floats, `encode` stores them. Pillow does PNG and JPEG,
tifffile TIFF. One gap is filled here: Pillow reads and writes 16-bit colour PNG as 8 bit without a
word, so those go through torchvision (reading) and 20 lines of our own (writing).
"""

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAX_PIXELS = 2**27  # 134 megapixels: 1.6 GB as float32 RGB; beyond, a file is more likely a bomb
ORIENTATION, ICC_PROFILE = 0x0112, 34675  # tags of EXIF and TIFF
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Decoded pixels `(H, W, C)` as stored: 1, 2 (grey + alpha), 3 or 4 (RGB + alpha) channels."""

    array: np.ndarray
    orientation: int = 1
    exif: bytes = b""
    icc: bytes = b""

    def upright(self) -> np.ndarray:
        """Undo the camera's rotation (EXIF 2.32, tag 0x0112: 1 is upright, 2-8 as below)."""
        a = self.array
        if self.orientation in (5, 6, 7, 8):
            a = a.swapaxes(0, 1)
        if self.orientation in (3, 4, 7, 8):
            a = a[::-1]
        if self.orientation in (2, 3, 6, 7):
            a = a[:, ::-1]
        return a


def decode(path: Path) -> Pixels:
    """Read the one image of a PNG, JPEG or TIFF file.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as their names say.
        ValueError: anything but one complete grey or RGB image, with or without straight alpha.
    """
    kind = _sniff(path)
    return _read_tiff(path) if kind == "TIFF" else _read_png_or_jpeg(path, kind)


def encode(
    path: Path, array: np.ndarray, kind: str, *, exif: bytes = b"", icc: bytes = b""
) -> None:
    """Write `(H, W, C)` pixels as `kind`: uint8 anywhere, uint16 not in JPEG, float32 in TIFF."""
    if kind == "TIFF":
        _write_tiff(path, array, icc)
    elif array.dtype == np.uint16:
        path.write_bytes(_encode_png16(array, exif, icc))
    else:
        _write_pillow(path, array, kind, exif, icc)


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder throws at a damaged file into one sentence."""
    try:
        yield
    except Exception as error:  # decoders raise everything from struct.error to KeyError
        reason = " ".join(str(error).replace(str(path), "the file").split()) or type(error).__name__
        raise ValueError(
            f"'{path}' cannot be read as an image ({reason.rstrip('.')}); copy or save it again."
        ) from error


def _sniff(path: Path) -> str:
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder; expected an image file.")
    if not path.exists():
        raise FileNotFoundError(f"'{path}' does not exist.")
    with path.open("rb") as file:
        head = file.read(8)
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    raise ValueError(f"'{path}' is not a PNG, JPEG or TIFF image; convert it to one of these.")


def _refuse_size(path: Path, height: int, width: int) -> None:
    if min(height, width) < 2:
        raise ValueError(
            f"'{path}' has {width}x{height} pixels; an image needs at least 2 on each side."
        )
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"'{path}' has {width}x{height} pixels, more than {MAX_PIXELS // 2**20} million; "
            "crop it or cut it into pieces."
        )


def _read_png_or_jpeg(path: Path, kind: str) -> Pixels:
    import PIL.Image

    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # MAX_PIXELS decides
        try:
            with _decoding(path):
                picture = stack.enter_context(PIL.Image.open(path, formats=(kind,)))
        except ValueError as error:
            if isinstance(error.__cause__, PIL.Image.DecompressionBombError):
                raise ValueError(f"'{path}' has too many pixels; crop it first.") from error
            raise
        _refuse_size(path, picture.height, picture.width)
        # a JPEG's further frames (MPO) are previews of the first, a PNG's are an animation
        if kind == "PNG" and getattr(picture, "is_animated", False):
            raise ValueError(f"'{path}' is animated; save the frame you want as one image.")
        exif, orientation = _exif(picture)
        with _decoding(path):
            picture.load()
            array = _decode_png16(path) if kind == "PNG" and _is_png16(path) else None
        if array is None:
            array = _from_pillow(picture, path)
        icc = picture.info.get("icc_profile") or b""
    return Pixels(array=array, orientation=orientation, exif=exif, icc=icc)


def _exif(picture: Any) -> tuple[bytes, int]:
    """Camera data with the orientation taken out; damaged camera data is no reason to stop."""
    with contextlib.suppress(Exception):
        exif = picture.getexif()
        orientation = exif.pop(ORIENTATION, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        return (exif.tobytes() if len(exif) else b""), orientation
    return b"", 1


def _from_pillow(picture: Any, path: Path) -> np.ndarray:
    palette = picture.mode in ("P", "PA")
    if "transparency" in picture.info or picture.mode == "PA":
        picture = picture.convert("LA" if picture.mode in ("1", "L") else "RGBA")
    elif palette:
        picture = picture.convert("RGB")
    elif picture.mode == "1":
        picture = picture.convert("L")
    if picture.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ValueError(
            f"'{path}' is in colour mode {picture.mode}; convert it to RGB or grey first."
        )
    array = np.atleast_3d(np.asarray(picture))
    grey = (
        palette
        and (array[..., 0] == array[..., 1]).all()
        and (array[..., 1] == array[..., 2]).all()
    )
    return array[..., 2:] if grey else array  # blue [and alpha]


def _is_png16(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(25)[24:] == b"\x10"


def _decode_png16(path: Path) -> np.ndarray:
    from torchvision.io import ImageReadMode, decode_png, read_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no successor reads 16 bit yet
        array = decode_png(read_file(str(path)), mode=ImageReadMode.UNCHANGED).numpy()
    if array.dtype != np.uint16:
        raise ValueError("this torchvision knows no 16-bit PNG; save it as 16-bit TIFF")
    return array.transpose(1, 2, 0)


def _read_tiff(path: Path) -> Pixels:
    import tifffile

    with contextlib.ExitStack() as stack:
        with _decoding(path):
            tiff = stack.enter_context(tifffile.TiffFile(path))
            full = [page for page in tiff.pages if not page.aspage().is_reduced]  # no previews
            page: Any = tiff.pages[0].aspage()
            photometric = page.photometric.name
            height, width = int(page.imagelength), int(page.imagewidth)
        if len(full) != 1:
            raise ValueError(f"'{path}' has {len(full)} pages; save the one you want as one image.")
        _refuse_size(path, height, width)
        if photometric not in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE"):
            raise ValueError(f"'{path}' stores {photometric} colour; convert it to RGB first.")
        with _decoding(path):
            array = _tiff_array(page, photometric)
            extra = [int(kind) for kind in page.extrasamples]
            orientation = int(page.tags.valueof(ORIENTATION, default=1))
            icc = bytes(page.tags.valueof(ICC_PROFILE, default=b""))
    _refuse_tiff_channels(path, array, extra)
    return Pixels(array=array, orientation=orientation, icc=icc)


def _tiff_array(page: Any, photometric: str) -> np.ndarray:
    """`(H, W, C)` whatever the plane order; palettes looked up, black made 0, 1 bit made 8."""
    array = np.asarray(page.asarray())
    if page.axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    elif page.axes not in ("YX", "YXS"):
        raise ValueError(f"axes {page.axes} are not those of one image")
    if page.bitspersample == 1:
        array = array.astype(np.uint8) * np.uint8(255)
    elif page.bitspersample not in (8, 16, 32, 64):
        raise ValueError(f"{page.bitspersample} bits per value are not supported")
    if photometric == "PALETTE":
        array = np.moveaxis(np.asarray(page.colormap)[:, array], 0, -1)
        array = (array >> 8).astype(np.uint8)  # a colour map holds 8-bit colours times 257
    if photometric == "MINISWHITE":
        array = np.iinfo(array.dtype).max - array if array.dtype.kind == "u" else 1 - array
    return np.atleast_3d(array)


def _refuse_tiff_channels(path: Path, array: np.ndarray, extra: list[int]) -> None:
    if array.dtype.kind != "f" and array.dtype.str[1:] not in ("u1", "u2"):
        raise ValueError(
            f"'{path}' holds {array.dtype.name} values; expected 8 bit, 16 bit or float in [0, 1]."
        )
    colours = array.shape[2] - len(extra)
    if colours not in (1, 3) or len(extra) > 1:
        raise ValueError(
            f"'{path}' has {array.shape[2]} channels; expected grey or RGB, with or without alpha."
        )
    if extra and extra[0] != 2:
        raise ValueError(
            f"'{path}' has a fourth channel that is not straight alpha (unassociated); "
            "save it with straight alpha or without."
        )


def _write_pillow(path: Path, array: np.ndarray, kind: str, exif: bytes, icc: bytes) -> None:
    import PIL.Image

    picture = PIL.Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    if exif:
        options["exif"] = exif
    picture.save(path, format=kind, icc_profile=icc or None, **options)


def _write_tiff(path: Path, array: np.ndarray, icc: bytes) -> None:
    import tifffile

    tifffile.imwrite(
        path,
        array[..., 0] if array.shape[2] == 1 else array,
        photometric="rgb" if array.shape[2] > 2 else "minisblack",
        planarconfig="contig" if array.shape[2] > 1 else None,
        extrasamples=["unassalpha"] if array.shape[2] in (2, 4) else None,
        compression="zlib",
        iccprofile=icc or None,
        metadata=None,
        software=False,
    )


def _encode_png16(array: np.ndarray, exif: bytes, icc: bytes) -> bytes:
    """A 16-bit PNG (PNG specification, 3rd edition), which Pillow cannot write in colour.

    Every row is stored as the difference to the row above (filter 2), which deflate packs well.
    """
    height, width, channels = array.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = np.ascontiguousarray(array, ">u2").view(np.uint8).reshape(height, -1)
    filtered = np.full((height, rows.shape[1] + 1), 2, np.uint8)
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint8))

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    if icc:
        parts.append(chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc)))
    if exif:
        parts.append(chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    parts += [chunk(b"IDAT", zlib.compress(filtered.tobytes())), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
