"""DICOM series come out where they are in the patient, in the numbers that were measured."""

import itertools
import logging
import os

import bombs
import numpy as np
import pytest
import scans
from pydicom import dcmread, dcmwrite
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from medical import Refusal, geometry
from medical.dicom import list_series, read
from medical.refusal import alias


def assert_same_scan(volume, data, affine, within=1e-4):
    """Every voxel of `data` is in the volume, at its place in the world within so many mm."""
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1)
    world = geometry.place(affine, index)
    found = geometry.place(np.linalg.inv(volume.affine), world)
    nearest = np.rint(found).astype(int)
    assert np.abs(geometry.place(volume.affine, nearest) - world).max() < within
    assert sorted(volume.grid) == sorted(data.shape)
    assert (volume.data[0].numpy()[tuple(np.moveaxis(nearest, -1, 0))] == data).all()


def orientations():
    """Stacks along each axis, in both directions, straight and oblique."""
    for axis, way, angle in itertools.product(range(3), (1, -1), (0, 17.3)):
        turn = np.roll(np.eye(3), axis, 0)
        yield scans.affine_of(turn=scans.rotation(angle) @ turn, flips=(1, 1, way))


@pytest.mark.parametrize("affine", orientations())
def test_labelled_voxels_are_where_they_were_put(tmp_path, affine):
    data = np.zeros((9, 8, 7))
    rng = np.random.default_rng(3)
    marked = rng.choice(data.size, 5, replace=False)
    data.flat[marked] = [100, 200, 300, 400, 500]
    scans.ct_series(tmp_path, data, affine, shuffle=5)
    volume = read(tmp_path)
    for label in (100, 200, 300, 400, 500):
        (put,), (found,) = np.argwhere(data == label), np.argwhere(volume.data[0].numpy() == label)
        off = geometry.place(affine, put) - geometry.place(volume.affine, found)
        assert np.abs(off).max() < 1e-4
    assert volume.units == "HU"
    assert volume.modality == "CT"
    assert_same_scan(volume, data, affine)


@pytest.mark.parametrize("affine", list(orientations())[1::2])
def test_simpleitk_agrees(tmp_path, affine):
    sitk = pytest.importorskip("SimpleITK")
    scans.ct_series(tmp_path, affine=affine)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    data = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    assert_same_scan(read(tmp_path), data, geometry.LPS_TO_RAS @ lps)


def test_highdicom_agrees(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    affine = list(orientations())[7]
    paths = scans.ct_series(tmp_path, affine=affine)
    other = highdicom.get_volume_from_series([dcmread(p) for p in paths])
    assert_same_scan(read(tmp_path), other.array, geometry.LPS_TO_RAS @ other.affine)


def test_the_order_of_files_and_numbers_does_not_matter(tmp_path):
    for shuffle in (None, 1, 2):
        scans.ct_series(tmp_path / str(shuffle), shuffle=shuffle)
    first, *others = (read(folder) for folder in sorted(tmp_path.iterdir()))
    for other in others:
        assert (other.data == first.data).all()
        assert (other.affine == first.affine).all()


def test_source_has_the_headers_in_slice_order(tmp_path):
    paths = scans.ct_series(tmp_path, scans.smooth((3, 4, 5)), shuffle=4)
    source = read(tmp_path).source
    assert source.frames == tuple((k, 0) for k in range(5))
    assert not source.multiframe
    assert source.series == alias(dcmread(paths[0]).SeriesInstanceUID)
    for k, path in enumerate(paths):
        assert source.header(k).SOPInstanceUID == dcmread(path).SOPInstanceUID
        assert "PixelData" not in source.header(k)
        assert source.header(k).file_meta.TransferSyntaxUID


def test_a_list_of_files_and_a_folder_of_folders(tmp_path):
    paths = scans.ct_series(tmp_path / "a" / "b")
    (tmp_path / "notes.txt").write_text("not an image")
    assert (read(paths[::-1]).data == read(tmp_path).data).all()
    assert read(tmp_path).notes == ("Skipped what is no image: 1 not DICOM.",)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_files_without_preamble_and_transfer_syntax(tmp_path, syntax):
    paths = scans.ct_series(tmp_path)
    expected = read(tmp_path)
    for path in paths:
        image = dcmread(path)
        del image.file_meta
        image.preamble = None
        if not syntax.is_little_endian:
            values = np.frombuffer(image.PixelData, "<i2")
            image.PixelData = values.astype(">i2").tobytes()
        encoding = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
        dcmwrite(path, image, **encoding)
        assert path.read_bytes()[128:132] != b"DICM"
    found = read(tmp_path)
    assert (found.data == expected.data).all()


def test_thick_slices_are_as_far_apart_as_they_are(tmp_path):
    scans.ct_series(tmp_path, edit=lambda image, k: setattr(image, "SliceThickness", 5))
    volume = read(tmp_path)
    assert volume.spacing == pytest.approx([0.8, 0.7, 2.5])
    assert volume.notes == ("SliceThickness is 5 mm, but slices are 2.5 mm apart.",)


def test_positions_written_with_two_decimals_are_even(tmp_path):
    def edit(image, k):
        image.ImagePositionPatient = [0, 0, round(0.625 * k, 2)]

    scans.ct_series(tmp_path, scans.smooth((4, 4, 30)), edit=edit)
    assert read(tmp_path).spacing[2] == pytest.approx(0.625, rel=1e-3)


# --- which series


def two_series(folder):
    scans.ct_series(folder / "one", series=1, names="a{n}{SECRET}")
    scans.mr_series(folder / "two", scans.smooth((4, 5, 3), low=0), series=2)
    return folder


def test_series_are_listed_and_chosen(tmp_path):
    first, second = list_series(two_series(tmp_path))
    assert (first.number, first.modality, first.size, first.problem) == (1, "CT", (8, 7, 6), "")
    assert (second.number, second.modality, second.size) == (2, "MR", (4, 5, 3))
    assert first.alias == alias(scans.uid(1, 1))
    assert first.spacing == pytest.approx((0.8, 0.7, 2.5))
    for wanted in (2, "2", second.alias, scans.uid(1, 2)):
        assert read(tmp_path, series=wanted).modality == "MR"


def test_time_points_are_parts_of_a_series(tmp_path):
    for time in (1, 2):
        scans.mr_series(
            tmp_path / str(time),
            scans.smooth(seed=time, low=0),
            edit=lambda image, k, t=time: setattr(image, "TemporalPositionIdentifier", t),
        )
    with pytest.raises(Refusal, match="found 2 series or parts") as refused:
        read(tmp_path)
    assert refused.value.code == "E_AMBIGUOUS_SERIES"
    first, second = list_series(tmp_path)
    assert first.alias == f"{alias(scans.uid(1, 1))}.1"
    assert (
        read(tmp_path, series=second.alias).data[0].numpy() == scans.smooth(seed=2, low=0)
    ).all()


def test_acquisition_numbers_do_not_split_a_volume(tmp_path):
    scans.ct_series(tmp_path, edit=lambda image, k: setattr(image, "AcquisitionNumber", k // 2))
    assert read(tmp_path).notes == ("The slices were acquired in several parts.",)


def test_localizers_are_left_out(tmp_path):
    def localizer(image, k):
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    scans.ct_series(tmp_path / "a", affine=scans.affine_of(turn=scans.rotation(90)), edit=localizer)
    scans.ct_series(tmp_path / "b")
    volume = read(tmp_path)
    assert_same_scan(volume, scans.smooth(), scans.affine_of())
    assert volume.notes == ("1 localizers or single pictures beside the series were left out.",)


# --- what is mended on request


def test_missing_slices_are_left_room_for(tmp_path):
    scans.ct_series(tmp_path, scans.smooth((3, 4, 9)), skip=(2, 5, 6))
    volume = read(tmp_path, on_gap="nan-fill")
    measured = np.isin(np.arange(9), (2, 5, 6), invert=True)
    expected = np.where(measured, scans.smooth((3, 4, 9)), -1000)
    assert_same_scan(volume, expected, scans.affine_of())
    assert (volume.valid.numpy() == measured).all()
    assert volume.source.frames[1:4] == ((1, 0), None, (2, 0))
    assert volume.source.header(2) is None


def test_uneven_slices_are_interpolated_to_a_line(tmp_path):
    """A volume that grows linearly along the normal is found exactly between its slices."""
    places = np.array([0, 1, 2, 3.4, 4.4, 5.5, 6.5])
    normal = -np.array([0, 0, 1.0])
    offsets = np.outer(places - np.arange(7), [0, 0, 1.0])
    data = np.broadcast_to(np.rint(100 * places), (4, 3, 7))
    scans.ct_series(tmp_path, data, scans.affine_of(spacing=(1, 1, 1)), offsets=offsets)
    with pytest.raises(Refusal) as refused:
        read(tmp_path)
    assert refused.value.code == "E_VARIABLE_SPACING"
    volume = read(tmp_path, on_gap="resample")
    assert volume.grid == (4, 3, 7)
    assert volume.data[0, 0, 0].numpy() == pytest.approx(100 * np.arange(7), abs=1e-3)
    assert volume.valid.all()
    assert volume.source.resampled
    assert normal @ [0, 0, -1] == 1


def test_far_from_measured_slices_nothing_is_valid(tmp_path):
    scans.ct_series(tmp_path, scans.smooth((3, 4, 9)), skip=(2, 3, 4, 5))
    valid = read(tmp_path, on_gap="resample").valid
    assert valid[0, 0].tolist() == [True] * 3 + [False] * 2 + [True] * 4


def tilted(folder, step):
    """A stack of a linear function of the world, each slice shifted by `step` mm along x."""
    affine = scans.affine_of(spacing=(1, 2, 3), origin=(0, 0, 0))
    sheared = affine.copy()
    sheared[0, 2] = step
    index = np.stack(np.meshgrid(*map(np.arange, (20, 6, 5)), indexing="ij"), -1)
    world = geometry.place(sheared, index)
    scans.ct_series(folder, np.rint(world @ [40, 20, 10]), sheared)
    return world


@pytest.mark.parametrize("step", [1.0, -1.0])
def test_a_tilted_stack_is_straightened(tmp_path, step):
    tilted(tmp_path, step)
    with pytest.raises(Refusal, match=r"sheared by 18\.4 degrees") as refused:
        read(tmp_path)  # atan(1/3)
    assert refused.value.code == "E_TILT"
    volume = read(tmp_path, on_tilt="resample")
    assert geometry.shear(volume.affine) == pytest.approx(0, abs=1e-6)
    index = np.argwhere(volume.valid.numpy())
    world = geometry.place(volume.affine, index)
    found = volume.data[0].numpy()[tuple(index.T)]
    assert np.abs(found - world @ [40, 20, 10]).max() < 1e-3
    assert len(index) == 20 * 6 * 5  # whole pixels: nothing is lost, nothing is added


def test_a_tilt_of_half_pixels_is_linear_between_pixels(tmp_path):
    tilted(tmp_path, step=0.5)
    volume = read(tmp_path, on_tilt="resample")
    index = np.argwhere(volume.valid.numpy())
    world = geometry.place(volume.affine, index)
    found = volume.data[0].numpy()[tuple(index.T)]
    assert np.abs(found - world @ [40, 20, 10]).max() < 0.51  # numbers were rounded to whole HU
    assert len(index) == 6 * (3 * 20 + 2 * 19)


def test_a_slice_that_was_moved_sideways_is_refused(tmp_path):
    offsets = np.zeros((6, 3))
    offsets[3, 0] = 0.4
    scans.ct_series(tmp_path, offsets=offsets)
    with pytest.raises(Refusal, match=r"sideways by up to 0\.4 mm"):
        read(tmp_path)


def test_slices_that_are_there_twice_are_used_once(tmp_path):
    scans.ct_series(tmp_path, twice=(1, 4))
    volume = read(tmp_path)
    assert_same_scan(volume, scans.smooth(), scans.affine_of())
    assert volume.notes == ("2 slices were there twice and used once.",)


# --- memory


@pytest.mark.slow
def test_reading_takes_little_more_memory_than_the_volume(tmp_path):
    """512 x 512 x 600: the largest growth of a process is below 2.5 volumes."""
    scans.ct_series(tmp_path / "x", scans.smooth((512, 512, 600)))
    found = bombs.run(tmp_path)["x"]
    assert found["code"] is None
    assert found["growth"] < 2.5 * 4 * 512 * 512 * 600


# --- nobody learns who it was


def test_no_identifier_leaks(tmp_path, caplog, recwarn, capfd):
    """Files' names and headers hold a number that must not turn up in anything that is said."""
    caplog.set_level(logging.DEBUG)
    said, causes = [], []

    secret = scans.SECRET.encode()

    def spoilt(image, k):
        scans.spoil(image, "AccessionNumber", b"too long for a short string " + secret)
        scans.spoil(image, "PatientBirthDate", b"no date " + secret)
        # what pydicom warns about, quoting it, when it is looked at
        scans.spoil(image, "StudyInstanceUID", b"no UID " + secret)
        scans.spoil(image, "SpecificCharacterSet", b"NO SET " + secret)

    def comma(image, k):
        scans.spoil(image, "PixelSpacing", b"1,5\\" + secret)

    two_series(tmp_path / "several")
    scans.ct_series(tmp_path / "sound", edit=spoilt, twice=(1,))
    scans.ct_series(tmp_path / "gap", skip=(2,), edit=spoilt)
    scans.ct_series(tmp_path / "value", edit=comma)
    scans.ct_series(
        tmp_path / "number", edit=lambda i, k: scans.spoil(i, "RescaleSlope", secret + b"x")
    )
    scans.pet_series(tmp_path / "pet", weight=None)
    for path in scans.ct_series(tmp_path / "cut"):
        os.truncate(path, path.stat().st_size - 11)
    caplog.clear()
    recwarn.clear()
    for folder in sorted(tmp_path.iterdir()):
        for call in (lambda f: read(f, suv=f.name == "pet"), lambda f: read(f, series="nobody")):
            try:
                volume = call(folder)
                said += [repr(volume), repr(volume.source), *volume.notes]
            except Refusal as refusal:
                said += [str(refusal), repr(refusal)]
                causes.append(refusal.__cause__)
        said += [repr(line) for line in list_series(folder)]
    said += [str(w.message) for w in recwarn]
    said += [caplog.text, *capfd.readouterr()]
    assert len(said) > 20
    assert not any(causes)
    assert not [s for s in said if scans.SECRET in s or "Planted" in s or str(tmp_path) in s]
