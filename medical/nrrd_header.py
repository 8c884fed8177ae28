"""The header of a NRRD file, checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medical import geometry
from medical.geometry import Affine
from medical.refusal import Refusal

_LONGEST = 2**20  # bytes of a header
_SPACES = {  # signs that bring a space to RAS+
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3}
_ENCODINGS = {"raw": False, "gzip": True, "gz": True}
_VECTORS = ("vector", "complex", "covariant-vector", "normal", "2-vector", "3-vector", "4-vector")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a reader needs of a header.

    Attributes:
        dtype: of the voxels, byte order included.
        sizes: of all axes, the first one fastest.
        extra: the axis that is not of space, if any.
        series: whether that axis holds volumes of a series, not components of a vector.
        affine: from the axes of space, in their order, to RAS+ mm.
        zipped: whether the voxels are packed.
        file: where the voxels are, None for behind the header.
        offset: byte of that file at which they, or what is packed, begin.
        skip: bytes to leave out then.
    """

    dtype: np.dtype
    sizes: tuple[int, ...]
    extra: int | None
    series: bool
    affine: Affine
    zipped: bool
    file: Path | None
    offset: int
    skip: int


def read_header(path: Path) -> Header:
    """Read and check a header.

    Raises:
        FileNotFoundError: there is no such file.
        Refusal: E_NRRD_MAGIC, E_NRRD_HEADER, E_NRRD_TYPE, E_NRRD_ENCODING, E_NRRD_4D,
            E_NRRD_COLOUR, E_NRRD_SPACE, E_NRRD_AFFINE, E_NRRD_PAIR.
    """
    fields, length = _fields(path)
    sizes = tuple(int(n) for n in fields.get("sizes", ()))
    if not sizes or min(sizes) < 1 or len(sizes) != fields.get("dimension"):
        raise Refusal(
            "E_NRRD_HEADER",
            f"the header counts {fields.get('dimension')} axes of lengths {list(sizes)}, expected "
            "one length of at least 1 for each; write the file again.",
        )
    affine, space = _affine(fields, len(sizes))
    extra = next((axis for axis in range(len(sizes)) if axis not in space), None)
    file, offset, skip = _place(fields, path, length)
    return Header(
        dtype=_dtype(fields),
        sizes=sizes,
        extra=extra,
        series=extra is not None and _is_series(fields, extra),
        affine=affine,
        zipped=_zipped(fields),
        file=file,
        offset=offset,
        skip=skip,
    )


def _fields(path: Path) -> tuple[dict[str, Any], int]:
    """Fields of the header, and its length in bytes."""
    import nrrd

    if not path.is_file():
        raise FileNotFoundError("there is no such file; check the path.")
    with path.open("rb") as file:
        start = file.read(_LONGEST)
    if not start.startswith(b"NRRD"):
        raise Refusal("E_NRRD_MAGIC", "this is not a NRRD file; it begins with no such header.")
    breaks = [start.find(mark) + len(mark) for mark in (b"\n\n", b"\n\r\n") if mark in start]
    length = min(breaks, default=len(start))
    try:
        fields = nrrd.read_header(start[:length].splitlines(keepends=True))
    except Exception as error:  # whatever a broken line makes of it
        raise Refusal(
            "E_NRRD_HEADER", "the header cannot be understood; write the file again."
        ) from error
    return dict(fields), length


def _affine(fields: dict[str, Any], dimension: int) -> tuple[Affine, list[int]]:
    """Affine to RAS+ mm, and the three axes of space."""
    signs = _SPACES.get(str(fields.get("space", "")).lower())
    rows, origin = fields.get("space directions"), fields.get("space origin")
    if signs is None or rows is None or origin is None:
        raise Refusal(
            "E_NRRD_SPACE",
            "the header does not say where the voxels are in the patient, expected a space of "
            "RAS, LAS or LPS with directions and an origin; write the file again with them.",
        )
    directions = np.asarray(rows, dtype=np.float64)
    space = [axis for axis, row in enumerate(directions) if np.isfinite(row).all()]
    if directions.shape != (dimension, 3) or len(space) != 3 or dimension > 4:
        raise Refusal(
            "E_NRRD_4D",
            f"{len(space)} of {dimension} axes lie in space, expected three and at most one more; "
            "cut the file into volumes.",
        )
    affine = np.eye(4)
    affine[:3, :3] = directions[space].T
    affine[:3, 3] = origin
    affine[:3] *= np.array(signs)[:, None] * _unit(fields)
    try:
        return geometry.as_affine(affine), space
    except ValueError as error:
        raise Refusal(
            "E_NRRD_AFFINE",
            "the directions map voxels to no volume of space, or are not finite; mend the header.",
        ) from error


def _unit(fields: dict[str, Any]) -> float:
    units = {str(unit).lower() for unit in fields.get("space units", ())} or {"mm"}
    if len(units) > 1 or not units <= _MILLIMETRES.keys():
        raise Refusal(
            "E_NRRD_HEADER",
            "space units are not one of mm, cm, m and um for all axes; mend the header.",
        )
    return _MILLIMETRES[units.pop()]


def _is_series(fields: dict[str, Any], axis: int) -> bool:
    kinds = [str(kind).lower() for kind in fields.get("kinds", ())]
    kind = kinds[axis] if axis < len(kinds) else "list"
    if "color" in kind:
        raise Refusal(
            "E_NRRD_COLOUR", "voxels are colours, expected one number each; convert them."
        )
    return kind not in _VECTORS


def _dtype(fields: dict[str, Any]) -> np.dtype:
    from nrrd.reader import _TYPEMAP_NRRD2NUMPY

    code = _TYPEMAP_NRRD2NUMPY.get(str(fields.get("type")))
    order = {"little": "<", "big": ">"}.get(str(fields.get("endian")), "")
    if code in (None, "V") or (not order and np.dtype(code).itemsize > 1):
        raise Refusal(
            "E_NRRD_TYPE",
            "the type of the voxels is none of whole and floating-point numbers, or their byte "
            "order is not given; write the file again.",
        )
    return np.dtype(order + code)


def _zipped(fields: dict[str, Any]) -> bool:
    encoding = str(fields.get("encoding")).lower()
    if encoding not in _ENCODINGS:
        raise Refusal(
            "E_NRRD_ENCODING", "voxels are encoded neither raw nor gzip; write the file again."
        )
    return _ENCODINGS[encoding]


def _place(fields: dict[str, Any], path: Path, length: int) -> tuple[Path | None, int, int]:
    """File with the voxels, where they begin, and bytes to leave out then."""
    name = fields.get("datafile", fields.get("data file"))
    skip = int(fields.get("byteskip", fields.get("byte skip", 0)))
    if skip < 0 or int(fields.get("lineskip", fields.get("line skip", 0))) != 0:
        raise Refusal(
            "E_NRRD_HEADER", "lines are skipped, or bytes from the end; write the file again."
        )
    if name is None:
        return None, length, skip
    if Path(name).name != name or "%" in name or name.split()[0] in ("LIST", ".."):
        raise Refusal(
            "E_NRRD_PAIR",
            "the voxels are in several files, or in another folder, expected one file beside the "
            "header; write the file again.",
        )
    return path.parent / name, 0, skip
