"""Values of a header, or a refusal that names the attribute and never its value."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_sequence
from pydicom.tag import Tag

from medical.dicom.guard import VALUE, Reader
from medical.refusal import Refusal


@dataclass(frozen=True)
class Attributes:
    """Attributes of one image, wherever its file keeps them.

    Args:
        layers: datasets to look into, the frame's own first, the file's last.
        where: which image, for messages: "file 7 of 12".
    """

    layers: tuple[Dataset, ...]
    where: str

    def get(self, keyword: str) -> Any:
        """Value of the first layer that has one, None if none has.

        Raises:
            Refusal: it cannot be understood.
        """
        tag = Tag(cast(int, tag_for_keyword(keyword)))
        for layer in self.layers:
            if tag not in layer:
                continue
            raw = layer.get_item(tag)
            if isinstance(raw, RawDataElement) and len(raw.value or b"") > VALUE:
                raise self.bad(keyword)
            try:
                value = layer[tag].value
            except Exception:  # pydicom raises whatever the conversion of a value raises
                raise self.bad(keyword) from None
            if value is not None and not (hasattr(value, "__len__") and len(value) == 0):
                return value
        return None

    def bad(self, keyword: str) -> Refusal:
        """The refusal of a value."""
        return Refusal(
            "E_BAD_VALUE",
            f"{keyword} of {self.where} cannot be understood; export the scan again, or mend the "
            "header.",
        )

    def text(self, keyword: str) -> str:
        """A word, "" if there is none."""
        value = self.get(keyword)
        return "" if value is None else str(value).strip()

    def words(self, keyword: str) -> tuple[str, ...]:
        """Several words."""
        value = self.get(keyword)
        if value is None:
            return ()
        parts = [value] if isinstance(value, str) else value
        return tuple(str(part).strip() for part in parts)

    def numbers(self, keyword: str, count: int | None = None) -> NDArray[np.float64] | None:
        """Numbers, None if there are none.

        Raises:
            Refusal: not numbers, or not so many.
        """
        value = self.get(keyword)
        if value is None:
            return None
        try:
            found = np.array(value, dtype=np.float64).ravel()
        except (TypeError, ValueError, OverflowError):
            raise self.bad(keyword) from None
        if count is not None and len(found) != count:
            raise self.bad(keyword)
        return found

    def number(self, keyword: str) -> float | None:
        """A finite number, None if there is none.

        Raises:
            Refusal: not one finite number.
        """
        found = self.numbers(keyword, 1)
        if found is None:
            return None
        if not np.isfinite(found[0]):
            raise self.bad(keyword)
        return float(found[0])

    def whole(self, keyword: str) -> int | None:
        """A whole number, None if there is none.

        Raises:
            Refusal: not one whole number.
        """
        found = self.number(keyword)
        if found is not None and found != int(found):
            raise self.bad(keyword)
        return None if found is None else int(found)

    def items(self, keyword: str) -> Sequence[Dataset]:
        """Items of a sequence, none if it is absent.

        Raises:
            Refusal: they cannot be understood, or there are more than a scan has.
        """
        tag = Tag(cast(int, tag_for_keyword(keyword)))
        for layer in self.layers:
            if tag in layer:
                return items(layer, tag, self.where)
        return ()


def items(layer: Dataset, tag: int, where: str) -> Sequence[Dataset]:
    """Items of a sequence of a dataset; sequences are lazy, so that each is guarded when opened.

    Raises:
        Refusal: see `Attributes.items`.
    """
    raw = layer.get_item(tag)
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
        value = raw.value if raw is not None else None
        return () if value is None else value
    reader = Reader(BytesIO(raw.value), len(raw.value))
    try:
        return read_sequence(
            cast(BinaryIO, reader),
            raw.is_implicit_VR,
            raw.is_little_endian,
            len(raw.value),
            layer.original_character_set,
        )
    except Exception:
        reader.refuse_excess()
        raise Refusal(
            "E_BAD_VALUE", f"a sequence of {where} cannot be understood; export the scan again."
        ) from None
