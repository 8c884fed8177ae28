"""PET, CT and masks on one grid: where they land in the patient, and what is refused."""

import numpy as np
import pytest
import scans
import torch

from medical import Refusal, Volume
from medical.dicom import read
from medical.geometry import place
from medical.segment import Box, Intensity, Pair, head_neck_box, paired, to_grid
from medical.segment.intensity import mask_tensor, volume_of
from medical.segment.metrics import dice

CENTRE = np.array([12.0, -20.0, 105.0])
AFFINES = {  # of CTs with voxels of about 1 x 1 x 3 mm
    "straight": scans.affine_of((0.98, 0.98, 3.27)),
    "flipped": scans.affine_of((0.98, 0.98, 3.27), flips=(-1, -1, 1)),
    "head first": scans.affine_of((0.9, 1.1, 2.5), flips=(-1, 1, -1)),
    "oblique": scans.affine_of((0.98, 0.98, 3.27), turn=scans.rotation(25)),
    "oblique, flipped": scans.affine_of(
        (0.9, 0.9, 2.0), turn=scans.rotation(-40, (2, 1, 1)), flips=(1, -1, 1)
    ),
}
EXCHANGED = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])


def volume(affine, shape, value, units="1", centre=CENTRE, modality="OT"):
    """A volume whose middle is at a place, filled by a function of world coordinates."""
    affine = affine.copy()
    affine[:3, 3] += centre - place(affine, (np.array(shape) - 1) / 2)
    world = place(affine, np.stack(np.indices(shape), -1))
    data = torch.from_numpy(np.asarray(value(world), np.float32))[None]
    return Volume(data=data, affine=affine, units=units, modality=modality)


def ball(radius, at=CENTRE):
    return lambda world: np.linalg.norm(world - at, axis=-1) <= radius


def line(world):
    """Linear in space, so that linear interpolation of it is exact."""
    return 1.5 + (world - CENTRE) @ [0.01, -0.02, 0.013]


def ct_of(affine, shape=(60, 56, 20)):
    return volume(affine, shape, lambda w: 40 + 0 * w[..., 0], "HU", modality="CT")


def pet_of(value=line, shape=(30, 30, 24), affine=None, centre=CENTRE):
    affine = scans.affine_of((4, 4.1, 5), turn=scans.rotation(7)) if affine is None else affine
    return volume(affine, shape, value, "SUV", centre, "PT")


def centroid(mask):
    where = np.argwhere(mask.data[0].numpy() > 0.5)
    return place(mask.affine, where.mean(0))


@pytest.mark.parametrize("name", AFFINES)
def test_uptake_lies_where_it_was(name):
    ct = ct_of(AFFINES[name])
    pair = paired(pet_of(), ct)
    assert pair.ct is ct
    world = place(ct.affine, np.stack(np.indices(ct.grid), -1))
    assert pair.pet.data[0].numpy() == pytest.approx(line(world), abs=1e-5)


@pytest.mark.parametrize("name", AFFINES)
def test_axes_exchanged_change_nothing(name):
    ct = ct_of(AFFINES[name])
    other = Volume(data=ct.data.permute(0, 2, 3, 1), affine=ct.affine @ EXCHANGED, units="HU")
    box = Box(tuple(CENTRE), (40.0, 36.0, 32.0))
    a, b = (paired(pet_of(), scan, box=box, spacing=4) for scan in (ct, other))
    assert np.abs(a.pet.affine - b.pet.affine).max() < 1e-9
    assert (a.pet.data - b.pet.data).abs().max() < 1e-5


@pytest.mark.parametrize("spacing", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("name", AFFINES)
def test_masks_land_on_the_grid_of_the_ct(name, spacing):
    """Half a voxel is what is allowed, of the CT even where the working grid is coarser."""
    ct = ct_of(AFFINES[name])
    at = CENTRE + np.array([1.3, -2.2, 0.7])
    truth = volume(np.diag([0.5, 0.5, 0.5, 1.0]), (80, 80, 80), ball(15, at))
    pair = paired(pet_of(), ct, mask=truth, spacing=spacing, box=Box(tuple(CENTRE), (38, 38, 38)))
    assert pair.mask is not None
    back = to_grid(pair.mask, ct)
    assert back.grid == ct.grid
    off = np.linalg.inv(ct.affine)[:3, :3] @ (centroid(back) - at)
    assert np.abs(off).max() < 0.5
    # and the truth, sampled straight on the CT, is what it was
    direct = volume(ct.affine, tuple(ct.grid), ball(15, at))
    least = {1.0: 0.95, 2.0: 0.92, 4.0: 0.87}[spacing]  # of surfaces of half such a voxel
    assert dice(back.data[0].numpy(), direct.data[0].numpy()) > least


@pytest.mark.parametrize("name", AFFINES)
def test_there_and_back_from_a_millimetre(name):
    """Dice above 0.97 for a ball of 15 mm, though slices of a CT are 2 to 3 mm apart."""
    fine = volume(np.eye(4), (44, 44, 44), ball(15, CENTRE + np.array([0.4, 0.3, -0.2])))
    ct = ct_of(AFFINES[name])
    share = to_grid(to_grid(fine, ct, nearest=False), fine, nearest=False)
    assert dice(share.data[0].numpy() > 0.5, fine.data[0].numpy()) > 0.97
    rough = to_grid(to_grid(fine, ct), fine)
    assert np.abs(centroid(rough) - centroid(fine)).max() < 0.5


@pytest.mark.parametrize("factor", [2, 4])
def test_halves_are_not_rounded_to_one_side(factor):
    """A grid whose voxels lie exactly between those of a mask."""
    mask = volume(np.diag([4.0, 4, 4, 1]), (9, 9, 9), ball(9))
    fine = volume(np.diag([4 / factor] * 3 + [1.0]), (8 * factor + 1,) * 3, ball(0))
    assert centroid(to_grid(mask, fine)) == pytest.approx(CENTRE, abs=1e-6)


def test_a_coarser_grid_takes_means():
    """White noise of unit std, not sampled but averaged: less than a quarter of it is left."""
    noise = torch.randn(64, 64, 64, generator=torch.Generator().manual_seed(0))
    ct = ct_of(np.eye(4), (64, 64, 64))
    ct = ct.derive(40 + 100 * noise[None])
    coarse = paired(pet_of(), ct, spacing=4).ct.data
    assert coarse.mean() == pytest.approx(40, abs=2)
    assert coarse[:, 2:-2, 2:-2, 2:-2].std() < 25


def test_linear_interpolation_does_not_undershoot():
    hot = pet_of(lambda w: 20.0 * ball(8)(w))
    data = paired(hot, ct_of(np.eye(4)), seen=0).pet.data
    assert 0 <= float(data.min()) <= float(data.max()) <= 20


def test_a_box_without_spacing_is_cut_out_exactly():
    ct = ct_of(AFFINES["oblique, flipped"])
    ct = ct.derive(torch.randn(ct.data.shape, generator=torch.Generator().manual_seed(0)))
    pair = paired(pet_of(), ct, box=Box(tuple(CENTRE), (18.0, 18.0, 20.0)))
    upright = ct.reoriented("RAS")
    first = np.linalg.inv(upright.affine) @ pair.ct.affine[:, 3]
    i, j, k = np.rint(first[:3]).astype(int)
    a, b, c = pair.ct.grid
    assert tuple(pair.ct.grid) == (20, 20, 10)
    same = upright.data[:, i : i + a, j : j + b, k : k + c]
    assert (pair.ct.data - same).abs().max() < 1e-4


def test_what_a_scan_has_not_seen_is_refused_or_marked():
    ct = ct_of(np.eye(4), (60, 56, 40))
    short = pet_of(affine=np.diag([4.0, 4, 4, 1]), shape=(20, 20, 5))  # half as long as the CT
    with pytest.raises(Refusal, match=r"50 % of the body.*the PET.*E_FIELD_OF_VIEW"):
        paired(short, ct)
    pair = paired(short, ct, seen=0.4)
    assert pair.pet.valid is not None
    assert pair.pet.valid.float().mean() == pytest.approx(0.5)
    assert float(pair.pet.data[0][~pair.pet.valid].abs().max()) == 0
    assert pair.pet.notes[-1].startswith("67200 of 134400")
    with pytest.raises(Refusal, match="E_NO_OVERLAP"):
        paired(pet_of(centre=CENTRE + 500), ct, seen=0)
    with pytest.raises(Refusal, match=r"the CT.*E_FIELD_OF_VIEW"):
        paired(pet_of(), ct, spacing=4, box=Box(tuple(CENTRE), (60, 56, 100)))


@pytest.mark.parametrize(
    ("pet", "ct", "code"),
    [
        ({"units": "Bq/ml"}, {}, "E_PET_UNITS"),
        ({"units": "a.u."}, {}, "E_PET_UNITS"),  # counts
        ({"units": "SUVlbm"}, {}, "E_PET_UNITS"),
        ({}, {"units": "a.u."}, "E_CT_UNITS"),
    ],
)
def test_other_numbers_are_refused(pet, ct, code):
    a, b = pet_of(), ct_of(np.eye(4))
    with pytest.raises(Refusal) as caught:
        paired(a.derive(a.data, **pet), b.derive(b.data, **ct))
    assert caught.value.code == code


def test_masks_of_several_labels_are_refused():
    mask = volume(np.eye(4), (40, 40, 40), lambda w: 2.0 * ball(9)(w))
    with pytest.raises(Refusal, match="E_MASK_VALUES"):
        paired(pet_of(), ct_of(np.eye(4)), mask=mask)


def test_a_pair_of_two_grids_is_refused():
    with pytest.raises(Refusal, match="E_GRID_MISMATCH"):
        Pair(pet=pet_of(), ct=ct_of(np.eye(4)))


def study(tmp_path, edit):
    affine = scans.affine_of((2, 2, 2.5))
    scans.ct_series(tmp_path / "ct", np.full((12, 12, 6), 40.0), affine)
    scans.pet_series(tmp_path / "pet", None, affine, edit=edit, series=2)
    return read(tmp_path / "pet", suv=True), read(tmp_path / "ct")


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("PatientID", "Somebody", "E_OTHER_PATIENT"),
        ("PatientBirthDate", "19601224", "E_OTHER_PATIENT"),
        ("FrameOfReferenceUID", "1.2.3.4", "E_FRAME_OF_REFERENCE"),
    ],
)
def test_scans_that_do_not_belong_together(tmp_path, keyword, value, code):
    pet, ct = study(tmp_path, lambda image, k: setattr(image, keyword, value))
    with pytest.raises(Refusal) as caught:
        paired(pet, ct, seen=0)
    assert caught.value.code == code
    assert scans.SECRET not in str(caught.value)
    assert value not in str(caught.value)
    if code == "E_FRAME_OF_REFERENCE":
        assert paired(pet, ct, seen=0, registered=True).ct is ct
    else:
        with pytest.raises(Refusal):
            paired(pet, ct, seen=0, registered=True)


def test_scans_of_one_study_go_together(tmp_path):
    pet, ct = study(tmp_path, None)
    pair = paired(pet, ct, seen=0)
    mask = to_grid(pair.pet, ct)
    assert mask.source is ct.source  # so that a DICOM Segmentation can be derived


def patient(affine, shape):
    """A brain of 8 SUV in a body of 1, its lowest point at z = 250, a bladder below."""
    brain = ((0.0, -10.0, 300.0), (65.0, 80.0, 50.0))

    def value(world):
        inside = (((world - brain[0]) / brain[1]) ** 2).sum(-1) <= 1
        bladder = np.linalg.norm(world - [0, 0, -250], axis=-1) < 50
        return np.where(inside, 8.0, np.where(bladder, 40.0, 1.0))

    return volume(affine, shape, value, "SUV", np.array([0.0, 0.0, 0.0]), "PT")


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_the_box_lies_below_the_brain(flips):
    box = head_neck_box(patient(scans.affine_of((5, 5, 5), flips=flips), (60, 60, 150)))
    # from 114 mm below to 30 above the lowest voxel of the brain, 30 mm before its middle
    expected = [0, 20, 250 + 30 - 72]
    # smoothing moves the edge of 3 SUV outward by less than its width
    assert np.abs(np.array(box.centre) - expected)[:2].max() < 5
    assert -15 < box.centre[2] - expected[2] < 5
    assert box.size == (144, 144, 144)


def test_no_brain_no_box():
    legs = pet_of(lambda w: 1 + 0 * w[..., 0])
    with pytest.raises(Refusal, match="E_NO_BRAIN"):
        head_neck_box(legs)


@pytest.mark.parametrize("name", AFFINES)
def test_tensors_and_volumes(name):
    ct = ct_of(AFFINES[name])
    mask = volume(ct.affine, tuple(ct.grid), ball(9, CENTRE + np.array([5, 3, -4])))
    pair = paired(pet_of(lambda w: 30.0 * ball(9)(w)), ct, mask=mask)
    x = Intensity().tensor(pair)
    assert x.shape[:2] == (1, 2)
    assert x[0, 0].max() == 1
    assert x[0, 0].min() == -1
    assert x[0, 1].unique().tolist() == pytest.approx([2 * 240 / 500 - 1])
    back = volume_of(mask_tensor(pair), pair)
    assert pair.mask is not None
    assert (back.data == pair.mask.data).all()
    assert (back.affine == pair.ct.affine).all()


def test_ranges_are_kept_for_the_card():
    wide = Intensity(suv=(0, 25), hu=(-1024, 1024))
    assert wide.constants() == {"channels": ("PET", "CT"), "suv": (0, 25), "hu": (-1024, 1024)}
    with pytest.raises(ValueError, match="hu"):
        Intensity(hu=(300, -200))
