"""Standardised uptake by body weight, by lean body mass, and by body surface.

    SUV = activity [Bq/ml] * size of the body / dose left at the time the images refer to [Bq]

The size is the weight in g (SUVbw), the lean body mass in g (SUVlbm), or the surface in cm2
(SUVbsa). Lean body mass is that of Janmahasatian et al. 2005 (Clin. Pharmacokinet. 44:1051), which
does not turn down in heavy patients as that of James does; the surface is that of Du Bois and
Du Bois 1916. Activity and dose are worked out in `medical.dicom.suv`; here and there what is
missing is refused, and nobody weighs 75 kg.
"""

from typing import Any, Literal, get_args

from medical.dicom.discover import Paths
from medical.dicom.elements import Attributes
from medical.dicom.source import DicomSource
from medical.refusal import Refusal
from medical.volume import Volume

Kind = Literal["bw", "lbm", "bsa"]
"""By body weight, lean body mass, body surface."""

UNITS: dict[str, str] = {"bw": "SUV", "lbm": "SUVlbm", "bsa": "SUVbsa"}
"""`Volume.units` of each."""

HEAVIEST, SHORTEST, TALLEST = 400.0, 0.3, 2.5  # kg, m, m


def read(path: Paths, *, kind: Kind = "bw", **options: Any) -> Volume:
    """Read a PET series as standardised uptake values.

    Args:
        path: as in `medical.dicom.read`.
        kind: what the uptake is divided by.
        **options: for `medical.dicom.read`.

    Returns:
        Volume in "SUV" (g/ml, by body weight), "SUVlbm" (g/ml) or "SUVbsa" (cm2/ml).

    Raises:
        FileNotFoundError: nothing is there.
        Refusal: "E_SUV_...": what is missing or does not make sense; and what `medical.dicom.read`
            refuses.
        ValueError: another kind.
    """
    from medical.dicom.reader import read as read_series

    _refuse_other(kind)
    return suv(read_series(path, **options, suv=True), kind)


def suv(volume: Volume, kind: Kind = "bw") -> Volume:
    """Uptake by body weight as uptake by another size of the same body.

    Args:
        volume: in "SUV", read from DICOM, whose headers say how large the patient is.
        kind: what the uptake is divided by.

    Raises:
        Refusal: "E_SUV_UNITS": no SUV; "E_SUV_SOURCE", "E_SUV_WEIGHT", "E_SUV_SIZE", "E_SUV_SEX":
            the body is not known.
        ValueError: another kind.
    """
    _refuse_other(kind)
    if volume.units != "SUV":
        raise Refusal(
            "E_SUV_UNITS",
            f"the volume is in {volume.units}, expected SUV by body weight; read the PET with "
            "suv=True.",
        )
    if kind == "bw":
        return volume
    headers = _headers(volume)
    weight, height = _weight(headers), _height(headers)
    if kind == "lbm":
        factor = lean_body_mass(weight, height, _sex(headers)) / weight
    else:
        factor = body_surface(weight, height) / (1000 * weight)
    return volume.derive(volume.data * factor, units=UNITS[kind])


def lean_body_mass(weight: float, height: float, sex: Literal["M", "F"]) -> float:
    """Lean body mass in kg, by Janmahasatian et al. 2005.

    Args:
        weight: kg.
        height: m.
        sex: whose formula.
    """
    bmi = weight / height**2
    return 9270 * weight / (6680 + 216 * bmi if sex == "M" else 8780 + 244 * bmi)


def body_surface(weight: float, height: float) -> float:
    """Surface of the body in cm2, by Du Bois and Du Bois 1916.

    Args:
        weight: kg.
        height: m.
    """
    return 71.84 * weight**0.425 * (100 * height) ** 0.725


def _refuse_other(kind: str) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"kind of SUV is '{kind}', expected {', '.join(get_args(Kind))}.")


def _headers(volume: Volume) -> list[Attributes]:
    if isinstance(volume.source, DicomSource):
        return [Attributes((header,), "the PET") for header in volume.source.headers]
    raise Refusal(
        "E_SUV_SOURCE",
        "the PET was not read from DICOM and does not say how large the patient is; read the "
        "DICOM series.",
    )


def _weight(headers: list[Attributes]) -> float:
    weight = _number(headers, "PatientWeight", "E_SUV_WEIGHT")
    if not 0 < weight <= HEAVIEST:
        raise Refusal(
            "E_SUV_WEIGHT",
            f"PatientWeight is not in (0, {HEAVIEST:g}] kg; enter the weight, in kg, before taking "
            "SUV.",
        )
    return weight


def _height(headers: list[Attributes]) -> float:
    height = _number(headers, "PatientSize", "E_SUV_SIZE")
    if not SHORTEST <= height <= TALLEST:
        raise Refusal(
            "E_SUV_SIZE",
            f"PatientSize is not in [{SHORTEST:g}, {TALLEST:g}] m"
            + (", it looks like cm" if 100 * SHORTEST <= height <= 100 * TALLEST else "")
            + "; enter the height, in m, before taking SUV by lean body mass or surface.",
        )
    return height


def _sex(headers: list[Attributes]) -> Literal["M", "F"]:
    found = {header.text("PatientSex").upper() for header in headers}
    if found == {"M"}:
        return "M"
    if found == {"F"}:
        return "F"
    raise Refusal(
        "E_SUV_SEX",
        "PatientSex is not M or F in all slices, and lean body mass has a formula for these two; "
        "enter it, or take SUV by body weight or surface.",
    )


def _number(headers: list[Attributes], keyword: str, code: str) -> float:
    """A number that all slices agree on."""
    found = {header.number(keyword) for header in headers}
    value = next(iter(found))
    if len(found) > 1 or value is None:
        raise Refusal(
            code,
            f"{keyword} is {'absent' if value is None else 'not the same in all slices'}; this SUV "
            "cannot be computed without it, enter it.",
        )
    return value
