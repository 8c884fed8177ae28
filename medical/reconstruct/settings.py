"""What a user may say about a measurement, and what of it cannot be meant."""

import math
import re
from dataclasses import dataclass, fields

from medical.refusal import Refusal


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a scan was, or is to be, measured; every task reads some of it, `Task.reads`.

    Attributes:
        noise: std of the noise: of images and of MRI in the units of the volume; of CT, whose
            measurements are lengths of water, in mm.
        angles: views of CT.
        arc: over so many degrees.
        acceleration: of MRI, samples of k-space over measured ones.
        vary: of MRI, another pattern in every slice.
        factor: of super-resolution, thin slices in a thick one.
        missing: numbers of missing slices, counted from 0: from the feet (axial), the face
            (coronal), the right ear (sagittal).

    Raises:
        Refusal: E_SETTING.
    """

    noise: float | None = None
    angles: int | None = None
    arc: float | None = None
    acceleration: float | None = None
    vary: bool = False
    factor: int | None = None
    missing: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not (low <= value <= high):
                raise Refusal("E_SETTING", f"{name} is {value:g}, expected {_between(low, high)}.")

    def refuse_others(self, task: str, reads: frozenset[str]) -> None:
        """Refuse what was said and would be ignored.

        Raises:
            Refusal: E_SETTING.
        """
        said = {f.name for f in fields(self) if getattr(self, f.name) != f.default}
        if lost := sorted(said - reads - {"noise"}):
            raise Refusal(
                "E_SETTING",
                f"task '{task}' has no use for {' and '.join(lost)}, it reads "
                f"{', '.join(sorted(reads | {'noise'}))}; leave out what does not belong.",
            )


_RANGES = (
    ("noise", 0, math.inf),
    ("angles", 1, 10_000),
    ("arc", 1, 180),
    ("acceleration", 1, 64),
    ("factor", 2, 16),
)


def _between(low: float, high: float) -> str:
    return f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"


def slice_numbers(text: str) -> tuple[int, ...]:
    """Read "10-14,20".

    Raises:
        Refusal: E_SETTING.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise Refusal("E_SETTING", f"slices are '{text}', expected for example 10-14,20.")
        found += range(first, last + 1)
    return tuple(sorted(set(found)))
