"""Filtered back-projection for parallel and fan beams.

A. C. Kak and M. Slaney, "Principles of Computerized Tomographic Imaging" (1988), chapter 3. The
ramp is sampled in space, equation (61), so that the mean of the slice comes out right. Pixels
gather the filtered views by linear interpolation. A view counts for the angle that it covers: a
missing wedge stays missing and is not made up for by the other views.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..validate import one_of
from .geometry import FanBeam, Geometry
from .projector import take_rows

Window = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]

WEDGE = 3  # a gap so many times wider than every other one is no part of the scan


class Coverage(NamedTuple):
    """The angles that views cover.

    Attributes:
        weight: angle for which each view counts, `(views,)`, radians.
        start: of the arc, degrees.
        span: of the arc, degrees; the whole period when it closes.
    """

    weight: Tensor
    start: float
    span: float


def coverage(geometry: Geometry) -> Coverage:
    """What angle each view stands for: half the way to its neighbours on either side."""
    angles, period = torch.tensor(geometry.angles, dtype=torch.float64), geometry.period
    ring, order = (angles % period).sort()
    gaps = torch.cat([ring[1:], ring[:1] + period]) - ring
    start, span = 0.0, period
    others, last = gaps.sort().values[:-1], int(gaps.argmax())
    if len(others) and gaps[last] > WEDGE * others[-1]:
        step = float(others.median())
        start = float(ring[(last + 1) % len(ring)]) - step / 2
        span = period - float(gaps[last]) + step
        gaps[last] = step
    weight = torch.empty_like(gaps)
    weight[order] = torch.deg2rad(gaps + gaps.roll(1)) / 2
    return Coverage(weight, start, span)


def has_fbp(geometry: Geometry) -> bool:
    """Whether the views suffice: a fan must see every ray of the slice at least once."""
    if not isinstance(geometry, FanBeam):
        return True
    return coverage(geometry).span >= 180 + 2 * math.degrees(_fan_angle(geometry))


def filtered_back_projection(
    y: Tensor, geometry: Geometry, *, window: Window = "ram-lak"
) -> Tensor:
    """Approximate inverse of the line integrals.

    Args:
        y: line integrals `(B, C, detectors, views)`, value times length.
        geometry: of the scanner.
        window: damps high frequencies, in this order ever more.

    Returns:
        Images `(B, C, H, W)`.

    Raises:
        ValueError: a fan beam that turned by less than half a circle and its opening.
    """
    if not has_fbp(geometry):
        raise ValueError(
            f"the fan turns by {coverage(geometry).span:g} degrees, expected at least 180 and its "
            "opening for filtered back-projection; use method='cg' or a larger span."
        )
    one_of("window", window, get_args(Window))
    spacing = geometry.spacing
    if isinstance(geometry, FanBeam):
        y = y * _fan_weights(geometry).to(y)
        spacing *= geometry.source_distance / geometry.detector_distance
    return _back_project(_filter(y, window) / spacing, geometry)


def _filter(y: Tensor, window: Window) -> Tensor:
    """Convolve every view with the ramp for bins at unit distance."""
    n = 2 ** math.ceil(math.log2(2 * y.shape[2]))
    k = torch.arange(n, dtype=torch.float64, device=y.device)
    k = torch.minimum(k, n - k)
    ramp = torch.where(k % 2 == 1, -1 / (math.pi * k.clamp(min=1)) ** 2, 0)
    ramp[0] = 0.25
    f = torch.fft.rfftfreq(n, dtype=torch.float64, device=y.device)
    response = (torch.fft.rfft(ramp).real * _window(f, window)).to(y.dtype)
    filtered = torch.fft.irfft(torch.fft.rfft(y, n, dim=2) * response[:, None], n, dim=2)
    return filtered[:, :, : y.shape[2]]


def _window(f: Tensor, window: Window) -> Tensor:
    """Gain at `f` cycles per bin."""
    return {
        "ram-lak": torch.ones_like(f),
        "shepp-logan": torch.sinc(f),
        "cosine": torch.cos(math.pi * f),
        "hamming": 0.54 + 0.46 * torch.cos(2 * math.pi * f),
        "hann": 0.5 + 0.5 * torch.cos(2 * math.pi * f),
    }[window]


def _back_project(q: Tensor, geometry: Geometry) -> Tensor:
    """Sum over the views of what every pixel finds on the detector, linearly interpolated."""
    out = q.new_zeros(math.prod(geometry.size), q.shape[0] * q.shape[1])
    last = geometry.detectors
    padded = torch.nn.functional.pad(q.flatten(0, 1), (0, 0, 1, 2))
    for view, (place, weight) in enumerate(_places(geometry, q.device)):
        place = place.flatten().clamp(-1, last)
        whole = place.floor()
        low, part = whole.long() + 1, (place - whole).to(q)[:, None]
        bins = padded[:, :, view].T.contiguous()
        found = torch.lerp(take_rows(bins, low), take_rows(bins, low + 1), part)
        out = out + weight.to(q).reshape(-1, 1) * found
    return out.T.reshape(*q.shape[:2], *geometry.size)


def _places(geometry: Geometry, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """For every view, the bin that each pixel projects to `(H, W)`, and the pixel's weight."""
    height, width = geometry.size
    rows = torch.arange(height, dtype=torch.float64, device=device)[:, None]
    y = ((height - 1) / 2 - rows) * geometry.pixel
    x = torch.arange(width, dtype=torch.float64, device=device) - (width - 1) / 2
    x, middle = x * geometry.pixel, (geometry.detectors - 1) / 2
    views = zip(*geometry.directions(), coverage(geometry).weight, strict=True)
    for cos, sin, weight in views:
        t = x * float(cos) + y * float(sin)
        if isinstance(geometry, FanBeam):
            depth = geometry.source_distance + x * float(sin) - y * float(cos)
            t = geometry.detector_distance * t / depth
            weight = weight * (geometry.source_distance / depth) ** 2
        yield t / geometry.spacing + middle, weight


def _fan_angle(geometry: FanBeam) -> float:
    """Half the opening of the fan, as far as it meets the slice, radians."""
    widest = float(geometry.virtual_bins.abs().max()) / geometry.source_distance
    return min(math.atan(widest), math.asin(geometry.radius / geometry.source_distance))


def _fan_weights(geometry: FanBeam) -> Tensor:
    """Obliquity of the rays, and their share where two of them run along one line.

    Two rays run along every line of a full circle; each counts half. On a shorter arc some lines
    are seen once and others twice, which the smooth weights of D. L. Parker, "Optimal short scan
    convolution reconstruction for fanbeam CT", Med. Phys. 9 (1982), add up to 1, here for arcs of
    any length (M. D. Silver, Med. Phys. 27, 2000).

    Returns:
        `(detectors, views)`, float64.
    """
    s, distance = geometry.virtual_bins[:, None], geometry.source_distance
    oblique = distance / torch.hypot(s, torch.full_like(s, distance))
    _, start, span = coverage(geometry)
    if span == geometry.period:
        return (oblique / 2).expand(-1, len(geometry.angles))
    widest = _fan_angle(geometry)
    gamma = torch.atan(s / distance).clamp(-widest, widest)
    angles = torch.tensor(geometry.angles, dtype=torch.float64)
    beta = torch.deg2rad((angles - start) % geometry.period)
    arc = math.radians(span)
    extra = (arc - math.pi) / 2
    rising = beta / (extra - gamma).clamp(min=1e-12)
    falling = (arc - beta) / (extra + gamma).clamp(min=1e-12)
    share = torch.minimum(rising, falling).clamp(0, 2)
    return oblique * torch.sin(math.pi / 4 * share).square()
