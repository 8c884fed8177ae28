"""Maps between physical units and the range of a prior: lines, undone to the last digits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medical import Refusal, Volume, phantoms
from medical.intensity import (
    IntensityMap,
    ct,
    for_volume,
    hounsfield_hint,
    looks_like_hounsfield,
    magnitude,
    suv,
)
from priors.denoiser import Card

EPS = 2.0**-24  # half a unit in the last place of a float32


def volume(values, **attributes):
    data = torch.as_tensor(values, dtype=torch.float32)
    data = data.reshape(-1, *data.shape[-3:]) if data.ndim > 2 else data.reshape(1, -1, 1, 1)
    return Volume(data=data, affine=np.eye(4), **attributes)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_ct_is_hounsfield_plus_1000_over_3000():
    hounsfield = torch.arange(-3024, 32768, dtype=torch.float32)
    exact = (hounsfield.double() + 1000) / 3000
    error = (ct().forward(hounsfield).double() - exact).abs()
    # slope, intercept, product and sum are rounded once each
    assert (error <= EPS * (2 * hounsfield.abs() / 3000 + 1 / 3 + exact.abs())).all()
    assert ct().forward(torch.tensor([-1000.0, 2000.0])).tolist() == pytest.approx([0, 1], abs=1e-6)


def test_whole_hounsfield_units_come_back_whole():
    hounsfield = torch.arange(-32768, 32768, dtype=torch.float32)
    assert torch.equal(ct().inverse(ct().forward(hounsfield)).round(), hounsfield)


@settings(max_examples=50, deadline=None)
@given(
    slope=st.floats(1e-6, 1e3),
    intercept=st.floats(-10, 10),
    x=st.lists(st.floats(-40000, 40000, width=32), min_size=1),
)
def test_there_and_back_errs_as_little_as_stated(slope, intercept, x):
    line, x = IntensityMap(slope=slope, intercept=intercept), torch.tensor(x)
    back = line.inverse(line.forward(x))
    bound = EPS * (5 * x.double().abs() + abs(intercept) / slope)
    # 1 % for products of roundings; 1e-37 / slope where numbers are too small for full precision
    assert ((back.double() - x.double()).abs() <= 1.01 * bound + 1e-37 / slope).all()


def test_spread_is_scaled_and_nothing_is_changed_or_clipped():
    line = IntensityMap(slope=0.01, intercept=0.3)
    x = 1e4 * normal(50_000)
    before = x.clone()
    u = line.forward(x)
    v = u.clone()
    line.inverse(u)
    assert torch.equal(x, before)
    assert torch.equal(u, v)
    assert line.scale_std(u.std()).item() == pytest.approx(x.std().item(), rel=1e-5)
    assert line.scale_std(torch.zeros(1)).item() == 0
    assert u.min() < -100 < 100 < u.max()


def test_magnitudes_share_one_scale_for_all_slices_and_channels():
    data = normal(2, 8, 16, 16)
    line = magnitude(volume(data))
    sizes = line.forward(data).norm(dim=0)
    assert np.quantile(sizes.numpy(), 0.995) == pytest.approx(0.9, rel=1e-5)
    assert line.intercept == 0
    single = magnitude(volume(data[:1].abs()), quantile=1, to=1)
    assert single.forward(data[:1].abs()).max().item() == pytest.approx(1, rel=1e-6)


def test_magnitudes_are_of_what_was_measured():
    data = torch.ones(1, 4, 4, 4)
    data[0, 0] = 1000
    valid = torch.ones(4, 4, 4, dtype=torch.bool)
    valid[0] = False
    assert magnitude(volume(data, valid=valid)).slope == pytest.approx(0.9)


def test_a_scan_without_magnitudes_is_refused():
    data = torch.zeros(1, 10, 10, 10)
    data[0, 0, 0, 0] = 1
    with pytest.raises(Refusal, match="E_INTENSITY"):
        magnitude(volume(data))
    for wrong in ({"quantile": 0}, {"quantile": 1.5}, {"to": 0}):
        with pytest.raises(ValueError, match="quantile"):
            magnitude(volume(data), **wrong)


@pytest.mark.parametrize(
    ("attributes", "prior", "name"),
    [
        ({"units": "HU", "modality": "CT"}, "ct", ct().name),
        ({"units": "HU", "modality": "CT"}, "natural", ct().name),
        ({"units": "SUV", "modality": "PT"}, "natural", suv().name),
        ({"modality": "MR"}, "mr", "x *"),
        ({"modality": "OT"}, "mr", "x *"),
        ({"modality": "US"}, "natural", "x *"),
    ],
)
def test_the_map_follows_the_units(attributes, prior, name):
    data = normal(1, 4, 4, 4) * 100
    assert name in for_volume(volume(data, **attributes), Card(name=prior)).name


@pytest.mark.parametrize(
    ("attributes", "prior"),
    [
        ({"modality": "MR"}, "ct"),
        ({"modality": "OT"}, "ct"),
        ({"units": "a.u.", "modality": "CT"}, "ct"),
        ({"units": "HU", "modality": "CT"}, "mr"),
        ({"units": "SUV", "modality": "PT"}, "mr"),
    ],
)
def test_a_prior_of_another_kind_of_scan_is_refused(attributes, prior):
    with pytest.raises(Refusal, match="E_INTENSITY"):
        for_volume(volume(normal(1, 4, 4, 4), **attributes), Card(name=prior))


def test_the_range_of_the_prior_is_reached():
    line = for_volume(
        volume(normal(1, 4, 4, 4), units="HU"), Card(name="any", value_range=(-1.0, 1.0))
    )
    ends = line.forward(torch.tensor([-1000.0, 2000.0]))
    assert ends.tolist() == pytest.approx([-1, 1], abs=1e-6)


def test_stored_numbers_are_no_hounsfield_units():
    stored = 1024 + 10 * normal(1, 4, 4, 4)
    with pytest.raises(Refusal, match="E_HU_RANGE"):
        for_volume(volume(stored, units="HU"), Card(name="ct"))
    bone = torch.tensor([[[[-50.0, 900, 1000, 1100]]]])
    assert for_volume(volume(bone, units="HU"), Card(name="ct")) == ct()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([-1000, 0, 3000], ""),
        ([-2000, 0, 3000], "padding"),
        ([-1000, 0, 40000], "padding"),
        ([0, 24, 3000], "rescale"),
    ],
)
def test_odd_hounsfield_units_are_hinted_at(values, word):
    hint = hounsfield_hint(volume(torch.tensor(values)))
    assert (word in hint) if word else hint == ""
    valid = torch.tensor([False, True, True]).reshape(3, 1, 1)
    padded = volume(torch.tensor([-3024.0, -900, 30]), valid=valid)
    assert hounsfield_hint(padded) == ""


def test_hounsfield_units_are_recognised():
    head = phantoms.head((24, 24, 24))
    assert looks_like_hounsfield(head.data)
    assert not looks_like_hounsfield(head.data + 1024)
    assert not looks_like_hounsfield(phantoms.head((24, 24, 24), modality="MR").data)
    assert not looks_like_hounsfield(normal(10_000))


@pytest.mark.parametrize(("slope", "intercept"), [(0, 0), (-1, 0), (np.nan, 0), (1, np.inf)])
def test_a_map_that_cannot_be_undone_is_refused(slope, intercept):
    with pytest.raises(ValueError, match="slope"):
        IntensityMap(slope=slope, intercept=intercept)
