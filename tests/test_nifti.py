"""NIfTI files are read as nibabel reads them, or refused; what is written comes back exactly."""

import gzip
import time
import tracemalloc
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from nifti_files import AFFINE, nifti, numbers, packed

from medical import Refusal, Volume, geometry
from medical.nifti import NiftiSource, read, write
from restore.files import check_free

BUNDLED = Path(nibabel.__file__).parent / "tests" / "data"
ORIENTATIONS = ["".join(c) for axes in permutations(("RL", "AP", "SI")) for c in product(*axes)]


def saved(path, content):
    path.write_bytes(content)
    return path


def refused(code, function, *arguments, **options):
    with pytest.raises(Refusal) as caught:
        function(*arguments, **options)
    assert caught.value.code == code, caught.value
    return str(caught.value)


def rotated(seed, spacing=(0.7, 1.1, 2.3), origin=(-90.5, 120.25, 33.3)):
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0] * spacing
    affine[:3, 3] = origin
    return affine


def volume(data, **attributes):
    data = torch.as_tensor(np.asarray(data, dtype=np.float32))
    return Volume(**{"data": data[None] if data.ndim == 3 else data, "affine": AFFINE} | attributes)


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("anatomical.nii", None),  # big-endian
        ("functional.nii", 7),  # a series with slope and intercept
        ("example4d.nii.gz", 1),
        ("example_nifti2.nii.gz", 0),
        ("standard.nii.gz", None),  # sform only
        ("reoriented_anat_moved.nii", None),
    ],
)
def test_real_files_are_read_as_nibabel_reads_them(name, frame):
    image = nibabel.load(BUNDLED / name)
    values = np.asarray(image.dataobj, dtype=np.float64)
    found = read(BUNDLED / name, frame=frame)
    np.testing.assert_array_equal(found.affine, image.affine)
    expected = (values if frame is None else values[..., frame]).astype(np.float32)
    np.testing.assert_array_equal(found.data[0].numpy(), expected)
    assert (found.units, found.modality) == ("a.u.", "OT")


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i2", "<i4", ">u4", "<i8", ">f4", "<f8"])
@pytest.mark.parametrize("version", [1, 2])
def test_all_types_and_byte_orders(tmp_path, dtype, version):
    data = numbers(dtype=dtype)
    found = read(saved(tmp_path / "a.nii", nifti(data, version=version)))
    np.testing.assert_array_equal(found.data[0].numpy(), data.astype(np.float32))
    assert isinstance(found.source, NiftiSource)
    assert (found.source.dtype.itemsize, found.source.version) == (data.itemsize, version)


def test_packed_files_are_told_by_their_bytes(tmp_path):
    for name in ("a.nii", "a.nii.gz", "a"):
        found = read(saved(tmp_path / name, packed(nifti(offset=1000))))
        np.testing.assert_array_equal(found.data[0].numpy(), numbers())


@pytest.mark.parametrize("asked", ["a.hdr", "a.img"])
@pytest.mark.parametrize("zipped", [False, True])
def test_pairs_are_read_from_either_file(tmp_path, asked, zipped):
    for name, content in zip(("a.hdr", "a.img"), nifti(pair=True), strict=True):
        saved(tmp_path / (name + ".gz" * zipped), packed(content) if zipped else content)
    found = read(tmp_path / (asked + ".gz" * zipped))
    np.testing.assert_array_equal(found.data[0].numpy(), numbers())


def test_half_of_a_pair_is_refused(tmp_path):
    header, voxels = nifti(pair=True)
    refused("E_NIFTI_PAIR", read, saved(tmp_path / "a.hdr", header))
    with pytest.raises(FileNotFoundError):
        read(saved(tmp_path / "b.img", voxels))


def test_series_need_a_frame_and_vectors_become_channels(tmp_path):
    data = numbers((3, 4, 5, 2, 3))
    path = saved(tmp_path / "a.nii.gz", packed(nifti(data)))
    assert "frame=0 to 1" in refused("E_NIFTI_4D", read, path)
    for frame in (0, 1):
        expected = np.moveaxis(data[..., frame, :], -1, 0)
        np.testing.assert_array_equal(read(path, frame=frame).data.numpy(), expected)
    for frame in (-1, 2):
        refused("E_NIFTI_FRAME", read, path, frame=frame)
    single = saved(tmp_path / "b.nii", nifti(numbers((3, 4, 5, 1))))
    assert read(single).data.shape == read(single, frame=0).data.shape == (1, 3, 4, 5)


def test_complex_numbers_become_two_channels_and_numbers_again(tmp_path):
    data = (numbers() - 7j * numbers()[::-1]).astype(np.complex64)
    found = read(saved(tmp_path / "a.nii", nifti(data)))
    np.testing.assert_array_equal(found.data.numpy(), [data.real, data.imag])
    write(found, tmp_path / "b.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii").dataobj, data)


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 1e-3)])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_units_of_length(tmp_path, code, factor, form):
    other = {"qform": "sform", "sform": "qform"}[form]
    found = read(saved(tmp_path / "a.nii", nifti(xyzt_units=code + 8, **{other: None})))
    np.testing.assert_allclose(found.affine[:3], factor * AFFINE[:3], rtol=1e-6, atol=1e-9)


def test_mirrored_quaternions(tmp_path):
    for flip in ([1, 1, 1], [-1, 1, 1], [1, 1, -1]):  # qfac is the sign of the determinant
        affine = rotated(3) @ np.diag([*flip, 1])
        found = read(saved(tmp_path / "a.nii", nifti(sform=None, qform=affine)))
        np.testing.assert_allclose(found.affine, affine, atol=1e-4)


def test_modality_and_units_are_what_the_caller_says(tmp_path):
    head = np.full((8, 8, 8), -1000, "<i2")
    head[2:6, 2:6, 2:6] = 40
    path = saved(tmp_path / "a.nii", nifti(head))
    assert "Hounsfield" in read(path).notes[0]
    found = read(path, modality="CT")
    assert (found.modality, found.units, found.notes) == ("CT", "HU", ())
    assert read(path, modality="PT", units="SUV").units == "SUV"


def test_whole_numbers_that_float32_rounds_are_noted(tmp_path):
    data = numbers(dtype="<i4")
    assert read(saved(tmp_path / "a.nii", nifti(data))).notes == ()
    data[0, 0, 0] = 2**24 + 1
    assert "rounded" in read(saved(tmp_path / "b.nii", nifti(data))).notes[0]


# --- refusals ------------------------------------------------------------------------------------

TURNED = AFFINE @ np.array([[1, -0.01, 0, 0], [0.01, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
SHEARED = AFFINE @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
NAN = AFFINE * np.array([[np.nan], [1], [1], [1]])


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("E_NIFTI_MAGIC", b"nothing of the kind" * 40),
        ("E_NIFTI_TRUNCATED", b""),
        ("E_NIFTI_MAGIC", nifti(magic=b"n+3")),
        ("E_NIFTI_MAGIC", nifti(magic=b"")),  # Analyze
        (
            "E_NIFTI_MAGIC",
            nifti(version=2, eol_check=[13, 13, 10, 26]),
        ),  # its line ends were "mended"
        ("E_NIFTI_NO_ORIENTATION", nifti(sform=None, qform=None)),
        ("E_NIFTI_CONFLICT", nifti(qform=TURNED)),
        ("E_NIFTI_CONFLICT", nifti(qform=AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 0.3)),
        ("E_NIFTI_CONFLICT", nifti(qform=AFFINE @ np.diag([1.01, 1, 1, 1]))),
        ("E_NIFTI_SHEAR", nifti(sform=SHEARED, qform=None)),
        ("E_NIFTI_AFFINE", nifti(sform=NAN, qform=None)),
        ("E_NIFTI_AFFINE", nifti(sform=np.diag([1, 1, 0, 1]), qform=None)),
        ("E_NIFTI_AFFINE", nifti(sform=None, quatern_b=0.9, quatern_c=0.9)),
        ("E_NIFTI_NOT_FINITE", nifti(np.where(numbers() == 3, np.nan, 1).astype("<f4"))),
        ("E_NIFTI_NOT_FINITE", nifti(np.where(numbers() == 3, 1e300, 1))),
        ("E_NIFTI_EMPTY", nifti(np.zeros((3, 4, 5), "<i2"))),
        ("E_NIFTI_4D", nifti(numbers((2, 2, 2, 3)))),
        ("E_NIFTI_4D", nifti(numbers((2, 2, 2, 1, 1, 3)))),
        ("E_NIFTI_HEADER", nifti(dim=[0, 3, 4, 5, 1, 1, 1, 1])),
        ("E_NIFTI_HEADER", nifti(dim=[8, 3, 4, 5, 1, 1, 1, 1])),
        ("E_NIFTI_HEADER", nifti(dim=[3, 3, -4, 5, 1, 1, 1, 1])),
        ("E_NIFTI_HEADER", nifti(vox_offset=0)),
        ("E_NIFTI_HEADER", nifti(vox_offset=np.nan)),
        ("E_NIFTI_HEADER", nifti(scl_slope=np.inf)),
        ("E_NIFTI_HEADER", nifti(scl_slope=2, scl_inter=np.nan)),
        ("E_NIFTI_HEADER", nifti(xyzt_units=5)),
        ("E_NIFTI_TYPE", nifti(datatype=3)),
        ("E_NIFTI_TYPE", nifti(datatype=1)),
        ("E_NIFTI_TYPE", nifti(datatype=1536)),
        ("E_NIFTI_COLOUR", nifti(datatype=128)),
        ("E_NIFTI_TRUNCATED", nifti(dim=[3, 3, 4, 6, 1, 1, 1, 1])),
        ("E_NIFTI_TRUNCATED", nifti(datatype=64)),
        ("E_NIFTI_TRUNCATED", packed(nifti(dim=[3, 3, 4, 6, 1, 1, 1, 1]))),
        ("E_TOO_LARGE", nifti(dim=[3, 32767, 32767, 3, 1, 1, 1, 1])),  # > 2^31 voxels
        ("E_TOO_LARGE", nifti(version=2, dim=[3, 2**40, 2**40, 2**40, 1, 1, 1, 1])),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, code, content):
    sentence = refused(code, read, saved(tmp_path / "jane_doe.nii", content))
    assert "jane" not in sentence
    assert "." in sentence


def test_options_settle_what_was_refused(tmp_path):
    conflict = saved(tmp_path / "a.nii", nifti(qform=TURNED))
    np.testing.assert_allclose(read(conflict, orientation="sform").affine, AFFINE)
    assert abs(read(conflict, orientation="qform").affine - AFFINE).max() > 0.01
    sheared = saved(tmp_path / "b.nii", nifti(sform=SHEARED, qform=None))
    np.testing.assert_allclose(read(sheared, sheared=True).affine, SHEARED, atol=1e-6)
    nowhere = saved(
        tmp_path / "c.nii", nifti(sform=None, qform=None, pixdim=[1, 2, 3, 4] + [0] * 4)
    )
    found = read(nowhere, orientation="guess")
    assert found.orientation == "LAS"
    assert "left" in found.notes[0]
    np.testing.assert_array_equal(found.affine, nibabel.load(nowhere).affine)
    for path, choice in ((nowhere, "sform"), (sheared, "qform"), (conflict, "guess")):
        refused("E_NIFTI_NO_ORIENTATION", read, path, orientation=choice)
    with pytest.raises(ValueError, match="guess"):
        read(nowhere, orientation="left")


def test_filled_voxels_are_marked(tmp_path):
    data = numbers(dtype="<f4")
    data[1, 2, 3], data[0, 0, 0] = np.nan, -np.inf
    found = read(saved(tmp_path / "a.nii", nifti(data)), fill=-1000)
    assert found.valid is not None
    np.testing.assert_array_equal(found.valid.numpy(), np.isfinite(data))
    assert found.data[0, 1, 2, 3] == found.data[0, 0, 0, 0] == -1000
    assert "2 voxels" in found.notes[0]


@pytest.mark.parametrize("zipped", [False, True])
def test_cut_files_are_refused_wherever_they_are_cut(tmp_path, zipped):
    content = packed(nifti()) if zipped else nifti()
    rng = np.random.default_rng(0)
    for end in {0, 3, len(content) - 1, *rng.integers(1, len(content), 40).tolist()}:
        path = saved(tmp_path / f"{end}.nii", content[:end])
        with pytest.raises(Refusal, match=r"E_NIFTI_(TRUNCATED|DAMAGED|MAGIC)"):
            read(path)


def test_damaged_packed_files_are_never_another_volume(tmp_path):
    noise = np.random.default_rng(0).integers(0, 4000, (3, 4, 5)).astype("<i2")
    content, path = packed(nifti(noise)), tmp_path / "a.nii.gz"
    for at in range(10, len(content), 3):  # the first ten bytes are gzip's own, dates and such
        broken = bytearray(content)
        broken[at] ^= 0x10
        try:
            found = read(saved(path, bytes(broken)))
        except Refusal:
            continue
        np.testing.assert_array_equal(found.data[0].numpy(), noise)


def zeros(size):
    """So many zeros, packed: a packed file may be several in a row."""
    return packed(bytes(2**20)) * (size // 2**20)


BOMBS = {
    "honest": lambda: packed(nifti(dim=[3, 1000, 1000, 300, 1, 1, 1, 1])[:352]) + zeros(2**29),
    "series": lambda: packed(nifti(dim=[4, 9, 9, 9, 9, 1, 1, 1])[:352]) + zeros(2**32),
    "trailing": lambda: packed(nifti()) + zeros(2**32),
    "lying": lambda: packed(nifti(dim=[3, 1024, 1024, 1024, 1, 1, 1, 1], datatype=64)),
    "lying, plain": lambda: nifti(dim=[3, 1024, 1024, 1024, 1, 1, 1, 1], datatype=64),
    "black": lambda: packed(nifti(dim=[3, 512, 512, 200, 1, 1, 1, 1])[:352]) + zeros(2**27),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_in_two_seconds_and_256_megabytes(tmp_path, kind):
    path = saved(tmp_path / "a.nii", BOMBS[kind]())
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(Refusal, match=r"E_(TOO_LARGE|NIFTI_)"):
            read(path, frame=0)
        assert time.process_time() - begun < 2
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


def test_a_limit_allows_and_forbids(tmp_path):
    path = saved(tmp_path / "a.nii", nifti())
    assert "limit" in refused("E_TOO_LARGE", read, path, limit=4 * 60 - 1)
    assert read(path, limit=4 * 60).grid == (3, 4, 5)


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_voxels_and_affine_come_back_in_48_oblique_orientations(tmp_path, codes):
    rng = np.random.default_rng(ORIENTATIONS.index(codes))
    before = volume(rng.normal(size=(3, 4, 5)), affine=rotated(1)).reoriented(codes)
    path = tmp_path / "a.nii"
    write(before, path)
    after = read(path)
    assert torch.equal(after.data, before.data)
    # float32 holds numbers up to 128 mm to 4e-6
    np.testing.assert_allclose(after.affine, before.affine, rtol=0, atol=1e-5)
    image = nibabel.load(path)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), before.data[0].numpy())
    np.testing.assert_allclose(image.get_qform(), before.affine, rtol=0, atol=1e-3)
    other = SimpleITK.ReadImage(str(path))  # a second opinion, in LPS
    x, y, z = other.TransformIndexToPhysicalPoint((2, 3, 4))
    np.testing.assert_allclose(geometry.place(before.affine, (2, 3, 4)), (-x, -y, z), atol=1e-2)
    np.testing.assert_array_equal(
        SimpleITK.GetArrayFromImage(other).transpose(2, 1, 0), before.data[0].numpy()
    )


def test_corners_of_large_grids_come_back_to_a_ten_thousandth(tmp_path):
    before = volume(np.ones((512, 1, 1)), affine=rotated(5, (0.5, 0.5, 1)))
    write(before, tmp_path / "a.nii")
    after = read(tmp_path / "a.nii")
    assert geometry.same_grid(before.affine, after.affine, (512, 512, 300), within=1e-4)


@pytest.mark.parametrize(("top", "dtype"), [(255, "u1"), (256, "u2"), (65536, "u4"), (2**24, "u4")])
def test_labels_are_written_in_the_smallest_type_exactly(tmp_path, top, dtype):
    labels = np.random.default_rng(0).integers(0, top, (5, 5, 5))
    labels[0, 0, 0] = top
    write(volume(labels), tmp_path / "a.nii.gz", dtype="label")
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.dtype(dtype)
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels)
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz").data[0].numpy(), labels)


@pytest.mark.parametrize(
    ("values", "attributes", "dtype"),
    [
        ([-1024, 0, 3071], {"units": "HU"}, "<i2"),
        ([-1024, 0.5, 3071], {"units": "HU"}, "<f4"),
        ([-1024, 0, 32768], {"units": "HU"}, "<f4"),  # beyond 16 bits
        ([0, 1, 2], {"units": "SUV"}, "<f4"),
        ([0, 1, 2], {"source": NiftiSource(dtype=np.dtype("u1"))}, "u1"),
        ([0, 1, 256], {"source": NiftiSource(dtype=np.dtype("u1"))}, "<f4"),
        ([0, 1, 0.5], {"source": NiftiSource(dtype=np.dtype("u1"))}, "<f4"),
        ([0, 1, 0.5], {"source": NiftiSource(dtype=np.dtype("u1"), slope=0.25)}, "u1"),
        ([0, 1, 0.6], {"source": NiftiSource(dtype=np.dtype("u1"), slope=0.25)}, "<f4"),
        ([0, 1, 2], {"source": NiftiSource(dtype=np.dtype("f8"))}, "<f4"),
    ],
)
def test_numbers_are_stored_in_a_type_that_holds_them(tmp_path, values, attributes, dtype):
    before = volume(np.reshape(values, (3, 1, 1)), **attributes)
    write(before, tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").get_data_dtype() == np.dtype(dtype)
    assert torch.equal(read(tmp_path / "a.nii").data, before.data)


@pytest.mark.parametrize("slope", [0.07540696859359741, 1 / 3, 1e-7, 12.5, -2.0])
def test_scaled_integers_come_back_bit_by_bit(tmp_path, slope):
    data = np.random.default_rng(0).integers(-32768, 32767, (20, 20, 20)).astype("<i2")
    content = nifti(data, scl_slope=slope, scl_inter=3100.76 * slope)
    before = read(saved(tmp_path / "a.nii", content))
    write(before, tmp_path / "b.nii")
    after = nibabel.load(tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asarray(after.dataobj.get_unscaled()), data)
    assert torch.equal(read(tmp_path / "b.nii").data, before.data)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (0.5, "label"),
        (-1, "label"),
        (0.5, "int16"),
        (40000, "int16"),
        (-1, "uint8"),
        (256, "uint8"),
    ],
)
def test_types_that_do_not_hold_the_numbers_are_refused(tmp_path, value, dtype):
    refused("E_NIFTI_DTYPE", write, volume([[[0, value]]]), tmp_path / "a.nii", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_sheared_grids_are_written_without_a_rotation(tmp_path):
    write(volume(numbers(), affine=SHEARED), tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    found = read(tmp_path / "a.nii", sheared=True)
    np.testing.assert_allclose(found.affine, SHEARED, atol=1e-5)


def test_the_code_of_the_world_is_kept(tmp_path):
    found = read(saved(tmp_path / "a.nii", nifti(sform_code=4, qform_code=4, intent_code=1002)))
    write(found, tmp_path / "b.nii")
    header = nibabel.load(tmp_path / "b.nii").header
    assert (header["sform_code"], header["qform_code"], header["intent_code"]) == (4, 4, 1002)
    restored = found.derive(found.data + 0.5)
    write(restored, tmp_path / "c.nii")
    assert nibabel.load(tmp_path / "c.nii").header["intent_code"] == 0  # no labels any more


def test_channels_and_long_axes(tmp_path):
    before = volume(np.random.default_rng(0).normal(size=(3, 4, 5, 6)))
    write(before, tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").shape == (4, 5, 6, 1, 3)
    assert torch.equal(read(tmp_path / "a.nii").data, before.data)
    write(volume(np.ones((40000, 1, 1))), tmp_path / "b.nii")
    assert read(tmp_path / "b.nii").grid == (40000, 1, 1)


def test_nothing_about_the_patient_is_written_again(tmp_path):
    secret = dict(descrip=b"DOE^JANE", aux_file=b"DOE^JANE", intent_name=b"DOE^JANE")
    extension = b"\x01\0\0\0" + (32).to_bytes(4, "little") + bytes(4) + b"DOE^JANE".ljust(24, b"\0")
    content = nifti(offset=384, db_name=b"DOE^JANE", **secret)
    found = read(saved(tmp_path / "a.nii", content[:348] + extension + content[384:]))
    write(found, tmp_path / "b.nii", description="restored")
    written = (tmp_path / "b.nii").read_bytes()
    assert b"DOE" in (tmp_path / "a.nii").read_bytes()
    assert b"DOE" not in written
    assert b"restored" in written
    assert "DOE" not in repr(found) + repr(found.source)


def test_the_same_volume_makes_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write(volume(numbers()), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[344:347] == b"n+1"


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = saved(tmp_path / "a.nii", b"precious")
    with pytest.raises(FileExistsError):
        write(volume(numbers()), path)
    spoilt = volume(numbers())
    spoilt.data[0, 0, 0, 0] = torch.nan  # behind the volume's back
    refused("E_NIFTI_NOT_FINITE", write, spoilt, path, overwrite=True)
    assert path.read_bytes() == b"precious"
    write(volume(numbers()), path, overwrite=True)
    check_free(tmp_path / "b.nii")
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.img", {}),
        ("a.nii", {"description": "x" * 80}),
        ("a.nii", {"description": "Ü"}),
        ("a.nii", {"dtype": "float16"}),
    ],
)
def test_wrong_options_are_refused(tmp_path, name, options):
    with pytest.raises(ValueError, match=r"end in|description|dtype"):
        write(volume(numbers()), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []
