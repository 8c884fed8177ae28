"""Symmetries of a scanner: rays that are turned or mirrored copies of others need no storage.

Turning the pixel grid by 180 degrees maps a parallel view onto itself with the detector reversed;
quarter turns (of a square slice) and mirror images map views onto other views when the angles
allow it. If `g` maps the slice and the set of rays onto themselves, then `(A g x)[g r] = (A x)[r]`:
one ray of every orbit is enough, applied to all `g x` at once. Evenly spread views of a square
slice have the full dihedral group of eight.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .geometry import Geometry

SAME_VIEW = 1e-10  # degrees; moves a ray by less than rounding in float32 does


class Motion(NamedTuple):
    """Mirror left and right (or not), then turn counter-clockwise by quarters."""

    quarters: int
    mirrored: bool

    def __call__(self, image: Tensor) -> Tensor:
        """Move the last two dimensions of an image."""
        image = image.flip(-1) if self.mirrored else image
        return image.rot90(self.quarters, (-2, -1))

    def undo(self, image: Tensor) -> Tensor:
        """Move them back."""
        image = image.rot90(-self.quarters, (-2, -1))
        return image.flip(-1) if self.mirrored else image


class Orbits(NamedTuple):
    """One ray for every orbit, and where everything else is found.

    Of `G` motions `g`, image columns are `g x` and matrix rows the representatives.

    Attributes:
        order: the number of motions `G`.
        rays: the representatives, `(R,)`.
        images: pixel of `x` that pixel `p` of `g x` shows, `(H W G,)` for `p G + g`.
        back: entry `q G + g` of moved back-projections that belongs to pixel `p`, `(H W G,)`.
        slot: entry `row G + g` of the product that is ray `bin views + view`, `(bins views,)`.
    """

    order: int
    rays: Tensor
    images: Tensor
    back: Tensor
    slot: Tensor


def orbits(geometry: Geometry, *, symmetric: bool = True) -> Orbits:
    """The orbits of rays under all symmetries of the scanner.

    Args:
        geometry: of the scanner.
        symmetric: False leaves every ray an orbit of its own.
    """
    found = _symmetries(geometry) if symmetric else [(Motion(0, False), _numbers(geometry))]
    moved = torch.stack([rays for _, rays in found])  # [g, r] = g r
    representative, by = moved.min(0)
    rays, row = representative.unique(return_inverse=True)
    views, order = len(geometry.angles), len(found)
    slot = (row * order + by).reshape(views, geometry.detectors).T
    pixels = torch.arange(geometry.size[0] * geometry.size[1]).reshape(geometry.size)
    images = torch.stack([motion(pixels) for motion, _ in found], -1)
    back = torch.stack([motion.undo(pixels) * order + g for g, (motion, _) in enumerate(found)], -1)
    return Orbits(order, rays, images.flatten().int(), back.flatten().int(), slot.flatten())


def _symmetries(geometry: Geometry) -> list[tuple[Motion, Tensor]]:
    square = geometry.size[0] == geometry.size[1]
    motions = [Motion(q, m) for q in range(0, 4, 1 if square else 2) for m in (False, True)]
    moved = [(motion, _moved_rays(geometry, motion)) for motion in motions]
    return [(motion, rays) for motion, rays in moved if rays is not None]


def _moved_rays(geometry: Geometry, motion: Motion) -> Tensor | None:
    """Where a motion takes every ray, or None when some ray falls between the others."""
    period, angles = geometry.period, torch.tensor(geometry.angles, dtype=torch.float64)
    turned = (-angles if motion.mirrored else angles) + 90 * motion.quarters
    ring, order = (angles % period).sort()
    place = torch.searchsorted(ring, turned % period - SAME_VIEW) % len(ring)
    view = order[place]
    periods = ((turned - angles[view]) / period).round()
    if ((turned - angles[view] - periods * period).abs() > 2 * SAME_VIEW).any():
        return None
    # a mirror image reverses the detector, and so does half a turn of parallel rays
    reverse = (periods % 2 == 1) & (period == 180)
    reverse = reverse ^ motion.mirrored
    bins = torch.arange(geometry.detectors)
    bins = torch.where(reverse[:, None], geometry.detectors - 1 - bins, bins)
    return (view[:, None] * geometry.detectors + bins).flatten()


def _numbers(geometry: Geometry) -> Tensor:
    return torch.arange(geometry.rays)
