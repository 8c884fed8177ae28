"""Multi-frame files: frames are put in order by where they are, not by their number."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import scans
from pydicom import Dataset, Sequence, dcmread

from medical import Refusal, geometry
from medical.dicom import list_series, read


def same(volume, data, affine):
    """Whether a volume is this array on this grid; axes as written."""
    return np.abs(volume.affine - affine).max() < 1e-6 and (volume.data[0].numpy() == data).all()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("shuffle", [None, 1, 2])
def test_frames_in_any_order(tmp_path, axis, shuffle):
    turn = scans.rotation(25) @ np.roll(np.eye(3), axis, 0)
    affine, data = scans.affine_of(turn=turn), scans.smooth((5, 6, 7))
    order = scans.enhanced_ct(tmp_path / "x", data, affine, shuffle=shuffle)
    volume = read(tmp_path / "x")
    assert same(volume, data, affine)
    assert volume.units == "HU"
    source = volume.source
    assert source.multiframe
    assert len(source.headers) == 1
    assert [order[frame] for _, frame in source.frames] == list(range(7))
    assert "PerFrameFunctionalGroupsSequence" in source.headers[0]


def test_each_frame_has_its_slope(tmp_path):
    slopes, intercepts = [1, 2, 0.5, 4], [-1024, 0, 8, 100]
    data = scans.smooth((4, 5, 4), low=0, high=500) * slopes + intercepts
    scans.enhanced_ct(tmp_path / "x", data, slope=slopes, intercept=intercepts)
    assert same(read(tmp_path / "x"), data, scans.affine_of())


def test_a_frame_is_missing(tmp_path):
    def edit(image):
        keep = [
            n
            for n in range(6)
            if image[0x52009230][n].FrameContentSequence[0].InStackPositionNumber != 3
        ]
        frames = np.frombuffer(image.PixelData, "<i2").reshape(6, 7, 8)
        image.PixelData, image.NumberOfFrames = frames[keep].tobytes(), 5
        groups = image.PerFrameFunctionalGroupsSequence
        image.PerFrameFunctionalGroupsSequence = Sequence([groups[n] for n in keep])

    scans.enhanced_ct(tmp_path / "x", edit=edit)
    with pytest.raises(Refusal) as refused:
        read(tmp_path / "x")
    assert refused.value.code == "E_MISSING_SLICES"
    volume = read(tmp_path / "x", on_gap="nan-fill")
    assert volume.source.frames[2] is None
    assert volume.valid[:, :, 2].sum() == 0
    expected = scans.smooth()
    expected[:, :, 2] = -1000
    assert same(volume, expected, scans.affine_of())


def phases(path, dimension):
    """Two phases of one place, told apart by DimensionIndexValues or by FrameType."""

    def edit(image):
        groups = image.PerFrameFunctionalGroupsSequence
        for group in groups:
            content = group.FrameContentSequence[0]
            place, phase = divmod(content.InStackPositionNumber - 1, 2)
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2 * place]
            if dimension:
                content.DimensionIndexValues = [phase + 1, place + 1]
            else:
                kind = Dataset()
                kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", ["NONE", "ADDITION"][phase]]
                group.CTImageFrameTypeSequence = Sequence([kind])
        if dimension:
            pointer = Dataset()
            pointer.DimensionIndexPointer = 0x00189074  # FrameAcquisitionDateTime
            image.DimensionIndexSequence.insert(0, pointer)

    scans.enhanced_ct(path, edit=edit)


@pytest.mark.parametrize("dimension", [True, False])
def test_several_volumes_in_one_file(tmp_path, dimension):
    phases(tmp_path / "x", dimension)
    with pytest.raises(Refusal) as refused:
        read(tmp_path / "x")
    assert refused.value.code == "E_AMBIGUOUS_SERIES"
    assert [line.size for line in list_series(tmp_path / "x")] == [(8, 7, 3)] * 2
    found = [read(tmp_path / "x", series=n).data[0].numpy() for n in (1, 2)]
    data = scans.smooth()
    halves = [data[:, :, 0::2], data[:, :, 1::2]]
    if not dimension:  # "ADDITION" comes before "NONE"
        halves.reverse()
    for half, expected in zip(found, halves, strict=True):
        assert (half == expected).all()


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda i: setattr(i, "NumberOfFrames", 5), "E_BAD_VALUE"),
        (lambda i: setattr(i, "NumberOfFrames", 7), "E_BAD_VALUE"),
        (lambda i: delattr(i, "PerFrameFunctionalGroupsSequence"), "E_NO_GEOMETRY"),
        (lambda i: delattr(i, "SharedFunctionalGroupsSequence"), "E_NO_GEOMETRY"),
        (lambda i: setattr(i, "PixelData", i.PixelData[:-2]), "E_TRUNCATED"),
        (lambda i: scans.spoil(i, "SharedFunctionalGroupsSequence", b"rubbish"), "E_NO_GEOMETRY"),
    ],
)
def test_broken_files(tmp_path, edit, code):
    scans.enhanced_ct(tmp_path / "x", edit=edit)
    with pytest.raises(Refusal) as refused:
        read(tmp_path / "x")
    assert refused.value.code == code


def test_a_file_cut_anywhere(tmp_path):
    scans.enhanced_ct(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut"
    for at in np.random.default_rng(0).integers(132, len(whole), 30).tolist():
        cut.write_bytes(whole[:at])
        with pytest.raises(Refusal):
            read(cut)


# --- real files


@pytest.fixture(scope="module")
def real():
    store = pytest.importorskip("data_store")
    return Path(store.__file__).parent / "data"


def test_a_real_perfusion_map(real):
    volume = read(real / "eCT_Supplemental.dcm")
    image = dcmread(real / "eCT_Supplemental.dcm")
    (mapped,) = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    order = [frame for _, frame in volume.source.frames]
    expected = image.pixel_array[order] * mapped.RealWorldValueSlope
    assert (volume.data[0].numpy().T == expected + mapped.RealWorldValueIntercept).all()
    assert volume.spacing[2] == pytest.approx(10)
    assert order == [1, 0]  # rows run to the left: the normal points down
    assert volume.orientation == "RPI"
    assert volume.units == "a.u."


@pytest.mark.filterwarnings("ignore:Unable to find Philips")
def test_nibabel_agrees_about_a_real_enhanced_series(tmp_path):
    wrappers = pytest.importorskip("nibabel.nicom.dicomwrappers")
    packed = Path(wrappers.__file__).parent / "tests" / "data" / "philips_mprage.dcm.gz"
    path = tmp_path / "x"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    volume, other = read(path), wrappers.wrapper_from_file(path)
    assert volume.grid == (256, 256, 176)
    # nibabel's first axis goes down the rows
    theirs = geometry.LPS_TO_RAS @ other.affine @ np.eye(4)[[1, 0, 2, 3]]
    data = other.get_data().swapaxes(0, 1)
    if volume.affine[:3, 2] @ theirs[:3, 2] < 0:  # and its slices the other way
        theirs[:3, 3] += 175 * theirs[:3, 2]
        theirs[:3, 2] *= -1
        data = data[:, :, ::-1]
    # nibabel multiplies the nominal spacing; ours is exact at the first frame and at the last
    assert np.abs(volume.affine - theirs).max() < 5e-3
    groups = volume.source.headers[0].PerFrameFunctionalGroupsSequence
    for k in (0, 175):
        group = groups[volume.source.frames[k][1]]
        lps = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.abs(geometry.place(volume.affine, [0, 0, k]) - lps * [-1, -1, 1]).max() < 1e-9
    assert np.abs(volume.data[0].numpy() - data).max() <= 1e-6 * np.abs(data).max()


def test_a_real_mosaic_is_refused(tmp_path):
    nicom = pytest.importorskip("nibabel.nicom")
    packed = Path(nicom.__file__).parent / "tests" / "data" / "siemens_dwi_0.dcm.gz"
    (tmp_path / "x").write_bytes(gzip.decompress(packed.read_bytes()))
    with pytest.raises(Refusal, match="mosaic"):
        read(tmp_path, single=True)


def placed(source, target):
    """Give a real file back the places that its anonymiser took away."""
    image = dcmread(source)
    groups = []
    for n in range(10):
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 3 * ((3 * n) % 10)]
        group.PlanePositionSequence = Sequence([place])
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = Sequence(groups)
    shared, fine, lie = Dataset(), Dataset(), Dataset()
    fine.PixelSpacing, lie.ImageOrientationPatient = [2, 2], [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = Sequence([fine])
    shared.PlaneOrientationSequence = Sequence([lie])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    image.save_as(target)
    return image


@pytest.mark.parametrize("kind", ["RLE", "jpeg_2k_lossless", "jpeg_ls_lossless", "big_endian"])
def test_real_frames_in_all_encodings(real, tmp_path, kind):
    plain = placed(real / "emri_small.dcm", tmp_path / "plain")
    expected = plain.pixel_array[[(7 * k) % 10 for k in range(10)]]  # 3 * 7 = 1 modulo 10
    placed(real / f"emri_small_{kind}.dcm", tmp_path / kind)
    for name in ("plain", kind):
        volume = read(tmp_path / name)
        assert (volume.data[0].numpy().T == expected).all()
        assert volume.spacing == pytest.approx([2, 2, 3])


@pytest.mark.filterwarnings("ignore:End of file reached")
def test_a_real_file_with_too_few_fragments(real, tmp_path):
    placed(real / "emri_small_jpeg_2k_lossless_too_short.dcm", tmp_path / "x")
    with pytest.raises(Refusal) as refused:
        read(tmp_path / "x")
    assert refused.value.code == "E_TRUNCATED"


def test_a_real_file_without_places(real):
    with pytest.raises(Refusal) as refused:
        read(real / "emri_small.dcm")
    assert refused.value.code == "E_NO_GEOMETRY"


def test_highdicoms_parametric_map(tmp_path):
    """A standard deviation that highdicom wrote as floats comes back as it was."""
    highdicom = pytest.importorskip("highdicom")
    paths = scans.ct_series(tmp_path / "ct", scans.smooth((8, 7, 4)))
    spread = np.random.default_rng(0).random((4, 7, 8)).astype(np.float32)
    units = highdicom.sr.CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
    made = highdicom.pm.ParametricMap(
        source_images=[dcmread(p) for p in paths],
        pixel_array=spread,
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            highdicom.pm.RealWorldValueMapping(
                lut_label="1",
                lut_explanation="std",
                unit=units,
                value_range=(-1e6, 1e6),
                slope=1.0,
                intercept=0.0,
            )
        ],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(window_center=0.5, window_width=1.0)
        ],
    )
    made.save_as(tmp_path / "map")
    volume = read(tmp_path / "map")
    assert volume.units == "HU"
    assert same(volume, spread.T, scans.affine_of())
