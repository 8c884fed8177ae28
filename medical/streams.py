"""Voxels out of files that may be packed, damaged, or larger than any machine.

What a header promises is weighed before anything is allocated; never more than it promises is
unpacked; and a packed file is read to its end, where its checksum stands.
"""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from medical.refusal import Refusal

LIMIT = 2**33
"""Bytes of float32 voxels that are read unless the caller allows more: 2^31 of them."""
BOMB = 256 * 2**20
"""Files that unpack to more bytes than this, and to `BOMB_RATIO` times theirs, are refused."""
BOMB_RATIO = 100

_DEFLATE = 1100  # times its size that a packed file can hold at most (1032, and headers)
_PIECE = 2**22  # bytes unpacked at a time
_SLACK = 2**20  # bytes that may follow the voxels


def weigh(
    shape: tuple[int, ...], *, packed: int, raw: int, zipped: bool, kind: str, limit: int | None
) -> None:
    """Refuse voxels that would not fit in memory, and files that cannot hold what they promise.

    Args:
        shape: what is to be read, channels included.
        packed: bytes of the file.
        raw: bytes that its header promises.
        zipped: whether the file is packed.
        kind: "NIFTI" or "NRRD", for the code of a refusal.
        limit: bytes of float32 allowed; None for `LIMIT` and a look at the ratio.

    Raises:
        Refusal: E_TOO_LARGE, E_..._TRUNCATED.
    """
    needed, allowed = 4 * prod(shape), LIMIT if limit is None else limit
    if needed > allowed:
        raise Refusal(
            "E_TOO_LARGE",
            f"{'x'.join(map(str, shape))} voxels need {needed / 2**30:.3g} GiB of memory, "
            f"{allowed / 2**30:.3g} GiB are allowed; crop the scan, or pass a larger limit.",
        )
    if raw > packed * (_DEFLATE if zipped else 1):
        raise Refusal(
            f"E_{kind}_TRUNCATED",
            f"the header promises {raw} bytes of voxels, more than a file of {packed} bytes can "
            "hold; copy it again.",
        )
    if limit is None and raw > BOMB and raw > BOMB_RATIO * packed:
        raise Refusal(
            "E_TOO_LARGE",
            f"a file of {packed / 2**20:.3g} MiB unpacks to {raw / 2**20:.3g} MiB, which no "
            "ordinary scan does; pass a limit in bytes if you trust it.",
        )


def is_zipped(path: Path) -> bool:
    """Whether a file's first bytes are those of gzip, whatever its name says."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextlib.contextmanager
def unpacked(path: Path, kind: str) -> Iterator[BinaryIO]:
    """Open a file, through gzip when its first bytes say so, whatever its name says.

    Args:
        path: the file.
        kind: "NIFTI" or "NRRD", for the code of a refusal.

    Raises:
        FileNotFoundError: there is no such file.
        Refusal: E_..._TRUNCATED or E_..._DAMAGED while it is read.
    """
    if not path.is_file():
        raise FileNotFoundError("there is no such file; check the path.")
    with path.open("rb") as file, damage_refused(kind):
        if not is_zipped(path):
            yield file
            return
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def damage_refused(kind: str) -> Iterator[None]:
    """Turn what unpackers raise into refusals."""
    try:
        yield
    except EOFError as error:
        raise Refusal(
            f"E_{kind}_TRUNCATED", "the packed file ends too early; copy it again."
        ) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise Refusal(f"E_{kind}_DAMAGED", "the packed file is damaged; copy it again.") from error


def exactly(stream: BinaryIO, count: int, kind: str) -> bytes:
    """Read so many bytes.

    Raises:
        Refusal: E_..._TRUNCATED.
    """
    data = stream.read(count)
    while len(data) < count and (more := stream.read(count - len(data))):
        data += more
    if len(data) < count:
        raise Refusal(
            f"E_{kind}_TRUNCATED",
            f"the file ends {count - len(data)} bytes before the end of what its header promises; "
            "copy it again.",
        )
    return data


def skip(stream: BinaryIO, count: int, kind: str) -> None:
    """Go forward, unpacking but not keeping."""
    while count > 0:
        count -= len(exactly(stream, min(count, _PIECE), kind))


def pour(
    stream: BinaryIO,
    parts: list[NDArray[np.float32]],
    dtype: np.dtype,
    kind: str,
    scaling: tuple[float, float] = (1.0, 0.0),
) -> bool:
    """Read voxels as float32 into flat arrays: one, or two for real and imaginary parts.

    Args:
        stream: stands at the first voxel.
        parts: `(N,)` each, zeros; where nothing but zeros come they are not touched.
        dtype: of the voxels in the file.
        kind: for the code of a refusal.
        scaling: slope and intercept, applied in double precision.

    Returns:
        Whether whole numbers were too large for float32 to hold exactly.
    """
    slope, intercept = scaling
    step, rounded = _PIECE // dtype.itemsize, False
    whole = dtype.kind in "iu" and dtype.itemsize > 2 and scaling == (1.0, 0.0)
    for start in range(0, parts[0].size, step):
        count = min(step, parts[0].size - start)
        voxels = np.frombuffer(exactly(stream, count * dtype.itemsize, kind), dtype)
        if whole:
            rounded = rounded or bool(
                (voxels.astype(np.float32).astype(np.float64) != voxels).any()
            )
        if scaling != (1.0, 0.0):
            voxels = voxels * np.float64(slope) + intercept
        if not voxels.any():
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused later
            for part, values in zip(parts, _components(voxels), strict=True):
                part[start : start + count] = values
    return rounded


def _components(voxels: NDArray) -> list[NDArray]:
    return [np.real(voxels), np.imag(voxels)] if np.iscomplexobj(voxels) else [voxels]


def end(stream: BinaryIO, kind: str) -> None:
    """Read on to the end, where the checksum of a packed file is compared.

    Raises:
        Refusal: E_..._DAMAGED, also when much more follows.
    """
    if len(stream.read(_SLACK)) == _SLACK and stream.read(1):
        raise Refusal(
            f"E_{kind}_DAMAGED",
            "the file goes on long after what its header promises; write it again.",
        )
