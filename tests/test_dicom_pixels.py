"""Stored bits become the numbers that they stand for."""

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
import scans
from pydicom import Dataset, Sequence, dcmread
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medical import Refusal
from medical.dicom import read
from medical.dicom.codestream import picture


def sample(name):
    return pydicom.data.get_testdata_file(name, download=False)


def numbers(path, **options):
    """`(rows, columns)` of a single slice."""
    return read(path, single=True, **options).data[0, :, :, 0].numpy().T


# --- encodings

MR_SMALL = [
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
]


@pytest.mark.parametrize("name", MR_SMALL)
def test_one_slice_in_all_encodings(name):
    expected = dcmread(sample("MR_small.dcm")).pixel_array
    assert (numbers(sample(name)) == expected).all()


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, DeflatedExplicitVRLittleEndian]
)
def test_series_are_exact_in_all_encodings(tmp_path, syntax):
    def edit(image, k):
        if syntax == DeflatedExplicitVRLittleEndian:
            image.file_meta.TransferSyntaxUID = syntax
        else:
            image.compress(syntax, generate_instance_uid=False)

    data = scans.smooth((40, 36, 3))
    scans.ct_series(tmp_path, data, edit=edit)
    assert (read(tmp_path).data[0].numpy() == data).all()


def test_a_jpeg2000_stream_that_forgot_its_sign():
    """BitsStored 13, signed, but the stream is unsigned; -2000 pads the round field of view."""
    image = numbers(sample("J2K_pixelrep_mismatch.dcm"))
    assert image.min() == -2000
    assert image[0, 0] == -2000


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_a_stream_knows_its_bits_better_than_the_header(tmp_path, name):
    image = dcmread(sample(name))
    expected = image.pixel_array
    image.BitsStored, image.HighBit = 10, 9
    assert expected.max() >= 2**9
    image.save_as(tmp_path / "x")
    assert (numbers(tmp_path) == expected).all()


def test_lossy_images_say_so():
    path = sample("693_J2KI.dcm")
    assert "The images were once compressed by 339 with losses." in read(path, single=True).notes


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("MR_small_jp2klossless.dcm", ("JPEG 2000", 64, 64, 1, 16)),
        ("MR_small_jpeg_ls_lossless.dcm", ("JPEG-LS", 64, 64, 1, 16)),
        ("JPEG-lossy.dcm", ("JPEG", 1024, 256, 1, 12)),
        ("SC_rgb_jpeg_gdcm.dcm", ("JPEG", 100, 100, 3, 8)),
        ("examples_jpeg2k.dcm", ("JPEG 2000", 480, 640, 3, 8)),
    ],
)
def test_streams_tell_their_size(name, size):
    (stream,) = pydicom.encaps.generate_frames(dcmread(sample(name)).PixelData, number_of_frames=1)
    found = picture(stream)
    assert (found.kind, found.rows, found.columns, found.samples, found.bits) == size


def test_a_stream_of_another_size_is_refused(tmp_path):
    image = dcmread(sample("MR_small_jp2klossless.dcm"))
    image.Rows = 32
    image.save_as(tmp_path / "x")
    with pytest.raises(Refusal, match=r"64 x 64 pixels.*its header says 32 x 64"):
        read(tmp_path, single=True)


def test_a_missing_decoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    for name, words in [
        ("MR_small_jpeg_ls_lossless.dcm", r"JPEG-LS.*restore-imaging\[dicom\], or pyjpegls"),
        ("MR_small_jp2klossless.dcm", r"JPEG 2000.*, or pylibjpeg and pylibjpeg-openjpeg"),
    ]:
        with pytest.raises(Refusal, match=words) as refused:
            read(sample(name), single=True)
        assert refused.value.code == "E_DECODER"


# --- bits


def bits(stored, high, signed, values):
    """A file whose words hold values in some bits and rubbish in the others."""

    def edit(image, k):
        image.BitsStored, image.HighBit, image.PixelRepresentation = stored, high, int(signed)
        low, words = high + 1 - stored, np.asarray(values).astype(np.int64)
        mask = ((1 << stored) - 1) << low
        rubbish = np.random.default_rng(0).integers(0, 2**16, words.shape)
        image.PixelData = ((words << low & mask) | (rubbish & ~mask)).astype("<u2").tobytes()

    return edit


@pytest.mark.parametrize(("stored", "high"), [(16, 15), (12, 11), (12, 15), (12, 13), (9, 8)])
@pytest.mark.parametrize("signed", [True, False])
def test_only_stored_bits_count(tmp_path, stored, high, signed):
    low = -(2 ** (stored - 1)) if signed else 0
    values = np.linspace(low, low + 2**stored - 1, 30).astype(int).reshape(5, 6)
    scans.mr_series(tmp_path, np.zeros((6, 5, 1)), edit=bits(stored, high, signed, values))
    assert (numbers(tmp_path) == values).all()


def test_eight_bits_of_an_odd_number_of_pixels(tmp_path):
    data = scans.smooth((3, 3, 2), low=0, high=255)

    def edit(image, k):
        scans.pixels(image, data[:, :, k].T, signed=False, bits=8)

    scans.mr_series(tmp_path, data, edit=edit)
    assert (read(tmp_path).data[0].numpy() == data).all()


def wide(kind, keyword="PixelData"):
    def edit(image, k):
        values = np.arange(30).reshape(5, 6) * (1000 if kind[1] == "u" else 0.125)
        del image.PixelData
        setattr(image, keyword, values.astype(kind).tobytes())
        if keyword == "PixelData":
            image["PixelData"].VR = "OW"
        image.BitsAllocated = image.BitsStored = 8 * int(kind[2])
        image.HighBit, image.PixelRepresentation = image.BitsStored - 1, 0

    return edit


@pytest.mark.parametrize(
    ("kind", "keyword"),
    [("<u4", "PixelData"), ("<f4", "FloatPixelData"), ("<f8", "DoubleFloatPixelData")],
)
def test_wide_pixels(tmp_path, kind, keyword):
    scans.mr_series(tmp_path, np.zeros((6, 5, 1)), edit=wide(kind, keyword))
    factor = 1000 if kind[1] == "u" else 0.125
    assert (numbers(tmp_path) == np.arange(30).reshape(5, 6) * factor).all()


# --- physical units


def test_each_slice_has_its_slope(tmp_path):
    slopes, intercepts = [0.5, 2, 3], [-1024, 0, 10]
    stored = scans.smooth((4, 5, 3), low=0, high=500)
    data = stored * slopes + intercepts
    scans.ct_series(tmp_path, data, slope=slopes, intercept=intercepts)
    assert (read(tmp_path).data[0].numpy() == data).all()


def test_padding_is_not_measured(tmp_path):
    """Padding is compared before rescaling, becomes air, and is never HU."""
    data = scans.smooth((6, 5, 3))
    data[0] = -3024  # stored -2000

    def edit(image, k):
        image.add_new("PixelPaddingValue", "SS", -2000)

    scans.ct_series(tmp_path, data, edit=edit)
    volume = read(tmp_path)
    assert not volume.valid[0].any()
    assert volume.valid[1:].all()
    assert (volume.data[0, 0] == -1000).all()
    assert (volume.data[0, 1:].numpy() == data[1:]).all()
    assert volume.notes == ()


def test_padding_written_without_its_sign(tmp_path):
    data = scans.smooth((6, 5, 3))
    data[0] = -3024

    def edit(image, k):
        image.add_new("PixelPaddingValue", "US", 63536)  # -2000 in 16 bits

    scans.ct_series(tmp_path, data, edit=edit)
    assert read(tmp_path).valid.sum() == 5 * 5 * 3


def test_padding_may_be_a_range(tmp_path):
    data = scans.smooth((6, 5, 2), low=100, high=900)
    data[0], data[1], data[2] = 2, 5, 9

    def edit(image, k):
        image.add_new("PixelPaddingValue", "SS", 7)
        image.add_new("PixelPaddingRangeLimit", "SS", 2)

    scans.mr_series(tmp_path, data, edit=edit)
    volume = read(tmp_path)
    assert volume.valid[:, 0, 0].tolist() == [False, False, True, True, True, True]
    assert (volume.data[0, :2] == 0).all()


def test_monochrome1_is_not_turned_around(tmp_path):
    data = scans.smooth((4, 5, 2), low=0)
    scans.mr_series(
        tmp_path, data, edit=lambda i, k: setattr(i, "PhotometricInterpretation", "MONOCHROME1")
    )
    volume = read(tmp_path)
    assert (volume.data[0].numpy() == data).all()
    assert "MONOCHROME1" in volume.notes[0]


def mapping(slope, intercept, code, first=-32768, last=32767):
    item, unit = Dataset(), Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = float(slope), float(intercept)
    item.add_new("RealWorldValueFirstValueMapped", "SS", first)
    item.add_new("RealWorldValueLastValueMapped", "SS", last)
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = code, "UCUM", "unit"
    item.MeasurementUnitsCodeSequence = Sequence([unit])
    return Sequence([item])


@pytest.mark.parametrize(
    ("code", "units"),
    [("{SUVbw}g/ml", "SUV"), ("Bq/ml", "Bq/ml"), ("[hnsf'U]", "HU"), ("x", "a.u.")],
)
def test_real_world_values(tmp_path, code, units):
    stored = scans.smooth((4, 5, 3), low=0, high=500)

    def edit(image, k):
        del image.RescaleSlope, image.RescaleIntercept
        image.RealWorldValueMappingSequence = mapping(0.25, 3, code, last=400)

    scans.mr_series(tmp_path, stored, edit=edit)
    volume = read(tmp_path)
    assert volume.units == units
    mapped = stored <= 400
    assert (volume.valid.numpy() == mapped).all()
    assert (volume.data[0].numpy()[mapped] == 0.25 * stored[mapped] + 3).all()


def test_hounsfield_units_come_from_the_slope(tmp_path):
    def edit(image, k):
        image.RealWorldValueMappingSequence = mapping(2, 0, "mg/ml")

    scans.ct_series(tmp_path, edit=edit)
    volume = read(tmp_path)
    assert (volume.units, volume.notes) == ("HU", ())
    assert (volume.data[0].numpy() == scans.smooth()).all()


def test_a_modality_table(tmp_path):
    stored = scans.smooth((4, 5, 2), low=0, high=16)
    table = np.arange(16) ** 2

    def edit(image, k):
        del image.RescaleSlope, image.RescaleIntercept
        item = Dataset()
        item.add_new("LUTDescriptor", "SS", [16, 0, 16])
        item.add_new("LUTData", "US", table.tolist())
        item.ModalityLUTType = "US"
        image.ModalityLUTSequence = Sequence([item])

    scans.mr_series(tmp_path, stored, edit=edit)
    assert (read(tmp_path).data[0].numpy() == table[stored.astype(int)]).all()


def test_ct_without_rescaling(tmp_path):
    def edit(image, k):
        del image.RescaleSlope, image.RescaleIntercept

    scans.ct_series(tmp_path, scans.smooth(low=-900, high=400), intercept=0, edit=edit)
    volume = read(tmp_path)
    assert volume.units == "a.u."
    assert "does not say how its numbers become HU" in volume.notes[0]


@pytest.mark.parametrize(("low", "high"), [(-1500, 0), (0, 900)])
def test_numbers_unlike_hounsfield_units_are_noted(tmp_path, low, high):
    scans.ct_series(tmp_path, scans.smooth(low=low, high=high), intercept=0)
    (note,) = read(tmp_path).notes
    assert note.endswith("[W_HU_RANGE]")


def test_the_file_is_not_changed():
    before = Path(sample("CT_small.dcm")).read_bytes()
    read(sample("CT_small.dcm"), single=True)
    assert Path(sample("CT_small.dcm")).read_bytes() == before
