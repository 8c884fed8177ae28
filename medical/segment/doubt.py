"""Whether uncertainty finds errors.

Most voxels of a scan are far from any tumour, certain and right, and make every uncertainty look
good. Scores are therefore taken where it matters: `near` gives the surroundings of both masks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, stats

Mask = NDArray[np.bool_]


def near(found: ArrayLike, there: ArrayLike, spacing: ArrayLike, *, within: float = 12.0) -> Mask:
    """Voxels not further from either mask than so many mm; none if both are empty.

    Args:
        found: `(I, J, K)`.
        there: the truth.
        spacing: mm along i, j, k.
        within: mm.
    """
    either = np.asarray(found, bool) | np.asarray(there, bool)
    if not either.any():
        return either
    distance = np.asarray(ndimage.distance_transform_edt(~either, sampling=np.asarray(spacing)))
    return distance <= within


def auroc(errors: ArrayLike, uncertainty: ArrayLike, *, where: ArrayLike | None = None) -> float:
    """Probability that a wrong voxel is more uncertain than a right one, half for ties.

    Args:
        errors: where mask and truth differ.
        uncertainty: any increasing measure of it, for example a standard deviation.
        where: voxels to look at, None for all.

    Returns:
        NaN where all are wrong or all are right.
    """
    wrong, doubt = _flat(errors, uncertainty, where)
    count, right = int(wrong.sum()), int((~wrong).sum())
    if not (count and right):
        return float("nan")
    ranks = stats.rankdata(doubt)  # of Mann and Whitney
    return float((ranks[wrong].sum() - count * (count + 1) / 2) / (count * right))


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Errors that are left where only the most certain voxels are kept.

    Attributes:
        coverage: shares of voxels that are kept, rising to 1.
        risk: share of them that is wrong.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Mean risk over coverage; the smaller the better, and at least that of a perfect order."""
        steps = np.diff(self.coverage, prepend=0.0)
        return float((self.risk * steps).sum())


def risk_coverage(
    errors: ArrayLike, uncertainty: ArrayLike, *, where: ArrayLike | None = None
) -> RiskCoverage:
    """The curve of risk over coverage; voxels of equal uncertainty are kept together.

    Args:
        errors: where mask and truth differ.
        uncertainty: any increasing measure of it.
        where: voxels to look at, None for all.

    Raises:
        ValueError: no voxels.
    """
    wrong, doubt = _flat(errors, uncertainty, where)
    if not len(wrong):
        raise ValueError("there are no voxels to look at, expected some; widen `where`.")
    order = np.argsort(doubt, kind="stable")
    last = np.append(np.diff(doubt[order]) > 0, True)  # of those that are equally uncertain
    kept = np.arange(1, len(wrong) + 1)[last]
    return RiskCoverage(kept / len(wrong), np.cumsum(wrong[order])[last] / kept)


def calibration_error(
    probability: ArrayLike, there: ArrayLike, *, where: ArrayLike | None = None, bins: int = 10
) -> float:
    """Expected calibration error: mean distance of probability and frequency in equal bins.

    Args:
        probability: of tumour, in [0, 1].
        there: the truth.
        where: voxels to look at, None for all.
        bins: of probability.

    Raises:
        ValueError: no voxels.
    """
    truth, sure = _flat(there, probability, where)
    if not len(truth):
        raise ValueError("there are no voxels to look at, expected some; widen `where`.")
    which = np.minimum((sure * bins).astype(int), bins - 1)
    gap = np.bincount(which, sure, bins) - np.bincount(which, truth, bins)
    return float(np.abs(gap).sum() / len(truth))


def _flat(
    flags: ArrayLike, numbers: ArrayLike, where: ArrayLike | None
) -> tuple[Mask, NDArray[np.float64]]:
    a, b = np.asarray(flags, bool), np.asarray(numbers, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"found shapes {a.shape} and {b.shape}, expected one.")
    if where is None:
        return a.ravel(), b.ravel()
    here = np.asarray(where, bool)
    return a[here], b[here]
