"""How near samples are to a posterior that is known exactly.

Numbers that finitely many samples blur are either freed of that part on average (bias) or shown
beside the exact sampler's own (everything else).
"""

import torch
from torch import Tensor

from priors.posteriors import DiracPosterior, MixturePosterior, Posterior
from restore.result import order_statistic

DIRECTIONS = 128  # of the sliced Wasserstein distance


def bias_and_ratio(samples: Tensor, mean: Tensor, std: Tensor) -> tuple[float, float]:
    """Squared bias (unclipped) and std ratio of samples `(S, C, *spatial)` against the truth.

    The bias is in units of the root-mean-square posterior std, and has the part removed by which
    the mean of S perfect samples would miss; it is therefore zero on average for a perfect sampler,
    and sometimes negative.
    """
    power = std.square().mean()
    spread = samples.var(0).mean()
    square = (samples.mean(0) - mean).square().mean() - spread / len(samples)
    return float(square / power), float((spread / power).sqrt())


def std_error(samples: Tensor, std: Tensor) -> float:
    """Root-mean-square error of the std map, in units of the root-mean-square posterior std.

    Chance alone makes it about `1 / sqrt(2 (S - 1))`.
    """
    error = (samples.std(0) - std).square().mean()
    return float((error / std.square().mean()).sqrt())


def coverage(samples: Tensor, posterior: Posterior, level: float) -> float:
    """Probability, averaged over pixels, that the truth lies in the samples' central interval.

    Exact in the truth: the probability is taken under the posterior's own marginals. The interval
    spans order statistics `k` and `S + 1 - k`, of which perfect samples cover `1 - 2 k / (S + 1)`;
    neighbours are interpolated so that this is `level`.
    """
    ordered, tail = samples.sort(0).values, (1 - level) / 2
    high, low = order_statistic(ordered, 1 - tail), order_statistic(ordered, tail)
    return float((posterior.cdf(high) - posterior.cdf(low)).mean())


def sliced_wasserstein(a: Tensor, b: Tensor, scale: Tensor, *, seed: int = 0) -> float:
    """Mean 1-Wasserstein distance of one-dimensional projections (Rabin et al. 2011).

    Args:
        a: samples `(S, C, *spatial)`.
        b: as many samples of the other law.
        scale: posterior std `(C, *spatial)`; distances are in units of its root-mean-square.
        seed: of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    x, z = a.double().flatten(1), b.double().flatten(1)
    directions = torch.randn((x.shape[1], DIRECTIONS), generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    gap = (x @ directions).sort(0).values - (z @ directions).sort(0).values
    return float(gap.abs().mean() / scale.square().mean().sqrt())


def mode_error(samples: Tensor, posterior: MixturePosterior | DiracPosterior) -> float:
    """Total variation between the frequencies of modes and their posterior weights.

    A sample belongs to the nearest mode; modes of a mixture are its components' prior means.
    """
    if isinstance(posterior, DiracPosterior):
        modes = posterior.atoms
    else:
        modes = torch.stack([part.prior.mean for part in posterior.components])
    nearest = torch.cdist(samples.double().flatten(1), modes.flatten(1)).argmin(1)
    share = torch.bincount(nearest, minlength=len(modes)) / len(samples)
    return float((share - posterior.weights).abs().sum() / 2)
