"""Pairs of clean and degraded images, drawn from a source of clean patches and an operator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from deepinv.physics import Physics
from torch import Tensor

import operators
from restore.trained.anchor import anchor
from restore.trained.pair_prior import shifted

Images = Callable[[torch.Generator], Tensor]
"""Draws clean images `(B, C, H, W)` in [0, 1] from a generator."""


class Measured(NamedTuple):
    """Clean images `x_0` `(B, C, H, W)`, their measurements `y` `(B, ...)`, and by what."""

    x_0: Tensor
    y: Tensor
    operator: Physics


class Batch(NamedTuple):
    """Clean images `x_0` and degraded images `y_0`, both `(B, C, H, W)`."""

    x_0: Tensor
    y_0: Tensor


@dataclass(frozen=True)
class Pairs:
    """Measure clean images and bring the measurements back to images.

    Attributes:
        images: source of clean images.
        spec: the operator, as `operators.parse` reads it; its option `seed`, unless it is given, is
            drawn anew for every batch, so that a random pattern is not learnt by heart.
        noise: lowest and highest std of the Gaussian noise, uniform between, one a batch.
        middle: of the images' range.
    """

    images: Images
    spec: str
    noise: tuple[float, float]
    middle: float = 0.5

    def __call__(self, generator: torch.Generator) -> Batch:
        """Draw a batch."""
        x_0, y, physics = self.measured(generator)
        return Batch(x_0, anchor(y, physics, tuple(x_0.shape[1:]), self.middle))

    def measured(self, generator: torch.Generator) -> Measured:
        """Draw a batch, measurements as they are."""
        x_0 = self.images(generator)
        low, high = self.noise
        sigma = low + (high - low) * float(torch.rand((), generator=generator))
        seed = int(torch.randint(2**31, (), generator=generator))
        physics = self.operator(tuple(x_0.shape[1:]), seed)
        y = physics.A(x_0)
        y = y + sigma * torch.randn(y.shape, generator=generator)
        return Measured(x_0, y, physics)

    def operator(self, image_shape: tuple[int, ...], seed: int) -> Physics:
        """Build the operator for images of a shape, a random one from `seed`."""
        name = self.spec.partition(":")[0].strip()
        _, options = operators.available().get(name, ("", {}))
        if "seed" not in options or "seed=" in self.spec:
            return operators.parse(self.spec, image_shape)
        joint = "," if ":" in self.spec else ":"
        return operators.parse(f"{self.spec}{joint}seed={seed}", image_shape)


def with_phase(images: Images) -> Images:
    """Make grey pictures complex, `(B, 2, H, W)`, each of a random phase, as MRI takes them."""

    def drawn(generator: torch.Generator) -> Tensor:
        x = images(generator)
        phase = 2 * torch.pi * torch.rand((len(x), 1, 1, 1), generator=generator)
        return torch.cat([x * phase.cos(), x * phase.sin()], 1)

    return drawn


def residual_std(
    pairs: Pairs, batches: int, generator: torch.Generator, around: str = "degraded"
) -> float:
    """Root mean square of `x_0 - y_0` over some batches: the spread that networks are scaled by.

    Of `x_0 - middle` for networks that run around the middle of the range.
    """
    drawn = [pairs(generator) for _ in range(batches)]
    apart = [b.x_0 - shifted(b.y_0, around, pairs.middle) for b in drawn]
    return float(torch.stack([u.square().mean() for u in apart]).mean().sqrt())
