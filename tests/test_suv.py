"""Uptake values, against numbers worked out by hand, and what they are refused for."""

import numpy as np
import pytest
import scans

from medical import Refusal
from medical.dicom import read

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR TM")

# 370 MBq, 70 kg, 60 min, F-18: 70000 g / (370e6 Bq * 0.684633)
FACTOR = 70_000 / (370e6 * 2 ** (-3600 / 6586.2))


def factor(folder, **options):
    """What Bq/ml were multiplied by."""
    scans.pet_series(folder, **options)
    plain, volume = read(folder).data, read(folder, suv=True)
    assert volume.units == "SUV"
    return float((volume.data.double() / plain.double())[plain > 0].mean())


def refused(folder, **options):
    scans.pet_series(folder, **options)
    with pytest.raises(Refusal) as caught:
        read(folder, suv=True)
    return caught.value.code


def edit(**values):
    def change(image, k):
        for keyword, value in values.items():
            setattr(image, keyword, value)

    return change


def tracer(**values):
    def change(image, k):
        for keyword, value in values.items():
            setattr(image.RadiopharmaceuticalInformationSequence[0], keyword, value)

    return change


def test_activity_has_the_slope_of_each_slice(tmp_path):
    data = scans.smooth(low=0, high=30000) * (0.5 + 0.25 * np.arange(6))
    scans.pet_series(tmp_path, data)
    volume = read(tmp_path)
    assert (volume.units, volume.modality) == ("Bq/ml", "PT")
    assert (volume.data[0].numpy() == data.astype(np.float32)).all()


def test_the_worked_example(tmp_path):
    assert pytest.approx(2.763367e-4, rel=1e-6) == FACTOR
    assert factor(tmp_path) == pytest.approx(FACTOR, rel=1e-6)


def test_the_largest_suv_of_a_sound_scan_is_not_noted(tmp_path):
    scans.pet_series(tmp_path)
    assert read(tmp_path, suv=True).notes == ()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"correction": "ADMIN"}, 70_000 / 370e6),
        ({"weight": 35.0}, FACTOR / 2),
        ({"dose": 185e6}, FACTOR * 2),
        ({"half_life": 1223.4}, 70_000 / (370e6 * 2 ** (-3600 / 1223.4))),
        ({"injected": "09:15:00"}, FACTOR),
        ({"injected": "091500.000000"}, FACTOR),
        # corrected to the start of the series, though images were reconstructed later
        ({"edit": edit(SeriesTime="111500")}, FACTOR),
        ({"edit": edit(SeriesTime="101000")}, 70_000 / (370e6 * 2 ** (-3300 / 6586.2))),
        # before midnight
        (
            {
                "injected": "233000",
                "edit": edit(SeriesTime="003000", AcquisitionTime="003000"),
            },
            FACTOR,
        ),
        ({"edit": tracer(RadiopharmaceuticalStartDateTime="20240305091500.0")}, FACTOR),
        ({"edit": edit(CorrectedImage=["DECAY", "ATTN"])}, FACTOR),
    ],
)
def test_times_doses_and_weights(tmp_path, options, expected):
    assert factor(tmp_path, **options) == pytest.approx(expected, rel=1e-6)


def test_grams_per_millilitre_are_suv_already(tmp_path):
    assert factor(tmp_path, units="GML") == 1


def test_ge_knows_when_the_scan_began(tmp_path):
    def change(image, k):
        image.SeriesTime = "120000"
        image.AcquisitionTime = "104500"  # of a later bed
        block = image.private_block(0x0009, "GEMS_PETD_01", create=True)
        block.add_new(0x0D, "DT", "20240305101500.00")

    assert factor(tmp_path, edit=change) == pytest.approx(FACTOR, rel=1e-6)


@pytest.mark.parametrize(("element", "expected"), [(0x00, 0.25), (0x09, 0.25 * FACTOR)])
def test_philips_tells_what_counts_are(tmp_path, element, expected):
    def change(image, k):
        # the vendor's elements may sit in any block
        image.private_block(0x7053, "SOMEBODY ELSE", create=True).add_new(element, "DS", "7")
        block = image.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(element, "DS", "0.25")

    assert factor(tmp_path, units="CNTS", edit=change) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"units": "CNTS"}, "E_SUV_UNITS"),
        ({"units": "PROPCNTS"}, "E_SUV_UNITS"),
        ({"units": "GML", "edit": edit(SUVType="LBM")}, "E_SUV_UNITS"),
        ({"correction": "NONE"}, "E_SUV_DECAY"),
        ({"correction": None}, "E_SUV_DECAY"),
        ({"edit": edit(CorrectedImage=["ATTN", "SCAT"])}, "E_SUV_CORRECTED"),
        ({"edit": edit(CorrectedImage=["DECY"])}, "E_SUV_CORRECTED"),
        ({"edit": edit(LossyImageCompression="01")}, "E_SUV_LOSSY"),
        ({"weight": None}, "E_SUV_WEIGHT"),
        ({"weight": 0}, "E_SUV_WEIGHT"),
        ({"weight": 70_000}, "E_SUV_WEIGHT"),
        ({"edit": lambda image, k: setattr(image, "PatientWeight", 70 + k)}, "E_SUV_WEIGHT"),
        ({"dose": None}, "E_SUV_DOSE"),
        ({"dose": 370}, "E_SUV_DOSE"),
        ({"dose": 370e9}, "E_SUV_DOSE"),
        ({"half_life": None}, "E_SUV_HALF_LIFE"),
        ({"half_life": 109.77}, "E_SUV_HALF_LIFE"),
        ({"injected": None}, "E_SUV_TIME"),
        ({"injected": "soon"}, "E_SUV_TIME"),
        ({"injected": "031500"}, "E_SUV_TIME"),
        ({"injected": "104500"}, "E_SUV_TIME"),
        ({"edit": tracer(RadiopharmaceuticalStartDateTime="20240305111500")}, "E_SUV_TIME"),
        ({"edit": edit(AcquisitionTime="")}, "E_SUV_TIME"),
        ({"edit": edit(SeriesDate="")}, "E_SUV_TIME"),
    ],
)
def test_what_uptake_is_refused_for(tmp_path, options, code):
    assert refused(tmp_path, **options) == code


def test_no_tracer_at_all(tmp_path):
    def change(image, k):
        del image.RadiopharmaceuticalInformationSequence

    assert refused(tmp_path, edit=change) == "E_SUV_DOSE"


def test_uptake_of_ct(tmp_path):
    scans.ct_series(tmp_path)
    with pytest.raises(Refusal) as caught:
        read(tmp_path, suv=True)
    assert caught.value.code == "E_SUV_MODALITY"


def test_implausible_uptake_is_noted(tmp_path):
    scans.pet_series(tmp_path, scans.smooth(low=0, high=100), slope=1)
    (note,) = read(tmp_path, suv=True).notes
    assert note.endswith("[W_SUV_RANGE]")
