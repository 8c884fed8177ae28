"""Which samples of Cartesian k-space are measured.

A pattern lives in the phase encodings: the columns `W` of an image, the plane `(D, W)` of a volume.
Along the read-out, `H`, everything is measured.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..mask import file_mask
from ..validate import number, one_of, seeded
from .poisson_disc import poisson_disc

Pattern = Literal["random", "uniform", "poisson"]


def sampling_mask(
    size: Sequence[int],
    *,
    pattern: Pattern = "random",
    acceleration: float = 4.0,
    centre_fraction: float = 0.08,
    seed: int = 0,
    mask: Tensor | None = None,
    file: Path | str | None = None,
) -> Tensor:
    """The measured samples, by a pattern, or as given.

    Args:
        size: `(H, W)` or `(D, H, W)`.
        pattern: "random", "uniform" or "poisson".
        acceleration: samples over measured samples; for "uniform" the distance of the columns,
            a whole number, and the centre comes on top.
        centre_fraction: share of the phase encodings, along their axis, around zero frequency at
            index `n // 2`, that are always measured.
        seed: of what is random.
        mask: zeros and ones of one's own, `(*size)` or the plane of the phase encodings.
        file: the same plane as a picture or a `.npy` array.

    Returns:
        `(*size)` of zeros and ones, float32.

    Raises:
        ValueError: bad numbers, a pattern that cannot be had, a mask that does not fit.
        FileNotFoundError: there is no such file.
    """
    one_of("pattern", pattern, ("random", "uniform", "poisson"))
    number("acceleration", acceleration, low=1, do="give 1 for a full measurement")
    number("centre_fraction", centre_fraction, low=0, high=1, do="give a share of columns")
    seeded(seed)
    if mask is not None and file is not None:
        raise ValueError("the mask is given by mask and file, expected one; drop the other.")
    plane = (size[0], size[-1])
    if file is not None:
        return checked_mask(_along_readout(file_mask(plane, file), size), size)
    if mask is not None:
        flat = len(size) == 3 and mask.ndim == 2
        return checked_mask(_along_readout(mask, size) if flat else mask, size)
    if pattern == "poisson":
        return _along_readout(poisson_plane(plane, acceleration, centre_fraction, seed), size)
    columns = uniform_columns if pattern == "uniform" else random_columns
    chosen = columns(size[-1], acceleration, centre_fraction, seed)
    return chosen.float().expand(*size).clone()


def random_columns(width: int, acceleration: float, centre_fraction: float, seed: int) -> Tensor:
    """A full centre, the other columns drawn at random.

    Returns:
        `(W,)`, boolean; `max(1, round(W / acceleration))` columns are measured.

    Raises:
        ValueError: the centre alone is larger than that.
    """
    measured = max(1, round(width / acceleration))
    chosen = centre(width, centre_fraction)
    left = measured - _refuse_centre(int(chosen.sum()), measured, width, "columns", acceleration)
    outside = (~chosen).nonzero().flatten()
    chosen[outside[torch.randperm(len(outside), generator=seeded(seed))[:left]]] = True
    return chosen


def uniform_columns(width: int, acceleration: float, centre_fraction: float, _: int) -> Tensor:
    """Every `acceleration`-th column, through zero frequency, and a full centre.

    Returns:
        `(W,)`, boolean.

    Raises:
        ValueError: the acceleration is no whole number, or larger than the number of columns.
    """
    if not float(acceleration).is_integer() or acceleration > width:
        raise ValueError(
            f"acceleration is {acceleration:g}, expected a whole number from 1 to {width} for "
            "pattern='uniform'; give the distance between measured columns, or another pattern."
        )
    chosen = centre(width, centre_fraction)
    chosen[width // 2 % int(acceleration) :: int(acceleration)] = True
    return chosen


def poisson_plane(
    plane: tuple[int, int], acceleration: float, centre_fraction: float, seed: int
) -> Tensor:
    """A full centre in both axes, around it a Poisson disc that thins out with frequency.

    Returns:
        Boolean, in the shape of the plane; `round(n / acceleration)` of its `n` samples are
        measured.

    Raises:
        ValueError: the centre alone is larger than that.
    """
    total = plane[0] * plane[1]
    measured = max(1, round(total / acceleration))
    middle = centre(plane[0], centre_fraction)[:, None] & centre(plane[1], centre_fraction)
    _refuse_centre(int(middle.sum()), measured, total, "samples", acceleration)
    return poisson_disc(middle, measured, seed)


def centre(n: int, share: float) -> Tensor:
    """`round(share n)` samples around zero frequency.

    Returns:
        `(n,)`, boolean.
    """
    count, chosen = round(share * n), torch.zeros(n, dtype=torch.bool)
    first = n // 2 - count // 2
    chosen[first : first + count] = True
    return chosen


def checked_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask of one's own, if it is one.

    Args:
        mask: zeros and ones `(*size)`, perhaps with leading dimensions that repeat it.
        size: `(H, W)` or `(D, H, W)`.

    Returns:
        `(*size)`, float32.

    Raises:
        ValueError: another size, other values, several patterns, or nothing measured.
    """
    expected = "x".join(map(str, size))
    mask = torch.as_tensor(mask).detach()
    if tuple(mask.shape[-len(size) :]) != tuple(size):
        raise ValueError(
            f"the mask has shape {tuple(mask.shape)} but the image is {expected}; "
            "give one value per sample of k-space."
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            "the mask has values besides 0 and 1, expected zeros and ones; threshold it first."
        )
    patterns = mask.reshape(-1, *size)
    if not (patterns == patterns[:1]).all():
        raise ValueError(
            f"the mask holds {len(patterns)} patterns, expected the same for all images; "
            "build one operator for each."
        )
    if not mask.any():
        raise ValueError("the mask measures no sample, expected at least one; measure more.")
    return patterns[0].float()


def _along_readout(plane: Tensor, size: Sequence[int]) -> Tensor:
    """A plane of phase encodings for every read-out position of a volume; an image as it is."""
    if len(size) == 2:
        return plane.float()
    if plane.shape != (size[0], size[2]):
        raise ValueError(
            f"the mask has shape {tuple(plane.shape)} but the phase encodings are "
            f"{size[0]}x{size[2]}; give the plane (D, W) or the whole volume (D, H, W)."
        )
    return plane.float()[:, None, :].expand(*size).clone()


def _refuse_centre(centre: int, measured: int, total: int, what: str, acceleration: float) -> int:
    if centre > measured:
        raise ValueError(
            f"the centre takes {centre} of {total} {what} but acceleration={acceleration:g} "
            f"leaves {measured}; lower centre_fraction or the acceleration."
        )
    return centre
