"""Where voxels are: affines from voxel indices to patient space, in one convention.

World coordinates are RAS+ in mm: x grows to the patient's right, y to the front, z to the head.
DICOM and ITK say LPS; `LPS_TO_RAS` is applied where their files are read and written, and nowhere
else. An affine maps the index `(i, j, k)` of a voxel's *centre*.
"""

from typing import Literal

import numpy as np
from nibabel import orientations
from numpy.typing import ArrayLike, NDArray

Affine = NDArray[np.float64]
"""`(4, 4)`, voxel index to world mm."""

Plane = Literal["axial", "coronal", "sagittal"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# a picture of a plane as radiologists look at it: slices, then rows downward, then columns
PLANES: dict[Plane, str] = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}


def as_affine(matrix: ArrayLike) -> Affine:
    """Check an affine.

    Raises:
        ValueError: not 4 x 4, not finite, a last row other than 0 0 0 1, or no volume.
    """
    affine = np.array(matrix, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(
            f"an affine has shape {affine.shape}, expected 4 x 4 finite numbers; mend the header."
        )
    if (affine[3] != [0, 0, 0, 1]).any() or (spacing(affine) == 0).any() or flat(affine):
        raise ValueError(
            "an affine does not map voxels to a volume of space (its rows are dependent, or the "
            "last is not 0 0 0 1); mend the header."
        )
    return affine


def spacing(affine: Affine) -> NDArray[np.float64]:
    """Distance in mm between neighbours along each of the three voxel axes."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def flat(affine: Affine) -> bool:
    """Whether the voxel axes span no volume."""
    directions = affine[:3, :3] / spacing(affine)
    return bool(abs(np.linalg.det(directions)) < 1e-3)


def shear(affine: Affine) -> float:
    """Largest departure of two voxel axes from a right angle, in degrees."""
    directions = affine[:3, :3] / spacing(affine)
    cosines = directions.T @ directions - np.eye(3)
    return float(np.degrees(np.arcsin(min(1.0, np.abs(cosines).max()))))


def codes(affine: Affine) -> str:
    """Nearest anatomical direction of each voxel axis, for example "LPS"."""
    return "".join(orientations.aff2axcodes(affine))


def place(affine: Affine, index: ArrayLike) -> NDArray[np.float64]:
    """World coordinates `(..., 3)` of voxel indices `(..., 3)`."""
    return np.asarray(index, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def same_grid(a: Affine, b: Affine, shape: tuple[int, ...], *, within: float = 1e-4) -> bool:
    """Whether two affines place every voxel of a grid `(I, J, K)` within so many mm."""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij"), -1)
    return bool(np.abs(place(a, corners) - place(b, corners)).max() <= within)


def refined(affine: Affine, axis: int, factor: int) -> Affine:
    """Affine of a grid with `factor` voxels where there was one along `axis`, same extent."""
    fine = affine.copy()
    fine[:3, axis] /= factor
    fine[:3, 3] -= fine[:3, axis] * (factor - 1) / 2
    return fine


def from_dicom(
    orientation: ArrayLike, pixel_spacing: ArrayLike, first: ArrayLike, step: ArrayLike
) -> Affine:
    """Affine on `(column, row, slice)` from a series' attributes.

    Args:
        orientation: ImageOrientationPatient, six cosines: direction of growing column, of growing
            row.
        pixel_spacing: PixelSpacing: between rows, between columns, mm.
        first: ImagePositionPatient of the first slice, the centre of its first pixel.
        step: vector from one slice to the next, mm; a tilted gantry shows as a shear.
    """
    cosines = np.asarray(orientation, dtype=np.float64)
    between_rows, between_columns = np.asarray(pixel_spacing, dtype=np.float64)
    lps = np.eye(4)
    lps[:3, 0] = cosines[:3] * between_columns
    lps[:3, 1] = cosines[3:] * between_rows
    lps[:3, 2] = step
    lps[:3, 3] = first
    return LPS_TO_RAS @ lps
