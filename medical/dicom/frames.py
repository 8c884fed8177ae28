"""Images of a series one by one, whether files hold one each or many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.tag import Tag

from medical.dicom.elements import Attributes, items
from medical.dicom.file import Instance
from medical.refusal import Refusal

# dimensions that say where a frame is; the others say what else it is
SPATIAL = {
    0x00200032,  # ImagePositionPatient
    0x00209057,  # InStackPositionNumber
    0x00209301,  # ImagePositionVolume
    0x00209113,  # PlanePositionSequence
    0x00209116,  # PlaneOrientationSequence
    0x00200037,  # ImageOrientationPatient
    0x00201041,  # SliceLocation
}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Slice:
    """One image of one place.

    Attributes:
        instance: its file.
        frame: its number in the file, from 0.
        attributes: of this image.
        dimensions: what DimensionIndexValues say of it besides its place.
    """

    instance: Instance
    frame: int
    attributes: Attributes
    dimensions: tuple[int, ...] = ()

    @property
    def where(self) -> str:
        """For messages."""
        return self.attributes.where

    @cached_property
    def position(self) -> NDArray[np.float64] | None:
        """ImagePositionPatient, LPS mm."""
        return self.attributes.numbers("ImagePositionPatient", 3)

    @cached_property
    def orientation(self) -> NDArray[np.float64] | None:
        """ImageOrientationPatient."""
        return self.attributes.numbers("ImageOrientationPatient", 6)

    @cached_property
    def pixel_spacing(self) -> NDArray[np.float64] | None:
        """PixelSpacing: between rows, between columns, mm."""
        return self.attributes.numbers("PixelSpacing", 2)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Rows and columns.

        Raises:
            Refusal: absent or not positive.
        """
        rows, columns = self.attributes.whole("Rows"), self.attributes.whole("Columns")
        if not rows or not columns or min(rows, columns) < 0:
            raise Refusal(
                "E_BAD_VALUE",
                f"{self.where} does not say its Rows and Columns, expected two positive numbers; "
                "export it again.",
            )
        return rows, columns

    @cached_property
    def image_type(self) -> tuple[str, ...]:
        """FrameType or ImageType, from the third value on: what kind of picture it is."""
        words = self.attributes.words("FrameType") or self.attributes.words("ImageType")
        return words[2:4]


def slices(instance: Instance) -> list[Slice]:
    """The images of a file.

    Raises:
        Refusal: NumberOfFrames makes no sense, or the functional groups do not agree with it.
    """
    top, where = instance.attributes, instance.where
    count = top.whole("NumberOfFrames")
    count = 1 if count is None else count
    if count < 1:
        raise top.bad("NumberOfFrames")
    groups = top.items("PerFrameFunctionalGroupsSequence")
    if not groups and count == 1:
        return [Slice(instance=instance, frame=0, attributes=top)]
    if len(groups) != count:
        raise Refusal(
            "E_NO_GEOMETRY" if not groups else "E_BAD_VALUE",
            f"{where} has {count} frames but {len(groups)} descriptions of frames, expected one "
            "each; frames without a place in the patient are no volume, restore them as pictures.",
        )
    shared = tuple(
        layer
        for group in top.items("SharedFunctionalGroupsSequence")[:1]
        for layer in _layers(group, where)
    )
    extra = _extra_dimensions(top)
    return list(_frames(instance, groups, (*shared, instance.header), extra))


def _frames(
    instance: Instance, groups: Sequence[Dataset], below: tuple[Dataset, ...], extra: list[int]
) -> Iterator[Slice]:
    for n, group in enumerate(groups):
        where = f"frame {n + 1} of {len(groups)} of {instance.where}"
        attributes = Attributes((*_layers(group, where), *below), where)
        values = attributes.numbers("DimensionIndexValues")
        count = 0 if values is None else len(values)
        yield Slice(
            instance=instance,
            frame=n,
            attributes=attributes,
            dimensions=tuple(int(values[i]) for i in extra if i < count)
            if values is not None
            else (),
        )


def _layers(group: Dataset, where: str) -> Iterator[Dataset]:
    """A functional group and the macros in it, which hold its attributes."""
    yield group
    for tag in list(group.keys()):
        vr = getattr(group.get_item(tag), "VR", None)
        if vr == "SQ" or (vr is None and dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"):
            macro = items(group, tag, where)
            if len(macro) == 1:
                yield macro[0]


def _extra_dimensions(top: Attributes) -> list[int]:
    """Which of the dimension indices do not say where a frame is."""
    pointers = [
        Attributes((item,), top.where).get("DimensionIndexPointer")
        for item in top.items("DimensionIndexSequence")
    ]
    return [i for i, p in enumerate(pointers) if p is not None and Tag(p) not in SPATIAL]
