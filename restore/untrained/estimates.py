"""How noisy a cube is, and how many spectra it is made of, from the cube alone.

Pixels are few spectra mixed, plus white noise: the band correlation matrix `Y Y^T / n` of n pixels
has a few large eigenvalues, and the others are those of noise, which random matrix theory knows.

- Noise: the mean of the eigenvalues that are noise, corrected for the dimensions that the signal
  takes of it; how many are signal is found by testing each against the largest that noise alone
  would give (Kritchman, Nadler 2009, *Non-Parametric Detection of the Number of Signals*, IEEE
  Trans. Signal Process. 57, with the Tracy-Widom law of Johnstone 2001).
- Rank: how many components are worth keeping, those above the optimal hard threshold for singular
  values (Gavish, Donoho 2014, IEEE Trans. Inf. Theory 60, equation 3). The test above finds more,
  of which the weakest are mostly noise.

Where few pixels have all bands, the model is fitted by expectation and maximisation instead
(Tipping, Bishop 1999, *Probabilistic Principal Component Analysis*; missing entries as Ilin, Raiko
2010). A detector's own noise counts as noise.
"""

import math

import torch
from torch import Tensor

_TRACY_WIDOM = 2.02  # quantile of 99 %, of real white noise
_PIXELS = 4096  # looked at where entries are missing
_MOST = 12  # components there
_ROUNDS = 60


def noise_level(y: Tensor, seen: Tensor) -> float:
    """Noise standard deviation of a cube, the same for all bands.

    Args:
        y: `(C, H, W)`.
        seen: 1 where there is a value, else 0, the same shape.

    Raises:
        ValueError: too few values to tell.
    """
    return math.sqrt(_model(y, seen)[0])


def rank(y: Tensor, seen: Tensor, sigma: float = 0.0) -> int:
    """Number of components of a cube that stand out from its noise, at least one.

    Args:
        y: `(C, H, W)`.
        seen: 1 where there is a value, else 0, the same shape.
        sigma: noise standard deviation of `y`; that of `noise_level` is taken where it is larger.

    Raises:
        ValueError: too few values to tell.
    """
    power, signals, n, share = _model(y, seen)
    return max(1, _worth_keeping(signals, max(sigma**2, power) / share, len(y) / n))


def _worth_keeping(signals: list[float], noise: float, beta: float) -> int:
    """How many variances of components are above the optimal hard threshold."""
    beta = min(beta, 1.0)
    threshold = 2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1))
    return sum(v > (threshold - 1) * noise for v in signals)


def _model(y: Tensor, seen: Tensor) -> tuple[float, list[float], int, float]:
    """Noise variance, signal variances of components, pixels looked at, share of entries seen."""
    Y, M = y.flatten(1).double(), seen.expand_as(y).flatten(1).double()
    bands, complete = len(Y), M.all(0)
    if int(complete.sum()) >= 4 * bands:
        Y = Y[:, complete]
        values = torch.linalg.eigvalsh(Y @ Y.T / Y.shape[1]).flip(0).tolist()
        power, _ = _noise_power(values, Y.shape[1])
        return power, [v - power for v in values], Y.shape[1], 1.0
    some = M.sum(0) > 0
    Y, M = Y[:, some], M[:, some]
    if float(M.sum()) < 8 * bands or not bool((M.sum(1) >= 8).all()):
        raise ValueError(
            f"the cube has {int(M.sum())} values in {bands} bands, too few to estimate noise and "
            "rank; give the operator its noise and the solver its rank."
        )
    step = -(-Y.shape[1] // _PIXELS)
    Y, M = Y[:, ::step], M[:, ::step]
    n, share = Y.shape[1], float(M.mean())
    power, signals = _principal_components(Y, M, min(_MOST, max(1, int(share * bands) - 1)))
    kept = _worth_keeping(signals, power / share, bands / n)
    # components too many take of the noise
    power, signals = _principal_components(Y, M, max(1, kept))
    return power, signals, n, share


def _noise_power(values: list[float], n: int) -> tuple[float, int]:
    """Variance of the noise, and the number of eigenvalues above it."""
    bands = len(values)
    for k in range(bands - 1):
        power = _mean_of_noise(values, k + 1, n)
        if values[k] <= power * _largest_of_noise(bands - k, n):
            return max(_mean_of_noise(values, k, n), 0.0), k
    return max(values[-1], 0.0), bands - 1


def _mean_of_noise(values: list[float], signals: int, n: int) -> float:
    rest = values[signals:]
    return sum(rest) / len(rest) * n / (n - signals)


def _largest_of_noise(bands: int, n: int) -> float:
    """99 % quantile of the largest eigenvalue of `bands` bands of noise of unit variance."""
    a, b = math.sqrt(n - 0.5), math.sqrt(bands - 0.5)
    spread = (a + b) * (1 / a + 1 / b) ** (1 / 3)
    return ((a + b) ** 2 + _TRACY_WIDOM * spread) / n


def _principal_components(Y: Tensor, M: Tensor, k: int) -> tuple[float, list[float]]:
    """Noise variance, and the variances of k components, of `Y (C, n)` seen where `M` is 1."""
    eye = torch.eye(k, dtype=Y.dtype)
    values, vectors = torch.linalg.eigh((Y * M) @ (Y * M).T / (M @ M.T).clamp_min(1))
    W = vectors[:, -k:] * values[-k:].clamp_min(1e-12).sqrt()
    power = max(float(values.median()), 1e-6 * float(values[-1]))
    for _ in range(_ROUNDS):
        # expectation, pixel by pixel
        pairs = (W[:, :, None] * W[:, None]).flatten(1)
        covariance = torch.linalg.inv((M.T @ pairs).unflatten(1, (k, k)) / power + eye)
        S = (covariance @ ((Y * M).T @ W)[..., None])[..., 0] / power
        second = covariance + S[:, :, None] * S[:, None]
        # maximisation, band by band
        normal = (M @ second.flatten(1)).unflatten(1, (k, k)) + 1e-9 * eye
        W = torch.linalg.solve(normal, ((Y * M) @ S)[..., None])[..., 0]
        pairs = (W[:, :, None] * W[:, None]).flatten(1)
        off = ((Y - W @ S.T).square() + pairs @ covariance.flatten(1).T) * M
        power = max(float(off.sum() / M.sum()), 1e-12)
    return power, torch.linalg.eigvalsh(W.T @ W).flip(0).tolist()
