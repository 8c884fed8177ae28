"""A head made of ellipsoids, in physical units and of any size.

Sizes are those of an adult, numbers those of the tissues. A voxel on an edge holds a mixture, as a
scanner's does: the mean of 2 to 4 samples along each axis, at most 1 mm apart in voxels of 4 mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medical.geometry import Affine
from medical.volume import Volume

FIELD = 240.0
"""Side of the cube, in mm, that holds the head."""
_SLAB = 2**20  # voxels made together


@dataclass(frozen=True)
class Ellipsoid:
    """One tissue; later ones replace what is under them.

    Attributes:
        ct: Hounsfield units.
        mr: arbitrary units of a T1-weighted image.
        half: half axes along x, y, z, mm.
        centre: RAS, mm.
        turn: degrees from x to y.
    """

    ct: float
    mr: float
    half: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: float = 0.0


HEAD = (
    Ellipsoid(-80, 900, (76, 95, 108)),  # fat under the skin
    Ellipsoid(45, 500, (74, 93, 106)),  # scalp
    Ellipsoid(1400, 60, (70, 89, 102)),  # outer table of the skull
    Ellipsoid(600, 450, (67.5, 86.5, 99.5)),  # diploe
    Ellipsoid(1300, 60, (65.5, 84.5, 97.5)),  # inner table
    Ellipsoid(8, 140, (63, 82, 95)),  # fluid around the brain
    Ellipsoid(38, 470, (60.5, 79.5, 92.5)),  # grey matter
    Ellipsoid(29, 650, (52, 70, 82)),  # white matter
    Ellipsoid(6, 140, (7, 30, 13), (13, -2, 12), 12),  # lateral ventricles
    Ellipsoid(6, 140, (7, 30, 13), (-13, -2, 12), -12),
    Ellipsoid(6, 140, (3, 9, 7), (0, -2, -8)),  # third ventricle
    Ellipsoid(37, 470, (9, 13, 11), (26, 6, 0), -20),  # deep grey matter
    Ellipsoid(37, 470, (9, 13, 11), (-26, 6, 0), 20),
    Ellipsoid(180, 380, (2.5, 3, 2.5), (0, -24, 4)),  # calcified pineal gland
    Ellipsoid(1100, 60, (22, 7, 8), (36, -22, -52), -35),  # petrous bones
    Ellipsoid(1100, 60, (22, 7, 8), (-36, -22, -52), 35),
    Ellipsoid(-1000, 0, (11, 15, 15), (0, 48, -62)),  # sphenoidal sinus
)
LESION = Ellipsoid(62, 330, (6, 5, 5), (30, 34, 26))
"""A small haemorrhage in the right frontal lobe."""


def head(
    shape: Sequence[int] = (64, 64, 64),
    *,
    modality: Literal["CT", "MR"] = "CT",
    spacing: Sequence[float] | None = None,
    lesion: bool = True,
) -> Volume:
    """A head, its centre in the middle of the grid, axes "RAS".

    Args:
        shape: voxels `(I, J, K)`.
        modality: "CT" in HU, "MR" in arbitrary units.
        spacing: mm along i, j, k; None spreads `FIELD` over each axis.
        lesion: whether there is one.

    Raises:
        ValueError: no three positive sizes, or another modality.
    """
    size = np.array(shape)
    if size.shape != (3,) or (size < 1).any():
        raise ValueError(f"a head has shape {tuple(shape)}, expected three positive sizes.")
    fine = FIELD / size if spacing is None else np.asarray(spacing, dtype=np.float64)
    if fine.shape != (3,) or not (fine > 0).all():
        raise ValueError(f"a head has spacing {fine.tolist()}, expected three positive numbers.")
    if modality not in ("CT", "MR"):
        raise ValueError(f"modality is '{modality}', expected CT or MR.")
    is_ct = modality == "CT"
    affine = np.diag([*fine, 1.0])
    affine[:3, 3] = -fine * (size - 1) / 2
    tissues = (*HEAD, LESION) if lesion else HEAD
    painted = [(tissue, tissue.ct if is_ct else tissue.mr) for tissue in tissues]
    return Volume(
        data=torch.from_numpy(render(painted, affine, size.tolist(), -1000.0 if is_ct else 0.0))[
            None
        ],
        affine=affine,
        units="HU" if is_ct else "a.u.",
        modality=modality,
        notes=("this is a phantom, not a patient.",),
    )


def render(
    painted: Sequence[tuple[Ellipsoid, float]],
    affine: Affine,
    shape: Sequence[int],
    background: float = 0.0,
) -> NDArray[np.float32]:
    """Ellipsoids and their values, later ones on top, as `(I, J, K)`.

    Args:
        painted: ellipsoids with what they are filled with.
        affine: diagonal but for its origin.
        shape: voxels.
        background: where there are none.
    """
    steps, origin = affine.diagonal()[:3], affine[:3, 3]
    counts = np.clip(np.ceil(steps), 2, 4).astype(int)
    offsets = [
        ((np.arange(n) + 0.5) / n - 0.5) * step for n, step in zip(counts, steps, strict=True)
    ]
    axes = [np.arange(n) * step + o for n, step, o in zip(shape, steps, origin, strict=True)]
    image = np.zeros(tuple(shape), np.float32)
    slices = max(1, _SLAB // int(shape[0] * shape[1]))
    for start in range(0, int(shape[2]), slices):
        slab = image[:, :, start : start + slices]
        x, y, z = axes[0], axes[1], axes[2][start : start + slices]
        sample = np.empty(slab.shape, np.float32)
        for dx, dy, dz in product(*offsets):
            sample.fill(background)
            for tissue, value in painted:
                _paint(sample, tissue, value, (x + dx, y + dy, z + dz))
            slab += sample
    image /= float(counts.prod())
    return image


def _paint(
    sample: NDArray[np.float32],
    tissue: Ellipsoid,
    value: float,
    axes: tuple[NDArray[np.float64], ...],
) -> None:
    """Fill an ellipsoid, at points on a grid."""
    turn, (a, b, c) = np.radians(tissue.turn), tissue.half
    cosine, sine = np.cos(turn), np.sin(turn)
    reach = (np.hypot(a * cosine, b * sine), np.hypot(a * sine, b * cosine), c)
    near = [
        slice(*np.searchsorted(axis, (middle - half, middle + half)))
        for axis, middle, half in zip(axes, tissue.centre, reach, strict=True)
    ]
    x, y, z = (axis[s] - m for axis, s, m in zip(axes, near, tissue.centre, strict=True))
    along, across = cosine * x[:, None] + sine * y, cosine * y - sine * x[:, None]
    flat = ((along / a) ** 2 + (across / b) ** 2).astype(np.float32)
    inside = flat[:, :, None] <= (1 - (z / c) ** 2).astype(np.float32)
    np.copyto(sample[tuple(near)], np.float32(value), where=inside)
