"""Wavelengths in nanometres from the many ways in which files tell them."""

import re
from collections.abc import Mapping, Sequence

_NANOMETRES = {
    "nanometers": 1.0,
    "nanometres": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "nm": 1.0,
    "micrometers": 1e3,
    "micrometres": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "microns": 1e3,
    "micron": 1e3,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "angstroms": 0.1,
    "meters": 1e9,
    "m": 1e9,
}
_TEXT = re.compile(
    r"(\d+(?:\.\d+)?)\s*\(?(" + "|".join(sorted(_NANOMETRES, key=len)[::-1]) + r")\b"
)


def in_nanometres(numbers: Sequence[object], units: str = "") -> tuple[float, ...] | None:
    """Bring wavelengths to nanometres; None where they are no positive numbers.

    Args:
        numbers: as a file has them.
        units: as a file calls them; where it does not, numbers below 100 are micrometres, as no
            imaging spectrometer sees below 100 nm or beyond 100 um.
    """
    try:
        found = [float(str(n)) for n in numbers]
    except ValueError:
        return None
    if not found or not all(0 < n < float("inf") for n in found):
        return None
    word = units.strip().lower()
    if word and word not in _NANOMETRES:
        return None  # an index, a wavenumber, a time
    factor = _NANOMETRES[word] if word else (1e3 if max(found) < 100 else 1.0)
    return tuple(round(n * factor, 6) for n in found)


def from_tags(
    tags: Sequence[Mapping[str, str]], descriptions: Sequence[str | None]
) -> tuple[float, ...] | None:
    """Wavelengths of the bands of a raster, from their tags or else their descriptions."""
    central = [tag.get("CENTRAL_WAVELENGTH_UM") for tag in tags]
    if all(central):
        return in_nanometres(central, "um")
    named = [tag.get("wavelength") for tag in tags]
    if all(named):
        return in_nanometres(named, tags[0].get("wavelength_units", ""))
    matches = [_TEXT.search((text or "").lower()) for text in descriptions]
    if not matches or not all(matches):
        return None
    return in_nanometres([m[1] for m in matches if m], next(m[2] for m in matches if m))
