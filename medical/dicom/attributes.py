"""The attributes of a header that can be understood."""

from collections.abc import Iterator

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence


def public(header: Dataset) -> Iterator[DataElement]:
    """Attributes of the standard whose values can be read.

    Left out are private ones, lengths of groups, curves (50xx) and overlays (60xx).
    """
    for tag in list(header.keys()):
        if tag.is_private or tag.element == 0 or tag.group & 0xFF00 in (0x5000, 0x6000):
            continue
        try:
            element = header[tag]
        except Exception:  # converting a broken value; every kind raises its own
            continue
        yield element


def copied(header: Dataset) -> Dataset:
    """A header of the `public` attributes, also inside sequences; changing it changes no other."""
    copy = Dataset()
    for element in public(header):
        value = element.value
        if element.VR == "SQ":
            value = Sequence([copied(item) for item in value or ()])
        copy.add(DataElement(element.tag, element.VR, value, already_converted=True))
    return copy
