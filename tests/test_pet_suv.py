"""Uptake of a PET whose truth is known, by every way that scanners tell it."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
import scans

from medical import Refusal, Volume, pet
from medical.dicom import read

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR TM")

F18, GA68, C11 = 6586.2, 4057.7, 1223.4  # s
SCAN = datetime(2024, 3, 5, 10, 15)
# uint16 on slopes of each slice, of any size: 0.01 to 0.06 MBq/ml
STORED = np.random.default_rng(0).integers(1, 65536, (5, 4, 6)).astype(float)
SLOPES = 0.3 * np.arange(1, 7) ** 1.5
PHILIPS, GE = "Philips PET Private Group", "GEMS_PETD_01"


def written(folder, *, edit=None, **options):
    """A series of unsigned numbers, each slice with its own slope."""

    def change(image, k):
        scans.pixels(image, STORED[:, :, k].T, signed=False)
        return None if edit is None else edit(image, k)

    scans.pet_series(folder, STORED * SLOPES, slope=SLOPES, edit=change, **options)


def header(tracer=(), **values):
    """Change attributes of every slice, and of the tracer."""

    def change(image, k):
        for keyword, value in values.items():
            setattr(image, keyword, value[k] if isinstance(value, list) else value)
        for keyword, value in dict(tracer).items():
            item = image.RadiopharmaceuticalInformationSequence[0]
            setattr(item, keyword, value[k] if isinstance(value, list) else value)

    return change


def philips(**factors):
    def change(image, k):
        block = image.private_block(0x7053, PHILIPS, create=True)
        for element, value in factors.items():
            block.add_new(int(element[1:], 16), "DS", value)

    return change


def ge(start):
    """A series made anew at noon, whose scan began at another time."""

    def change(image, k):
        image.SeriesTime, image.AcquisitionTime = "120000", f"11{5 * k:02d}00"
        image.private_block(0x0009, GE, create=True).add_new(0x0D, "DT", start)

    return change


def left(minutes, dose=370e6, half_life=F18):
    """Bq after so many minutes, by Rutherford and Soddy's law with a mean lifetime."""
    return dose * math.exp(-60 * minutes * math.log(2) / half_life)


BRANCHES = {
    "START": ({}, 70e3 / left(60)),
    "ADMIN": ({"correction": "ADMIN"}, 70e3 / 370e6),
    "Ga-68": ({"half_life": GA68, "dose": 150e6}, 70e3 / left(60, 150e6, GA68)),
    "C-11": ({"half_life": C11}, 70e3 / left(60, 370e6, C11)),
    "child": ({"weight": 3.2, "dose": 12e6}, 3.2e3 / left(60, 12e6)),
    "CNTS, SUV a count": ({"units": "CNTS", "edit": philips(x00="0.000412")}, 0.000412),
    "CNTS, Bq/ml a count": ({"units": "CNTS", "edit": philips(x09="2.75")}, 2.75 * 70e3 / left(60)),
    "CNTS, no SUV a count": (
        {"units": "CNTS", "edit": philips(x00="0", x09="2.75")},
        2.75 * 70e3 / left(60),
    ),
    "CNTS, ADMIN": (
        {"units": "CNTS", "correction": "ADMIN", "edit": philips(x09="2.75")},
        2.75 * 70e3 / 370e6,
    ),
    "GML": ({"units": "GML"}, 1.0),
    "GML, SUVType": ({"units": "GML", "edit": header(SUVType="BW")}, 1.0),
    "date and time": (
        {"injected": None, "edit": header({"RadiopharmaceuticalStartDateTime": "20240305085500"})},
        70e3 / left(80),
    ),
    "date before time": (  # the date says more than the time beside it
        {"edit": header({"RadiopharmaceuticalStartDateTime": "20240305085500.50"})},
        70e3 / left(80 - 0.5 / 60),
    ),
    "date of yesterday": (
        {
            "injected": None,
            "edit": header(
                {"RadiopharmaceuticalStartDateTime": "20240304233000"},
                SeriesTime="001500",
                AcquisitionTime="001500",
            ),
        },
        70e3 / left(45),
    ),
    "midnight": (
        {"injected": "235900", "edit": header(SeriesTime="004500", AcquisitionTime="004500")},
        70e3 / left(46),
    ),
    "seconds": (
        {"injected": "091500.250000", "edit": header(SeriesTime="101500.750")},
        70e3 / left(60 - 0.25 / 60),  # the series is later than the acquisition, which counts
    ),
    "beds": (  # slices of later beds were acquired later
        {"edit": header(AcquisitionTime=[f"10{15 + 3 * k}00" for k in range(6)])},
        70e3 / left(60),
    ),
    "beds from below": (
        {"edit": header(AcquisitionTime=[f"10{33 - 3 * k}00" for k in range(6)])},
        70e3 / left(60),
    ),
    "made anew": (
        {
            "edit": header(
                SeriesTime="143000", AcquisitionTime=[f"10{21 + 3 * k}00" for k in range(6)]
            )
        },
        70e3 / left(66),
    ),
    "made anew by GE": ({"edit": ge("20240305111000.00")}, 70e3 / left(115)),
    "series before acquisition": ({"edit": header(SeriesTime="101200")}, 70e3 / left(57)),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_uptake_is_the_truth_in_every_voxel(tmp_path, name):
    options, factor = BRANCHES[name]
    written(tmp_path, **options)
    truth = STORED * SLOPES * factor
    found = read(tmp_path, suv=True)
    assert found.units == "SUV"
    # float32 rounds by 6e-8, the decimal strings of the slopes by less
    assert np.abs(found.data[0].double().numpy() / truth - 1).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"units": "CNTS", "edit": philips(x00="0", x09="0")}, "E_SUV_UNITS"),
        ({"units": "CM2ML"}, "E_SUV_UNITS"),
        ({"units": "GML", "edit": header(SUVType="BSA")}, "E_SUV_UNITS"),
        ({"edit": header(Units="")}, "E_SUV_UNITS"),
        ({"edit": header(CorrectedImage="")}, "E_SUV_CORRECTED"),
        ({"weight": -70.0}, "E_SUV_WEIGHT"),
        ({"weight": 400.5}, "E_SUV_WEIGHT"),
        ({"dose": 0}, "E_SUV_DOSE"),
        ({"half_life": 6800}, "E_SUV_HALF_LIFE"),
        # values of a series that its slices do not agree on
        (
            {"edit": header({"RadionuclideTotalDose": [370e6, 371e6, *[370e6] * 4]})},
            "E_SUV_DOSE",
        ),
        (
            {"edit": header({"RadionuclideHalfLife": [F18, *[C11] * 5]})},
            "E_SUV_HALF_LIFE",
        ),
        (
            {"edit": header({"RadiopharmaceuticalStartTime": ["091500"] * 5 + ["081500"]})},
            "E_SUV_TIME",
        ),
        ({"edit": header(SeriesTime=["101500"] * 5 + ["091500"])}, "E_SUV_TIME"),
        ({"edit": header(DecayCorrection=["START"] * 5 + ["ADMIN"])}, "E_SUV_DECAY"),
        ({"edit": header(DecayCorrection=["START"] * 5 + ["NONE"])}, "E_SUV_DECAY"),
        ({"edit": header(CorrectedImage=[["ATTN", "DECY"]] * 5 + [["ATTN"]])}, "E_SUV_CORRECTED"),
        ({"edit": header(Units=["BQML"] * 5 + ["CNTS"])}, "E_MIXED_UNITS"),
        (
            {
                "units": "CNTS",
                "edit": lambda image, k: philips(x00="0.25" if k else "0.5")(image, k),
            },
            "E_SUV_UNITS",
        ),
        # at the end of what is believed: six hours, or three half-lives
        ({"injected": "041459"}, "E_SUV_TIME"),
    ],
)
def test_broken_headers_are_refused_by_name(tmp_path, options, code):
    written(tmp_path, **options)
    with pytest.raises(Refusal) as caught:
        read(tmp_path, suv=True)
    assert caught.value.code == code
    assert scans.SECRET not in str(caught.value)


def test_the_last_second_that_is_believed(tmp_path):
    written(tmp_path, injected="041500")
    assert SCAN - datetime(2024, 3, 5, 4, 15) == timedelta(hours=6)
    assert read(tmp_path, suv=True).units == "SUV"


BODIES = [
    # by hand: BMI 70 / 1.75^2 = 22.85714
    ("M", 70.0, 1.75, 648_900 / 11_617.143),  # 6680 + 216 * 22.85714
    ("F", 70.0, 1.75, 648_900 / 14_357.143),  # 8780 + 244 * 22.85714
    ("F", 120.0, 1.60, 1_112_400 / 20_217.5),  # 8780 + 244 * 46.875
]


@pytest.mark.parametrize(("sex", "weight", "height", "lean"), BODIES)
def test_lean_body_mass(tmp_path, sex, weight, height, lean):
    assert pet.lean_body_mass(weight, height, sex) == pytest.approx(lean, rel=1e-5)
    written(tmp_path, weight=weight, edit=header(PatientSex=sex, PatientSize=height))
    by_weight, by_lean = pet.read(tmp_path), pet.read(tmp_path, kind="lbm")
    assert by_lean.units == "SUVlbm"
    assert (by_lean.data / by_weight.data).numpy() == pytest.approx(lean / weight, rel=1e-5)


def test_lean_body_mass_of_heavy_people_grows_to_a_limit():
    """That of James turns down, and below zero, where BMI is large."""
    mass = [pet.lean_body_mass(w, 1.6, "F") for w in range(40, 400, 10)]
    assert (np.diff(mass) > 0).all()
    assert mass[-1] < 9270 * 1.6**2 / 244


def test_body_surface(tmp_path):
    # DuBois and DuBois: 0.007184 * 70^0.425 * 175^0.725 = 1.848 m2
    assert pet.body_surface(70, 1.75) == pytest.approx(18480, rel=1e-3)
    written(tmp_path, edit=header(PatientSex="O", PatientSize=1.75))
    by_weight, by_surface = pet.read(tmp_path), pet.read(tmp_path, kind="bsa")
    assert by_surface.units == "SUVbsa"
    ratio = (by_surface.data / by_weight.data).numpy()
    assert ratio == pytest.approx(pet.body_surface(70, 1.75) / 70e3, rel=1e-5)


@pytest.mark.parametrize(
    ("edit", "kind", "code"),
    [
        (header(PatientSex="F"), "lbm", "E_SUV_SIZE"),
        (header(PatientSize=""), "bsa", "E_SUV_SIZE"),
        (header(PatientSize=0), "bsa", "E_SUV_SIZE"),
        (header(PatientSize=175), "lbm", "E_SUV_SIZE"),
        (header(PatientSize=[1.75] * 5 + [1.8]), "lbm", "E_SUV_SIZE"),
        (header(PatientSize=1.75, PatientSex="O"), "lbm", "E_SUV_SEX"),
        (header(PatientSize=1.75, PatientSex=""), "lbm", "E_SUV_SEX"),
        (header(PatientSize=1.75, PatientSex=["M"] * 5 + ["F"]), "lbm", "E_SUV_SEX"),
    ],
)
def test_a_body_that_is_not_known_is_refused(tmp_path, edit, kind, code):
    written(tmp_path, edit=edit)
    with pytest.raises(Refusal) as caught:
        pet.read(tmp_path, kind=kind)
    assert caught.value.code == code


def test_weight_is_needed_even_where_the_file_holds_suv(tmp_path):
    edit = header(PatientSize=1.75, PatientSex="M", PatientWeight="")
    written(tmp_path, units="GML", edit=edit)
    assert pet.read(tmp_path).units == "SUV"
    with pytest.raises(Refusal) as caught:
        pet.read(tmp_path, kind="lbm")
    assert caught.value.code == "E_SUV_WEIGHT"


def test_only_uptake_by_weight_of_dicom_is_converted(tmp_path):
    written(tmp_path)
    with pytest.raises(Refusal, match="E_SUV_UNITS"):
        pet.suv(read(tmp_path), "lbm")
    uptake = read(tmp_path, suv=True)
    assert pet.suv(uptake) is uptake
    with pytest.raises(Refusal, match="E_SUV_SOURCE"):
        pet.suv(Volume(data=uptake.data, affine=uptake.affine, units="SUV"), "bsa")
    with pytest.raises(ValueError, match="ibw"):
        pet.suv(uptake, "ibw")
