"""Reading the few file formats in which scans ship inside packages, as plain arrays.

No geometry: for training, an array whose slices have nearly square pixels is all that is needed.
"""

import gzip
import plistlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Voxels = NDArray[np.floating]
"""Values of a scan or of a part of it; float32, but arithmetic is typed wider."""

_DEN_HEADER = 62  # bytes before the voxels of a volpack density file


def read(path: Path) -> Voxels:
    """Return the values of a scan, `(N, H, W)` or in the order of its file, in physical units.

    Args:
        path: DICOM, NIfTI, NRRD, InVesalius, volpack density, raw 256 x 256 or NumPy file.

    Raises:
        ValueError: for a file name that ends in none of these.
    """
    for ending, reader in _READERS.items():
        if path.name.endswith(ending):
            voxels = np.asarray(reader(path), dtype=np.float32)
            return voxels[None] if voxels.ndim == 2 else voxels
    raise ValueError(f"'{path.name}' ends in none of {', '.join(_READERS)}; convert it.")


def _dicom(path: Path) -> np.ndarray:
    import pydicom

    dataset = pydicom.dcmread(path)
    slope = float(dataset.get("RescaleSlope", None) or 1)
    return dataset.pixel_array * slope + float(dataset.get("RescaleIntercept", None) or 0)


def _nifti(path: Path) -> np.ndarray:
    import nibabel

    voxels = np.asarray(nibabel.load(path).dataobj)  # pyright: ignore[reportAttributeAccessIssue]
    return voxels[..., 0] if voxels.ndim == 4 else voxels


def _nrrd(path: Path) -> np.ndarray:
    import nrrd

    return nrrd.read(str(path))[0]


def _invesalius(path: Path) -> np.ndarray:
    with tarfile.open(path) as archive:
        files = {Path(name).name: name for name in archive.getnames()}
        about, matrix = (archive.extractfile(files[n]) for n in ("main.plist", "matrix.dat"))
        assert about is not None  # both are regular files
        assert matrix is not None
        shape = plistlib.loads(about.read())["matrix"]["shape"]
        return np.frombuffer(matrix.read(), "<i2").reshape(shape)


def _density(path: Path) -> np.ndarray:
    data = path.read_bytes()
    # the last three of the header's shorts before the data give the size, fastest axis first
    width, height, depth = np.frombuffer(data, "<u2", count=3, offset=50)
    return np.frombuffer(data, np.uint8, offset=_DEN_HEADER).reshape(depth, height, width)


def _raw_slice(path: Path) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), ">u2").reshape(256, 256)


def _numpy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".dcm": _dicom,
    ".nii.gz": _nifti,
    ".nrrd": _nrrd,
    ".inv3": _invesalius,
    ".den": _density,
    ".ima.gz": _raw_slice,
    ".npy": _numpy,
}
