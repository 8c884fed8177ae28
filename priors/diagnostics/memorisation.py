"""Has a prior learnt the distribution, or its training images?

A network that memorised denoises like point masses at its training images (`priors.Dirac`). Three
tests, after Kadkhodaie, Guth, Simoncelli, Mallat, *Generalization in diffusion models arises from
geometry-adaptive harmonic representations* (2024), section 2:

- `agreement`: two denoisers trained on disjoint images, which become one and the same as the number
  of images grows (`two_halves` trains such a pair);
- `generalisation_gap`: the error on images like those of training against that on others;
- `neighbours`: whether what the denoiser makes of noisy images that it has not seen lies nearer to
  the training images than to others.

The gap and the pull towards training images appear at intermediate noise: at low noise any denoiser
returns its input, and at the highest every one returns the mean.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from priors.jacobian import generator_of, normal
from priors.training import Progress, Recipe, train

Model = Callable[[Tensor, float], Tensor]


class Agreement(NamedTuple):
    """Peak signal-to-noise ratios in dB, peak 1.

    Attributes:
        mutual: of the two denoisers' results against each other.
        one: of the first against the truth.
        other: of the second against the truth.
    """

    mutual: float
    one: float
    other: float

    @property
    def ahead(self) -> float:
        """How much nearer the two are to each other than the better is to the truth, in dB.

        Independent errors of equal size give -3 dB; at 3 dB three quarters of the squared error are
        common to both. Networks of one architecture share errors whatever they were trained on, so
        no single value proves anything: it is the rise with the number of images that does.
        """
        return self.mutual - max(self.one, self.other)


@torch.no_grad()
def agreement(one: Model, other: Model, images: Tensor, sigma: float, seed: int = 0) -> Agreement:
    """Compare two denoisers, trained on disjoint images, on the same noisy images.

    Args:
        one: a denoiser.
        other: another.
        images: clean images `(B, C, *spatial)` in [0, 1] that neither has seen.
        sigma: standard deviation of the noise to add.
        seed: of the noise.
    """
    noisy = images + sigma * normal(images, generator_of(seed))
    a, b = one(noisy, sigma), other(noisy, sigma)
    return Agreement(_psnr(a, b), _psnr(a, images), _psnr(b, images))


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Errors on training images and on others.

    Attributes:
        seen: root mean squared error on the first.
        unseen: on the second.
        decibels: `20 log10(unseen / seen)`.
        error: standard error of `decibels` over the images.
    """

    seen: float
    unseen: float
    decibels: float
    error: float

    @property
    def passed(self) -> bool:
        """Whether the gap is below 1 dB, or below three of its standard errors."""
        return self.decibels < max(1.0, 3 * self.error)


@torch.no_grad()
def generalisation_gap(
    prior: Model, seen: Tensor, unseen: Tensor, sigma: float, seed: int = 0
) -> Gap:
    """Compare the denoising error on training images with that on others of the same kind.

    Args:
        prior: the denoiser.
        seen: images `(B, C, *spatial)` it was trained on.
        unseen: images `(B', C, *spatial)` it was not.
        sigma: standard deviation of the noise to add.
        seed: of the noise.
    """
    generator = generator_of(seed)
    squares = []
    for images in (seen, unseen):
        noisy = images + sigma * normal(images, generator)
        squares.append((prior(noisy, sigma) - images).double().square().flatten(1).mean(1))
    # of a mean m of k numbers, d(10 log10 m) = 10 / ln 10 * dm / m
    means = [float(s.mean().clamp_min(1e-300)) for s in squares]
    relative = [
        float(s.std()) / math.sqrt(len(s)) / m if len(s) > 1 else math.nan
        for s, m in zip(squares, means, strict=True)
    ]
    return Gap(
        seen=math.sqrt(means[0]),
        unseen=math.sqrt(means[1]),
        decibels=10 * math.log10(means[1] / means[0]),
        error=10 / math.log(10) * math.hypot(*relative),
    )


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Where the results of a denoiser lie.

    Attributes:
        ratio: median of distance to the nearest training image over distance to the nearest of as
            many others; 1 without memory, 0 for point masses.
        share: how often the training image is nearer; one half without memory.
        count: number of results.
    """

    ratio: float
    share: float
    count: int

    @property
    def passed(self) -> bool:
        """Whether the training images are not clearly nearer: `ratio` at least 0.8."""
        return self.ratio >= 0.8


@torch.no_grad()
def neighbours(
    prior: Model, seen: Tensor, unseen: Tensor, sigma: float, seed: int = 0
) -> Neighbours:
    """Denoise noisy unseen images and look for the nearest training and the nearest unseen image.

    An image's own clean version does not count, and both sets are cut to one size: for a denoiser
    without memory both distances then have the same distribution.

    Args:
        prior: the denoiser.
        seen: images `(B, C, *spatial)` it was trained on.
        unseen: images `(B', C, *spatial)` it was not, at least 2.
        sigma: standard deviation of the noise to add, high enough for details to drown.
        seed: of the noise.

    Raises:
        ValueError: for fewer than two unseen images or no seen one.
    """
    if len(unseen) < 2 or len(seen) < 1:
        raise ValueError(
            f"neighbours need a seen and two unseen images, found {len(seen)} and {len(unseen)}; "
            "give more."
        )
    size = min(len(seen), len(unseen) - 1)
    result = prior(unseen + sigma * normal(unseen, generator_of(seed)), sigma).flatten(1).double()
    to_seen = torch.cdist(result, seen[:size].flatten(1).double()).amin(1)
    to_unseen = torch.cdist(result, unseen.flatten(1).double())
    to_unseen.fill_diagonal_(math.inf)
    # the same number of others for each: those that follow it
    later = (torch.arange(len(unseen))[:, None] + torch.arange(1, size + 1)) % len(unseen)
    nearest = to_unseen.gather(1, later.to(to_unseen.device)).amin(1)
    return Neighbours(
        ratio=float((to_seen / nearest).median()),
        share=float((to_seen < nearest).double().mean()),
        count=len(unseen),
    )


def two_halves(
    networks: tuple[nn.Module, nn.Module], images: Tensor, recipe: Recipe, *, batch: int = 8
) -> Iterator[tuple[Progress, Progress]]:
    """Train two networks side by side, one on each half of the images.

    Args:
        networks: `network(x, sigma)`; the first sees the first half of `images`, the other the
            rest. When the last step is done they are ready for `agreement`.
        images: clean images `(N, C, H, W)` in [0, 1], in random order.
        recipe: of both; the second draws from the next seed.
        batch: images a step.

    Yields:
        The progress of both after every step.

    Raises:
        ValueError: for fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"two halves need at least two images, found {len(images)}; give more.")
    half, (one, other) = len(images) // 2, networks
    again = replace(recipe, seed=recipe.seed + 1)
    yield from zip(
        train(one, _from(images[:half], batch), recipe),
        train(other, _from(images[half:], batch), again),
        strict=True,
    )


def _from(images: Tensor, batch: int) -> Callable[[torch.Generator], Tensor]:
    def draw(generator: torch.Generator) -> Tensor:
        return images[torch.randint(len(images), (batch,), generator=generator)]

    return draw


def _psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(max(float((a - b).double().square().mean()), 1e-30))
