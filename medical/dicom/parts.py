"""Images grouped into series, and series into parts that may each be one volume.

Pictures of another kind, echo or b-value are always another part. Time points, cardiac phases and
acquisitions are only where they show the same places again: scanners also number acquisitions
through one volume.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from medical.dicom.discover import Found
from medical.dicom.elements import Attributes
from medical.dicom.file import Instance
from medical.dicom.frames import Slice, slices
from medical.refusal import Refusal, alias

TIMES = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "AcquisitionNumber",
    "EchoNumbers",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Part:
    """Images that may make one volume.

    Attributes:
        number: from 1.
        series: alias of the series.
        alias: of the part.
        slices: in no order; empty when they could not be told apart.
        problem: why they could not.
    """

    number: int
    series: str
    alias: str
    slices: tuple[Slice, ...]
    problem: Refusal | None = None

    @property
    def localizer(self) -> bool:
        """Whether the images only plan others."""
        return bool(self.slices) and "LOCALIZER" in self.slices[0].image_type


def parts(found: Found) -> list[Part]:
    """All parts at a path, numbered by SeriesNumber and UID, not by the order of files."""
    series: dict[tuple[str, str], list[Instance]] = {}
    for instance in found.images:
        a = instance.attributes
        key = (a.text("SeriesInstanceUID"), a.text("StudyInstanceUID"))
        series.setdefault(key, []).append(instance)
    made: list[Part] = []
    for key in sorted(series, key=lambda key: (_series_number(series[key][0]), *key)):
        name = alias(key[0])
        problem, groups = None, [[]]
        try:
            groups = split([s for instance in series[key] for s in slices(instance)])
        except Refusal as refusal:
            problem = refusal
        for n, group in enumerate(groups, 1):
            made.append(
                Part(
                    number=len(made) + 1,
                    series=name,
                    alias=name if len(groups) == 1 else f"{name}.{n}",
                    slices=tuple(group),
                    problem=problem,
                )
            )
    return made


def _series_number(instance: Instance) -> float:
    try:
        number = instance.attributes.number("SeriesNumber")
    except Refusal:
        number = None
    return np.inf if number is None else number


def split(images: Sequence[Slice]) -> list[list[Slice]]:
    """Split the images of a series into parts."""
    return [group for kind in _grouped(images, _kind) for group in _split_times(kind)]


def _split_times(images: list[Slice]) -> list[list[Slice]]:
    """Split by the first kind of time that leaves no place twice; leave it if none does."""
    if not _repeats(images):
        return [images]
    for keyword in TIMES:
        groups = _grouped(images, lambda s, k=keyword: _number(s.attributes, k))
        if len(groups) > 1 and not any(map(_repeats, groups)):
            return groups
    groups = _grouped(images, lambda s: s.dimensions)
    return [images] if any(map(_repeats, groups)) else groups


def _grouped(images: Sequence[Slice], key) -> list[list[Slice]]:  # noqa: ANN001
    groups: dict[Hashable, list[Slice]] = {}
    for each in images:
        groups.setdefault(key(each), []).append(each)
    return [groups[k] for k in sorted(groups, key=lambda k: (str(type(k)), k))]


def _kind(each: Slice) -> tuple[Hashable, ...]:
    """What makes pictures of one place and time different."""
    a = each.attributes
    echo = _number(a, "EffectiveEchoTime") or _number(a, "EchoTime")
    modality, b = a.text("Modality"), _number(a, "DiffusionBValue")
    return (modality, each.image_type, a.text("StackID"), echo, b)


def _number(a: Attributes, keyword: str) -> float:
    number = a.number(keyword)
    return -np.inf if number is None else round(number, 3)


def _repeats(images: Sequence[Slice]) -> bool:
    """Whether two images show one place."""
    places = {
        None if s.position is None else (*s.position.round(2), *_direction(s)) for s in images
    }
    return len(places) < len(images) and None not in places


def _direction(each: Slice) -> tuple[float, ...]:
    return () if each.orientation is None else tuple(each.orientation.round(2))
