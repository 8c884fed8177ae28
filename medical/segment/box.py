"""Which part of a patient is looked at, and the grid that is laid over it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medical.geometry import Affine, as_affine, place, spacing
from medical.refusal import Refusal
from medical.segment.components import components
from medical.segment.sampling import Grid
from medical.volume import Volume

SIDE = 144.0  # mm, of the box of HECKTOR 2021
_SMOOTH = 12.0  # mm: the organisers' three voxels of about 4 mm
_BRAIN = 3.0  # SUV that the smoothed brain exceeds
_SMALLEST = 100e3  # mm3, of a brain that is all in the scan or cut
_ABOVE, _FORWARD = 30.0, 30.0  # mm from the lowest voxel of the brain, from its middle


@dataclass(frozen=True)
class Box:
    """A box whose edges run along the axes of a scan.

    Attributes:
        centre: RAS, mm.
        size: mm, along the axes that point most to the right, to the front and to the head.

    Raises:
        ValueError: not three finite numbers each, or a size that is not positive.
    """

    centre: tuple[float, float, float]
    size: tuple[float, float, float] = (SIDE, SIDE, SIDE)

    def __post_init__(self) -> None:
        numbers = np.array([self.centre, self.size], dtype=np.float64)
        if numbers.shape != (2, 3) or not np.isfinite(numbers).all() or (numbers[1] <= 0).any():
            raise ValueError(
                f"a box has centre {self.centre} and size {self.size}, expected three numbers of "
                "mm each, and a positive size."
            )


def head_neck_box(pet: Volume, *, size: float = SIDE) -> Box:
    """Find the oropharynx below the brain, the rule of HECKTOR 2021's organisers.

    The brain is what glows most widely in the upper third of the scan: of the places where
    smoothed uptake exceeds 3 SUV, the one with the most voxels there. The box reaches 30 mm above
    the brain's lowest voxel, and its middle is 30 mm in front of the brain's.

    Args:
        pet: in SUV, of any orientation, the head in its upper third.
        size: side in mm.

    Raises:
        Refusal: "E_PET_UNITS": no SUV; "E_NO_BRAIN": nothing there glows like a brain.
    """
    if pet.units != "SUV" or len(pet.data) != 1:
        raise Refusal(
            "E_PET_UNITS",
            f"the PET is in {pet.units} with {len(pet.data)} channels, expected SUV in one; read "
            "it as SUV.",
        )
    upright = pet.reoriented("RAS")
    fine = spacing(upright.affine)
    hot = ndimage.gaussian_filter(upright.data[0].numpy(), _SMOOTH / fine) > _BRAIN
    labels, _ = components(hot)
    sizes = np.bincount(labels[:, :, labels.shape[2] * 2 // 3 :].ravel(), minlength=2)[1:]
    if sizes.max() * fine.prod() < _SMALLEST:
        raise Refusal(
            "E_NO_BRAIN",
            f"no uptake above {_BRAIN:g} SUV in the upper third of the PET is as large as a brain; "
            "give the box yourself, or a scan that holds the head.",
        )
    found = np.argwhere(labels == sizes.argmax() + 1)
    low, high = found.min(0), found.max(0)
    anchor = [*(low[:2] + high[:2]) / 2, low[2]]
    along = upright.affine[:3, :3] / fine  # directions of right, front, head
    centre = place(upright.affine, anchor) + along @ [0, _FORWARD, _ABOVE - size / 2]
    return Box(_floats(centre), (size, size, size))


def grid(scan: Volume, *, step: float | Sequence[float] | None, box: Box | None) -> Grid:
    """The grid of a box along the axes of a scan.

    Args:
        scan: the CT.
        step: mm between voxels, one number or three (to the right, to the front, to the head);
            None takes voxels of the scan itself.
        box: None for all of the scan.

    Returns:
        Affine and shape. With a step or a box the voxel axes are those of the scan that point
        right, front and head; without either, the scan's own.

    Raises:
        ValueError: a step that is not positive.
    """
    if step is None and box is None:
        return scan.affine, _three(scan.grid)
    upright = scan.reoriented("RAS")
    fine = spacing(upright.affine)
    box = box or _all_of(upright)
    if step is None:
        return _cut(upright, box)
    wanted = np.broadcast_to(np.asarray(step, dtype=np.float64), 3)
    if not (np.isfinite(wanted).all() and (wanted > 0).all()):
        raise ValueError(f"voxels are {step} mm apart, expected positive numbers of mm.")
    shape = np.maximum(np.rint(np.array(box.size) / wanted).astype(int), 1)
    return _centred(upright.affine[:3, :3] / fine * wanted, box, shape), _three(shape)


def _all_of(upright: Volume) -> Box:
    middle = place(upright.affine, (np.array(upright.grid) - 1) / 2)
    size = spacing(upright.affine) * np.array(upright.grid)
    return Box(_floats(middle), _floats(size))


def _cut(upright: Volume, box: Box) -> Grid:
    """Voxels of the scan itself, as many as the box holds, also where they lie outside."""
    shape = np.maximum(np.rint(np.array(box.size) / spacing(upright.affine)).astype(int), 1)
    middle = place(as_affine(np.linalg.inv(upright.affine)), box.centre)
    first = np.rint(middle - (shape - 1) / 2)
    affine = upright.affine.copy()
    affine[:3, 3] = place(upright.affine, first)
    return affine, _three(shape)


def _centred(axes: np.ndarray, box: Box, shape: np.ndarray) -> Affine:
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = np.array(box.centre) - axes @ ((shape - 1) / 2)
    return affine


def _floats(values: np.ndarray) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _three(values: Sequence[int] | np.ndarray) -> tuple[int, int, int]:
    a, b, c = (int(v) for v in values)
    return a, b, c
