"""A volume written as a NIfTI file, whole or not at all, its numbers exact."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from medical import geometry
from medical.nifti.source import NiftiSource
from medical.nifti.storage import Storage, choose, slices
from medical.refusal import Refusal
from medical.volume import Volume
from restore.files import atomic

_VECTOR = 1007  # intent code of a fifth axis
_STRAIGHT = 1e-3  # degrees of shear up to which a rotation says the same
_LONGEST = 32767  # voxels along an axis of version 1


def write(
    volume: Volume,
    path: str | Path,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    description: str = "",
) -> None:
    """Write `.nii` or `.nii.gz`.

    The affine is written as sform, and as qform too where a rotation can say it. Version 2 is
    written for volumes read from it and for axes longer than 32767. Channels become a fifth axis;
    real and imaginary parts read from complex numbers become those again. `valid` is not written.
    The same volume always makes the same bytes.

    Args:
        volume: what to write.
        path: ends in `.nii` or `.nii.gz`.
        dtype: "label" for the smallest unsigned type, "uint8", "uint16", "uint32", "int8", "int16",
            "int32", "float32" or "float64", refused where it does not hold all values exactly; None
            for what `medical.nifti.storage` says.
        overwrite: replace a file.
        description: up to 79 ASCII characters, in the open for everybody to read.

    Raises:
        ValueError: another ending, type or description.
        FileExistsError, FileNotFoundError: see `restore.files.check_free`.
        Refusal: E_NIFTI_DTYPE, E_NIFTI_NOT_FINITE.
    """
    if not str(path).endswith((".nii", ".nii.gz")):
        raise ValueError(f"'{path}' does not end in .nii or .nii.gz; name such a file.")
    if len(description) > 79 or not description.isascii():
        raise ValueError("a description has at most 79 ASCII characters; shorten it.")
    if not all(bool(channel.isfinite().all()) for channel in volume.data):
        raise Refusal(
            "E_NIFTI_NOT_FINITE", "the volume holds NaN or infinity, expected numbers; fill them."
        )
    storage = choose(volume, dtype)
    header = _header(volume, storage, dtype)
    header["descrip"] = description.encode()
    with atomic(path, overwrite=overwrite) as partial, _opened(partial) as file:
        file.write(header.binaryblock + bytes(4))
        _pour(file, volume, storage, paired=header.get_data_dtype().kind == "c")


def _header(volume: Volume, storage: Storage, dtype: str | None) -> Any:
    source = volume.source if isinstance(volume.source, NiftiSource) else None
    channels, long = len(volume.data), max(*volume.data.shape) > _LONGEST
    header = Nifti2Header() if long or (source and source.version == 2) else Nifti1Header()
    paired = bool(
        source and source.dtype.kind == "c" and channels == 2 and dtype in (None, "float32")
    )
    single = paired or channels == 1
    header.set_data_dtype(np.complex64 if paired else storage.dtype)
    header.set_data_shape((*volume.grid, *(() if single else (1, channels))))
    header.set_slope_inter(storage.slope, storage.intercept)
    header.set_xyzt_units("mm")
    header["intent_code"] = 0 if single else _VECTOR
    if source and single and storage.dtype == source.dtype:
        header["intent_code"] = source.intent
    header["vox_offset"] = header.single_vox_offset
    _place(header, volume, source)
    return header


def _place(header: Any, volume: Volume, source: NiftiSource | None) -> None:
    """The affine, twice where a rotation can hold it."""
    # 2, some other space: a world that was guessed is nobody's
    code = 1 if source is None else source.space or 2
    header["pixdim"][1:4] = volume.spacing
    header.set_sform(volume.affine, code)
    if geometry.shear(volume.affine) <= _STRAIGHT:
        header.set_qform(volume.affine, code)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, packed without a name or a date in it."""
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        with gzip.GzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0) as stream:
            yield stream  # pyright: ignore[reportReturnType]


def _pour(file: BinaryIO, volume: Volume, storage: Storage, *, paired: bool) -> None:
    if paired:
        real, imaginary = volume.data
        for k in range(volume.grid[2]):
            values = real[:, :, k].numpy(force=True) + 1j * imaginary[:, :, k].numpy(force=True)
            file.write(values.astype(np.complex64).tobytes(order="F"))
        return
    for values in slices(volume):
        stored = storage.store(values)
        assert stored is not None  # as `choose` saw to
        file.write(stored.tobytes(order="F"))
