"""Words by which a header names people, places and orders, wherever else they may turn up."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from medical.dicom.attributes import public

# the numbers and places that the profile takes out; people's names are known by their kind
_KEYWORDS = (
    "AccessionNumber",
    "AdmissionID",
    "InstitutionAddress",
    "InstitutionName",
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "PatientID",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "RequestedProcedureID",
    "ScheduledProcedureStepID",
    "StationName",
    "StudyID",
)


@dataclass(frozen=True)
class Words:
    """What must not occur in any text.

    Args:
        pattern: finds any of the words, in capitals or not; those of less than five characters
            only where they stand alone. None if there are none.
    """

    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, scans: Iterable[Dataset]) -> "Words":
        """Names, single words of at least three letters; numbers and places, as a whole."""
        words = {word for scan in scans for word in _words(scan)}
        if not words:
            return cls(None)
        alone = r"(?<![^\W_]){}(?![^\W_])"
        parts = [re.escape(w) if len(w) > 4 else alone.format(re.escape(w)) for w in sorted(words)]
        return cls(re.compile("|".join(parts), re.IGNORECASE))

    def occur_in(self, value: Any) -> bool:
        """Whether a text, or one of several, holds one of the words."""
        if self.pattern is None or not value:
            return False
        texts = [value] if isinstance(value, str) else value
        return any(self.pattern.search(str(text)) for text in texts)


def _words(scan: Dataset) -> Iterator[str]:
    for element in public(scan):
        if element.VR == "SQ":
            for item in element.value:
                yield from _words(item)
        elif element.VR == "PN":
            yield from (w for w in re.split(r"[\^=\\\s,.'\[\]]+", str(element.value)) if len(w) > 2)
        elif element.keyword in _KEYWORDS and element.value:
            texts = [element.value] if isinstance(element.value, str) else element.value
            yield from (text for one in texts if len(text := str(one).strip()) > 2)
