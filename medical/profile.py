"""What the Basic Profile of DICOM PS3.15 makes of each attribute of a header."""

import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from medical.dicom.attributes import public
from medical.identifiers import Words

CHARACTERISTICS = {"PatientAge", "PatientSex", "PatientSize", "PatientWeight"}
"""Kept by the profile's Retain Patient Characteristics Option; SUV needs the weight."""

_DUMMIES: dict[str, Any] = {"AS": "000Y", "DA": "19000101", "DT": "19000101", "TM": "000000"}
_TEXT = {"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"}
_BIRTH = {"PatientBirthDate", "PatientBirthTime"}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What becomes of a header.

    Args:
        key: secret from which UIDs, days and pseudonyms follow; whoever has it can link scans.
        shift_dates: move all dates of a patient by one number of days, into the past, so that
            intervals (decay, follow-up) stay true; False blanks dates and times.
        characteristics: keep age, sex, size and weight.
    """

    key: bytes
    shift_dates: bool = True
    characteristics: bool = False

    def uid(self, uid: str) -> str:
        """The UID that stands for another."""
        return f"2.25.{uuid.UUID(bytes=self._hash('uid', uid)[:16], version=5).int}"

    def pseudonym(self, patient: str) -> str:
        """The name and number that stand for a patient's."""
        return f"ANON-{self._hash('patient', patient).hex()[:12].upper()}"

    def shift(self, patient: str) -> timedelta:
        """How far a patient's dates move: one to ten years into the past, whole days."""
        return timedelta(days=-365 - int.from_bytes(self._hash("days", patient)[:4]) % 3285)

    def _hash(self, what: str, text: str) -> bytes:
        return hmac.digest(self.key, f"{what}:{text}".encode(), "sha256")


def cleaned(scan: Dataset, profile: Profile, shift: timedelta, words: Words) -> Dataset:
    """A header after the profile, also inside sequences; a copy."""
    clean = Dataset()
    for element in public(scan):
        if (kept := _kept(element, profile, shift, words)) is not None:
            clean.add(kept)
    return clean


def _kept(
    element: DataElement, profile: Profile, shift: timedelta, words: Words
) -> DataElement | None:
    """What is left of an attribute: itself, something in its place, or None."""
    tag, vr, value = element.tag, element.VR, element.value
    if profile.characteristics and element.keyword in CHARACTERISTICS:
        return element
    if vr == "UI":
        return DataElement(tag, vr, _each(value, lambda uid: _other_uid(element, uid, profile)))
    if vr in _DUMMIES and vr != "AS" and profile.shift_dates and element.keyword not in _BIRTH:
        return DataElement(tag, vr, _each(value, lambda when: _shifted(when, vr, shift)))
    action = actions().get(tag, "")
    if vr in ("UN", "PN") or (vr in ("DA", "DT", "TM") and not action):
        action = action or ("Z" if vr == "PN" else "X")
    if action in ("Z", "X/Z"):
        return DataElement(tag, vr, Sequence() if vr == "SQ" else "" if vr in _TEXT else None)
    if action.endswith("D") and (vr in _TEXT | {"PN"} or vr in _DUMMIES):
        return DataElement(tag, vr, _DUMMIES.get(vr, "ANONYMIZED"))
    if action and not action.endswith("U*"):
        return None
    if vr == "SQ":
        return DataElement(
            tag, vr, Sequence(cleaned(item, profile, shift, words) for item in value)
        )
    if vr in _TEXT - {"CS"} and words.occur_in(value):
        return DataElement(tag, vr, "REMOVED")
    return element


def _each(value: Any, change: Any) -> Any:
    if not value:
        return value
    return [change(v) for v in value] if isinstance(value, MultiValue) else change(value)


def _other_uid(element: DataElement, uid: str, profile: Profile) -> str:
    """Another UID, unless it names a class of things and nobody's thing."""
    general = any(word in element.keyword for word in ("Class", "TransferSyntax", "CodingScheme"))
    return uid if general or uid.startswith("1.2.840.10008.") else profile.uid(uid)


def _shifted(when: Any, vr: str, shift: timedelta) -> str:
    """A date moved; times of day stay. What is no date becomes empty."""
    text = str(when).strip()
    if vr == "TM":
        return text
    try:
        moved = datetime.strptime(text[:8].ljust(8, "0"), "%Y%m%d") + shift
    except (ValueError, OverflowError):
        return ""
    return f"{moved:%Y%m%d}{text[8:]}"


@cache
def actions() -> dict[BaseTag, str]:
    """Table E.1-1: what the Basic Profile does to each attribute.

    "X" removes, "Z" empties, "D" puts a dummy; of two, the gentler one conforms to every kind of
    image.
    """
    from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table

    lists = {
        "X": table.X_TAGS,
        "Z": table.Z_TAGS,
        "D": table.D_TAGS,
        "Z/D": table.Z_D_TAGS,
        "X/Z": table.X_Z_TAGS,
        "X/D": table.X_D_TAGS,
        "X/Z/D": table.X_Z_D_TAGS,
        "X/Z/U*": table.X_Z_U_STAR_TAGS,
    }
    return {
        BaseTag(tag[0] << 16 | tag[1]): action
        for action, tags in lists.items()
        for tag in tags
        if len(tag) == 2  # the others are groups, removed as such
    }
