"""A NRRD file read as a volume, or refused; NRRD is not written."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medical import streams
from medical.assemble import assemble, refuse_shear
from medical.nrrd_header import Header, read_header
from medical.refusal import Refusal
from medical.volume import Source, Volume

_KIND = "NRRD"


class NrrdSource(Source):
    """Nothing is kept: a NRRD header is free text, which may name the patient."""


def read(
    path: str | Path,
    *,
    frame: int | None = None,
    sheared: bool = False,
    fill: float | None = None,
    modality: str | None = None,
    units: str | None = None,
    limit: int | None = None,
) -> Volume:
    """Read `.nrrd`, or `.nhdr` with its voxels in a file beside it.

    The space must be anatomical (RAS, LAS or LPS). A fourth axis of a vector kind becomes channels,
    any other a series.

    Args:
        path: the file.
        frame: which volume of a series, from 0; needed where there are several.
        sheared: accept voxel axes that are not at right angles.
        fill: put in place of NaN and infinity, which are marked in `valid`; None refuses them.
        modality: DICOM's word for the machine, "CT", "MR", ...; "OT" otherwise.
        units: of the numbers; "HU" for CT and "a.u." otherwise.
        limit: bytes of memory the voxels may take; see `medical.streams.weigh`.

    Raises:
        FileNotFoundError: there is no such file.
        Refusal: E_NRRD_... or E_TOO_LARGE.
    """
    path = Path(path)
    header = read_header(path)
    if not sheared:
        refuse_shear(header.affine, _KIND)
    _refuse_frame(header, frame)
    voxels, rounded = _voxels(path if header.file is None else header.file, header, limit)
    axis = header.extra
    parts = voxels[None] if axis is None else np.moveaxis(voxels, axis, 0)
    if header.series and axis is not None:
        parts = parts[[frame or 0]]
    return assemble(
        parts,
        header.affine,
        NrrdSource(),
        kind=_KIND,
        fill=fill,
        modality=modality,
        units=units,
        rounded=rounded,
    )


def _refuse_frame(header: Header, frame: int | None) -> None:
    count = header.sizes[header.extra] if header.series and header.extra is not None else 1
    if frame is None and count > 1:
        raise Refusal(
            "E_NRRD_4D",
            f"the file is a series of {count} volumes, expected one; pass frame=0 to {count - 1}.",
        )
    if frame is not None and not 0 <= frame < count:
        raise Refusal(
            "E_NRRD_FRAME",
            f"there is no frame {frame} in a file of {count}; pass frame=0 to {count - 1}.",
        )


def _voxels(path: Path, header: Header, limit: int | None) -> tuple[NDArray[np.float32], bool]:
    """All voxels, axes as in the file, the first one fastest; and whether any was rounded."""
    if not path.is_file():
        raise Refusal(
            "E_NRRD_PAIR", "the voxels are in a file of their own; put it beside the header."
        )
    size = int(np.prod(header.sizes, dtype=object))
    raw, packed = size * header.dtype.itemsize, path.stat().st_size - header.offset
    streams.weigh(
        header.sizes, packed=packed, raw=raw, zipped=header.zipped, kind=_KIND, limit=limit
    )
    flat = np.zeros(size, np.float32)
    with path.open("rb") as file, streams.damage_refused(_KIND):
        file.seek(header.offset)
        with gzip.GzipFile(fileobj=file) if header.zipped else file as stream:
            streams.skip(stream, header.skip, _KIND)  # pyright: ignore[reportArgumentType]
            rounded = streams.pour(stream, [flat], header.dtype, _KIND)  # pyright: ignore[reportArgumentType]
            streams.end(stream, _KIND)  # pyright: ignore[reportArgumentType]
    return flat.reshape(header.sizes[::-1]).T, rounded
