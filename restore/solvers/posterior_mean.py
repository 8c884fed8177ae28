"""The posterior mean of an image with Gaussian noise: one call of the prior.

The prior is the answer. For `y = x + n`, `n ~ N(0, sigma_y^2 I)`, and nothing else between image
and measurement (Miyasawa, *An empirical Bayes estimator of the mean of a normal population*, 1961;
Robbins, 1956, who credits Tweedie):

    E[x | y]   = D(y, sigma_y) = y + sigma_y^2 grad log p(y)
    Cov[x | y] = sigma_y^2 dD/dy = sigma_y^2 (I + sigma_y^2 grad^2 log p(y))

Both are exact as far as `D` is; no other estimate has a smaller mean square error. A sampler's
sample has twice that error, and the mean of S of its samples `1 + 1/S` times.

All samples are the mean itself. When more than one is asked for, the std of the result is the root
of the diagonal of the covariance, from vector-Jacobian products with a lattice of random signs
(`priors.jacobian.diagonal`): unbiased, and exact for pixels whose noise does not reach each other's
estimate a `stride` away. A network's Jacobian may have negative entries there, which count as 0.

Volumes `(B, C, D, H, W)` are denoised slice by slice along `axis` when the prior is one of flat
images. Cost: one forward, and `C stride^2` products for the std.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from priors import Denoiser, SliceWise
from priors.jacobian import diagonal, generator_of
from priors.slicewise import lift
from restore.problem import Problem
from restore.solver import Solver


@dataclass(frozen=True, kw_only=True)
class PosteriorMean(Solver):
    """The posterior mean; see the module's docstring.

    Args:
        axis: spatial axis along which a prior of flat images sees volumes: 0 for D.
        stride: pixels between the probes of the std; its cost grows with the square, its noise
            falls as fast as pixels that far apart cease to matter to each other.
    """

    name: ClassVar[str] = "posterior-mean"
    paper: ClassVar[str] = "Miyasawa 1961, an empirical Bayes estimator"
    requires: ClassVar[tuple[str, ...]] = ("identity", "linear", "gaussian", "noise")
    cost: ClassVar[str] = "1 forward + 36 VJPs for the std"
    posterior: ClassVar[str] = "none: the mean itself; its std from the Jacobian"
    repeats: ClassVar[bool] = True
    remedy: ClassVar[str] = "use a prior of such images"

    axis: int = 0
    stride: int = 6

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2) or self.stride < 1:
            raise ValueError(
                "posterior-mean needs axis 0 (D), 1 (H) or 2 (W) and stride >= 1, found "
                f"{self.axis}, {self.stride}."
            )

    @property
    def length(self) -> int:
        """The mean."""
        return 1

    def lift(self, prior: Denoiser, shape: tuple[int, ...]) -> Denoiser:
        """Ask a prior of flat images slice by slice, one of a channel channel by channel."""
        return lift(prior, shape, axis=self.axis)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Ask the prior, once for all samples."""
        _refuse_level(problem)
        n, samples = problem.images, len(problem.streams)
        D = problem.denoise(problem.y[:n], problem.sigma_y[:n].flatten())
        yield D if samples == 1 else D.repeat(samples, *[1] * (D.ndim - 1))

    def spread(self, problem: Problem, seed: int) -> Tensor:
        """Root of the diagonal of `sigma_y^2 dD/dy`."""
        prior, sigma = problem.prior, problem.sigma_y.flatten()
        strides = [self.stride] * (len(problem.shape) - 2)
        if isinstance(prior, SliceWise):
            strides[prior.axis] = 1  # slices do not reach each other's estimates
        sides = problem.shape[2:]
        problem.count.forwards += 1
        problem.count.vjps += problem.shape[1] * math.prod(map(min, strides, sides))
        variance = diagonal(
            lambda y: prior(y, sigma), problem.y, generator_of(seed), stride=strides
        )
        return variance.clamp_min_(0).sqrt_().mul_(problem.sigma_y)


def _refuse_level(problem: Problem) -> None:
    """Refuse noise that the prior does not know."""
    low, high = problem.prior.card.sigma_range
    wrong = problem.sigma_y[(problem.sigma_y < low) | (problem.sigma_y > high)]
    if wrong.numel():
        raise ValueError(
            f"the noise has a std of {float(wrong[0]):.4g} of the image's units, and prior "
            f"'{problem.prior.card.name}' knows {low:g} to {high:g}; use another prior."
        )
