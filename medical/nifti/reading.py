"""A NIfTI file read as a volume, or refused."""

from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medical import streams
from medical.assemble import assemble
from medical.nifti.header import Header, header_size, parse
from medical.nifti.orientation import Choice, orient
from medical.nifti.source import NiftiSource
from medical.refusal import Refusal
from medical.volume import Volume

_KIND = "NIFTI"


def read(
    path: str | Path,
    *,
    frame: int | None = None,
    orientation: Choice = "auto",
    sheared: bool = False,
    fill: float | None = None,
    modality: str | None = None,
    units: str | None = None,
    limit: int | None = None,
) -> Volume:
    """Read a NIfTI file: `.nii`, `.nii.gz`, or a pair `.hdr` and `.img`, version 1 or 2.

    Complex numbers become two channels, real and imaginary; vectors (a fifth axis) become channels.
    NIfTI does not say what its numbers mean: nothing is guessed, but numbers that look like
    Hounsfield units are noted.

    Args:
        path: the file; either one of a pair.
        frame: which volume of a series, from 0; needed where there are several.
        orientation: "auto" takes the sform, or else the qform, and refuses where they disagree;
            "sform" and "qform" settle that; "guess" is for files that have neither.
        sheared: accept voxel axes that are not at right angles.
        fill: put in place of NaN and infinity, which are marked in `valid`; None refuses them.
        modality: DICOM's word for the machine, "CT", "MR", ...; "OT" otherwise.
        units: of the numbers; "HU" for CT and "a.u." otherwise.
        limit: bytes of memory the voxels may take; see `medical.streams.weigh`.

    Raises:
        FileNotFoundError: there is no such file.
        Refusal: E_NIFTI_... or E_TOO_LARGE: what `medical.nifti.header`,
            `medical.nifti.orientation` and `medical.streams` refuse.
    """
    head, image = _files(Path(path))
    header = _header(head)
    affine, space, notes = orient(header, orientation, sheared=sheared)
    starts = _starts(header, frame)
    parts, rounded = _voxels(image if header.pair else head, header, starts, limit)
    return assemble(
        parts.reshape(len(parts), *header.grid[::-1]).transpose(0, 3, 2, 1),
        affine,
        _source(header, space),
        kind=_KIND,
        fill=fill,
        modality=modality,
        units=units,
        notes=notes,
        rounded=rounded,
    )


def _files(path: Path) -> tuple[Path, Path]:
    """Header and image of a pair; the same file twice where it is none."""
    zipped = path.suffix.lower() == ".gz"
    inner = path.with_suffix("") if zipped else path
    other = {".hdr": ".img", ".img": ".hdr", ".HDR": ".IMG", ".IMG": ".HDR"}.get(inner.suffix)
    if other is None:
        return path, path
    beside = inner.with_suffix(other + (path.suffix if zipped else ""))
    return (path, beside) if other.lower() == ".img" else (beside, path)


def _header(path: Path) -> Header:
    with streams.unpacked(path, _KIND) as stream:
        start = streams.exactly(stream, 4, _KIND)
        return parse(start + streams.exactly(stream, header_size(start) - 4, _KIND))


def _starts(header: Header, frame: int | None) -> list[int]:
    """Bytes from the first voxel to the volume of each channel of the frame."""
    if frame is None and header.frames > 1:
        raise Refusal(
            "E_NIFTI_4D",
            f"the file is a series of {header.frames} volumes, expected one; pass frame=0 to "
            f"{header.frames - 1}.",
        )
    if frame is not None and not 0 <= frame < header.frames:
        raise Refusal(
            "E_NIFTI_FRAME",
            f"there is no frame {frame} in a file of {header.frames}; pass frame=0 to "
            f"{header.frames - 1}.",
        )
    size = prod(header.grid) * header.dtype.itemsize
    return [(c * header.frames + (frame or 0)) * size for c in range(header.channels)]


def _voxels(
    path: Path, header: Header, starts: list[int], limit: int | None
) -> tuple[NDArray[np.float32], bool]:
    """Channels `(C, N)` as float32, the first axis of the grid fastest; whether any was rounded."""
    if not path.is_file():
        raise Refusal(
            "E_NIFTI_PAIR", "the voxels are in a file of their own; put the .img beside the .hdr."
        )
    complex_parts = 2 if header.dtype.kind == "c" else 1
    shape = (len(starts) * complex_parts, *header.grid)
    raw, packed = header.offset + header.raw, path.stat().st_size
    zipped = streams.is_zipped(path)
    streams.weigh(shape, packed=packed, raw=raw, zipped=zipped, kind=_KIND, limit=limit)
    parts = np.zeros((shape[0], prod(header.grid)), np.float32)
    done, rounded = -header.offset, False
    with streams.unpacked(path, _KIND) as stream:
        for c, start in enumerate(starts):
            streams.skip(stream, start - done, _KIND)
            into = list(parts[c * complex_parts : (c + 1) * complex_parts])
            scaling = (header.slope, header.intercept)
            rounded |= streams.pour(stream, into, header.dtype, _KIND, scaling)
            done = start + parts.shape[1] * header.dtype.itemsize
        streams.skip(stream, header.raw - done, _KIND)
        streams.end(stream, _KIND)
    return parts, rounded


def _source(header: Header, space: int) -> NiftiSource:
    return NiftiSource(
        dtype=header.dtype.newbyteorder("="),
        slope=header.slope,
        intercept=header.intercept,
        space=space,
        intent=int(header.fields["intent_code"]),
        version=header.version,
    )
