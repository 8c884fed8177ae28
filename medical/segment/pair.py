"""PET and CT of one patient on one grid."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from medical import geometry
from medical.refusal import Refusal
from medical.segment import sampling
from medical.segment.box import Box, grid
from medical.segment.identity import refuse_strangers
from medical.segment.sampling import Grid, Sampled
from medical.volume import Volume

AIR = -1000.0  # HU
SEEN = 0.98  # share of the body that both scans must have measured
_SOLID, _WARM = -500.0, 0.5  # HU, SUV: what is body


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """PET and CT on one grid, and a mask of the tumour where it is known.

    Attributes:
        pet: `(1, I, J, K)` in SUV by body weight; False in `valid` where a scan did not reach.
        ct: `(1, I, J, K)` in HU.
        mask: `(1, I, J, K)` of zeros and ones.

    Raises:
        Refusal: "E_PET_UNITS", "E_CT_UNITS", "E_MASK_VALUES": numbers that are none of these;
            "E_GRID_MISMATCH": another grid.
    """

    pet: Volume
    ct: Volume
    mask: Volume | None = None

    def __post_init__(self) -> None:
        _refuse_units(self.pet, self.ct)
        masks = [] if self.mask is None else [self.mask]
        for other in (self.ct, *masks):
            same = other.grid == self.pet.grid and geometry.same_grid(
                other.affine, self.pet.affine, tuple(other.grid)
            )
            if not same:
                raise Refusal(
                    "E_GRID_MISMATCH",
                    f"PET and {'CT' if other is self.ct else 'mask'} have grids "
                    f"{tuple(self.pet.grid)} and {tuple(other.grid)} that do not lie on each "
                    "other; bring them together with paired().",
                )
        for mask in masks:
            _refuse_no_mask(mask)


def paired(
    pet: Volume,
    ct: Volume,
    *,
    mask: Volume | None = None,
    spacing: float | Sequence[float] | None = None,
    box: Box | None = None,
    registered: bool = False,
    seen: float = SEEN,
) -> Pair:
    """Bring PET, CT and a mask onto one grid, by where they are in the patient.

    Args:
        pet: in SUV.
        ct: in HU.
        mask: zeros and ones, on any grid.
        spacing: mm between voxels of the grid, one number or three; None takes those of the CT.
        box: the part that is looked at; None for all of the CT.
        registered: say that the scans lie on each other though their frames of reference differ.
        seen: share of the body in the grid that both scans must have measured.

    Returns:
        A pair on the CT's own grid, or on one along the CT's axes that point right, front and
        head, where a box or a spacing is given.

    Raises:
        Refusal: "E_OTHER_PATIENT", "E_FRAME_OF_REFERENCE": scans that do not belong together;
            "E_PET_UNITS", "E_CT_UNITS", "E_MASK_VALUES": other numbers; "E_NO_OVERLAP",
            "E_FIELD_OF_VIEW": a body that one of the scans has not seen.
        ValueError: a spacing that is not positive, or a share outside [0, 1].
    """
    if not 0 <= seen <= 1:
        raise ValueError(f"seen is {seen:g}, expected a share of the body in [0, 1].")
    _refuse_units(pet, ct)
    refuse_strangers(pet, ct, registered=registered)
    onto = grid(ct, step=spacing, box=box)
    whole = spacing is None and box is None
    density = _itself(ct) if whole else sampling.smooth(ct, onto, fill=AIR)
    uptake = sampling.smooth(pet, onto, fill=0.0)
    valid, notes = _seen(uptake, density, seen)
    return Pair(
        pet=_volume(pet, uptake.data, onto, valid, notes),
        ct=ct if whole else _volume(ct, density.data, onto, None, ()),
        mask=None if mask is None else _share(mask, onto),
    )


def to_grid(volume: Volume, like: Volume, *, nearest: bool = True) -> Volume:
    """Bring a mask, or a map of probabilities, onto the grid of a scan, zero where it ends.

    Args:
        volume: a mask on a pair's grid.
        like: the scan, for example the CT as it was read.
        nearest: take the nearest voxel, for masks; False interpolates, for probabilities.

    Returns:
        Volume on the grid of `like` and with its source, so that files can be derived from it.
    """
    onto = like.affine, (like.grid[0], like.grid[1], like.grid[2])
    at = sampling.nearest(volume, onto) if nearest else sampling.smooth(volume, onto, fill=0.0)
    return Volume(
        data=torch.from_numpy(at.data),
        affine=like.affine,
        units=volume.units,
        modality=volume.modality,
        source=like.source,
        notes=volume.notes,
    )


def _refuse_units(pet: Volume, ct: Volume) -> None:
    for volume, units, code, what in (
        (pet, "SUV", "E_PET_UNITS", "read the PET as SUV by body weight"),
        (ct, "HU", "E_CT_UNITS", "read the CT in HU"),
    ):
        if volume.units != units or len(volume.data) != 1:
            raise Refusal(
                code,
                f"the {code[2:-6]} is in {volume.units} with {len(volume.data)} channels, expected "
                f"{units} in one; {what}, or say what the numbers are (units='{units}').",
            )


def _refuse_no_mask(mask: Volume) -> None:
    if len(mask.data) != 1 or not bool(((mask.data == 0) | (mask.data == 1)).all()):
        raise Refusal(
            "E_MASK_VALUES",
            f"the mask has {len(mask.data)} channels and values from {float(mask.data.min()):.4g} "
            f"to {float(mask.data.max()):.4g}, expected zeros and ones in one; choose a label.",
        )


def _seen(
    uptake: Sampled, density: Sampled, least: float
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Where both scans measured, None for everywhere, and what the user should know."""
    both = uptake.inside & density.inside
    body = (density.inside & (density.data[0] > _SOLID)) | (uptake.data[0] > _WARM)
    if not both.any():
        raise Refusal(
            "E_NO_OVERLAP",
            "PET and CT have nothing in common where they are to be compared; check that both are "
            "of one examination, and where the box is.",
        )
    share = float(both[body].mean()) if body.any() else 1.0
    if share < least:
        blind = "PET" if (body & ~uptake.inside).sum() > (body & ~density.inside).sum() else "CT"
        raise Refusal(
            "E_FIELD_OF_VIEW",
            f"both scans saw {100 * share:.3g} % of the body in the grid, expected at least "
            f"{100 * least:g} %, and it is mostly the {blind} that ends too early; choose a box "
            "inside both, or allow it with a smaller `seen`.",
        )
    if both.all():
        return None, ()
    missed = int((~both).sum())
    return both, (f"{missed} of {both.size} voxels were not seen by both PET and CT.",)


def _itself(volume: Volume) -> Sampled:
    measured = torch.ones(volume.grid, dtype=torch.bool) if volume.valid is None else volume.valid
    return Sampled(volume.data.numpy(), measured.numpy())


def _volume(
    volume: Volume,
    data: NDArray[np.float32],
    onto: Grid,
    valid: NDArray[np.bool_] | None,
    notes: tuple[str, ...],
) -> Volume:
    return replace(
        volume,
        data=torch.from_numpy(data),
        affine=onto[0],
        valid=None if valid is None else torch.from_numpy(valid),
        source=None,  # slices of the new grid are none of the files'
        notes=(*volume.notes, *notes),
    )


def _share(mask: Volume, onto: Grid) -> Volume:
    """A mask on a grid: voxels of which more than half belong to it."""
    _refuse_no_mask(mask)
    share = sampling.smooth(mask, onto, fill=0.0).data
    data = (share > 0.5).astype(np.float32)
    return Volume(data=torch.from_numpy(data), affine=onto[0], units="1", modality="SEG")
