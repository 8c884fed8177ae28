"""Standardised uptake values by body weight, after QIBA's vendor-neutral rules.

    SUVbw = activity [Bq/ml] * weight [g] / dose left at the time the images refer to [Bq]

Every quantity must be there and make sense: a wrong time or unit gives an image that looks right
and is off by a third, so that nothing is guessed.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from medical.dicom.elements import Attributes
from medical.dicom.frames import Slice
from medical.refusal import Refusal

# half-lives of PET nuclides in s: O-15, N-13, C-11, Ga-68, F-18, Rb-82, Sc-44, Cu-64, Y-86, Zr-89,
# Br-76, I-124
HALF_LIVES = (
    (122.2, 597.9, 1223.4, 4057.7, 6586.2, 76.4, 14_551, 45_721, 53_064, 282_280, 58_320, 360_800)
)  # fmt: skip
LONGEST_DELAY = 6 * 3600.0  # s, or three half-lives
GE, PHILIPS = "GEMS_PETD_01", "Philips PET Private Group"


def suv_factor(slices: Sequence[Slice], units: str) -> float:
    """What numbers are multiplied by to become SUVbw.

    Args:
        slices: of one PET series, rescaled.
        units: of their numbers: "Bq/ml", "SUV", or "a.u." for others.

    Raises:
        Refusal: "E_SUV_...": what is missing or does not make sense.
    """
    first = slices[0].attributes
    if first.text("Modality") != "PT":
        raise Refusal(
            "E_SUV_MODALITY",
            f"SUV of {first.text('Modality') or 'what has no modality'}; give PET.",
        )
    if units == "SUV":
        return 1.0
    _refuse_corrections(slices)
    _refuse_disagreement(slices)
    counts = first.text("Units") == "CNTS"
    if counts and (known := _private(first, PHILIPS, 0x7053, 0x00)):
        return known
    to_activity = _private(first, PHILIPS, 0x7053, 0x09) if counts else 1.0
    if not to_activity or (units != "Bq/ml" and not counts):
        raise Refusal(
            "E_SUV_UNITS",
            f"the Units of the PET are {first.text('Units') or 'absent'}, expected BQML, GML, or "
            "CNTS with the vendor's factors; reconstruct it in Bq/ml.",
        )
    return to_activity * 1000 * _weight(slices) / _dose(slices)


def _refuse_corrections(slices: Sequence[Slice]) -> None:
    done = [set(s.attributes.words("CorrectedImage")) for s in slices]
    if not all("ATTN" in words and words & {"DECY", "DECAY"} for words in done):
        raise Refusal(
            "E_SUV_CORRECTED",
            "the PET does not say that it is corrected for attenuation and decay; reconstruct it "
            "with both.",
        )
    lossy = any(s.attributes.text("LossyImageCompression") == "01" for s in slices)
    if lossy:
        raise Refusal("E_SUV_LOSSY", "the PET was compressed with losses; give the original.")


def _refuse_disagreement(slices: Sequence[Slice]) -> None:
    """Times, corrections and factors are those of the series: one slice must not differ."""
    for what, code, of in _OF_THE_SERIES:
        if len({of(s) for s in slices}) > 1:
            raise Refusal(
                code,
                f"{what} is not the same in all slices of the PET, expected one for the series; "
                "export it again, or mend the headers.",
            )


def _weight(slices: Sequence[Slice]) -> float:
    weight = _shared(slices, "PatientWeight", "E_SUV_WEIGHT")
    if not 0 < weight <= 400:
        raise Refusal(
            "E_SUV_WEIGHT",
            "PatientWeight is not in (0, 400] kg; enter the weight, in kg, before taking SUV.",
        )
    return weight


def _dose(slices: Sequence[Slice]) -> float:
    """Activity left at the time that the pixels refer to, Bq."""
    dose = _shared(slices, "RadionuclideTotalDose", "E_SUV_DOSE")
    if not 1e6 < dose <= 2e9:
        raise Refusal(
            "E_SUV_DOSE",
            "RadionuclideTotalDose is not in (1e6, 2e9] Bq"
            + (", it looks like MBq" if dose < 1e4 else "")
            + "; enter the dose in Bq before taking SUV.",
        )
    half_life = _shared(slices, "RadionuclideHalfLife", "E_SUV_HALF_LIFE")
    if not any(abs(half_life / known - 1) < 0.02 for known in HALF_LIVES):
        raise Refusal(
            "E_SUV_HALF_LIFE",
            f"RadionuclideHalfLife is {half_life:.6g} s, which is no PET nuclide's (F-18 has "
            "6586.2); enter it in seconds.",
        )
    correction = slices[0].attributes.text("DecayCorrection")
    if correction == "ADMIN":  # pixels refer to the injection already
        return dose
    if correction != "START":
        raise Refusal(
            "E_SUV_DECAY",
            f"DecayCorrection is {correction if correction == 'NONE' else 'absent or unknown'}, "
            "expected START or ADMIN; reconstruct the PET with decay correction.",
        )
    return dose * 2 ** (-_delay(slices, half_life) / half_life)


def _delay(slices: Sequence[Slice], half_life: float) -> float:
    """Seconds from injection to the start of the scan."""
    start = _scan_start(slices)
    tracer = _tracer(slices[0])
    exact = _time(tracer.text("RadiopharmaceuticalStartDateTime"))
    injected = exact or _time(
        f"{start:%Y%m%d}" + tracer.text("RadiopharmaceuticalStartTime").replace(":", "")
        if tracer.text("RadiopharmaceuticalStartTime")
        else ""
    )
    if injected is None:
        raise Refusal(
            "E_SUV_TIME", "the PET does not say when the tracer was injected; enter the time."
        )
    if exact is None and injected > start:  # a time without a date, before midnight
        injected -= timedelta(days=1)
    delay = (start - injected).total_seconds()
    if not 0 <= delay <= max(LONGEST_DELAY, 3 * half_life):
        raise Refusal(
            "E_SUV_TIME",
            f"the scan starts {delay / 3600:.3g} hours after the injection, expected 0 to "
            f"{max(LONGEST_DELAY, 3 * half_life) / 3600:.3g}; correct the times.",
        )
    return delay


def _scan_start(slices: Sequence[Slice]) -> datetime:
    """When the scan began: SeriesTime, unless the series was made later from another."""
    first = slices[0].attributes
    series = _time(first.text("SeriesDate") + first.text("SeriesTime"))
    acquired = [_acquired(s.attributes) for s in slices]
    known = [t for t in acquired if t is not None]
    if len(known) < len(slices) or series is None:
        raise Refusal(
            "E_SUV_TIME", "the PET lacks SeriesTime or AcquisitionTime; export it with its times."
        )
    if series <= min(known):
        return series
    vendor = _private_text(first, GE, 0x0009, 0x0D)
    return _time(vendor) or min(known)


def _acquired(a: Attributes) -> datetime | None:
    frame = a.text("FrameReferenceDateTime") or a.text("AcquisitionDateTime")
    return _time(frame) or _time(a.text("AcquisitionDate") + a.text("AcquisitionTime"))


def _time(text: str) -> datetime | None:
    """A DICOM date and time, without its zone; None if it is not both."""
    digits = text.replace(":", "")
    for zone in "+-":
        digits = digits.partition(zone)[0]
    whole, _, fraction = digits.partition(".")
    for layout in ("%Y%m%d%H%M%S", "%Y%m%d%H%M"):
        try:
            moment = datetime.strptime(whole, layout)
            return moment + timedelta(seconds=float(f"0.{fraction or 0}"))
        except ValueError:
            continue
    return None


def _tracer(each: Slice) -> Attributes:
    found = each.attributes.items("RadiopharmaceuticalInformationSequence")
    return Attributes(tuple(found[:1]), each.where)


def _shared(slices: Sequence[Slice], keyword: str, code: str) -> float:
    """A number that all slices agree on."""
    found = {
        s.attributes.number(keyword) if keyword == "PatientWeight" else _tracer(s).number(keyword)
        for s in slices
    }
    value = next(iter(found))
    if len(found) > 1 or value is None:
        raise Refusal(
            code,
            f"{keyword} is {'absent' if value is None else 'not the same in all slices'}; SUV "
            "cannot be computed without it, enter it.",
        )
    return value


def _private(a: Attributes, creator: str, group: int, element: int) -> float | None:
    """A number of a vendor's block; zero counts as absent."""
    text = _private_text(a, creator, group, element)
    try:
        return float(text) or None
    except ValueError:
        return None


def _private_text(a: Attributes, creator: str, group: int, element: int) -> str:
    for layer in a.layers:
        try:
            value = layer.private_block(group, creator)[element].value
        except (KeyError, ValueError):
            continue
        return value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)
    return ""


_OF_THE_SERIES: tuple[tuple[str, str, Callable[[Slice], str]], ...] = (
    ("DecayCorrection", "E_SUV_DECAY", lambda s: s.attributes.text("DecayCorrection")),
    ("SeriesDate", "E_SUV_TIME", lambda s: s.attributes.text("SeriesDate")),
    ("SeriesTime", "E_SUV_TIME", lambda s: s.attributes.text("SeriesTime")),
    (
        "RadiopharmaceuticalStartDateTime",
        "E_SUV_TIME",
        lambda s: _tracer(s).text("RadiopharmaceuticalStartDateTime"),
    ),
    (
        "RadiopharmaceuticalStartTime",
        "E_SUV_TIME",
        lambda s: _tracer(s).text("RadiopharmaceuticalStartTime"),
    ),
    *(
        (
            f"the vendor's factor (7053,xx{element:02X})",
            "E_SUV_UNITS",
            lambda s, element=element: _private_text(s.attributes, PHILIPS, 0x7053, element),
        )
        for element in (0x00, 0x09)
    ),
)
