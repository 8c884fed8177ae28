"""Joseph's method: exact line integrals of an image interpolated along one direction.

P. M. Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Med.
Imaging 1 (1982). A ray that runs mostly down the slice meets every row once; there the image is
interpolated linearly between two pixels of the row, and zero beyond the border. The value counts
for the length of the ray between two rows. Rays that run mostly across meet columns instead.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .geometry import Geometry

CHUNK = 2**21  # entries worked on at a time, about 100 MB of intermediates


class Footprint(NamedTuple):
    """The pixels that rays meet.

    Attributes:
        pixel: number `row * W + column`, `(rays, crossings, 2)`; 0 where there is none.
        weight: length that it counts for, float64; 0 where there is no pixel.
    """

    pixel: Tensor
    weight: Tensor


class Rows(NamedTuple):
    """Rows of the system matrix in compressed form.

    Attributes:
        length: number of entries of each row, int64.
        pixel: columns of the entries, int32.
        weight: values, float32: rounded once, so that every precision applies the same matrix.
    """

    length: Tensor
    pixel: Tensor
    weight: Tensor


class _Crossings(NamedTuple):
    """Where rays cross row (or column) `k`: at place `first + slope * k` of it."""

    first: Tensor
    slope: Tensor
    step: Tensor  # length of ray between two crossings
    down: Tensor  # True for rays that meet rows


def footprint(geometry: Geometry, rays: Tensor) -> Footprint:
    """What rays, given by their numbers, meet: the rows of the system matrix.

    Args:
        geometry: of the scanner.
        rays: numbers `view * detectors + bin`, `(rays,)`, int64.
    """
    height, width = geometry.size
    first, slope, step, down = (c[:, None] for c in _crossings(geometry, rays))
    k = torch.arange(max(height, width), device=rays.device)
    place = first + slope * k
    whole = place.floor()
    part = place - whole
    weight = torch.stack((1 - part, part), -1) * step[..., None]
    u = torch.stack((whole, whole + 1), -1).long()
    inside = (u >= 0) & (u < torch.where(down, width, height)[..., None])
    inside &= (k < torch.where(down, height, width))[..., None]
    pixel = torch.where(down[..., None], k[:, None] * width + u, u * width + k[:, None])
    return Footprint(torch.where(inside, pixel, 0), torch.where(inside, weight, 0))


def assemble(geometry: Geometry, rays: Tensor) -> Rows:
    """Rows of the system matrix, without their zeros."""
    pixel, weight = footprint(geometry, rays)
    weight = weight.float()
    kept = weight > 0
    return Rows(kept.sum((1, 2)), pixel[kept].int(), weight[kept])


def chunks(geometry: Geometry, rays: Tensor, columns: int = 1) -> list[Tensor]:
    """Rays in portions that take a bounded amount of memory, applied to so many columns."""
    entries = CHUNK // max(1, columns // 8)
    return list(rays.split(max(1, entries // (2 * max(geometry.size)))))


def entries(geometry: Geometry, rays: Tensor) -> int:
    """Upper bound, off by a few per ray, on the entries of these rows of the system matrix."""
    height, width = geometry.size
    first, slope, _, down = _crossings(geometry, rays)
    last, end = torch.where(down, height, width) - 1, torch.where(down, width, height)
    # -1 < first + slope k < end, where a slope of zero divides to an infinity of the right sign
    a, b = ((limit - first) / slope for limit in (-torch.ones_like(first), end))
    low = torch.minimum(a, b).nan_to_num(0).clamp(min=0).ceil()
    high = torch.maximum(a, b).nan_to_num(0).minimum(last).floor()
    return 2 * int((high - low + 1).clamp(min=0).sum())


def _crossings(geometry: Geometry, rays: Tensor) -> _Crossings:
    """In pixels, `(j - jc) cos - (i - ic) sin = t`: solved for `j` at rows or `i` at columns."""
    cos, sin, t = geometry.lines(rays)
    t = t / geometry.pixel
    ic, jc = ((n - 1) / 2 for n in geometry.size)
    down = cos.abs() >= sin.abs()
    major, minor = torch.where(down, cos, sin), torch.where(down, sin, cos)
    slope = minor / major
    first = torch.where(down, jc + t / major - ic * slope, ic - t / major - jc * slope)
    return _Crossings(first, slope, geometry.pixel / major.abs(), down)
