"""A picture to try on when there is none: dead leaves, with the edges of photographs."""

from collections.abc import Sequence

import torch
from torch import Tensor


def leaves(shape: Sequence[int], low: float = 0.0, high: float = 1.0, *, seed: int = 0) -> Tensor:
    """A synthetic image `(1, C, *spatial)`: overlapping shaded discs, as a canopy of leaves.

    Discs with radii of density `r^-3` that occlude each other have edges with the statistics of
    photographs (Lee, Mumford & Huang 2001).
    """
    generator = torch.Generator().manual_seed(seed)
    channels, *sides = shape[1:]
    axes = torch.meshgrid(*(torch.arange(n) / max(sides) for n in sides), indexing="ij")
    places = torch.stack(axes)
    ones = [1] * len(sides)
    image = torch.full((channels, *sides), 0.5)
    for _ in range(300):
        centre, slope = torch.rand(2, len(sides), generator=generator)
        u = torch.rand(1, generator=generator)
        away = places - centre.reshape(-1, *ones)
        inside = away.square().sum(0) < 4e-4 / (u + 0.004)
        shade = (slope.reshape(-1, *ones) - 0.5).mul(away).sum(0)
        grey, tint = torch.rand(1, generator=generator), torch.rand(channels, generator=generator)
        colour = (0.1 + 0.6 * grey + 0.2 * tint).reshape(-1, *ones)
        image = torch.where(inside, colour + shade, image)
    return (low + (high - low) * _through_a_lens(image.clamp(0, 1)))[None]


def _through_a_lens(image: Tensor) -> Tensor:
    """Soften edges to the sharpness of photographs, by weights 1/4, 1/2, 1/4 along every axis."""
    for axis, n in enumerate(image.shape[1:], start=1):
        before = image.index_select(axis, torch.arange(-1, n - 1).clamp(min=0))
        after = image.index_select(axis, torch.arange(1, n + 1).clamp(max=n - 1))
        image = (before + 2 * image + after) / 4
    return image
