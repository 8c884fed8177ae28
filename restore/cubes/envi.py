"""ENVI: a header of text beside raw numbers, by the spectral package, an optional dependency."""

import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from restore.cubes.cube import Cube, values
from restore.cubes.mapinfo import map_info, read_map_info
from restore.cubes.wavelengths import in_nanometres
from restore.files import check_free

RAW = (".img", ".dat", ".raw", ".bsq", ".bil", ".bip")
# of the header, what stays true of a restored cube
_KEPT = ("band names", "bbl", "fwhm", "sensor type", "default bands", "reflectance scale factor")


def header_of(path: Path) -> Path | None:
    """The header of a file: itself, or the one beside it; None where there is none."""
    if path.suffix.lower() == ".hdr":
        return path
    candidates = path.with_suffix(".hdr"), path.with_name(path.name + ".hdr")
    return next((c for c in candidates if c.is_file()), None)


def read(path: Path) -> Cube:
    """Read a pair of files, named by either.

    Raises:
        FileNotFoundError: the header or the numbers are missing.
        ValueError: no ENVI header, or one that does not fit the numbers; spectral is not installed.
    """
    envi = _envi()
    header = header_of(path)
    if header is None:
        raise FileNotFoundError(f"'{path}' has no header beside it; expected a .hdr file.")
    try:
        file = envi.open(str(header), None if header == path else str(path))
        about = file.metadata
        array = np.array(file.open_memmap(interleave="bsq", writable=False), dtype=file.dtype)
    except envi.EnviDataFileNotFoundError:
        raise FileNotFoundError(
            f"the numbers that '{header}' describes are missing; put them beside it."
        ) from None
    except Exception as error:  # a damaged header raises anything from KeyError to AttributeError
        reason = " ".join(str(error).replace(str(header), "the header").split()).rstrip(".")
        raise ValueError(
            f"'{header}' cannot be read as ENVI ({reason or type(error).__name__}); correct the "
            "header or save the cube again."
        ) from None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    nodata = _number(about.get("data ignore value"))
    if nodata is not None and not np.isfinite(nodata):
        nodata = None if array.dtype.kind != "f" else nodata
    return Cube(
        data=values(array, nodata),
        wavelengths=in_nanometres(about.get("wavelength", ()), _units(about)),
        georeference=read_map_info(about),
        dtype=array.dtype.name,
        nodata=nodata,
        header=tuple((key, about[key]) for key in _KEPT if key in about),
        path=path,
    )


def write(path: Path, cube: Cube, *, overwrite: bool = False) -> None:
    """Write numbers, band after band, and their header, under names that `path` gives either.

    Raises:
        FileExistsError, FileNotFoundError: see `restore.files.check_free`.
    """
    envi = _envi()
    header, raw = pair(path)
    for file in (header, raw):
        check_free(file, overwrite=overwrite)
    about: dict[str, Any] = dict(cube.header)
    if cube.wavelengths is not None:
        about |= {"wavelength": [f"{w:.10g}" for w in cube.wavelengths]}
        about |= {"wavelength units": "Nanometers"}
    if cube.nodata is not None:
        about["data ignore value"] = f"{cube.nodata:g}"
    if cube.georeference is not None:
        about |= map_info(cube.georeference)
    stem = f".{header.stem}-{secrets.token_hex(4)}"
    parts = header.with_name(f"{stem}.hdr"), header.with_name(f"{stem}{raw.suffix}")
    try:
        envi.save_image(
            str(parts[0]),
            np.moveaxis(cube.stored(), 0, -1),
            dtype=np.dtype(cube.dtype),
            interleave="bsq",
            ext=raw.suffix,
            metadata=about,
            force=True,
        )
        os.replace(parts[1], raw)
        os.replace(parts[0], header)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def pair(path: Path) -> tuple[Path, Path]:
    """Header and numbers of an output named by either."""
    if path.suffix.lower() == ".hdr":
        return path, path.with_suffix(".img")
    return path.with_suffix(".hdr"), path


def _units(about: dict[str, Any]) -> str:
    word = str(about.get("wavelength units", ""))
    return "" if word.lower() in ("unknown", "none") else word


def _number(text: object) -> float | None:
    try:
        return None if text is None else float(str(text))
    except ValueError:
        return None


def _envi() -> Any:
    try:
        import spectral.io.envi as envi
    except ImportError as error:
        raise ValueError(
            "ENVI needs the spectral package, which is not installed; pip install "
            "restore-imaging[cubes]."
        ) from error
    return envi
