"""How good a mask is: overlap, distance of surfaces, lesions, uptake.

What is not defined is NaN and never a number that looks like a result: all scores where there is
nothing to find and nothing was drawn, and distances where one of the masks is empty. A miss, an
empty mask of a tumour that is there, has Dice, precision and recall 0, as HECKTOR's organisers
score it; but they also give it a distance of 0 mm, the best there is, and here it has none.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from medical.segment.components import components

Mask = NDArray[np.bool_]


class Overlap(NamedTuple):
    """Voxels, or mm3, of two masks.

    Attributes:
        both: true positives.
        found: all that was drawn.
        there: all that is there.
    """

    both: float
    found: float
    there: float


def overlap(found: ArrayLike, there: ArrayLike, *, voxel: float = 1.0) -> Overlap:
    """Sizes that scores are made of.

    Args:
        found: mask that was drawn, any shape.
        there: the truth.
        voxel: mm3 of a voxel; 1 counts voxels.

    Raises:
        ValueError: different shapes, or other numbers than zeros and ones.
    """
    a, b = _masks(found, there)
    return Overlap(float((a & b).sum()) * voxel, float(a.sum()) * voxel, float(b.sum()) * voxel)


def dice(found: ArrayLike, there: ArrayLike) -> float:
    """Dice coefficient `2 |A B| / (|A| + |B|)`; NaN where both are empty."""
    return aggregated_dice([overlap(found, there)])


def aggregated_dice(cases: Iterable[Overlap]) -> float:
    """Dice of all cases as if they were one, HECKTOR's ranking: `2 sum TP / sum (|A| + |B|)`.

    Empty masks need no rule, and large lesions count for more. One class at a time; HECKTOR 2022
    means over two.

    Args:
        cases: in mm3 where voxels differ from case to case.

    Returns:
        NaN if all masks are empty.
    """
    both, found, there = np.sum([*cases, Overlap(0, 0, 0)], axis=0)
    return _ratio(2 * both, found + there)


def precision(found: ArrayLike, there: ArrayLike) -> float:
    """Share of what was drawn that is there; 0 for a miss, NaN where both are empty."""
    at = overlap(found, there)
    return 0.0 if at.there and not at.found else _ratio(at.both, at.found)


def recall(found: ArrayLike, there: ArrayLike) -> float:
    """Share of what is there that was drawn; NaN where nothing is there."""
    at = overlap(found, there)
    return _ratio(at.both, at.there)


def hd95(found: ArrayLike, there: ArrayLike, spacing: Sequence[float]) -> float:
    """95th percentile of the distances between two surfaces, in mm.

    The larger of the percentiles of both directions, by MONAI; NaN where a mask is empty.

    Args:
        found: `(I, J, K)`.
        there: the truth.
        spacing: mm along i, j, k.
    """
    a, b = _masks(found, there)
    if not (a.any() and b.any()):
        return math.nan
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    first, second = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (a, b))
    distance = compute_hausdorff_distance(
        first, second, include_background=True, percentile=95, spacing=[float(s) for s in spacing]
    )
    return float(distance)


@dataclass(frozen=True)
class Lesions:
    """Lesions that were found or not.

    Attributes:
        hits: true lesions that were found.
        misses: true lesions that were not.
        alarms: lesions drawn where there are none.
    """

    hits: int
    misses: int
    alarms: int

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision of lesions; NaN where there is none."""
        return _ratio(2.0 * self.hits, 2.0 * self.hits + self.misses + self.alarms)

    def __add__(self, other: "Lesions") -> "Lesions":
        return Lesions(
            self.hits + other.hits, self.misses + other.misses, self.alarms + other.alarms
        )


def lesions(found: ArrayLike, there: ArrayLike, *, least: float = 0.0) -> Lesions:
    """Count lesions: what hangs together, by faces, edges or corners.

    Args:
        found: `(I, J, K)`.
        there: the truth.
        least: share of a lesion that the other mask must cover, beside one voxel.
    """
    a, b = _masks(found, there)
    covered_there, covered_found = _covered(b, a), _covered(a, b)
    hit = (covered_there > 0) & (covered_there >= least)
    alarm = (covered_found == 0) | (covered_found < least)
    return Lesions(int(hit.sum()), int((~hit).sum()), int(alarm.sum()))


def volume_error(found: ArrayLike, there: ArrayLike) -> float:
    """Relative error of the volume; NaN where nothing is there."""
    at = overlap(found, there)
    return _ratio(at.found - at.there, at.there)


def glycolysis_error(found: ArrayLike, there: ArrayLike, pet: ArrayLike) -> float:
    """Relative error of total lesion glycolysis, uptake summed over a mask; NaN without lesion."""
    a, b = _masks(found, there)
    uptake = np.asarray(pet, np.float64)
    return _ratio(float(uptake[a].sum() - uptake[b].sum()), float(uptake[b].sum()))


def _covered(lesion: Mask, by: Mask) -> NDArray[np.float64]:
    """Share of each lesion that another mask covers."""
    labels, count = components(lesion)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return np.bincount(labels[by].ravel(), minlength=count + 1)[1:] / sizes


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _masks(found: ArrayLike, there: ArrayLike) -> tuple[Mask, Mask]:
    a, b = np.asarray(found), np.asarray(there)
    if a.shape != b.shape:
        raise ValueError(
            f"the masks have shapes {a.shape} and {b.shape}, expected one; bring them onto one "
            "grid."
        )
    for mask in (a, b):
        if mask.dtype != bool and not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                f"a mask has values from {mask.min():.4g} to {mask.max():.4g}, expected zeros and "
                "ones; threshold it."
            )
    return a.astype(bool), b.astype(bool)
