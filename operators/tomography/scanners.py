"""Scanners with sensible defaults: what the options of CT and PET mean."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..validate import number, whole
from .geometry import MOST_DETECTORS, MOST_VIEWS, FanBeam, ParallelBeam


def parallel_beam(
    size: tuple[int, int],
    angles: Sequence[float],
    *,
    detectors: int | None = None,
    spacing: float | None = None,
    pixel: float = 1.0,
) -> ParallelBeam:
    """Parallel rays; bins a pixel wide that cover the diagonal of the slice, unless given.

    Raises:
        ValueError: repeated angles, or numbers that no scanner has.
    """
    pixel = number("pixel", pixel, above=0, do="give the side of a pixel")
    spacing = pixel if spacing is None else spacing
    width = math.hypot(*size) * pixel
    return ParallelBeam(
        size=size,
        angles=tuple(angles),
        detectors=_bins(width, spacing) if detectors is None else detectors,
        spacing=spacing,
        pixel=pixel,
    )


def fan_beam(
    size: tuple[int, int],
    angles: Sequence[float],
    *,
    detectors: int | None = None,
    spacing: float | None = None,
    pixel: float = 1.0,
    source_distance: float | None = None,
    detector_distance: float | None = None,
) -> FanBeam:
    """A fan of rays on a flat detector that covers the slice, unless given.

    By default the source stands 1.5 diagonals of the slice away from its centre and the detector
    twice as far from the source; there are as many bins as pixels on the diagonal.

    Raises:
        ValueError: repeated angles, a source inside the slice, or numbers that no scanner has.
    """
    pixel = number("pixel", pixel, above=0, do="give the side of a pixel")
    diagonal = math.hypot(*size) * pixel
    source = 1.5 * diagonal if source_distance is None else source_distance
    source = number("source_distance", source, above=0, do="give the distance of the source")
    screen = 2 * source if detector_distance is None else detector_distance
    screen = number("detector_distance", screen, above=0, do="give its distance from the source")
    # the fan that touches the circle around the slice; a source inside is refused below
    width = screen * diagonal / math.sqrt(max(source**2 - diagonal**2 / 4, 1e-12 * diagonal**2))
    if detectors is None:
        detectors = _bins(width, width * pixel / diagonal if spacing is None else spacing)
    detectors = whole("detectors", detectors, low=1, high=MOST_DETECTORS, do="give some bins")
    return FanBeam(
        size=size,
        angles=tuple(angles),
        detectors=detectors,
        spacing=width / detectors if spacing is None else spacing,
        pixel=pixel,
        source_distance=source,
        detector_distance=screen,
    )


def _bins(width: float, spacing: float) -> int:
    """How many bins cover a width."""
    number("spacing", spacing, above=0, do="give the distance between two detector bins")
    if width > MOST_DETECTORS * spacing:
        raise ValueError(
            f"bins {spacing:g} apart that cover {width:g} are more than {MOST_DETECTORS}; widen "
            "the spacing, or give detectors."
        )
    return math.ceil(width / spacing - 1e-9)


def view_angles(
    angles: int | Sequence[float] | Tensor, start: float, span: float | None, period: float
) -> tuple[float, ...]:
    """Angles of the views in degrees: so many over an arc, or those given.

    Args:
        angles: a number of views, or the angles themselves.
        start: of the arc.
        span: of the arc, whose end is left out; a whole period by default.
        period: degrees after which views repeat.

    Raises:
        ValueError: no angles, angles that are not numbers, or an arc longer than the period.
    """
    start = number("start", start, low=-360, high=360, do="give degrees")
    if isinstance(angles, int):
        views = whole("angles", angles, low=1, high=MOST_VIEWS, do="give the number of views")
        arc = period if span is None else span
        arc = number("span", arc, above=0, high=period, do="give the degrees that the views cover")
        return tuple(start + arc * k / views for k in range(views))
    try:
        given = torch.as_tensor(angles, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"angles are {angles!r}, expected numbers; give degrees.") from error
    if given.ndim != 1 or not 1 <= len(given) <= MOST_VIEWS or not given.isfinite().all():
        raise ValueError(
            f"angles have shape {tuple(given.shape)}, expected a list of 1 to {MOST_VIEWS} finite "
            "numbers; give degrees."
        )
    if start != 0 or span is not None:
        raise ValueError(
            "start and span place a number of views, but the angles themselves are given; "
            "leave start and span out."
        )
    return tuple(given.tolist())
