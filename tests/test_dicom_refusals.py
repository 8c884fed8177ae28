"""Every bad DICOM input is refused by name, and none becomes a volume that looks sound."""

import os
import time
from pathlib import Path

import bombs
import numpy as np
import pydicom.data
import pytest
import scans
from pydicom import Dataset, dcmread
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian

from medical import Refusal
from medical.dicom import list_series, read

REAL = Path(pydicom.data.get_testdata_file("DICOMDIR")).parent


def code(*arguments, **options):
    with pytest.raises(Refusal) as refused:
        read(*arguments, **options)
    assert str(refused.value).endswith(f"[{refused.value.code}]")
    return refused.value.code


def sample(name):
    return pydicom.data.get_testdata_file(name, download=False)


# --- real files


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("77654033/CT2", "E_MISSING_SLICES"),
        ("98892003/MR700", "E_MIXED_ORIENTATION"),
        ("98892003/MR2", "E_AMBIGUOUS_SERIES"),
        ("98892003/MR1", "E_AMBIGUOUS_SERIES"),
        ("98892001/CT2N", "E_MIXED_ORIENTATION"),
        ("77654033/CR1", "E_NO_GEOMETRY"),
        ("DICOMDIR", "E_AMBIGUOUS_SERIES"),
        ("DICOMDIR-bigEnd", "E_AMBIGUOUS_SERIES"),
        ("DICOMDIR-empty.dcm", "E_NO_IMAGES"),
        ("README.txt", "E_NO_IMAGES"),
    ],
)
def test_real_folders(folder, expected):
    assert code(REAL / folder) == expected


def test_real_regular_series_is_read():
    volume = read(REAL / "98892001" / "CT5N")
    assert volume.grid == (16, 16, 5)
    assert volume.spacing[2] == pytest.approx(2.5)
    assert volume.orientation == "LPS"


def test_a_real_gap_names_its_place():
    with pytest.raises(Refusal, match=r"161 slices are missing.*between 0 and 202\.5 mm"):
        read(REAL / "77654033" / "CT2")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CT_small.dcm", "E_TOO_FEW_SLICES"),
        ("MR_truncated.dcm", "E_TRUNCATED"),
        ("examples_rgb_color.dcm", "E_PHOTOMETRIC"),
        ("examples_palette.dcm", "E_PHOTOMETRIC"),
        ("examples_ybr_color.dcm", "E_NO_GEOMETRY"),
        ("liver_1frame.dcm", "E_UNSUPPORTED_SOP"),
        ("rtdose.dcm", "E_UNSUPPORTED_SOP"),
        ("badVR.dcm", "E_UNSUPPORTED_SOP"),
        ("reportsi.dcm", "E_NO_IMAGES"),
        ("rtstruct.dcm", "E_NO_IMAGES"),
        ("meta_missing_tsyntax.dcm", "E_TRANSFER_SYNTAX"),
    ],
)
def test_real_files(name, expected):
    assert code(sample(name), single=name != "CT_small.dcm") == expected


# --- made ones: each edit spoils a sound series in one way


def every(keyword, value):
    return lambda image, k: setattr(image, keyword, value)


def one(keyword, value, at=2):
    return lambda image, k: setattr(image, keyword, value) if k == at else None


def lost(*keywords):
    def edit(image, k):
        for keyword in keywords:
            delattr(image, keyword)

    return edit


def raw(keyword, value):
    return lambda image, k: scans.spoil(image, keyword, value)


def cropped(image, k):
    if k == 3:
        scans.pixels(image, np.zeros((7, 6)))


def turned(image, k):
    if k == 3:
        image.ImageOrientationPatient = [0, 1, 0, -1, 0, 0]


SPOILT = {
    "no position": (lost("ImagePositionPatient"), "E_NO_GEOMETRY"),
    "no orientation": (lost("ImageOrientationPatient"), "E_NO_GEOMETRY"),
    "one without position": (
        lambda image, k: lost("ImagePositionPatient")(image, k) if k == 4 else None,
        "E_NO_GEOMETRY",
    ),
    "long cosines": (every("ImageOrientationPatient", [1, 0, 0, 0, 1.01, 0]), "E_BAD_GEOMETRY"),
    "oblique cosines": (every("ImageOrientationPatient", [1, 0, 0, 0.1, 1, 0]), "E_BAD_GEOMETRY"),
    "zero spacing": (every("PixelSpacing", [0, 1]), "E_BAD_GEOMETRY"),
    "NaN spacing": (raw("PixelSpacing", b"nan\\1 "), "E_BAD_GEOMETRY"),
    "infinite position": (raw("ImagePositionPatient", b"0\\0\\inf "), "E_BAD_GEOMETRY"),
    "only detector spacing": (lost("PixelSpacing"), "E_BAD_GEOMETRY"),
    "comma": (raw("PixelSpacing", b"0,7\\0,8 "), "E_BAD_VALUE"),
    "two numbers short": (raw("ImagePositionPatient", b"1 "), "E_BAD_VALUE"),
    "frames": (raw("NumberOfFrames", b"1A"), "E_BAD_VALUE"),
    "no frames": (raw("NumberOfFrames", b"0 "), "E_BAD_VALUE"),
    "slope": (raw("RescaleSlope", b"one "), "E_BAD_VALUE"),
    "zero slope": (every("RescaleSlope", 0), "E_BAD_VALUE"),
    "infinite slope": (raw("RescaleSlope", b"1e39"), "E_BAD_VALUE"),
    "no rows": (lost("Rows"), "E_BAD_VALUE"),
    "bits": (every("BitsStored", 17), "E_BAD_VALUE"),
    "24 bits": (every("BitsAllocated", 24), "E_UNSUPPORTED_SOP"),
    "1 bit": (every("BitsAllocated", 1), "E_UNSUPPORTED_SOP"),
    "turned": (turned, "E_MIXED_ORIENTATION"),
    "cropped": (cropped, "E_MIXED_GRID"),
    "finer": (one("PixelSpacing", [0.7, 0.81]), "E_MIXED_GRID"),
    "two frames of reference": (one("FrameOfReferenceUID", "1.2.3"), "E_FRAME_OF_REFERENCE"),
    "two units": (one("RescaleType", "US"), "E_MIXED_UNITS"),
    "colour": (every("PhotometricInterpretation", "RGB"), "E_PHOTOMETRIC"),
    "palette": (every("PhotometricInterpretation", "PALETTE COLOR"), "E_PHOTOMETRIC"),
    "three samples": (every("SamplesPerPixel", 3), "E_PHOTOMETRIC"),
    "rows too many": (every("Rows", 9), "E_TRUNCATED"),
    "no pixels": (one("PixelData", b""), "E_TRUNCATED"),
    "no rescaling": (lost("RescaleSlope", "RescaleIntercept"), "E_HU_RANGE"),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR IS")
@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_series(tmp_path, name):
    edit, expected = SPOILT[name]
    scans.ct_series(tmp_path, scans.smooth(low=0), edit=edit)
    assert code(tmp_path) == expected


def test_the_series_they_spoil_is_sound(tmp_path):
    scans.ct_series(tmp_path, scans.smooth(low=0))
    assert read(tmp_path).grid == (8, 7, 6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"skip": (2,)}, "E_MISSING_SLICES"),
        ({"data": scans.smooth((3, 4, 9)), "skip": (2, 5, 6)}, "E_MISSING_SLICES"),
        ({"skip": (1, 4, 5)}, "E_MISSING_SLICES"),
        ({"skip": (2, 4, 5)}, "E_MISSING_SLICES"),
        ({"skip": (1, 3, 4)}, "E_VARIABLE_SPACING"),
        ({"skip": (1, 2, 3, 4, 5)}, "E_TOO_FEW_SLICES"),
        ({"offsets": 0.03 * np.arange(6)[:, None] ** 2 * [0, 0, 1]}, "E_VARIABLE_SPACING"),
        ({"offsets": [[0, 0, -1.25 * (k > 2)] for k in range(6)]}, "E_VARIABLE_SPACING"),
        ({"offsets": np.arange(6)[:, None] * [0, 0.005, 0]}, None),
        ({"offsets": np.arange(6)[:, None] * [0, 0.05, 0]}, "E_TILT"),
    ],
)
def test_uneven_stacks(tmp_path, options, expected):
    scans.ct_series(tmp_path, **options)
    if expected is None:
        assert read(tmp_path).notes == ()
    else:
        assert code(tmp_path) == expected
        assert list_series(tmp_path)[0].problem == expected


def test_holes_are_left_only_where_whole_slices_are_missing(tmp_path):
    scans.ct_series(tmp_path, offsets=[[0, 0, -1.25 * (k > 2)] for k in range(6)])
    assert code(tmp_path, on_gap="nan-fill") == "E_VARIABLE_SPACING"


def test_one_place_with_two_pictures(tmp_path):
    other = scans.smooth(seed=8)
    scans.ct_series(tmp_path / "a")
    scans.ct_series(tmp_path / "b", other[:, :, :1])
    assert code(tmp_path) == "E_DUPLICATE_POSITION"


def test_one_other_pixel_in_a_copy(tmp_path):
    *_, copy = scans.ct_series(tmp_path, twice=(3,))
    image = dcmread(copy)
    image.PixelData = image.PixelData[:-2] + b"\1\1"
    image.save_as(copy)
    assert code(tmp_path) == "E_DUPLICATE_POSITION"


def test_nothing_there(tmp_path):
    assert code(tmp_path) == "E_NO_IMAGES"
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        read([tmp_path / "absent"])


def test_counts_of_what_is_no_image(tmp_path):
    for name in ("reportsi.dcm", "rtstruct.dcm", "rtplan.dcm"):
        (tmp_path / name).write_bytes(Path(sample(name)).read_bytes())
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(
        Refusal, match=r"1 Basic Text SR Storage, 1 RT Plan Storage, 1 RT Struct.*, 1 not DICOM"
    ):
        read(tmp_path)


def test_a_series_that_is_not_there(tmp_path):
    scans.ct_series(tmp_path)
    for wanted in (2, "2", "12345678", "nobody"):
        assert code(tmp_path, series=wanted) == "E_NO_SUCH_SERIES"


def test_too_large_is_refused_from_headers(tmp_path):
    scans.ct_series(tmp_path)
    assert code(tmp_path, limit=4 * 8 * 7 * 6 - 1) == "E_TOO_LARGE"
    assert read(tmp_path, limit=4 * 8 * 7 * 6).grid == (8, 7, 6)


def test_a_gap_of_kilometres_is_not_filled(tmp_path):
    offsets = np.zeros((6, 3))
    offsets[5, 2] = 2.5e9
    scans.ct_series(tmp_path, offsets=offsets)
    for on_gap in ("nan-fill", "resample"):
        assert code(tmp_path, on_gap=on_gap) == "E_TOO_LARGE"


def test_an_unknown_transfer_syntax(tmp_path):
    scans.ct_series(tmp_path)
    for path in tmp_path.iterdir():
        known = ExplicitVRLittleEndian.encode()
        path.write_bytes(path.read_bytes().replace(known, b"1.2.840.10008.1.2.7"))
    assert code(tmp_path) == "E_TRANSFER_SYNTAX"


# --- copies that failed


def test_a_series_with_a_file_cut_anywhere_is_never_a_shorter_volume(tmp_path):
    paths = scans.ct_series(tmp_path, names="{n}")
    whole = paths[-1].read_bytes()
    rng = np.random.default_rng(0)
    cuts = [0, 1, 127, 128, 131, 132, 140, *rng.integers(132, len(whole), 30).tolist()]
    for cut in cuts:
        paths[-1].write_bytes(whole[:cut])
        assert code(tmp_path) in {"E_TRUNCATED", "E_TRANSFER_SYNTAX", "E_BAD_VALUE"}, cut


SAMPLES = [
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
]


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_files_are_refused(tmp_path, name):
    whole = Path(sample(name)).read_bytes()
    image = dcmread(sample(name))
    rng = np.random.default_rng(len(whole))
    # behind the pixels some files have padding, which may go
    tail = 0 if "DataSetTrailingPadding" not in image else len(image.DataSetTrailingPadding) + 12
    for cut in rng.integers(132, len(whole) - tail, 20).tolist():
        (tmp_path / "x").write_bytes(whole[:cut])
        start = time.process_time()
        code(tmp_path, single=True)
        assert time.process_time() - start < 5


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_bytes_are_refused_or_harmless(tmp_path, name):
    """Whatever a flipped byte does, it raises nothing but refusals."""
    whole = Path(sample(name)).read_bytes()
    rng = np.random.default_rng(1)
    for at in rng.integers(0, min(len(whole), 4000), 15).tolist():
        spoilt = bytearray(whole)
        spoilt[at] ^= int(rng.integers(1, 256))
        (tmp_path / "x").write_bytes(spoilt)
        try:
            read(tmp_path, single=True, limit=2**24)
        except Refusal:
            continue


# --- paths


def medium(folder):
    """A DICOMDIR and the series that it lists."""
    paths = scans.ct_series(folder / "from", names="{n}")
    files = FileSet()
    for path in paths:
        files.add(path)
    files.write(folder / "to")
    return folder / "to" / "DICOMDIR"


def listed(path, *parts):
    """Let the last record of a DICOMDIR point elsewhere."""
    directory = dcmread(path)
    directory.DirectoryRecordSequence[-1].ReferencedFileID = list(parts)
    directory.save_as(path)


def test_a_dicomdir_is_followed(tmp_path):
    volume = read(medium(tmp_path))
    assert (volume.data == read(tmp_path / "from").data).all()


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize(
    "parts", [("..", "from", "1"), ("/", "etc", "passwd"), ("A/../../from", "1"), (".", "1")]
)
def test_a_dicomdir_does_not_point_outside(tmp_path, parts):
    path = medium(tmp_path)
    listed(path, *parts)
    assert code(path) == "E_PATH"


def test_a_dicomdir_does_not_point_outside_by_a_link(tmp_path):
    path = medium(tmp_path)
    (path.parent / "OUT").symlink_to(tmp_path / "from")
    listed(path, "OUT", "1")
    assert code(path) == "E_PATH"


def test_a_dicomdir_that_lists_what_is_not_there(tmp_path):
    path = medium(tmp_path)
    listed(path, "PT000000", "NOWHERE")
    assert code(path) == "E_MISSING_FILES"
    (path.parent / "LOOP").symlink_to("LOOP")
    listed(path, "LOOP")
    assert code(path) == "E_MISSING_FILES"


def test_links_do_not_lead_in_circles(tmp_path):
    scans.ct_series(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    volume = read(tmp_path)
    assert volume.grid == (8, 7, 6)
    assert volume.notes == (
        "Skipped what is no image: 1 linked folders, 2 links to nowhere or special files.",
    )


# --- files made to fill the memory


def test_bombs_are_refused_within_2_seconds_and_256_megabytes(tmp_path):
    """In one process; its time is the processor's, its growth is from before each file."""
    for bomb in bombs.BOMBS:
        (tmp_path / bomb.__name__).mkdir()
        bomb(tmp_path / bomb.__name__)
    found = bombs.run(tmp_path)
    assert found.keys() == {bomb.__name__ for bomb in bombs.BOMBS}
    assert not {name: f for name, f in found.items() if f["seconds"] > 2}
    assert not {name: f for name, f in found.items() if f["growth"] > 2**28}
    codes = {"E_TOO_LARGE", "E_BAD_VALUE", "E_TRUNCATED", "E_NO_IMAGES"}
    assert {f["code"] for f in found.values()} <= codes


def test_a_scan_that_deflates_well_is_no_bomb(tmp_path):
    def edit(image, k):
        image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"

    scans.ct_series(tmp_path, np.zeros((64, 64, 3)), edit=edit)
    assert (read(tmp_path).data == 0).all()


def test_private_sequences_are_not_opened(tmp_path):
    """What is not needed is not parsed: nested rubbish in a private element does no harm."""

    def edit(image, k):
        block = image.private_block(0x0009, "NOBODY", create=True)
        block.add_new(1, "SQ", [Dataset()])
        scans.spoil(image, "ReferencedImageSequence", b"rubbish ")

    scans.ct_series(tmp_path, edit=edit)
    assert read(tmp_path).grid == (8, 7, 6)
