"""Photographs in, photographs out: PNG, JPEG and TIFF, 8 bit, 16 bit or float.

Inside the toolkit an image is a float32 tensor `(1, C, H, W)` in [0, 1] with C = 1 (grey) or 3
(colour). `read` brings a file to that form and remembers what a tensor cannot hold (transparency,
bit depth, colour profile, camera data); `write` gives it back. Both refuse what they could only do
by guessing: CMYK, several pages, 32-bit integers, float values outside [0, 1].
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from restore import codecs
from restore.files import atomic, check_free

logger = logging.getLogger("restore")

Depth = Literal[8, 16, "float"]
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
_DEPTHS: dict[str, tuple[Depth, float]] = {"uint8": (8, 255.0), "uint16": (16, 65535.0)}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One photograph and what its file said beside the pixels.

    Attributes:
        data: float32 `(1, C, H, W)` in [0, 1], C = 1 or 3, turned upright.
        alpha: opacity, float32 `(1, 1, H, W)` in [0, 1], or None.
        depth: 8, 16 or "float": how the file stored a value, and how `write` stores it again.
        exif: camera data without the orientation (already applied), empty when there is none.
        icc: colour profile, empty when there is none. Values are kept in that profile's space.
        path: the file it came from, which `write` never overwrites.
    """

    data: Tensor
    alpha: Tensor | None = None
    depth: Depth = 8
    exif: bytes = b""
    icc: bytes = b""
    path: Path | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)`."""
        _, channels, height, width = self.data.shape
        return channels, height, width


def read(path: str | Path, *, any_range: bool = False) -> Image:
    """Read a photograph.

    Args:
        path: a PNG, JPEG or TIFF file: grey, RGB, with or without alpha, or with a palette.
        any_range: accept float values outside [0, 1], as noise makes them in a measurement.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as their names say.
        ValueError: the file is no such image, is damaged, has several pages, fewer than 2 pixels
            on a side, too many pixels, NaN, or values outside [0, 1].
    """
    path = Path(path)
    pixels = codecs.decode(path)
    array = pixels.upright()
    depth, scale = _DEPTHS.get(array.dtype.name, ("float", 1.0))
    if depth == "float":
        _refuse_values(array, path, any_range)
    tensor = torch.from_numpy((array / scale).astype(np.float32).transpose(2, 0, 1).copy())[None]
    colours = 1 if tensor.shape[1] < 3 else 3
    return Image(
        data=tensor[:, :colours],
        alpha=tensor[:, colours:] if tensor.shape[1] > colours else None,
        depth=depth,
        exif=pixels.exif,
        icc=pixels.icc,
        path=path,
    )


def write(
    path: str | Path,
    data: Tensor,
    like: Image | None = None,
    *,
    depth: Depth | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a photograph; the suffix chooses PNG, JPEG or TIFF.

    8- and 16-bit files are the one place where values are clipped to [0, 1], then rounded. A float
    TIFF keeps every value as it is. The file appears whole or not at all.

    Args:
        path: `.png`, `.jpg`, `.jpeg`, `.tif` or `.tiff`.
        data: `(1, C, H, W)` or `(C, H, W)`, C = 1 or 3.
        like: the photograph this one came from: bit depth, alpha (resized bicubically when the
            size changed), camera data and colour profile are taken from it.
        depth: 8, 16 or "float"; by default that of `like`, else 8. PNG stores "float" as 16 bit.
        overwrite: replace an existing file, though never the one `like` was read from.

    Raises:
        FileExistsError, FileNotFoundError: the file exists, or its folder does not.
        ValueError: unknown suffix, wrong shape, NaN, or alpha in a JPEG.
    """
    path = Path(path)
    kind = check_output(path, source=like.path if like else None, overwrite=overwrite)
    check_transparency(path, like)
    array = _display_array(data, like, path)
    depth = _stored_depth(kind, depth or (like.depth if like else 8), path)
    if depth != "float":
        top = 255 if depth == 8 else 65535
        array = np.rint(array.clip(0, 1) * top).astype(np.uint8 if depth == 8 else np.uint16)
    exif = like.exif if like else b""
    # a profile describes its own number of channels, so it does not survive a change of colour
    same = like is not None and (like.data.shape[1] == 3) == (array.shape[2] > 2)
    icc = like.icc if like and same else b""
    with atomic(path, overwrite=overwrite) as partial:
        codecs.encode(partial, array, kind, exif=exif, icc=icc)
    return path


def check_output(
    path: str | Path, *, source: str | Path | None = None, overwrite: bool = False
) -> str:
    """Refuse, before any work is done, an output that could not be written.

    What it shall hold is the business of `check_transparency`.

    Returns:
        The format that the suffix stands for: "PNG", "JPEG" or "TIFF".

    Raises:
        FileExistsError, FileNotFoundError: see `check_free`.
        ValueError: unknown suffix.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        found = f"'{path.suffix}'" if path.suffix else "no suffix"
        raise ValueError(f"'{path}' has {found}; images are written as {', '.join(FORMATS)}.")
    check_free(path, source=source, overwrite=overwrite)
    return kind


def check_transparency(path: str | Path, like: Image | None) -> None:
    """Refuse a JPEG for an image whose transparency is to be kept.

    Raises:
        ValueError: JPEG has no alpha channel.
    """
    alpha = like is not None and like.alpha is not None
    if alpha and FORMATS.get(Path(path).suffix.lower()) == "JPEG":
        raise ValueError(f"'{path}' cannot hold the image's transparency; use .png or .tif.")


def _refuse_values(array: np.ndarray, path: Path, any_range: bool) -> None:
    bad = int(np.size(array) - np.isfinite(array).sum())
    if bad:
        raise ValueError(
            f"'{path}' has {bad} of {array.size} values that are NaN or infinite; replace them."
        )
    low, high = float(array.min()), float(array.max())
    if not any_range and (low < 0 or high > 1):
        raise ValueError(
            f"'{path}' holds float values from {low:.4g} to {high:.4g}, expected [0, 1]; "
            "scale it first, for example by its maximum."
        )


def _display_array(data: Tensor, like: Image | None, path: Path) -> np.ndarray:
    """`(H, W, C)` float32 with the alpha of `like` as last channel."""
    x = data.detach().to("cpu", torch.float32)
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[0] != 1 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"an image file holds (1, C, H, W) with C = 1 or 3, found {tuple(data.shape)}."
        )
    if not torch.isfinite(x).all():
        raise ValueError(f"refusing to write NaN or infinite values to '{path}'.")
    if like is not None and like.alpha is not None:
        x = torch.cat([x, _resized(like.alpha, x.shape[-2:])], dim=1)
    return x[0].permute(1, 2, 0).numpy()


def _resized(alpha: Tensor, size: torch.Size) -> Tensor:
    if alpha.shape[-2:] == size:
        return alpha
    bicubic = torch.nn.functional.interpolate(
        alpha, size=tuple(size), mode="bicubic", align_corners=False, antialias=True
    )
    return bicubic.clamp(0, 1)  # bicubic overshoots; opacity has no meaning outside [0, 1]


def _stored_depth(kind: str, depth: Depth, path: Path) -> Depth:
    if kind == "JPEG" and depth != 8:
        logger.warning("'%s' is JPEG and holds 8 bits; .png keeps 16, .tif keeps floats.", path)
        return 8
    return 16 if kind == "PNG" and depth == "float" else depth
