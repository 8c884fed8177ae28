"""From stored numbers to physical ones: padding, slopes, tables, units."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut

from medical.dicom.elements import Attributes
from medical.dicom.frames import Slice
from medical.refusal import Refusal

AIR = -1000.0  # HU, where nothing was measured

# UCUM codes of RealWorldValueMapping and values of Units, as Volume.units has them
UNITS = {
    "[hnsf'U]": "HU",
    "{SUVbw}g/ml": "SUV",
    "g/ml{SUVbw}": "SUV",
    "Bq/ml": "Bq/ml",
    "BQML": "Bq/ml",
    "1": "1",
    "mm": "mm",
    "Gy": "Gy",
}


@dataclass(frozen=True)
class Scale:
    """How stored numbers become physical ones.

    Attributes:
        units: as in `Volume.units`.
        slope: factor.
        intercept: offset.
        mapped: stored numbers that the mapping holds for, None for all.
        table: whether a modality table of the file takes the place of slope and intercept.
        rescaled: whether the file says anything at all.
    """

    units: str
    slope: float = 1.0
    intercept: float = 0.0
    mapped: tuple[float, float] | None = None
    table: bool = False
    rescaled: bool = True


def scale(each: Slice) -> Scale:
    """How an image's numbers are to be understood.

    Hounsfield units come from slope and intercept; for others a real-world value mapping, if it is
    the only one, goes before.

    Raises:
        Refusal: a slope of zero, or half a mapping.
    """
    a = each.attributes
    slope, intercept = a.number("RescaleSlope"), a.number("RescaleIntercept")
    given = slope is not None or intercept is not None
    units = _units(a, given)
    if units != "HU" and (mapped := _real_world(a)) is not None:
        return mapped
    if slope == 0:
        raise a.bad("RescaleSlope")
    table = bool(a.items("ModalityLUTSequence"))
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    return Scale(units, slope, intercept, None, table and not given, given or table)


def _units(a: Attributes, given: bool) -> str:
    if a.text("Modality") == "CT":
        return "HU" if given and a.text("RescaleType") in ("", "HU") else "a.u."
    if a.text("Modality") == "PT":
        kind, suv = a.text("Units"), a.text("SUVType")
        return "SUV" if kind == "GML" and suv in ("", "BW") else UNITS.get(kind, "a.u.")
    return "a.u."


def _real_world(a: Attributes) -> Scale | None:
    """The scale of RealWorldValueMappingSequence if there is just one and it is linear."""
    found = a.items("RealWorldValueMappingSequence")
    if len(found) != 1:
        return None
    item = Attributes((found[0],), a.where)
    slope, intercept = item.number("RealWorldValueSlope"), item.number("RealWorldValueIntercept")
    if not slope or intercept is None:
        return None
    codes = item.items("MeasurementUnitsCodeSequence")
    code = Attributes((codes[0],), a.where).text("CodeValue") if codes else ""
    ends = [
        item.number(f"RealWorldValue{end}ValueMapped")
        if item.get(f"RealWorldValue{end}ValueMapped") is not None
        else item.number(f"DoubleFloatRealWorldValue{end}ValueMapped")
        for end in ("First", "Last")
    ]
    first, last = ends
    mapped = None if first is None or last is None else (first, last)
    return Scale(UNITS.get(code, "a.u."), slope, intercept, mapped)


def physical(
    each: Slice, how: Scale, stored: NDArray
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Physical numbers of an image, and where they are valid, None for everywhere.

    What is padding is found before anything is rescaled, and then set to air in CT, else to zero.

    Raises:
        Refusal: numbers that are not finite.
    """
    invalid = _padding(each, stored)
    if how.mapped is not None:
        outside = (stored < how.mapped[0]) | (stored > how.mapped[1])
        if outside.any():
            invalid = outside if invalid is None else invalid | outside
    values = (_table(each, stored) if how.table else stored) * np.float64(how.slope) + how.intercept
    if stored.dtype.kind == "f" and not np.isfinite(values).all():
        lost = ~np.isfinite(values)
        invalid = lost if invalid is None else invalid | lost
    if invalid is not None:
        values[invalid] = AIR if how.units == "HU" else 0.0
    with np.errstate(over="ignore"):
        data = values.astype(np.float32)
    if not np.isfinite(data).all():
        raise each.attributes.bad("RescaleSlope")
    return data, None if invalid is None else ~invalid


def _padding(each: Slice, stored: NDArray) -> NDArray[np.bool_] | None:
    """Where stored numbers are PixelPaddingValue, or from it to PixelPaddingRangeLimit."""
    a = each.attributes
    if stored.dtype.kind == "f":
        value, limit = a.number("FloatPixelPaddingValue"), a.number("FloatPixelPaddingRangeLimit")
    else:
        value, limit = (
            _as_stored(a.whole(f"PixelPadding{what}"), stored.dtype)
            for what in ("Value", "RangeLimit")
        )
    if value is None:
        return None
    low, high = sorted((value, value if limit is None else limit))
    found = (stored >= low) & (stored <= high)
    return found if found.any() else None


def _as_stored(value: int | None, kind: np.dtype) -> int | None:
    """A number as pixels hold it: 63536 is -2000 where they are signed and have 16 bits."""
    if value is None:
        return None
    bits, low = 8 * kind.itemsize, np.iinfo(kind).min
    return (value - low) % 2**bits + low


def _table(each: Slice, stored: NDArray) -> NDArray:
    try:
        return apply_modality_lut(stored, each.instance.header)
    except Exception:
        raise each.attributes.bad("ModalityLUTSequence") from None


def refuse_other_units(slices: list[Slice], scales: list[Scale]) -> None:
    """Refuse slices in different units.

    Raises:
        Refusal: that.
    """
    if len(units := sorted({how.units for how in scales})) > 1:
        raise Refusal(
            "E_MIXED_UNITS",
            f"{len(slices)} slices are in {', '.join(units)}, expected one unit; separate them.",
        )
