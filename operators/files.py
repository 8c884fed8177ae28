"""Files: kernels and masks as one plane of numbers, tensors as safetensors."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor


def read_plane(path: str | Path) -> Tensor:
    """Read one plane from a picture (PNG, TIFF, ...) or a `.npy` array.

    Whole numbers are divided by the largest value of their type, so that white is 1.

    Args:
        path: the file.

    Returns:
        `(H, W)`, float64.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, in colour, see-through, not two-dimensional or not finite.
    """
    file = Path(path)
    if not _is_file(file):
        raise FileNotFoundError(f"{str(path)!r} is not a file; give a picture or a .npy array.")
    plane = _single_plane(_load(file), file)
    if plane.dtype == bool:
        plane = plane.astype(np.float64)
    elif np.issubdtype(plane.dtype, np.integer):
        plane = plane / np.iinfo(plane.dtype).max
    if not np.issubdtype(plane.dtype, np.floating) or not np.isfinite(plane).all():
        raise ValueError(f"'{file}' holds values that are not finite numbers; repair the file.")
    return torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float64))


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name too long to be one
        return False


def _load(file: Path) -> np.ndarray:
    from skimage import io

    try:
        return np.load(file, allow_pickle=False) if file.suffix == ".npy" else io.imread(file)
    except Exception as error:  # every reader raises its own kind
        raise ValueError(
            f"'{file}' cannot be read as a picture or a .npy array; save it again as PNG or .npy."
        ) from error


def _single_plane(array: np.ndarray, file: Path) -> np.ndarray:
    planes = array[..., None] if array.ndim == 2 else array
    if planes.ndim == 3 and planes.shape[-1] in (2, 4):
        alpha, planes = planes[..., -1], planes[..., :-1]
        if (alpha != alpha.max()).any():
            raise ValueError(f"'{file}' is partly see-through, expected one opaque plane.")
    if planes.ndim != 3 or planes.size == 0:
        raise ValueError(f"'{file}' has shape {array.shape}, expected one plane (H, W).")
    if (planes != planes[..., :1]).any():
        raise ValueError(f"'{file}' is in colour, expected one grey plane; convert it first.")
    return planes[..., 0]


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file so that it is either whole or absent."""
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(plain, temporary, dict(metadata or {}))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
