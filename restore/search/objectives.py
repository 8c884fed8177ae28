"""What a search of samplers makes small: the distance to where the trajectories truly end.

The probability-flow ODE carries every start to one image. `exact` holds a sampler against a prior
whose flow is known; `paired` against a long run of the same prior from the same starts, which works
for any network (Li et al. 2023, arXiv:2309.10438, and Liu et al. 2024, arXiv:2312.07243, compare
distributions by FID instead, which needs thousands of images to tell two samplers apart; pairs need
a few).

Starts are fixed, so that scores are deterministic. Everything is in the VE form: a start is `x_0`
plus noise of std `high`; integrators do not depend on the schedule.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from priors import Gaussian
from priors.denoiser import Denoiser
from priors.schedules import EDM
from restore.samplers import grid as grids
from restore.samplers.adams import Adams
from restore.samplers.grid import Point
from restore.samplers.sampler import Denoise, Sampler
from restore.samplers.terminal import start


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """Root-mean-square error of a sampler over fixed starts, in units of the images.

    Attributes:
        name: `exact` or `paired`.
        denoise: see `sampler.Denoise`.
        starts: `(N, C, *spatial)` at level `high`.
        truth: where they end, same shape.
        high: noise level of the starts.
        low: lowest noise level that a sampler may step to.
        clean: whether the end is the clean image, reached by a last denoising from whatever level
            the sampler stops at; otherwise it is the state at `low`.
    """

    name: str
    denoise: Denoise
    starts: Tensor
    truth: Tensor
    high: float
    low: float
    clean: bool = True

    def __call__(self, sampler: Sampler, levels: Sequence[float]) -> float:
        """Score a sampler on a grid; infinite where it diverges.

        Args:
            sampler: one that draws no noise.
            levels: noise levels of its grid, the first `high`.
        """
        grid = grids.from_levels(EDM(), levels)
        with torch.no_grad():
            end = sampler(self.denoise, self.starts, grid, clean=self.clean)
        error = float((end - self.truth).square().mean().sqrt())
        return error if math.isfinite(error) else math.inf


def exact(
    prior: Denoiser, starts: Tensor, *, high: float, low: float, clean: bool = True
) -> Objective:
    """Objective against a flow in closed form; see `Objective`.

    Args:
        prior: a `Gaussian`, or one with a method `flow(x, start, end)`.
        starts: `(N, C, *spatial)` at level `high`, float64.
        high: noise level of the starts.
        low: lowest noise level.
        clean: see `Objective`.

    Raises:
        ValueError: for a prior whose flow is not known.
    """
    end = 0.0 if clean else low
    if isinstance(prior, Gaussian):
        truth = gaussian_flow(prior, starts, high, end)
    elif (flow := getattr(prior, "flow", None)) is not None:
        truth = flow(starts, high, end)
    else:
        raise ValueError(
            f"prior '{prior.card.name}' does not know its flow; use the paired objective."
        )
    return Objective(
        name="exact", denoise=prior, starts=starts, truth=truth, high=high, low=low, clean=clean
    )


def paired(
    denoise: Denoise,
    starts: Tensor,
    *,
    high: float,
    low: float,
    clean: bool = True,
    calls: int = 100,
) -> Objective:
    """Objective against exponential Adams of order 3 on many levels evenly spaced in `lam`.

    Args:
        denoise: see `sampler.Denoise`.
        starts: `(N, C, *spatial)` at level `high`.
        high: noise level of the starts.
        low: lowest noise level.
        clean: see `Objective`.
        calls: network calls of the reference, more than two.

    Returns:
        See `Objective`.
    """
    grid = grids.uniform_lambda(EDM(), calls - 1, high, low)
    with torch.no_grad():
        truth = Adams(k=3)(denoise, starts, grid, clean=clean)
    return Objective(
        name="paired", denoise=denoise, starts=starts, truth=truth, high=high, low=low, clean=clean
    )


def draw_starts(moments: Gaussian, count: int, *, high: float, seed: int) -> Tensor:
    """Draw `(count, C, *spatial)` starts at level `high`, float64; see `terminal.start`."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((count, *moments.mean.shape), generator=generator, dtype=torch.float64)
    return start(moments, Point(high, 1.0, high), z)


def gaussian_flow(prior: Gaussian, x: Tensor, start: float, end: float) -> Tensor:
    """Carry `x` exactly along the probability-flow ODE of a Gaussian.

    A coefficient of variance `c^2` keeps its place in units of its standard deviation,
    `sqrt(c^2 + s^2)` at noise level `s`.
    """
    c2, mean = prior.variances.to(x), prior.mean.to(x)
    ratio = ((c2 + end**2) / (c2 + start**2)).sqrt()
    return mean + prior.basis.synthesise(ratio * prior.basis.analyse(x - mean))
