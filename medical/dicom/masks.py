"""Masks out of DICOM Segmentations, each frame put where it says it is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medical import geometry
from medical.dicom.companion import mismatch
from medical.dicom.file import Instance, open_instance
from medical.dicom.frames import Slice, slices
from medical.dicom.grid import refuse_no_grid
from medical.dicom.pixels import frames
from medical.dicom.quiet import quiet
from medical.refusal import Refusal
from medical.volume import Volume


def read_segmentation(file: str | Path, *, like: Volume) -> Volume:
    """Read a DICOM Segmentation onto the grid of a scan.

    Frames may be in any order, and empty ones missing; each is put where it says it is.

    Args:
        file: binary or fractional.
        like: the scan.

    Returns:
        Volume `(S, I, J, K)` of numbers in [0, 1], a channel a segment in the order of their
        numbers, on the grid of `like`.

    Raises:
        FileNotFoundError: nothing is there.
        Refusal: "E_UNSUPPORTED_SOP": no such segmentation; "E_GRID_MISMATCH": it lies on another
            grid; or damaged.
    """
    if not Path(file).is_file():
        raise FileNotFoundError("there is no such file; give a DICOM Segmentation.")
    with quiet():
        instance = open_instance(Path(file), "the segmentation")
        kind = instance.attributes.text("SegmentationType")
        if kind not in ("BINARY", "FRACTIONAL") or instance.pixels is None:
            raise Refusal(
                "E_UNSUPPORTED_SOP",
                "the file is no binary or fractional DICOM Segmentation; export one.",
            )
        parts = slices(instance)
        refuse_no_grid(parts)
        count = len(instance.attributes.items("SegmentSequence"))
        data = np.zeros((count, *like.grid), np.float32)
        most = np.float32(instance.attributes.whole("MaximumFractionalValue") or 1)
        for part, numbers in (
            _bits(instance, parts) if kind == "BINARY" else frames(instance, parts)
        ):
            segment = part.attributes.whole("ReferencedSegmentNumber") or 0
            if not 1 <= segment <= count:
                raise part.attributes.bad("ReferencedSegmentNumber")
            data[(segment - 1, *_voxels(part, like))] = numbers / most
    return Volume(
        data=torch.from_numpy(data), affine=like.affine, units="1", modality="SEG",
        source=like.source,
    )  # fmt: skip


def _bits(instance: Instance, parts: Sequence[Slice]) -> Iterator[tuple[Slice, NDArray]]:
    """Frames of one bit a pixel, packed without gaps."""
    rows, columns = parts[0].size
    count = len(parts) * rows * columns
    assert instance.pixels is not None
    with instance.open() as stream:
        stream.seek(instance.pixels.offset)
        packed = np.frombuffer(stream.read(-(-count // 8)), np.uint8)
    if len(packed) * 8 < count:
        raise Refusal(
            "E_TRUNCATED",
            f"the segmentation has {len(packed)} bytes of pixels, expected {-(-count // 8)}; copy "
            "it again.",
        )
    bits = np.unpackbits(packed, count=count, bitorder="little")
    yield from zip(parts, bits.reshape(len(parts), rows, columns), strict=True)


def _voxels(part: Slice, like: Volume) -> tuple[NDArray[np.intp], ...]:
    """Indices `(rows, columns)` into a grid of the pixels of a plane.

    Raises:
        Refusal: "E_GRID_MISMATCH": they are not voxels of the grid.
    """
    rows, columns = part.size
    assert part.orientation is not None
    assert part.pixel_spacing is not None
    assert part.position is not None
    normal = np.cross(part.orientation[:3], part.orientation[3:])
    affine = geometry.from_dicom(part.orientation, part.pixel_spacing, part.position, normal)
    to_voxel = np.linalg.inv(like.affine) @ affine
    corners = [[i, j, 0] for i in (0, columns - 1) for j in (0, rows - 1)]
    exact = geometry.place(to_voxel, corners)
    # slices of a series may be uneven by 1 % of their distance
    off = np.abs(exact - exact.round()).max() > 0.02
    if off or exact.round().min() < 0 or (exact.round() > np.array(like.grid) - 1).any():
        raise mismatch("the mask", affine, (columns, rows, 1), like)
    pixel = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)
    exact = geometry.place(to_voxel, np.concatenate([pixel, np.zeros((rows, columns, 1))], -1))
    return tuple(exact.round().astype(np.intp)[..., axis] for axis in range(3))
