"""Phantoms of PET/CT: what they are made of, and that neither scan shows the tumour alone."""

import os

import numpy as np
import pytest
import torch
from scipy import ndimage

from medical.geometry import place
from medical.segment import phantom
from medical.segment.chest import LUNG_CT, chest, patients
from medical.segment.components import components
from medical.segment.metrics import dice
from medical.segment.phantoms import measured
from medical.segment.thresholds import fixed, relative

SEEDS = range(12)


@pytest.fixture(scope="module")
def some():
    return [phantom(seed) for seed in SEEDS]


def arrays(pair):
    return [v.data[0].numpy() for v in (pair.pet, pair.ct, pair.mask)]


def best(image, mask, lows, widths):
    """Dice of the best window that somebody who knows the truth could choose."""
    return max(dice((image > a) & (image < a + w), mask) for a in lows for w in widths)


def test_numbers(some):
    for pair in some:
        pet, ct, mask = arrays(pair)
        assert pet.shape == (32, 32, 32)
        assert set(np.unique(mask)) == {0, 1}
        assert components(mask > 0)[1] == 1
        # spheres of 8 to 12 mm, one to three, in voxels of 64 mm3
        assert 4 / 3 * np.pi * 8**3 / 64 * 0.8 < mask.sum() < 3 * 4 / 3 * np.pi * 12**3 / 64
        assert ct.min() < -950
        assert ct.max() > 700
        assert pet.min() >= 0


def test_the_tumour_takes_up_and_is_dense(some):
    for pair in some:
        pet, ct, mask = arrays(pair)
        core = ndimage.binary_erosion(mask > 0)
        muscle = (ct > 0) & (ct < 60) & (pet > 0.5) & (pet < 1.5)
        # noise of 20 HU in at least 7 voxels; contrast of at least 30
        assert ct[core].mean() - ct[muscle].mean() > 10
        assert pet[core].mean() > 2


def test_thresholds_of_either_scan_are_far_from_the_mask(some):
    of_pet, of_ct, drawn = [], [], []
    for pair in some:
        pet, ct, mask = arrays(pair)
        mask = mask > 0
        drawn += [dice(fixed(pet), mask), dice(relative(pet), mask)]
        of_pet.append(best(pet, mask, np.arange(1, 10, 0.5), (2, 4, 20)))
        smooth = ndimage.gaussian_filter(ct, 0.7)
        of_ct.append(best(smooth, mask, range(40, 90, 5), (20, 40, 100)))
    assert max(drawn) < 0.1  # the brain is in it
    assert np.mean(of_pet) < 0.4
    assert np.mean(of_ct) < 0.4


def test_both_scans_show_the_tumour(some):
    """Uptake and density together, by a rule that anybody could write."""
    scores = []
    for pair in some:
        pet, ct, mask = arrays(pair)
        dense = ndimage.gaussian_filter(ct, 0.7) > 52
        soft = (ct > -100) & (ct < 150) & ~ndimage.binary_dilation(ct > 250, iterations=2)
        inside = np.arange(32) < 17  # below the brain
        both = ndimage.binary_opening((pet > 1.8) & dense & soft & inside)
        scores.append(dice(both, mask > 0))
    assert np.mean(scores) > 0.6


def test_the_same_seed_the_same_patient():
    a, b, c = phantom(3), phantom(3), phantom(4)
    assert torch.equal(a.pet.data, b.pet.data)
    assert torch.equal(a.ct.data, b.ct.data)
    assert not torch.equal(a.ct.data, c.ct.data)


def test_the_same_patient_on_a_finer_grid():
    a, b = phantom(3), phantom(3, size=64, spacing=2.0)
    assert b.mask is not None
    coarse, fine = (np.argwhere(arrays(p)[2] > 0) for p in (a, b))
    # a voxel in two is on the surface, rounded by chance: 5 % of about 100, and 1 / sqrt(100)
    assert 64 * len(coarse) == pytest.approx(8 * len(fine), rel=0.15)
    middles = [place(p.ct.affine, w.mean(0)) for p, w in ((a, coarse), (b, fine))]
    assert np.abs(middles[0] - middles[1]).max() < 0.1 * 4


def test_counts_and_blur():
    affine = np.diag([4.0, 4, 4, 1])
    rng = np.random.default_rng(0)
    flat = measured(np.ones((32, 32, 32)), affine, rng, counts=60)
    assert flat.mean() == pytest.approx(1, abs=5 / np.sqrt(60 * 32**3))
    assert flat.var() == pytest.approx(1 / 60, rel=0.05)
    point = np.zeros((41, 41, 41))
    point[20, 20, 20] = 1e6
    fine = measured(point, np.diag([1.0, 1, 1, 1]), rng, fwhm=6, counts=6400)
    profile = fine[:, 20, 20]
    half = np.interp(0.5, profile[20:][::-1] / profile[20], np.arange(21)[::-1])
    assert 2 * half == pytest.approx(6, abs=0.15)


def test_no_room():
    with pytest.raises(ValueError, match="no room"):
        phantom(0, size=8)
    with pytest.raises(ValueError, match="positive"):
        phantom(0, counts=0)


def test_no_chests(monkeypatch):
    monkeypatch.delenv(LUNG_CT, raising=False)
    assert patients() == ()
    with pytest.raises(FileNotFoundError, match=LUNG_CT):
        chest(0)


@pytest.mark.skipif(not os.environ.get(LUNG_CT), reason="the chests are not there")
def test_a_chest():
    pair = chest(1, patient="lung2")
    pet, ct, mask = arrays(pair)
    assert pet.shape == (32, 32, 32)
    inside = mask > 0
    assert inside.any()
    assert np.median(pet[inside]) > 2.5
    assert np.median(ct[inside]) > -200
    assert torch.equal(pair.pet.data, chest(1, patient="lung2").pet.data)
