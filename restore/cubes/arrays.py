"""Cubes in MATLAB's `.mat` and numpy's `.npy`, which leave much untold."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from restore.cubes.axes import bands_first
from restore.cubes.cube import Cube, Georeference, values
from restore.cubes.wavelengths import in_nanometres
from restore.files import atomic
from restore.measurements import read_story

_NAMES = ("wavelengths", "wavelength", "wavelengths_nm", "lambda", "wl")


def read_mat(path: Path, *, key: str | None = None, axis: str | None = None) -> Cube:
    """Read the one array of three axes, or the one named; wavelengths where a vector is so named.

    Raises:
        ValueError: none or several such arrays, damaged, or of version 7.3.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path)
    except NotImplementedError:
        raise ValueError(
            f"'{path}' is a MATLAB 7.3 file, which is HDF5; save it in MATLAB with '-v7'."
        ) from None
    except (MatReadError, ValueError, TypeError, OSError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ValueError(f"'{path}' cannot be read as .mat ({reason}); save it again.") from None
    array = _chosen(found, key, path)
    told = next((found[n] for n in _NAMES if isinstance(found.get(n), np.ndarray)), None)
    wavelengths = None if told is None else in_nanometres(np.ravel(told).tolist())
    where = None
    if isinstance(found.get("transform"), np.ndarray) and found["transform"].size == 6:
        transform = np.ravel(found["transform"]).astype(float).tolist()
        where = Georeference(_word(found.get("crs")), tuple(transform))
    nodata = found.get("nodata")
    return _cube(
        array,
        path,
        axis or _word(found.get("bands_axis")) or None,
        wavelengths,
        where,
        None if nodata is None else float(np.ravel(nodata)[0]),
    )


def write_mat(path: Path, cube: Cube, *, overwrite: bool = False) -> None:
    """Write the variable `cube`, bands last as is usual there, and what is known about it."""
    from scipy.io import savemat

    known: dict[str, Any] = {"cube": np.moveaxis(cube.stored(), 0, -1), "bands_axis": "last"}
    if cube.wavelengths is not None:
        known["wavelengths_nm"] = np.array(cube.wavelengths)
    if cube.georeference is not None:
        known |= {"crs": cube.georeference.crs, "transform": np.array(cube.georeference.transform)}
    if cube.nodata is not None:
        known["nodata"] = cube.nodata
    with atomic(path, overwrite=overwrite) as partial:
        savemat(partial, known, appendmat=False, do_compression=True)


def read_npy(path: Path, *, axis: str | None = None) -> Cube:
    """Read an array, and what our record beside it tells.

    Raises:
        ValueError: not an array of numbers.
    """
    with open(path, "rb") as file:
        if file.read(6) != b"\x93NUMPY":  # else numpy advises to unpickle it
            raise ValueError(f"'{path}' cannot be read as .npy (it is none); save it with numpy.")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ValueError(f"'{path}' cannot be read as .npy ({reason}); save it again.") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"'{path}' holds several arrays; save the cube alone as .npy.")
    about = read_story(path).get("cube", {})
    where = about.get("georeference")
    return _cube(
        array,
        path,
        axis or about.get("bands_axis"),
        tuple(about["wavelengths"]) if about.get("wavelengths") else None,
        None if where is None else Georeference(where["crs"], tuple(where["transform"])),
        about.get("nodata"),
    )


def write_npy(path: Path, cube: Cube, *, overwrite: bool = False) -> None:
    """Write bands first; what else is known belongs into the record beside it."""
    with atomic(path, overwrite=overwrite) as partial:
        np.save(partial, cube.stored())


def about(cube: Cube) -> dict[str, Any]:
    """What a record tells of a cube."""
    where = cube.georeference
    return {
        "bands_axis": "first",
        "wavelengths": None if cube.wavelengths is None else list(cube.wavelengths),
        "georeference": None if where is None else where._asdict(),
        "nodata": cube.nodata,
    }


def _word(found: object) -> str:
    """MATLAB's texts are arrays."""
    return "".join(map(str, np.ravel(np.asarray(found)).tolist())) if found is not None else ""


def _chosen(found: dict[str, Any], key: str | None, path: Path) -> np.ndarray:
    arrays = {n: a for n, a in found.items() if isinstance(a, np.ndarray) and a.ndim == 3}
    if key is not None:
        if key not in arrays:
            raise ValueError(
                f"'{path}' has no array of three axes named '{key}'; it has "
                f"{', '.join(arrays) or 'none'}."
            )
        return arrays[key]
    if len(arrays) != 1:
        raise ValueError(
            f"'{path}' has {len(arrays)} arrays of three axes"
            + (f" ({', '.join(arrays)}); choose one with --key." if arrays else "; expected one.")
        )
    return next(iter(arrays.values()))


def _cube(
    array: np.ndarray,
    path: Path,
    axis: str | None,
    wavelengths: tuple[float, ...] | None,
    where: Georeference | None,
    nodata: float | None,
) -> Cube:
    count = None if wavelengths is None else len(wavelengths)
    array = bands_first(array, axis=axis, wavelengths=count)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return Cube(
        data=values(array, nodata),
        wavelengths=wavelengths,
        georeference=where,
        dtype=array.dtype.name,
        nodata=nodata,
        path=path,
    )
