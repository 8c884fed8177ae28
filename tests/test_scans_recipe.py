"""The corpus of scans: reading, ranges, the split by patient, patches, and synthetic heads."""

import gzip
import io
import plistlib
import tarfile

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

import priors
from priors.networks import Handover
from priors.recipes import heads, medical, scan_files, scans, voxels
from priors.recipes.ellipses import ellipses
from priors.recipes.scan_patches import ScanPatches, curve, re_exposed, smooth_phase

VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# -- reading -----------------------------------------------------------------------------------


def write_dicom(path):
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 5, 6, 4
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
    dataset.PixelData = VOLUME.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return 2.0 * VOLUME - 1024


def write_nifti(path):
    nibabel.save(nibabel.Nifti1Image(np.stack([VOLUME, -VOLUME], -1), np.eye(4)), path)
    return VOLUME


def write_nrrd(path):
    nrrd.write(str(path), VOLUME)
    return VOLUME


def write_invesalius(path):
    about = plistlib.dumps({"matrix": {"shape": list(VOLUME.shape), "dtype": "int16"}})
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (("main.plist", about), ("matrix.dat", VOLUME.tobytes())):
            member = tarfile.TarInfo(f"tmp1/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return VOLUME


def write_density(path):
    header = bytearray(62)
    header[50:56] = np.array([6, 5, 4], "<u2").tobytes()
    path.write_bytes(bytes(header) + VOLUME.astype(np.uint8).tobytes())
    return VOLUME


def write_numpy(path):
    np.save(path, VOLUME)
    return VOLUME


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.dcm", write_dicom),
        ("a.nii.gz", write_nifti),
        ("a.nrrd", write_nrrd),
        ("a.inv3", write_invesalius),
        ("a.den", write_density),
        ("a.npy", write_numpy),
    ],
)
def test_every_format_gives_its_voxels(tmp_path, name, write):
    expected = write(tmp_path / name)
    found = scan_files.read(tmp_path / name)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_a_single_slice_becomes_a_stack_of_one(tmp_path):
    raw = np.arange(256 * 256).astype(">u2")
    (tmp_path / "a.ima.gz").write_bytes(gzip.compress(raw.tobytes()))
    found = scan_files.read(tmp_path / "a.ima.gz")
    assert found.shape == (1, 256, 256)
    np.testing.assert_array_equal(found.ravel(), raw.astype(np.float32))


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^'a\.mha' ends in none of \.dcm, .*convert it\.$"):
        scan_files.read(tmp_path / "a.mha")


# -- ranges and slices -------------------------------------------------------------------------


def test_hounsfield_units_are_mapped_by_a_line_and_never_clipped():
    hu = np.array([-1024, -1000, 0, 2000, 20000], np.float32)
    np.testing.assert_allclose(scans.ct_range(hu), (hu + 1000) / 3000, atol=1e-6)
    assert scans.ct_range(np.array([-3024.0], np.float32)) == 0  # padding: air


def test_mr_scans_have_one_scale_each():
    scan = np.random.default_rng(0).exponential(70, (6, 40, 50)).astype(np.float32)
    found = scans.mr_range(scan)
    assert np.percentile(found, 99.5) == pytest.approx(0.9, abs=1e-5)
    np.testing.assert_allclose(scans.mr_range(400 * scan), found, rtol=1e-5)
    with pytest.raises(ValueError, match=r"positive 99\.5th percentile, found 0; leave it out"):
        scans.mr_range(0 * scan)


def test_tiles_undo_a_mosaic():
    tiles = np.random.default_rng(0).random((6, 4, 5)).astype(np.float32)
    mosaic = np.block([[tiles[0], tiles[1], tiles[2]], [tiles[3], tiles[4], tiles[5]]])
    np.testing.assert_array_equal(scans.tiles(mosaic, 2, 3), tiles)


def test_slices_leave_out_the_empty_and_mirror_the_narrow():
    volume = np.zeros((70, 80, 50), np.float32)
    volume[:, 10:14, :] = 0.5
    found = scans.slices(volume, 1, "ct")
    assert found.shape == (4, 70, 64)
    assert (found == 0.5).all()
    ramp = np.broadcast_to(np.linspace(0.5, 1, 50, dtype=np.float32), (3, 70, 50))
    mirrored = scans.slices(ramp, 0, "mr")
    np.testing.assert_array_equal(mirrored[..., 50:], mirrored[..., 49:35:-1])


# -- the catalogue and the split ---------------------------------------------------------------


def test_no_patient_is_in_training_and_held_out():
    entries, digest = scans.catalogue()
    assert len(digest) == 64
    assert len({e["id"] for e in entries}) == len(entries)
    for modality in ("ct", "mr"):
        roles = {
            role: {e["patient"] for e in entries if (e["modality"], e["role"]) == (modality, role)}
            for role in ("train", "held-out")
        }
        assert len(roles["held-out"]) == 1
        assert not roles["train"] & roles["held-out"]


def test_every_entry_says_where_it_is_from_and_on_what_terms():
    for entry in scans.catalogue()[0]:
        for key in ("package", "version", "licence", "anatomy", "file"):
            assert entry[key], (entry["id"], key)
        if entry["role"] == "train":
            low, high = entry["reduce"]
            assert 1 <= low <= high
            assert entry["share"] > 0


@pytest.fixture
def small_catalogue(tmp_path, monkeypatch):
    """Two patients of 70 x 70 pixels: `lung1` of zeros and ones, held-out `head` of nines."""
    entries = [
        {"id": "lung1", "role": "train", "file": "a.npy", "share": 1.0, "reduce": [1, 1]},
        {"id": "head", "role": "held-out", "file": "b.npy"},
    ]
    for entry in entries:
        entry |= {"modality": "ct", "package": "box", "version": "1", "axes": [0]}
    (tmp_path / "box").mkdir()
    np.save(tmp_path / "box" / "a.npy", np.full((2, 70, 70), 2000.0))
    np.save(tmp_path / "box" / "b.npy", np.full((3, 70, 70), 26000.0))
    monkeypatch.setattr(scans, "catalogue", lambda: (entries, ""))
    monkeypatch.setattr(medical, "catalogue", lambda: (entries, ""))
    return tmp_path


def test_building_is_deterministic_and_keeps_roles_apart(small_catalogue):
    corpus, digest = scans.build(small_catalogue)
    assert set(corpus) == {"ct/train/lung1/0", "ct/held-out/head/0"}
    assert corpus["ct/held-out/head/0"].shape == (3, 70, 70)
    assert float(corpus["ct/held-out/head/0"].min()) == 9  # 26000 HU
    assert scans.build(small_catalogue)[1] == digest
    np.save(small_catalogue / "box" / "a.npy", np.full((2, 70, 70), 2001.0))
    assert scans.build(small_catalogue)[1] != digest


def test_a_missing_scan_is_named(small_catalogue):
    (small_catalogue / "box" / "b.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"^scan 'head' is not at .*unpack box 1 there\.$"):
        scans.build(small_catalogue)


def test_training_never_draws_the_held_out(small_catalogue):
    path = small_catalogue / "scans.npz"
    scans.save(scans.build(small_catalogue)[0], path)
    source = medical.scan_patches([path], "ct", size=64, batch=50)
    assert source(seeded()).unique().tolist() == [1.0]
    assert [*medical.load_stacks([path], "ct", "held-out")] == ["head"]


# -- patches -----------------------------------------------------------------------------------


def source(values, *, modality="ct", shares=None, reduce=(1.0, 1.0), batch=16):
    """Patients of constant or given slices."""
    stacks = {
        name: [v if isinstance(v, torch.Tensor) else torch.full((2, 80, 90), v).half()]
        for name, v in values.items()
    }
    shares = shares or dict.fromkeys(values, 1.0)
    factors: dict[str, tuple[float, float]] = {name: reduce for name in values}
    return ScanPatches(stacks, shares, factors, modality=modality, batch=batch)


def test_patients_are_drawn_by_their_shares():
    """However many slices they have: the count is binomial, five standard deviations around."""
    many, one = torch.full((50, 80, 90), 0.75).half(), torch.full((1, 80, 90), 0.25).half()
    drawn = source({"a": many, "b": one}, shares={"a": 1.0, "b": 3.0}, batch=800)(seeded())
    assert drawn.shape == (800, 1, 64, 64)
    count = int((drawn[:, 0, 0, 0] == 0.25).sum())
    assert abs(count - 600) < 5 * (800 * 0.25 * 0.75) ** 0.5


def test_ct_values_are_left_alone():
    scan = torch.linspace(0, 1.2, 80 * 90).reshape(1, 80, 90).half()
    draw = source({"a": scan})
    patches = draw(seeded())
    assert set(patches.unique().tolist()) <= set(scan.float().unique().tolist())
    assert torch.equal(draw(seeded()), patches)
    assert not torch.equal(draw(seeded(1)), patches)


def test_shrunk_crops_keep_the_mean():
    """A ramp stays a ramp, steeper by the factor."""
    ramp = (torch.arange(160.0) / 256).expand(1, 160, 160).half()
    patches = source({"a": ramp}, reduce=(2.0, 2.0))(seeded())
    step = torch.maximum(
        patches.diff(dim=2).abs().mean((1, 2, 3)), patches.diff(dim=3).abs().mean((1, 2, 3))
    )
    torch.testing.assert_close(step, torch.full_like(step, 2 / 256), rtol=0.02, atol=0)


def test_half_of_the_mr_patches_are_signed():
    """Magnitudes are positive; a phase over the circle makes some pixels negative."""
    scan = 0.5 + 0.3 * torch.rand((1, 80, 90), generator=seeded()).half()
    patches = source({"a": scan}, modality="mr", batch=300)(seeded())
    plain = source({"a": scan}, modality="mr").plain(300, seeded())
    for drawn in (patches, plain):
        negative = float((drawn.flatten(1).min(1).values < 0).float().mean())
        # a half have a phase; a constant one, 3 of 10, is negative half of the time, a ramp at
        # least as often; five standard deviations of a share of 300
        assert 0.25 - 0.13 < negative < 0.5 + 0.14
        assert float(drawn.abs().max()) < 2.5


def test_phases_are_smooth_and_of_every_direction():
    drawn = [smooth_phase(64, seeded(i)) for i in range(200)]
    steps = max(float(p.diff(dim=d).abs().max()) for p in drawn for d in (0, 1))
    assert 0.05 < steps < (torch.pi + 3) * 2 / 63  # the steepest ramp with the strongest curvature
    starts = torch.stack([p[0, 0] for p in drawn])
    assert abs(float(starts.cos().mean())) < 5 * (0.5 / 200) ** 0.5
    assert abs(float(starts.sin().mean())) < 5 * (0.5 / 200) ** 0.5


def test_air_stays_dark_whatever_the_exposure():
    patch = torch.rand((1, 64, 64), generator=seeded())
    patch[0, :32] = 0
    for i in range(40):
        assert float(re_exposed(patch, seeded(i))[0, :32].abs().max()) == 0
    heights = torch.tensor([0.2, 0.9, 0.1, 0.5, 0.3])
    knots = torch.linspace(0, 1.2, 6)
    torch.testing.assert_close(curve(knots, heights), torch.tensor([0.0, *heights.tolist()]))
    torch.testing.assert_close(curve(torch.tensor([0.12]), heights), torch.tensor([0.1]))


def test_patches_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="every patient needs a share and factors"):
        source({"a": 0.5}, shares={"b": 1.0})
    with pytest.raises(ValueError, match=r"patient 'a' has slices of .*expected both sides >= 64"):
        source({"a": torch.zeros(1, 60, 70)})


# -- synthetic heads ---------------------------------------------------------------------------


def round_head():
    """A brain of radius 20 with grey and white matter in a head of radius 32, on 70^3 voxels."""
    axes = np.ogrid[-35:35, -35:35, -35:35]
    radius = np.sqrt(sum(a.astype(np.float32) ** 2 for a in axes))
    t1 = np.select([radius < 15, radius < 20, radius < 27, radius < 32], [1.0, 0.65, 0.1, 0.9], 0.0)
    return heads.Anatomy(t1.astype(np.float32), (radius < 20).astype(np.float32), face=True), radius


def test_depth_is_the_distance_to_the_surface():
    anatomy, radius = round_head()
    near = abs(radius - 20) < 10
    error = (voxels.depth_in(anatomy.brain) - (20 - radius))[near]
    # half-resolution voxels are two wide: the surface is known to one of them, on average to half
    assert np.abs(error).max() < 2
    assert np.abs(error).mean() < 1


def test_fields_are_smooth_and_of_unit_variance():
    rough, smooth = (
        voxels.field((64, 64, 64), scale, np.random.default_rng(0)) for scale in (3, 20)
    )
    # between its knots a linear interpolation has down to (2/3)^3 of the variance; knots scatter
    for drawn in (rough, smooth):
        assert 0.4 < drawn.std() < 1.3
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.4 * np.abs(np.diff(rough, axis=0)).mean()


def test_a_head_has_air_skin_skull_and_brain_and_is_reproducible():
    anatomy, radius = round_head()
    hu, again = (heads.pseudo_ct(anatomy, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(hu, again)
    above = np.broadcast_to(np.arange(70)[None, None] > 45, hu.shape)  # away from the made-up face
    assert np.isfinite(hu).all()
    assert -1001 < hu.min()
    assert hu.max() < 3500
    assert -1000 <= np.median(hu[above & (radius > 35)]) < -990
    assert 15 < np.median(hu[above & (radius < 15)]) < 60
    assert np.median(hu[above & (radius > 24) & (radius < 25)]) > 300
    assert -200 < np.median(hu[above & (radius > 29.5) & (radius < 30.5)]) < 150


def test_heads_are_warped_by_chance_and_reproducibly():
    anatomy, _ = round_head()
    first, again, other = (heads.warped(anatomy, np.random.default_rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.t1, again.t1)
    assert np.abs(first.t1 - other.t1).mean() > 0.01
    assert 0.5 < first.brain.sum() / anatomy.brain.sum() < 1.5


def test_an_invented_head_surrounds_the_skull():
    anatomy, radius = round_head()
    hidden = heads.Anatomy(np.where(radius < 20, anatomy.t1, 0), anatomy.brain, face=False)
    hu = heads.pseudo_ct(hidden, np.random.default_rng(0))
    assert (hu > 300).any()
    assert 15 < np.median(hu[radius < 15]) < 60


def test_slices_are_chosen_along_every_axis():
    volume = np.full((70, 80, 90), 0.3, np.float32)
    picked = heads.chosen(volume, np.random.default_rng(0))
    assert [p.shape for p in picked] == [(14, 80, 90), (14, 70, 90), (26, 70, 80)]


def test_ellipses_lie_in_the_range_and_vary():
    drawn = torch.stack([ellipses(64, seeded(i)) for i in range(8)])
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1
    assert torch.equal(drawn[0], ellipses(64, seeded(0)))
    assert float(drawn.std(0).mean()) > 0.02
    assert all(len(picture.unique()) > 5 for picture in drawn)


# -- training starts from photographs ----------------------------------------------------------


def test_training_starts_as_the_prior_of_photographs():
    network = medical.start("ct").eval()
    assert network.card.name == "ct"
    x = torch.rand((1, 1, 32, 40), generator=seeded())
    parent = priors.load("natural-gray")
    assert isinstance(parent, Handover)
    with torch.no_grad():
        assert torch.equal(network(x, 0.1), parent.network(x, 0.1))
