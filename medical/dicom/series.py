"""What can be read at a path, and the choice of one."""

from dataclasses import dataclass

from medical import geometry
from medical.dicom.decode import refuse_undecodable
from medical.dicom.discover import Paths, discover
from medical.dicom.load import same
from medical.dicom.order import arrange
from medical.dicom.parts import Part, parts
from medical.dicom.quiet import quiet
from medical.refusal import Refusal, alias

MENTIONED = 12  # series in a message


@dataclass(frozen=True, kw_only=True)
class SeriesInfo:
    """One line of a listing: what might be read as one volume.

    Attributes:
        number: to choose it by, from 1.
        alias: to choose it by, the same on every machine: eight digits, and ".2" for the second
            part of a series that holds several.
        modality: DICOM's word.
        size: voxels `(I, J, K)`.
        count: images.
        spacing: mm, None if unreadable.
        orientation: directions of the axes, for example "LPS"; "" if unreadable.
        problem: code of the refusal that reading meets, "" if none is foreseen.
    """

    number: int
    alias: str
    modality: str
    size: tuple[int, int, int]
    count: int
    spacing: tuple[float, float, float] | None
    orientation: str
    problem: str

    def __str__(self) -> str:
        """One line."""
        size = "x".join(map(str, self.size))
        if self.spacing is None:
            return f"{self.number} ({self.alias}): {self.modality} {size}, {self.problem}"
        fine = " x ".join(f"{s:.3g}" for s in self.spacing)
        return (
            f"{self.number} ({self.alias}): {self.modality} {size} of {fine} mm, {self.orientation}"
        )


def list_series(path: Paths) -> list[SeriesInfo]:
    """List what might be read, and what is wrong with it.

    Args:
        path: as in `read`.

    Raises:
        FileNotFoundError: nothing is there.
        Refusal: no images, or a damaged file.
    """
    with quiet():
        return [describe(part) for part in parts(discover(path))]


def describe(part: Part) -> SeriesInfo:
    """The line of a listing."""
    spacing, orientation, problem, modality = None, "", "", "OT"
    size = (0, 0, len(part.slices))
    try:
        if part.problem is not None:
            raise part.problem
        first = part.slices[0]
        modality = modality_of(part)
        rows, columns = first.size
        size = (columns, rows, len(part.slices))
        refuse_undecodable(first)
        stack = arrange(part.slices, same=same)
        size = stack.grid
        i, j, k = geometry.spacing(stack.affine).tolist()
        spacing, orientation = (i, j, k), geometry.codes(stack.affine)
    except Refusal as refusal:
        problem = refusal.code
    return SeriesInfo(
        number=part.number,
        alias=part.alias,
        modality=modality,
        size=size,
        count=len(part.slices),
        spacing=spacing,
        orientation=orientation,
        problem=problem,
    )


def modality_of(part: Part) -> str:
    """DICOM's word, "OT" for what is none."""
    word = part.slices[0].attributes.text("Modality")
    return word if word.isalpha() and word.isupper() and len(word) <= 8 else "OT"


def choose(found: list[Part], wanted: int | str | None) -> tuple[Part, list[str]]:
    """Take the part that is wanted, or the only one.

    Localizers and series of a single picture beside others are left out unless asked for.

    Returns:
        Part, notes.

    Raises:
        Refusal: several are left, or none is the one that is wanted.
    """
    if wanted is not None:
        matching = [part for part in found if _matches(part, wanted)]
        if not matching:
            raise Refusal(
                "E_NO_SUCH_SERIES",
                f"there is no such series; expected one of {_listing(found)}; give its number or "
                "its alias.",
            )
        candidates = matching
    else:
        several = {p.series for p in found if len(p.slices) > 1 or p.problem}
        candidates = [p for p in found if p.series in several and not p.localizer] or found
    if len(candidates) > 1:
        raise Refusal(
            "E_AMBIGUOUS_SERIES",
            f"found {len(candidates)} series or parts of series, expected one: "
            f"{_listing(candidates)}; choose one by its number or its alias.",
        )
    (part,) = candidates
    if part.problem is not None:
        raise part.problem
    notes = []
    if wanted is None and (left := len(found) - 1):
        notes.append(f"{left} localizers or single pictures beside the series were left out.")
    return part, notes


def _matches(part: Part, wanted: int | str) -> bool:
    if isinstance(wanted, int):
        return part.number == wanted
    if wanted in (part.alias, part.series) or alias(wanted) == part.series:
        return True
    return wanted.isdigit() and len(wanted) < 8 and part.number == int(wanted)


def _listing(found: list[Part]) -> str:
    lines = [str(describe(part)) for part in found[:MENTIONED]]
    more = [f"and {len(found) - MENTIONED} more"] if len(found) > MENTIONED else []
    return "; ".join(lines + more)
