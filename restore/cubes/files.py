"""Cubes in, cubes out: GeoTIFF, ENVI, `.mat` and `.npy`, chosen by the suffix."""

from pathlib import Path

from restore.cubes import arrays, envi, geotiff
from restore.cubes.cube import Cube
from restore.files import check_free

SUFFIXES = (".tif", ".tiff", ".hdr", *envi.RAW, ".mat", ".npy")


def read(path: str | Path, *, key: str | None = None, bands_axis: str | None = None) -> Cube:
    """Read a cube.

    Args:
        path: GeoTIFF, either file of an ENVI pair, `.mat`, or `.npy`.
        key: name of the array in a `.mat` with several.
        bands_axis: "first", "middle" or "last", of arrays that do not tell.

    Raises:
        FileNotFoundError, IsADirectoryError: as their names say.
        ValueError: another format, damaged, an order of axes that cannot be told, fewer than 8
            bands or pixels a side.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder; expected the file of a cube.")
    if not path.exists():
        raise FileNotFoundError(f"'{path}' does not exist.")
    suffix = path.suffix.lower()
    if key is not None and suffix != ".mat":
        raise ValueError(f"--key names an array in a .mat file and '{path}' is none; leave it out.")
    if suffix == ".mat":
        return arrays.read_mat(path, key=key, axis=bands_axis)
    if suffix == ".npy":
        return arrays.read_npy(path, axis=bands_axis)
    if bands_axis is not None:
        raise ValueError(
            f"'{path}' tells its bands itself; leave --bands-axis out, or repair the header."
        )
    if suffix in (".tif", ".tiff"):
        return geotiff.read(path)
    if suffix == ".hdr" or envi.header_of(path) is not None:
        return envi.read(path)
    raise ValueError(f"'{path}' is no cube that can be read; expected {', '.join(SUFFIXES)}.")


def write(path: str | Path, cube: Cube, *, overwrite: bool = False) -> None:
    """Write a cube whole or not at all, in the type of its numbers; the suffix chooses the format.

    Raises:
        FileExistsError, FileNotFoundError: the file exists, or its folder does not.
        ValueError: another suffix, or missing values that the type of numbers cannot hold.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        geotiff.write(path, cube, overwrite=overwrite)
    elif suffix == ".mat":
        arrays.write_mat(path, cube, overwrite=overwrite)
    elif suffix == ".npy":
        arrays.write_npy(path, cube, overwrite=overwrite)
    else:
        envi.write(path, cube, overwrite=overwrite)


def check_output(path: Path, *, source: Path | None = None, overwrite: bool = False) -> None:
    """Refuse, before any work is done, an output that could not be written.

    Raises:
        FileExistsError, FileNotFoundError: see `restore.files.check_free`.
        ValueError: another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        found = f"'{path.suffix}'" if suffix else "no suffix"
        raise ValueError(f"'{path}' has {found}; cubes are written as {', '.join(SUFFIXES)}.")
    is_pair = suffix == ".hdr" or suffix in envi.RAW
    sources = [] if source is None else [source, envi.header_of(source)]
    for file in envi.pair(path) if is_pair else (path,):
        for kept in sources:
            check_free(file, source=kept, overwrite=True)
        check_free(file, overwrite=overwrite)
