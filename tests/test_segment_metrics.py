"""Scores of masks and of their uncertainty, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medical.segment import metrics
from medical.segment.doubt import auroc, calibration_error, near, risk_coverage
from medical.segment.metrics import Lesions, Overlap
from medical.segment.thresholds import fixed, relative

EMPTY = np.zeros((12, 12, 12), bool)


def cube(low, high):
    mask = EMPTY.copy()
    mask[low:high, low:high, low:high] = True
    return mask


def test_aggregated_dice_is_not_the_mean():
    cases = [Overlap(8, 10, 10), Overlap(0, 4, 6)]
    assert metrics.aggregated_dice(cases) == pytest.approx(0.5333, abs=5e-5)
    assert metrics.aggregated_dice(iter(cases)) == 16 / 30


def test_volumes_weigh_in_mm3():
    """The same voxels, eight times as large in one case."""
    hit, miss = cube(0, 2), cube(4, 6)
    cases = [metrics.overlap(hit, hit, voxel=8), metrics.overlap(hit, miss, voxel=1)]
    assert metrics.aggregated_dice(cases) == pytest.approx(2 * 64 / (128 + 16))


def test_overlap_by_hand():
    found, there = cube(0, 4), cube(2, 5)  # 64 and 27 voxels, 8 in common
    assert metrics.dice(found, there) == 16 / 91
    assert metrics.precision(found, there) == 8 / 64
    assert metrics.recall(found, there) == 8 / 27
    assert metrics.volume_error(found, there) == 37 / 27
    uptake = np.where(there, 2.0, 1.0)
    assert metrics.glycolysis_error(found, there, uptake) == pytest.approx((72 - 54) / 54)


@pytest.mark.parametrize(
    ("found", "there", "dice", "precision", "recall"),
    [
        (EMPTY, cube(0, 3), 0.0, 0.0, 0.0),  # a miss
        (cube(0, 3), EMPTY, 0.0, 0.0, math.nan),  # a false alarm
        (EMPTY, EMPTY, math.nan, math.nan, math.nan),
    ],
)
def test_empty_masks(found, there, dice, precision, recall):
    found_scores = [f(found, there) for f in (metrics.dice, metrics.precision, metrics.recall)]
    assert found_scores == pytest.approx([dice, precision, recall], nan_ok=True)
    assert math.isnan(metrics.hd95(found, there, (1, 1, 1)))  # never 0, which would be the best


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_dice_is_the_harmonic_mean_of_precision_and_recall(seed):
    a, b = np.random.default_rng(seed).random((2, 5, 4, 3)) < 0.4
    p, r = metrics.precision(a, b), metrics.recall(a, b)
    if p > 0 and r > 0:
        assert metrics.dice(a, b) == pytest.approx(2 * p * r / (p + r))


def test_distance_in_mm():
    """A plate moved along each axis by three voxels."""
    spacing = (1.0, 2.0, 5.0)
    for axis, step in enumerate(spacing):
        there, found = EMPTY.copy(), EMPTY.copy()
        there.swapaxes(0, axis)[2], found.swapaxes(0, axis)[5] = True, True
        assert metrics.hd95(found, there, spacing) == pytest.approx(3 * step)


def test_distance_of_balls():
    index = np.indices((40, 40, 40)) - 20
    radius = np.sqrt((index**2).sum(0)) * 1.5
    # surfaces 9 mm apart, each a voxel thick
    found = metrics.hd95(radius <= 24, radius <= 15, (1.5, 1.5, 1.5))
    assert found == pytest.approx(9, abs=1.5)


def test_a_stray_voxel_does_not_count_for_95_percent():
    there = cube(1, 8)
    found = there.copy()
    found[11, 11, 11] = True
    assert metrics.hd95(found, there, (1, 1, 1)) == 0


def test_lesions_are_counted():
    there = cube(0, 2) | cube(4, 6) | cube(8, 10)
    found = cube(1, 3) | cube(4, 7)  # the first by one voxel
    found[11, 0, 0] = True
    assert metrics.lesions(found, there) == Lesions(hits=2, misses=1, alarms=1)
    assert metrics.lesions(found, there).f1 == pytest.approx(4 / 6)
    strict = metrics.lesions(found, there, least=0.25)
    assert strict == Lesions(hits=1, misses=2, alarms=2)
    assert metrics.lesions(EMPTY, EMPTY) == Lesions(0, 0, 0)
    assert math.isnan(metrics.lesions(EMPTY, EMPTY).f1)
    assert sum([Lesions(1, 2, 3), Lesions(1, 0, 0)], Lesions(0, 0, 0)) == Lesions(2, 2, 3)


def test_lesions_that_touch_by_a_corner_are_one():
    assert metrics.lesions(EMPTY, cube(0, 2) | cube(2, 4)).misses == 1


def test_masks_that_are_none():
    with pytest.raises(ValueError, match="threshold"):
        metrics.dice(cube(0, 2) * 0.5, EMPTY)
    with pytest.raises(ValueError, match="shapes"):
        metrics.dice(EMPTY, EMPTY[1:])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_auroc_counts_pairs(seed):
    rng = np.random.default_rng(seed)
    errors, doubt = rng.random(40) < 0.3, rng.integers(0, 5, 40)
    wrong, right = doubt[errors], doubt[~errors]
    if len(wrong) and len(right):
        difference = wrong[:, None] - right
        expected = ((difference > 0) + 0.5 * (difference == 0)).mean()
        assert auroc(errors, doubt) == pytest.approx(expected)


def test_auroc_of_nothing_to_find():
    assert math.isnan(auroc(np.zeros(4), np.arange(4)))
    assert auroc([0, 1, 1], [0.5, 0.5, 0.5]) == 0.5
    assert auroc([0, 1, 1], [0, 1, 0], where=[True, True, False]) == 1


def test_risk_and_coverage():
    perfect = risk_coverage([0, 0, 0, 1], [0.1, 0.2, 0.3, 0.9])
    assert perfect.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert perfect.risk.tolist() == [0, 0, 0, 0.25]
    assert perfect.area == 0.0625
    worst = risk_coverage([1, 0, 0, 0], [0.1, 0.2, 0.3, 0.9])
    assert worst.area == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    ties = risk_coverage([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5])
    assert (ties.coverage.tolist(), ties.risk.tolist()) == ([1], [0.25])
    with pytest.raises(ValueError, match="no voxels"):
        risk_coverage([], [])


def test_calibration():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    honest = rng.random(20_000) < p
    # each of ten bins of 2000 is off by at most 0.011 * 0.8 on average
    assert calibration_error(p, honest) < 0.02
    assert calibration_error(np.full(100, 0.9), np.arange(100) < 60) == pytest.approx(0.3)


def test_surroundings():
    mask = EMPTY.copy()
    mask[5, 5, 5] = True
    around = near(mask, EMPTY, (1, 2, 4), within=4)
    assert [int(around.sum(axes).astype(bool).sum()) for axes in ((1, 2), (0, 2), (0, 1))] == [
        9,
        5,
        3,
    ]
    assert not near(EMPTY, EMPTY, (1, 1, 1)).any()


def test_thresholds():
    pet = np.ones((12, 12, 12))
    pet[1:4, 1:4, 1:4], pet[2, 2, 2] = 3.0, 10.0
    pet[7:9, 7:9, 7:9] = 4.0
    assert fixed(pet).sum() == 27 + 8
    # 41 % of 10 leaves a voxel of the first lesion; the second has its own maximum
    assert relative(pet).sum() == 1 + 8
    assert relative(pet, share=0.25).sum() == 27 + 8
    assert not relative(np.ones((4, 4, 4))).any()
