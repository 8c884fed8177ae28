"""Does the error that a denoiser makes agree with the noise level it is told, and with itself?

    name      meaning                                            here
    sigma     std of the noise, in units of the images           `sigma`
    D         E[x_0 | x], the denoiser                           `prior`
    J         dD/dx                                              by products
    sigma^2 J Cov[x_0 | x], Tweedie's formula of second order    `posterior_variance`

(Robbins 1956; Miyasawa 1961; second order: Efron, *Tweedie's formula and selection bias*, 2011.)
The exact denoiser errs least when told the true sigma; its mean squared error is
`sigma^2 trace(J) / n`; and pixel by pixel `(x_0 - D)^2 / (sigma^2 J_ii)` has mean one, whatever the
prior. Intervals `D +- z std` cover their nominal share only where the posterior of a pixel is
Gaussian; elsewhere the ratio of squares is the test and coverage an illustration.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from priors.denoiser import Denoiser
from priors.jacobian import diagonal, generator_of, normal, traces

LEVELS = (0.5, 0.8, 0.95)


class SigmaCheck(NamedTuple):
    """Root mean squared error of a denoiser when told half, once and twice the true sigma."""

    half: float
    true: float
    twice: float

    @property
    def passed(self) -> bool:
        """Whether the true sigma gave the smallest error."""
        return self.true < min(self.half, self.twice)


def sigma_check(prior: Denoiser, images: Tensor, sigma: float, seed: int = 0) -> SigmaCheck:
    """Denoise the same noisy images at half, once and twice the true noise level.

    A network on [-1, 1] whose sigma was not doubled fails: it does best when told `2 sigma`.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range.
        sigma: standard deviation of the noise to add, in the same units.
        seed: of the noise.

    Returns:
        The three errors, in the units of the images.
    """
    noisy = images + sigma * normal(images, generator_of(seed))
    return SigmaCheck(*(_rmse(prior, noisy, images, factor * sigma) for factor in (0.5, 1.0, 2.0)))


def residual_std(prior: Denoiser, images: Tensor, sigma: float, seed: int = 0) -> float:
    """Root mean squared error of the denoiser on images plus noise.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range.
        sigma: standard deviation of the noise to add, in the same units.
        seed: of the noise.

    Returns:
        `rms(x_0 - D(x_0 + sigma n, sigma))` over all pixels.
    """
    noisy = images + sigma * normal(images, generator_of(seed))
    return _rmse(prior, noisy, images, sigma)


def tweedie_gap(
    prior: Denoiser, images: Tensor, sigma: float, seed: int = 0, probes: int = 4
) -> float:
    """How far the error that the denoiser expects is from the error that it makes.

    The expected mean squared error is `sigma^2 trace(J) / n` (Tweedie, second order), the trace by
    Hutchinson's estimator.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range; the more, the sharper the answer.
        sigma: standard deviation of the noise to add, in the same units.
        seed: of noise and probes.
        probes: random vectors per image for the trace.

    Returns:
        `expected std / residual_std - 1`: 0 for the exact denoiser of the images' distribution,
        positive where it is too modest, negative where it is overconfident (-1: expects no error,
        also when its trace is negative).
    """
    generator = generator_of(seed)
    noisy = images + sigma * normal(images, generator)
    trace = traces(lambda x: prior(x, sigma), noisy, probes, generator)
    expected = sigma * (trace.mean() / images[0].numel()).clamp(min=0).sqrt()
    return float(expected) / _rmse(prior, noisy, images, sigma) - 1


def posterior_variance(
    prior: Denoiser,
    x: Tensor,
    sigma: float,
    generator: torch.Generator | None = None,
    *,
    stride: int = 6,
) -> Tensor:
    """Variance of every pixel given the noisy image, `sigma^2 diag J`.

    Args:
        prior: the denoiser.
        x: noisy images `(B, C, *spatial)`.
        sigma: their noise level.
        generator: of the probes; by default the same each time.
        stride: of the probing lattices, see `priors.jacobian.diagonal`.

    Returns:
        Like `x`, in squared units of the images; not clipped, so a broken denoiser may give
        negative numbers.
    """
    found = diagonal(lambda z: prior(z, sigma), x, generator or generator_of(0), stride=stride)
    return sigma**2 * found


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How well a denoiser knows its own error, pixel by pixel, at one noise level.

    Attributes:
        sigma: the noise level.
        chi_square: squared error over predicted variance, the mean over ten equal groups of pixels
            from the most certain to the least; 1 is right, more is overconfident.
        chi_square_error: its standard error over images (jackknife), NaN for one image.
        covers: nominal level -> share of pixels inside the Gaussian interval of that level.
        senseless: share of groups whose predicted variance is not positive, left out above.
        reliability: (predicted std, rms error) of every group.
    """

    sigma: float
    chi_square: float
    chi_square_error: float
    covers: dict[float, float]
    senseless: float
    reliability: tuple[tuple[float, float], ...]


def pixel_calibration(
    prior: Denoiser, images: Tensor, sigma: float, seed: int = 0, *, stride: int = 6
) -> Calibration:
    """Compare errors with the posterior std of their own pixel.

    The variance is estimated twice with independent probes. Groups are formed by one estimate and
    predicted by the other, so that what is noise in the estimate does not pass for confidence.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range.
        sigma: standard deviation of the noise to add, in the same units.
        seed: of noise and probes.
        stride: of the probing lattices; `2 C stride^d` Jacobian products.

    Returns:
        See `Calibration`.
    """
    generator = generator_of(seed)
    noisy = images + sigma * normal(images, generator)
    with torch.no_grad():
        squared = (images - prior(noisy, sigma)).square().double()
    pair = [
        posterior_variance(prior, noisy, sigma, generator, stride=stride).double() for _ in range(2)
    ]
    variance = (pair[0] + pair[1]) / 2
    quantiles = {p: math.sqrt(2) * float(torch.tensor(p).double().erfinv()) for p in LEVELS}
    table = _groups(pair, squared)
    rest = torch.arange(len(images), device=images.device)
    without = [
        _chi_square(_groups([part[rest != i] for part in pair], squared[rest != i]))
        for i in (range(len(images)) if len(images) > 1 else ())
    ]
    return Calibration(
        sigma=sigma,
        chi_square=_chi_square(table),
        chi_square_error=_jackknife(without),
        covers={p: float((squared <= z**2 * variance.clamp_min(0)).double().mean())
                for p, z in quantiles.items()},
        senseless=float((table[:, 0] <= 0).double().mean()),
        reliability=tuple(map(tuple, table.clamp_min(0).sqrt().tolist())),
    )  # fmt: skip


def _groups(pair: list[Tensor], squared: Tensor, count: int = 10) -> Tensor:
    """Mean predicted variance and mean squared error `(count, 2)` of pixels equally certain."""
    tables = []
    for key, value in (pair, pair[::-1]):
        order = key.flatten().argsort(stable=True)
        both = torch.stack([value.flatten(), squared.flatten()], 1)[order]
        tables.append(torch.stack([part.mean(0) for part in both.tensor_split(count)]))
    return (tables[0] + tables[1]) / 2


def _chi_square(table: Tensor) -> float:
    predicted, actual = table[table[:, 0] > 0].unbind(1)
    return float((actual / predicted).mean()) if len(predicted) else math.inf


def _jackknife(without: list[float]) -> float:
    """Standard error of a statistic from its values with one image left out."""
    if not without or not all(map(math.isfinite, without)):
        return math.nan
    values = torch.tensor(without, dtype=torch.float64)
    return math.sqrt((len(values) - 1) * float((values - values.mean()).square().mean()))


@torch.no_grad()
def _rmse(prior: Denoiser, noisy: Tensor, images: Tensor, sigma: float) -> float:
    return float((prior(noisy, sigma) - images).square().mean().sqrt())
