"""Where the rays of a scanner run: straight lines `x cos(theta) + y sin(theta) = t` of the slice.

The origin is the centre of the slice, `x` points along its rows to the right and `y` up, against
its columns. Lengths are in the unit of `pixel`: pixels when it is 1, millimetres when it says so.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..validate import number, whole

SAME_ANGLE = 1e-6  # degrees
MOST_VIEWS, MOST_DETECTORS = 3600, 65536


class Lines(NamedTuple):
    """Lines `x cos + y sin = t`, float64 tensors of one shape; `t` in the unit of the geometry."""

    cos: Tensor
    sin: Tensor
    t: Tensor


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A slice, and a flat row of detector bins that looks at it from several angles.

    Attributes:
        size: `(H, W)` of the slice in pixels.
        angles: of the views, in degrees, counter-clockwise.
        detectors: number of bins; their middle sees the centre of the slice.
        spacing: distance between the centres of two bins.
        pixel: side of a pixel.
        period: degrees after which a view sees the same rays again.
    """

    size: tuple[int, int]
    angles: tuple[float, ...]
    detectors: int
    spacing: float
    pixel: float = 1.0
    period: ClassVar[float]

    def __post_init__(self) -> None:
        if min(self.size) < 2:
            raise ValueError(
                f"the slice is {self.size[0]}x{self.size[1]} pixels, expected at least 2x2; "
                "pad it with air."
            )
        number("pixel", self.pixel, above=0, do="give the side of a pixel")
        number("spacing", self.spacing, above=0, do="give the distance between two detector bins")
        whole("detectors", self.detectors, low=1, high=MOST_DETECTORS, do="give the number of bins")
        whole("angles", len(self.angles), low=1, high=MOST_VIEWS, do="give that many views")
        self._refuse_repeated_angles()
        self._refuse_blindness()

    @property
    def radius(self) -> float:
        """From the centre of the slice to its corner."""
        return math.hypot(*self.size) * self.pixel / 2

    @property
    def rays(self) -> int:
        """Number of rays; ray `view * detectors + bin`."""
        return len(self.angles) * self.detectors

    def bins(self) -> Tensor:
        """Places of the bins along the detector, `(detectors,)`, float64."""
        middle = (self.detectors - 1) / 2
        return (torch.arange(self.detectors, dtype=torch.float64) - middle) * self.spacing

    def directions(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the views, each `(views,)`, float64."""
        radians = torch.deg2rad(torch.tensor(self.angles, dtype=torch.float64))
        return radians.cos(), radians.sin()

    def lines(self, rays: Tensor) -> Lines:
        """The lines of rays, given by their numbers."""
        raise NotImplementedError

    def _refuse_repeated_angles(self) -> None:
        turned = sorted((a % self.period, a) for a in self.angles)
        turned.append((turned[0][0] + self.period, turned[0][1]))
        for (low, a), (high, b) in pairwise(turned):
            if len(self.angles) > 1 and high - low < SAME_ANGLE:
                raise ValueError(
                    f"the angles {a:g} and {b:g} degrees see the same rays (views repeat after "
                    f"{self.period:g} degrees), expected different ones; leave one out."
                )

    def _refuse_blindness(self) -> None:
        rays = torch.arange(self.detectors)
        nearest = float(self.lines(rays).t.abs().min())
        half = min(self.size) * self.pixel / 2
        if nearest >= half:
            raise ValueError(
                f"the ray nearest to the centre passes it at {nearest:g} but the slice reaches "
                f"only {half:g}; lower the spacing of the detector bins or use an odd number."
            )


@dataclass(frozen=True, kw_only=True)
class ParallelBeam(Geometry):
    """Parallel rays: a view at angle `theta` measures `t` at every bin."""

    period: ClassVar[float] = 180.0

    def lines(self, rays: Tensor) -> Lines:
        """The lines of rays, given by their numbers `view * detectors + bin`."""
        view, bin = rays // self.detectors, rays % self.detectors
        cos, sin = (d.to(rays.device)[view] for d in self.directions())
        return Lines(cos, sin, self.bins().to(rays.device)[bin])


@dataclass(frozen=True, kw_only=True)
class FanBeam(Geometry):
    """Rays from a point source to a flat detector (Kak and Slaney, 1988, section 3.4.2).

    A view at angle `beta` has its source at `source_distance (-sin(beta), cos(beta))`.

    Attributes:
        source_distance: from the source to the centre of the slice.
        detector_distance: from the source to the detector.
    """

    source_distance: float
    detector_distance: float
    period: ClassVar[float] = 360.0

    def __post_init__(self) -> None:
        number("source_distance", self.source_distance, above=0, do="give the source's distance")
        if self.source_distance <= self.radius:
            raise ValueError(
                f"the source is {self.source_distance:g} from the centre but the slice reaches "
                f"{self.radius:g}, so that it would pass through; raise source_distance."
            )
        if not self.source_distance <= self.detector_distance < math.inf:
            raise ValueError(
                f"the detector is {self.detector_distance:g} from the source, expected at least "
                f"source_distance={self.source_distance:g}; raise detector_distance."
            )
        super().__post_init__()

    @property
    def virtual_bins(self) -> Tensor:
        """Places of the bins on a detector moved to the centre of the slice, float64."""
        return self.bins() * (self.source_distance / self.detector_distance)

    def lines(self, rays: Tensor) -> Lines:
        """The lines of rays, given by their numbers `view * detectors + bin`."""
        view, bin = rays // self.detectors, rays % self.detectors
        cos, sin = (d.to(rays.device)[view] for d in self.directions())
        s, distance = self.virtual_bins.to(rays.device)[bin], self.source_distance
        length = torch.hypot(s, torch.full_like(s, distance))
        return Lines(
            (distance * cos - s * sin) / length,
            (distance * sin + s * cos) / length,
            distance * s / length,
        )
