"""A volume as the planes that its files hold, and which source image each plane lies on.

DICOM says of a plane where its first pixel's centre is (ImagePositionPatient), where columns and
rows run (ImageOrientationPatient) and how far apart they are (PixelSpacing): LPS, mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medical import geometry
from medical.dicom.quantise import decimal
from medical.geometry import Affine
from medical.refusal import Refusal
from medical.volume import Volume

TILT = 0.1
"""Largest angle in degrees by which axes may miss a right angle."""

_AXES = {
    code: s * np.eye(3)[n] for s, word in ((1, "RAS"), (-1, "LPI")) for n, code in enumerate(word)
}


@dataclass(frozen=True, kw_only=True)
class Planes:
    """Planes in the order of a series.

    Args:
        slices: `(K, rows, columns)` float32.
        valid: of the same shape, None if all is.
        affine: index (column, row, slice) to RAS+ mm.
    """

    slices: NDArray[np.float32]
    valid: NDArray[np.bool_] | None
    affine: Affine

    @property
    def grid(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        slices, rows, columns = self.slices.shape
        return columns, rows, slices

    def tags(self, k: int) -> dict[str, list[str] | str]:
        """Where plane `k` is, as its file says it."""
        lps = geometry.LPS_TO_RAS @ self.affine
        columns, rows, _ = (lps[:3, axis] / np.linalg.norm(lps[:3, axis]) for axis in range(3))
        between_columns, between_rows, between_slices = geometry.spacing(self.affine)
        position = lps[:3, 3] + k * lps[:3, 2]
        return {
            "ImageOrientationPatient": [decimal(x) for x in (*columns, *rows)],
            "ImagePositionPatient": [decimal(x) for x in position],
            "PixelSpacing": [decimal(between_rows), decimal(between_columns)],
            "SliceThickness": decimal(between_slices),
            "SpacingBetweenSlices": decimal(between_slices),
            "SliceLocation": decimal(float(position @ np.cross(columns, rows))),
        }

    def position(self, k: int) -> NDArray[np.float64]:
        """RAS+ mm of the first pixel's centre of plane `k`."""
        return self.affine[:3, 3] + k * self.affine[:3, 2]


def planes(volume: Volume, like: Affine | None = None) -> Planes:
    """Cut a volume into planes, exactly, never interpolated.

    Args:
        volume: of one channel.
        like: affine whose axes the volume's are exchanged and flipped to follow: a source's.
            Without one the coarsest axis becomes the slices, as scanners do it.

    Raises:
        Refusal: "E_CHANNELS": several channels.
    """
    if len(volume.data) != 1:
        raise Refusal(
            "E_CHANNELS",
            f"a volume has {len(volume.data)} channels, expected 1; write each as a series.",
        )
    way = turn(volume.affine, _usual(volume) if like is None else like)
    if np.linalg.det((volume.affine @ orientations.inv_ornt_aff(way, volume.grid))[:3, :3]) < 0:
        way[way[:, 0] == 2, 1] *= -1  # readers stack along the normal of columns and rows
    data = volume.data[0].detach().cpu().numpy()
    mask = None if volume.valid is None else volume.valid.cpu().numpy()
    return Planes(
        slices=orientations.apply_orientation(data, way).T,
        valid=None if mask is None else orientations.apply_orientation(mask, way).T,
        affine=volume.affine @ orientations.inv_ornt_aff(way, volume.grid),
    )


def turn(affine: Affine, like: Affine) -> NDArray:
    """The orientation transform, as nibabel's, that lets axes run as another affine's."""
    return orientations.io_orientation(np.linalg.inv(like) @ affine)


def _usual(volume: Volume) -> Affine:
    """Axes of a right-handed series whose slices follow the coarsest axis, axial in doubt."""
    coarse = volume.orientation[int(np.argmax(volume.spacing))]
    even = np.ptp(volume.spacing) < 0.01 * volume.spacing.max()
    codes = "LPS" if even or coarse in "SI" else "LIP" if coarse in "AP" else "PIR"
    affine = np.eye(4)
    affine[:3, :3] = np.stack([_AXES[code] for code in codes], axis=1)
    return affine


def refuse_tilt(affine: Affine) -> None:
    """Refuse axes that new files cannot describe.

    Raises:
        Refusal: "E_TILT".
    """
    if (angle := geometry.shear(affine)) > TILT:
        raise Refusal(
            "E_TILT",
            f"the axes of a volume miss a right angle by {angle:.3g} degrees, expected at most "
            f"{TILT}; resample it to a straight grid first.",
        )


def affine_of(headers: Sequence[Dataset | None]) -> Affine:
    """Affine on (column, row, slice) of headers in slice order, some of which may be missing."""
    there = [header for header in headers if header is not None]
    first, last = there[0], there[-1]
    cosines = np.array(first.ImageOrientationPatient, np.float64)
    step = np.cross(cosines[:3], cosines[3:]) * float(first.get("SliceThickness", None) or 1)
    if len(headers) > 1:
        step = (_position(last) - _position(first)) / (len(headers) - 1)
    return geometry.from_dicom(cosines, first.PixelSpacing, _position(first), step)


@dataclass(frozen=True)
class Origin:
    """The source image that a plane continues.

    Args:
        header: of the nearest image.
        same: whether the plane's pixels are where that image's are, so that its tags hold.
        near: headers of the image it lies on, or of those on either side.
    """

    header: Dataset
    same: bool
    near: tuple[Dataset, ...]


def on_grid_of(cut: Planes, headers: Sequence[Dataset | None]) -> bool:
    """Whether planes are those of a series, voxel for voxel."""
    shown = next(header for header in headers if header is not None)
    grid = (int(shown.Columns), int(shown.Rows), len(headers))
    return cut.grid == grid and geometry.same_grid(cut.affine, affine_of(headers), grid)


def origins(cut: Planes, headers: Sequence[Dataset | None]) -> list[Origin]:
    """Find each plane's source among the headers of a series, in slice order."""
    there = [header for header in headers if header is not None]
    normal = cut.affine[:3, 2] / np.linalg.norm(cut.affine[:3, 2])
    at = np.array([geometry.LPS_TO_RAS[:3, :3] @ _position(header) for header in there])
    same_grid, same_plane = on_grid_of(cut, headers), _same_in_plane(cut, there[0])
    found = []
    for k in range(len(cut.slices)):
        if same_grid and (own := headers[k]) is not None:
            found.append(Origin(own, same=True, near=(own,)))
            continue
        away = (at - cut.position(k)) @ normal
        nearest = int(np.abs(away).argmin())
        same = same_plane and bool(np.linalg.norm(at[nearest] - cut.position(k)) <= 1e-4)
        sides = [np.flatnonzero(away <= 0)[-1:], np.flatnonzero(away >= 0)[:1]]
        near = [nearest] if same else sorted({int(n) for side in sides for n in side})
        found.append(Origin(there[nearest], same, tuple(there[n] for n in near)))
    return found


def _position(header: Dataset) -> NDArray[np.float64]:
    return np.array(header.ImagePositionPatient, np.float64)


def _same_in_plane(cut: Planes, header: Dataset) -> bool:
    """Whether rows and columns run, and are as many, as the source's."""
    columns, rows, _ = cut.grid
    ours, theirs = cut.affine.copy(), affine_of([header])
    ours[:, 2:], theirs[:, 2:] = np.eye(4)[:, 2:], np.eye(4)[:, 2:]
    same = (columns, rows) == (header.Columns, header.Rows)
    return same and geometry.same_grid(ours, theirs, (columns, rows, 1))
