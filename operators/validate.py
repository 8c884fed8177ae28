"""Refusals: one sentence that says what was found, what was expected and what to do."""

import math
from collections.abc import Sequence

import torch

from operators.words import nearest

SHAPES = {2: "(C, H, W)", 3: "(C, D, H, W)"}


def image_size(
    image_shape: Sequence[int],
    *,
    channels: int | None = None,
    dims: Sequence[int] = (2,),
    hint: str = "",
) -> tuple[int, ...]:
    """Check the shape of one clean image.

    Args:
        image_shape: `(C, *spatial)`.
        channels: the only number of channels that will do, or None.
        dims: how many spatial dimensions will do.
        hint: what to do when the number of channels is wrong.

    Returns:
        `(C, *spatial)` as plain integers.

    Raises:
        ValueError: not so many positive whole numbers, or the wrong number of channels.
    """
    shape = tuple(image_shape)
    if len(shape) - 1 not in dims or not all(_whole(n) and n > 0 for n in shape):
        expected = " or ".join(SHAPES[d] for d in dims)
        raise ValueError(
            f"image_shape is {shape}, expected {expected} of one image in positive whole numbers; "
            "leave the batch dimension out."
        )
    if channels is not None and shape[0] != channels:
        raise ValueError(
            f"the image has {shape[0]} channel{'s' if shape[0] != 1 else ''}, expected "
            f"{channels}; {hint or 'convert the image first'}."
        )
    return tuple(int(n) for n in shape)


def number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    low: float | None = None,
    high: float = math.inf,
    do: str,
) -> float:
    """Check a finite number in `(above, high]` or `[low, high]`.

    Args:
        name: option name for the sentence.
        value: what the user gave.
        above: exclusive lower bound.
        low: inclusive lower bound.
        high: inclusive upper bound.
        do: what to do about it, the end of the sentence.

    Returns:
        The number as a float.

    Raises:
        ValueError: not a finite number or outside the interval.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    finite = real and -1e300 < value < 1e300  # also false for nan
    fits = finite and (above is None or value > above) and (low is None or value >= low)
    if not (fits and value <= high):
        raise ValueError(f"{name} is {value}, expected a number {_span(above, low, high)}; {do}.")
    return float(value)


def whole(name: str, value: int, *, low: int, high: int = 2**62, do: str) -> int:
    """Check a whole number in `[low, high]`.

    Raises:
        ValueError: not a whole number, or outside the interval.
    """
    if not _whole(value) or not low <= value <= high:
        span = f"of at least {low}" if high == 2**62 else f"from {low} to {high}"
        raise ValueError(f"{name} is {value}, expected a whole number {span}; {do}.")
    return int(value)


def seeded(seed: int) -> torch.Generator:
    """A private random stream; 0 is a seed like any other.

    Raises:
        ValueError: not a whole number from 0 to 2^62.
    """
    return torch.Generator().manual_seed(whole("seed", seed, low=0, do="choose another"))


def one_of(name: str, value: object, known: Sequence[str]) -> str:
    """Check a word against the known ones and name the nearest when it is not among them.

    Raises:
        ValueError: unknown word.
    """
    if isinstance(value, str) and value in known:
        return value
    raise ValueError(f"{name} {value!r} is unknown; {nearest(str(value), known)}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _span(above: float | None, low: float | None, high: float) -> str:
    if high == math.inf:
        return f"above {above:g}" if above is not None else f"of at least {low:g}"
    return f"in ({above:g}, {high:g}]" if above is not None else f"in [{low:g}, {high:g}]"
