"""A scan: numbers in physical units, and where in the patient they are."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor

from medical import geometry
from medical.geometry import Affine, Plane


class Source:
    """What a reader keeps of the file a volume came from, so that a writer can derive from it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """An immutable scan.

    Attributes:
        data: `(C, I, J, K)` float32, finite, in `units`.
        affine: `(4, 4)`, index `(i, j, k)` of a voxel's centre to RAS+ mm.
        units: of the data: "HU", "SUV", "Bq/ml", "mm", "1"; "a.u." where nobody knows.
        modality: DICOM's word: "CT", "MR", "PT", "US"; "OT" for others.
        valid: `(I, J, K)` bool, False where the scanner measured nothing (padding, slices that are
            missing); None where everything was measured.
        source: what it was read from; writers derive new files from it.
        notes: what the reader noticed and the user should know, a sentence each.

    Raises:
        ValueError: data of another shape or kind, or an affine that is none.
    """

    data: Tensor
    affine: Affine
    units: str = "a.u."
    modality: str = "OT"
    valid: Tensor | None = None
    source: Source | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", geometry.as_affine(self.affine))
        self.affine.flags.writeable = False
        data = self.data
        if data.ndim != 4 or data.dtype != torch.float32 or 0 in data.shape:
            raise ValueError(
                f"a volume's data are {data.dtype} of shape {tuple(data.shape)}, expected float32 "
                "(C, I, J, K); add the channel axis with data[None], convert with data.float()."
            )
        for part in data:
            # in pieces, since isfinite takes twice the memory of what it looks at
            bad = sum(int((~piece.isfinite()).sum()) for piece in part.split(16, dim=-1))
            if bad:
                raise ValueError(
                    f"a volume has {bad} values that are NaN or infinite; fill them and say so in "
                    "`valid`."
                )
        if self.valid is not None and (
            self.valid.shape != self.grid or self.valid.dtype != torch.bool
        ):
            raise ValueError(
                f"`valid` is {self.valid.dtype} of shape {tuple(self.valid.shape)}, expected bool "
                f"{tuple(self.grid)}."
            )

    @property
    def grid(self) -> torch.Size:
        """Voxels `(I, J, K)`."""
        return self.data.shape[1:]

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance in mm between neighbours along i, j, k."""
        return geometry.spacing(self.affine)

    @property
    def orientation(self) -> str:
        """Anatomical direction of growing i, j, k, for example "LPS"."""
        return geometry.codes(self.affine)

    def derive(self, data: Tensor, *, units: str | None = None) -> "Volume":
        """Other numbers `(C, I, J, K)` on the same grid.

        Raises:
            ValueError: another grid.
        """
        if data.shape[1:] != self.grid:
            raise ValueError(
                f"data of grid {tuple(data.shape[1:])} cannot go on the grid {tuple(self.grid)} of "
                "the volume; build a Volume with its own affine."
            )
        return replace(self, data=data, units=self.units if units is None else units)

    def reoriented(self, codes: str) -> "Volume":
        """The same scan with its voxel axes flipped and exchanged, exactly, never interpolated.

        Args:
            codes: direction of each new axis, for example "RAS".

        Raises:
            ValueError: not three different directions.
        """
        if sorted("RASLPI".find(c) % 3 if c in "RASLPI" else -1 for c in codes) != [0, 1, 2]:
            raise ValueError(
                f"orientation '{codes}' is not one letter each of R or L, A or P, S or I; "
                "give for example 'RAS'."
            )
        turn = self._turn(codes)
        affine = self.affine @ orientations.inv_ornt_aff(turn, self.grid)
        return replace(
            self,
            data=_turned(self.data, turn),
            affine=affine,
            valid=None if self.valid is None else _turned(self.valid[None], turn)[0],
        )

    def stack(self, plane: Plane = "axial") -> "Volume":
        """Reorient so that `data` is `(C, slice, row, column)`, pictures as radiologists look at.

        A solver takes `volume.stack().data[None]`; `volume.unstack(result)` brings it back.
        """
        return self.reoriented(geometry.PLANES[plane])

    def unstack(self, data: Tensor, plane: Plane = "axial") -> "Volume":
        """Put the numbers of a stack `(C, slice, row, column)` back on this volume's grid."""
        turn = self._turn(geometry.PLANES[plane])
        # the way back, not `reoriented(self.orientation)`: at 45 degrees orientations are ambiguous
        back = np.empty_like(turn)
        for axis, (to, way) in enumerate(turn):
            back[int(to)] = axis, way
        return self.derive(_turned(data, back))

    def _turn(self, codes: str) -> NDArray[np.float64]:
        """Nibabel's orientation transform from the voxel axes to others."""
        here = orientations.io_orientation(self.affine)
        return orientations.ornt_transform(here, orientations.axcodes2ornt(tuple(codes)))

    def __repr__(self) -> str:
        """One line: what, how large, how fine, how oriented."""
        size = "x".join(map(str, self.grid))
        fine = " x ".join(f"{s:.3g}" for s in self.spacing)
        return (
            f"<Volume {self.modality} {size} of {fine} mm, {self.orientation}, in {self.units}, "
            f"{len(self.data)} channel{'s' if len(self.data) != 1 else ''}>"
        )


def _turned(data: Tensor, turn: NDArray[np.float64]) -> Tensor:
    """Apply nibabel's orientation transform to the last three axes of `(C, I, J, K)`."""
    flips = [1 + axis for axis, (_, way) in enumerate(turn) if way < 0]
    order = np.argsort(turn[:, 0])
    flipped = data.flip(flips) if flips else data
    return flipped.permute(0, *(1 + int(axis) for axis in order))
