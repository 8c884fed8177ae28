"""How many numbers of an image a denoiser keeps at a noise level: its effective dimension.

    name       definition                       exact denoiser, images of a d-dimensional subspace
    trace      tr J(y)                          d on average, as sigma -> 0
    residual   |n|^2 - |y - D|^2 / sigma^2      the same mean, no derivative
    error      |x_0 - D|^2 / sigma^2            the same mean, no derivative
    slope      tr J(x_0) + |x_0 - D(x_0)|^2 / sigma^2, at clean images     d, as sigma -> 0

with `y = x_0 + sigma n`. Over images and noise, `residual = 2 trace - error` on average for every
denoiser (Stein 1981: his unbiased estimate of risk, solved for the trace), and `trace = error` for
the exact one at every sigma (Tweedie). So the first three agree for an exact denoiser, and the
first two already tell without the truth when they do not. The last is
`n + d log p_sigma(x_0) / d log sigma`: the density of a d-dimensional set blurred by sigma falls as
`sigma^(d - n)` (Tempczyk et al., LIDL, 2022; Kamkari et al., *A geometric view of data complexity*,
2024, FLIPD).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from priors.denoiser import Denoiser
from priors.jacobian import generator_of, normal, traces


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and its standard error (over images; over probes where there is one image)."""

    mean: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Four estimates of the dimension at one noise level; see the module for their meaning.

    Attributes:
        sigma: the noise level.
        size: number of entries of an image, n.
        trace: `tr J` at noisy images.
        residual: from the part that the denoiser takes away.
        error: from the error that it makes.
        slope: at clean images, by the slope of the log density.
        ratio: `trace / error`, the squared error that the denoiser expects over the one it makes;
            1 for the exact one, less is overconfident.
    """

    sigma: float
    size: int
    trace: Estimate
    residual: Estimate
    error: Estimate
    slope: Estimate
    ratio: Estimate


def effective_dimension(
    prior: Denoiser,
    x: Tensor,
    sigma: float,
    probes: int = 8,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Trace of the denoiser's Jacobian by Hutchinson's estimator.

    Args:
        prior: the denoiser.
        x: noisy images `(B, C, *spatial)`.
        sigma: their noise level.
        probes: random sign vectors, at least 2 for a standard error.
        generator: of the probes; by default the same each time.

    Returns:
        Trace and its standard error over the probes, each `(B,)`.
    """
    found = traces(lambda z: prior(z, sigma), x, probes, generator or generator_of(0))
    return found.mean(1), found.std(1) / math.sqrt(probes)


def sure(
    prior: Denoiser,
    y: Tensor,
    sigma: float,
    probes: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Stein's unbiased estimate of the denoiser's mean squared error, without the truth.

    Args:
        prior: any denoiser, exact or not.
        y: noisy images `(B, C, *spatial)`.
        sigma: the true standard deviation of their noise.
        probes: random vectors for the trace.
        generator: of the probes; by default the same each time.

    Returns:
        `|y - D|^2 / n - sigma^2 + 2 sigma^2 tr J / n` `(B,)`, in squared units of the images.
    """
    trace, _ = effective_dimension(prior, y, sigma, probes, generator)
    with torch.no_grad():
        residual = (y - prior(y, sigma)).flatten(1).square().mean(1)
    return residual - sigma**2 + 2 * sigma**2 * trace / y[0].numel()


def dimensions(
    prior: Denoiser, images: Tensor, sigma: float, seed: int = 0, probes: int = 8
) -> Dimensions:
    """Estimate the dimension of images at one noise level in four ways.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range.
        sigma: standard deviation of the noise to add, in the same units.
        seed: of noise and probes.
        probes: random vectors for each trace.

    Returns:
        See `Dimensions`.
    """
    generator = generator_of(seed)
    noise = normal(images, generator)
    noisy = images + sigma * noise
    with torch.no_grad():
        D, D0 = prior(noisy, sigma), prior(images, sigma)
    at_noisy = traces(lambda x: prior(x, sigma), noisy, probes, generator)
    at_clean = traces(lambda x: prior(x, sigma), images, probes, generator)
    error = _energy(images - D) / sigma**2
    return Dimensions(
        sigma=sigma,
        size=images[0].numel(),
        trace=_estimate(at_noisy),
        residual=_estimate(_energy(noise) - _energy(noisy - D) / sigma**2),
        error=_estimate(error),
        ratio=_ratio(at_noisy.double(), error),
        slope=_estimate(at_clean + _energy(images - D0) / sigma**2),
    )


def _estimate(values: Tensor) -> Estimate:
    """Mean of `(B, probes)` and its error, which is unknown for a single number."""
    values = values.double()
    each = values.mean(1) if len(values) > 1 else values[0]
    error = each.std() / math.sqrt(len(each)) if len(each) > 1 else torch.tensor(math.nan)
    return Estimate(mean=float(values.mean()), error=float(error))


def _ratio(above: Tensor, below: Tensor) -> Estimate:
    """Ratio of the means, its error to first order from what remains image by image."""
    mean = below.mean()
    ratio = above.mean() / mean
    rest = _estimate((above - ratio * below) / mean)
    return Estimate(mean=float(ratio), error=rest.error if len(below) > 1 else math.nan)


def _energy(x: Tensor) -> Tensor:
    """Squared norm of every image `(B, 1)`."""
    return x.flatten(1).double().square().sum(1, keepdim=True)
