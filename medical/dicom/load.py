"""Numbers of a stack: decoded file by file into one array, never two."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medical.dicom.decode import encapsulated, refuse_undecodable
from medical.dicom.file import Instance
from medical.dicom.frames import Slice
from medical.dicom.guard import refuse_bloat
from medical.dicom.order import Stack
from medical.dicom.pixels import frame_bytes, frames, refuse_too_short
from medical.dicom.values import AIR, Scale, physical, refuse_other_units, scale
from medical.refusal import Refusal

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def refuse_too_large(stack: Stack, limit: int) -> None:
    """Refuse, from headers alone, what does not fit or is not all there.

    Raises:
        Refusal: that.
    """
    need = 4 * int(np.prod(stack.grid, dtype=object))
    if need > limit:
        raise Refusal(
            "E_TOO_LARGE",
            f"the volume {'x'.join(map(str, stack.grid))} takes {need} bytes, the limit is "
            f"{limit}; give a larger limit if it is meant.",
        )
    inflated = stored = 0
    for instance, wanted in _by_file(stack.slices):
        for each in wanted[:1]:
            refuse_undecodable(each)
            refuse_too_short(instance, each)
        if encapsulated(instance):
            inflated += len(wanted) * frame_bytes(wanted[0])
            stored += instance.stored
    refuse_bloat(inflated, stored, "the series")


def load(stack: Stack, scales: Sequence[Scale]) -> tuple[Array, Mask | None]:
    """Decode and rescale.

    Args:
        stack: of slices whose sizes were checked.
        scales: one a slice.

    Returns:
        `(N, J, I)` numbers of the measured slices, or `(K, J, I)` where the lattice has holes, and
        where they are valid, None for everywhere.

    Raises:
        Refusal: what `pixels.frames` and `values.physical` refuse.
    """
    slots = stack.lattice.slots
    count = len(stack.slices) if slots is None else stack.lattice.count
    places = {id(s): n for n, s in enumerate(stack.slices)}
    rows, columns = stack.slices[0].size
    data = np.empty((count, rows, columns), dtype=np.float32)
    valid: Mask | None = None
    if count > len(stack.slices):
        valid = np.zeros(data.shape, dtype=bool)
        data[:] = fill(scales[0])
    for instance, wanted in _by_file(stack.slices):
        for each, stored in frames(instance, wanted):
            n = places[id(each)]
            k = n if slots is None else int(slots[n])
            data[k], measured = physical(each, scales[n], stored)
            if measured is not None and valid is None:
                valid = np.ones(data.shape, dtype=bool)
            if valid is not None:
                valid[k] = True if measured is None else measured
    return data, valid


def scales_of(slices: Sequence[Slice]) -> list[Scale]:
    """How numbers of slices are to be understood, in one unit.

    Raises:
        Refusal: different units.
    """
    found = [scale(s) for s in slices]
    refuse_other_units(list(slices), found)
    return found


def fill(how: Scale) -> float:
    """The number that stands where nothing was measured."""
    return AIR if how.units == "HU" else 0.0


def same(a: Slice, b: Slice) -> bool:
    """Whether two images hold the same numbers."""
    return all(np.array_equal(x, y) for x, y in zip(_one(a), _one(b), strict=True))


def _one(each: Slice) -> tuple[Array, Mask]:
    refuse_undecodable(each)
    ((_, stored),) = frames(each.instance, [each])
    data, valid = physical(each, scale(each), stored)
    return data, np.ones(data.shape, dtype=bool) if valid is None else valid


def _by_file(slices: Sequence[Slice]) -> list[tuple[Instance, list[Slice]]]:
    files: dict[int, tuple[Instance, list[Slice]]] = {}
    for each in slices:
        files.setdefault(id(each.instance), (each.instance, []))[1].append(each)
    return list(files.values())
