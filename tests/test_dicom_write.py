"""Volumes out as DICOM series: what comes back, what is said, what is left when it fails."""

import itertools

import numpy as np
import pydicom
import pytest
import scans
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from medical import Refusal, Volume, geometry
from medical.dicom import read, write
from medical.dicom.companion import onto
from medical.dicom.quantise import codings, decimal

SMALL = (4, 3, 2)
GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness")
TURNS = [
    np.eye(3)[list(order)] * flips
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def files(folder):
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


def raw(header, keyword):
    """The bytes of a value as they are in the file."""
    return header.get_item(pydicom.datadict.tag_for_keyword(keyword)).value


def strings_of(header):
    """Every decimal string of a file, also inside sequences."""
    for tag in header.keys():
        element = header.get_item(tag)
        if element.VR == "DS":
            yield from (element.value or b"").decode().rstrip().split("\\")
        elif element.VR == "SQ":
            for item in header[tag].value:
                yield from strings_of(item)


def made(data, affine, **options):
    tensor = torch.as_tensor(np.asarray(data), dtype=torch.float32)
    return Volume(data=tensor[None], affine=affine, **options)


@pytest.mark.parametrize("turn", TURNS)
def test_round_trip_in_every_orientation(tmp_path, turn):
    slopes = [0.5, 0.25]  # one a slice
    data = np.rint(scans.smooth(SMALL)) * slopes
    oblique = scans.rotation(20) if turn[0, 0] else np.eye(3)
    affine = scans.affine_of(turn=oblique @ turn)
    scans.pet_series(tmp_path / "a", data, affine)
    scan = read(tmp_path / "a")
    turned = scan.reoriented("RAS")  # the writer follows the source's axes, not these
    back = read(write(turned, tmp_path / "b"))
    assert torch.equal(back.data, scan.data)
    assert np.abs(back.affine - scan.affine).max() < 1e-4
    sources = {h.SOPInstanceUID: h for h in files(tmp_path / "a")}
    for header in files(tmp_path / "b"):
        source = sources[header.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert [raw(header, name) for name in GEOMETRY] == [raw(source, name) for name in GEOMETRY]


@settings(max_examples=15, deadline=None)
@given(
    angle=st.floats(-180, 180),
    axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda a: np.linalg.norm(a) > 0.1),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    turn=st.sampled_from(TURNS),
)
def test_without_a_source_every_voxel_stays_where_it_was(
    tmp_path_factory, angle, axis, spacing, origin, turn
):
    affine = scans.affine_of(spacing, origin, scans.rotation(angle, axis) @ turn)
    volume = made(scans.smooth((4, 3, 2)), affine, units="HU", modality="CT")
    back = read(write(volume, tmp_path_factory.mktemp("x") / "out"))
    assert torch.equal(onto(back, volume).data, volume.data)  # refuses grids 1e-4 mm apart


@pytest.mark.parametrize("make", [scans.ct_series, scans.mr_series, scans.pet_series])
def test_highdicom_reads_a_regular_volume(tmp_path, make):
    import highdicom

    make(tmp_path / "a", affine=scans.affine_of(turn=scans.rotation(25)))
    scan = read(tmp_path / "a")
    derived = files(write(scan.derive(scan.data * 1.01), tmp_path / "b"))
    volume = highdicom.get_volume_from_series(derived).flip_spatial(0)  # it stacks downward
    lps = geometry.LPS_TO_RAS @ scan.affine
    assert np.abs(volume.affine[:, [2, 1, 0, 3]] - lps).max() < 1e-4
    # half a step of 1 HU, or of a 16-bit ladder
    step = 1 if scan.units == "HU" else float(scan.data.max()) * 1.01 / 65535
    off = np.abs(volume.array.transpose(2, 1, 0) - 1.01 * scan.data[0].numpy()).max()
    assert off <= 0.501 * step


def test_a_refined_grid_gets_new_places_in_the_same_frame_of_reference(tmp_path):
    scans.ct_series(tmp_path / "a", affine=scans.affine_of(turn=scans.rotation(25)))
    scan = read(tmp_path / "a")
    fine = Volume(
        data=scan.data.repeat_interleave(2, dim=3),
        affine=geometry.refined(scan.affine, 2, 2),
        units="HU",
        modality="CT",
        source=scan.source,
    )
    back = read(write(fine, tmp_path / "b"))
    assert np.abs(back.affine - fine.affine).max() < 1e-4
    assert torch.equal(back.data, fine.data)
    headers = files(tmp_path / "b")
    assert {h.FrameOfReferenceUID for h in headers} == {scans.uid(2)}
    assert {float(h.SliceThickness) for h in headers} == {1.25}
    near = [len(h.SourceImageSequence) for h in headers]
    assert near == [1, *[2] * (len(near) - 2), 1]  # the images on either side
    meanings = [code.CodeMeaning for code in headers[0].DerivationCodeSequence]
    assert "Spatial resampling" in meanings


def test_uids_are_new_and_references_resolve(tmp_path):
    scans.ct_series(tmp_path / "a")
    sources = {h.SOPInstanceUID for h in files(tmp_path / "a")}
    scan = read(tmp_path / "a")
    derived = [*files(write(scan, tmp_path / "b")), *files(write(scan, tmp_path / "c"))]
    uids = [h.SOPInstanceUID for h in derived]
    assert len({*uids}) == len(uids)
    assert not sources & {*uids}
    assert len({h.SeriesInstanceUID for h in derived}) == 2
    assert scans.uid(1, 1) not in {h.SeriesInstanceUID for h in derived}
    for header in derived:
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        (reference,) = header.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID in sources
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert header.StudyInstanceUID == scans.uid(1)


def test_the_header_says_what_it_is(tmp_path):
    scans.ct_series(tmp_path / "a")
    parameters = {"seed": 7, "note": "line\nbreak \\ é" + "x" * 2000}
    scan = read(tmp_path / "a")
    write(scan, tmp_path / "b", algorithm="DDS", parameters=parameters)
    header = files(tmp_path / "b")[0]
    assert header.ImageType == ["DERIVED", "SECONDARY", "AXIAL", "RESTORED"]
    story = header.DerivationDescription
    assert len(story) == 1024
    assert story.startswith("Research use, not for diagnosis. DDS: seed 7, ")
    assert story.isascii()
    assert story.isprintable()
    assert header.SeriesDescription.endswith(", restored")
    assert len(header.SeriesDescription) <= 64
    assert header.SeriesNumber == 1001
    assert header.AcquisitionDate == "20240305" != header.ContentDate
    assert header.ContributingEquipmentSequence[-1].ManufacturerModelName == "restore"
    assert header.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian


def test_what_was_true_of_the_old_pixels_is_gone(tmp_path):
    def edit(image, k):
        image.SmallestImagePixelValue = image.LargestImagePixelValue = 5
        image.add_new(0x60000010, "US", 7)
        image.add_new(0x60003000, "OW", b"\0" * 8)
        image.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0, "DS", "2")
        image.IconImageSequence = [pydicom.Dataset()]
        image.RealWorldValueMappingSequence = [pydicom.Dataset()]
        image.WindowCenter, image.WindowWidth = [40, 300], [80, 1500]

    scans.ct_series(tmp_path / "a", edit=edit)
    for header in files(write(read(tmp_path / "a"), tmp_path / "b")):
        gone = ("SmallestImagePixelValue", "IconImageSequence", "RealWorldValueMappingSequence")
        assert not [name for name in gone if name in header]
        assert not [tag for tag in header.keys() if tag.is_private or tag.group == 0x6000]
        assert header.WindowWidth == [80, 1500]  # in Hounsfield units, and still true


def test_multi_frame_becomes_one_file_a_slice(tmp_path):
    order = scans.enhanced_ct(tmp_path / "a.dcm", slope=[1, 2, 1, 2, 1, 2], intercept=-1000)
    scan = read(tmp_path / "a.dcm")
    back = read(write(scan, tmp_path / "b"))
    assert (back.data - scan.data).abs().max() == 0
    assert np.abs(back.affine - scan.affine).max() < 1e-4
    for k, header in enumerate(files(tmp_path / "b")):
        assert header.SOPClassUID == scans.CT
        assert "PerFrameFunctionalGroupsSequence" not in header
        assert order[header.SourceImageSequence[0].ReferencedFrameNumber - 1] == k


def test_enhanced_mr_becomes_an_mr_image(tmp_path):
    def magnetic(image):
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = scans.MR + ".1"
        image.Modality, image.EchoPulseSequence = "MR", "GRADIENT"
        timing = pydicom.Dataset()
        timing.RepetitionTime, timing.FlipAngle = 12, 30
        shared = image.SharedFunctionalGroupsSequence[0]
        shared.MRTimingAndRelatedParametersSequence = [timing]

    scans.enhanced_ct(tmp_path / "a.dcm", edit=magnetic)
    write(read(tmp_path / "a.dcm"), tmp_path / "b")
    header = files(tmp_path / "b")[0]
    assert header.SOPClassUID == scans.MR
    assert (header.ScanningSequence, header.RepetitionTime, header.FlipAngle) == ("GR", 12, 30)
    assert header.EchoTime is None  # must be there, may be unknown


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "eCT_Supplemental.dcm"])
def test_real_files_round_trip(tmp_path, name):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("pydicom-data is not installed")
    scan = read(path, single=True)
    back = read(write(scan, tmp_path / "b"), single=True)
    assert torch.equal(back.data, scan.data)
    assert np.abs(back.affine - scan.affine).max() < 1e-4


def test_padding_comes_back_as_not_valid(tmp_path):
    scans.ct_series(tmp_path / "a")
    scan = read(tmp_path / "a")
    valid = torch.rand(scan.grid, generator=torch.Generator().manual_seed(0)) > 0.3
    part = Volume(**(vars(scan) | {"valid": valid}))
    back = read(write(part, tmp_path / "b"))
    assert torch.equal(back.valid, valid)
    assert torch.equal(back.data[0][valid], scan.data[0][valid])


def test_a_gap_that_was_filled_is_written_where_it_was(tmp_path):
    scans.ct_series(tmp_path / "a", skip=[2])
    scan = read(tmp_path / "a", on_gap="nan-fill")
    back = read(write(scan, tmp_path / "b"))
    assert np.abs(back.affine - scan.affine).max() < 1e-4
    assert torch.equal(back.valid, scan.valid)
    assert [len(h.SourceImageSequence) for h in files(tmp_path / "b")] == [1, 1, 2, 1, 1, 1]


def test_suv(tmp_path):
    scans.pet_series(tmp_path / "a")
    activity, uptake = read(tmp_path / "a"), read(tmp_path / "a", suv=True)
    again = read(write(activity, tmp_path / "b"), suv=True)
    assert torch.allclose(again.data, uptake.data, rtol=1e-6)
    stored = read(write(uptake, tmp_path / "c"))
    assert stored.units == "SUV"
    assert (stored.data - uptake.data).abs().max() < 1e-4 * uptake.data.max()
    header = files(tmp_path / "c")[0]
    assert (header.Units, header.RescaleIntercept) == ("GML", 0)


@given(st.floats(1e-30, 1e30), st.booleans())
def test_a_decimal_string_has_at_most_16_characters(number, negative):
    number = -number if negative else number
    text = decimal(number)
    assert len(text) <= 16
    # sign, "0.", and an exponent leave nine digits at worst
    assert float(text) == pytest.approx(number, rel=1e-8)


def test_no_decimal_string_of_a_file_is_longer(tmp_path):
    scans.mr_series(tmp_path / "a", affine=scans.affine_of((1 / 3, 1 / 7, 1.1), turn=TURNS[5]))
    scan = read(tmp_path / "a")
    third = made(scan.data[0] / 3, scan.affine @ np.diag([1 / 3, 1, 1, 1]), modality="MR")
    write(scan.derive(scan.data / 3), tmp_path / "b")
    write(third, tmp_path / "c")
    for header in [*files(tmp_path / "b"), *files(tmp_path / "c")]:
        assert max(map(len, strings_of(header))) <= 16


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-12, 1e12), st.booleans(), st.integers(0, 2**31))
def test_numbers_are_stored_with_the_slope_as_written(largest, negative, seed):
    numbers = np.random.default_rng(seed).uniform(-1 if negative else 0, 1, (2, 3, 3))
    numbers = (numbers * largest).astype(np.float32)
    for values, coding in zip(numbers, codings(numbers, units="SUV"), strict=True):
        back = coding.store(values) * float(coding.slope)  # any reader's arithmetic
        # half a step of 15 bits, and the rounding of float32
        assert np.abs(back - values).max() <= np.abs(numbers).max() * (0.5 / 32767 + 2e-7)
    zero = codings(numbers, units="SUV")[0]
    assert zero.store(np.zeros(1)) == 0


def test_hounsfield_units_are_whole(tmp_path):
    values = np.linspace(-1100, 3000, 60).astype(np.float32).reshape(3, 4, 5)
    coding = codings(values, units="HU", own=[("1", "-1024")] * 3)[0]
    assert (coding.slope, coding.intercept) == ("1", "-1024")
    assert np.abs(coding.read(coding.store(values)) - values).max() <= 0.5
    with pytest.raises(Refusal, match="E_RANGE"):
        codings(values * 100, units="HU")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_midway_leaves_nothing(tmp_path, monkeypatch, error):
    scans.ct_series(tmp_path / "a")
    scan, calls, save = read(tmp_path / "a"), [], pydicom.FileDataset.save_as

    def fail(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise error
        save(self, *args, **kwargs)

    write(scan, tmp_path / "old")
    before = {file.name: file.read_bytes() for file in (tmp_path / "old").iterdir()}
    monkeypatch.setattr(pydicom.FileDataset, "save_as", fail)
    for name in ("b", "old"):
        calls.clear()
        with pytest.raises(type(error)):
            write(scan, tmp_path / name, overwrite=True)
        assert len(calls) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"a", "old"}
    assert {file.name: file.read_bytes() for file in (tmp_path / "old").iterdir()} == before


def test_nothing_is_written_over(tmp_path):
    scans.ct_series(tmp_path / "a", names="{n:04d}.dcm")
    scan = read(tmp_path / "a")
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    for overwrite in (False, True):  # the source itself
        with pytest.raises(FileExistsError):
            write(scan, tmp_path / "a", overwrite=overwrite)
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before
    write(scan, tmp_path / "b")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(scan, tmp_path / "b")
    old = {h.SOPInstanceUID for h in files(tmp_path / "b")}
    write(scan, tmp_path / "b", overwrite=True)
    assert not old & {h.SOPInstanceUID for h in files(tmp_path / "b")}
    with pytest.raises(FileExistsError):  # what the next result derives from
        write(read(tmp_path / "b"), tmp_path / "b", overwrite=True)
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        write(scan, tmp_path / "b", overwrite=True)
    with pytest.raises(FileNotFoundError):
        write(scan, tmp_path / "no" / "b")


def test_refusals_leave_nothing(tmp_path):
    volume = made(scans.smooth(), scans.affine_of(), units="HU", modality="CT")
    sheared = scans.affine_of()
    sheared[0, 2] = 0.5
    bad = {
        "E_CHANNELS": Volume(data=torch.zeros(2, 3, 3, 3), affine=np.eye(4)),
        "E_TILT": made(scans.smooth(), sheared),
        "E_RANGE": volume.derive(volume.data * 100),
    }
    for code, each in bad.items():
        with pytest.raises(Refusal, match=code):
            write(each, tmp_path / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("modality", "units"), [("CT", "HU"), ("MR", "a.u."), ("PT", "SUV"), ("OT", "1")]
)
def test_a_study_of_nobody(tmp_path, modality, units):
    volume = made(scans.smooth() / 7, scans.affine_of(), modality=modality, units=units)
    back = read(write(volume, tmp_path / "b"))
    assert back.modality == modality
    # half a Hounsfield unit, or half a step of 15 bits
    bound = 0.5 if units == "HU" else float(volume.data.abs().max()) * 0.501 / 32767
    assert (onto(back, volume).data - volume.data).abs().max() <= bound
    for header in files(tmp_path / "b"):
        assert header.PatientName == header.PatientID
        assert str(header.PatientName).startswith("ANON-")
        assert "SourceImageSequence" not in header
        assert header.PatientIdentityRemoved == "YES"
