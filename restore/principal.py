"""Principal components of a cube in white noise, entries missing or not.

Where entries are missing, by expectation and maximisation (Tipping, Bishop 1999, *Probabilistic
Principal Component Analysis*; missing entries as Ilin, Raiko 2010), the noise being known.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_MOST = 12  # components where entries are missing
_PIXELS = 8192  # looked at there
_ROUNDS = 40


def principal(
    y: Tensor, seen: Tensor, sigma: float, rank: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of a cube in white noise.

    Args:
        y: `(C, H, W)`.
        seen: whether there is a value, the same shape.
        sigma: noise standard deviation.
        rank: number R of components; None takes those that stand out from noise.

    Returns:
        Mean `(C,)`, orthonormal basis `(C, R)`, and standard deviations `(R,)` without noise.

    Raises:
        ValueError: bands with fewer than two values.
    """
    Y, M = y.flatten(1).double(), seen.flatten(1).double()
    if int(M.sum(1).min()) < 2:
        raise ValueError(
            f"{int((M.sum(1) < 2).sum())} of {len(Y)} bands have fewer than two values, so that "
            "no spectrum can be found; leave these bands out."
        )
    complete = M.all(0)
    if int(complete.sum()) >= 4 * len(Y):
        Y, share = Y[:, complete], 1.0
        mean = Y.mean(1, keepdim=True)
        Y = Y - mean
        values, vectors = torch.linalg.eigh(Y @ Y.T / Y.shape[1])
        power, basis = values.flip(0) - sigma**2, vectors.flip(1)
    else:
        some = torch.nonzero(M.sum(0) > 0)[:, 0]
        some = some[:: -(-len(some) // _PIXELS)]
        Y, M = Y[:, some], M[:, some]
        share = float(M.mean())
        most = min(rank or _MOST, len(Y))
        mean, power, basis = _expectation_maximisation(Y, M, max(sigma, 1e-4), most)
    kept = _standing_out(power.tolist(), sigma**2 / share, len(Y) / Y.shape[1])
    kept = max(1, min(kept if rank is None else rank, len(power)))
    least = max((0.05 * sigma) ** 2, 1e-12)
    std = power[:kept].clamp_min(least).sqrt()
    return mean[:, 0].to(y), basis[:, :kept].to(y), std.to(y)


def _standing_out(power: Sequence[float], noise: float, beta: float) -> int:
    """How many eigenvalues lie above those of noise alone (Marchenko, Pastur 1967)."""
    edge = noise * (2 * beta**0.5 + beta)
    return sum(p > edge for p in power)


def _expectation_maximisation(
    Y: Tensor, M: Tensor, sigma: float, rank: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variances and basis of `Y (C, n)` seen where `M` is 1."""
    count = M.sum(1, keepdim=True)
    mean = (Y * M).sum(1, keepdim=True) / count
    Y = (Y - mean) * M
    eye = torch.eye(rank, dtype=Y.dtype, device=Y.device)
    values, vectors = torch.linalg.eigh(Y @ Y.T / (M @ M.T).clamp_min(1))
    W = vectors[:, -rank:] * (values[-rank:] - sigma**2).clamp_min(0.01 * sigma**2).sqrt()
    for _ in range(_ROUNDS):
        # expectation, pixel by pixel
        pairs = (W[:, :, None] * W[:, None]).flatten(1)
        spread = torch.linalg.inv((M.T @ pairs).unflatten(1, (rank, rank)) / sigma**2 + eye)
        S = (spread @ (Y.T @ W)[..., None])[..., 0] / sigma**2
        # maximisation, band by band
        second = spread + S[:, :, None] * S[:, None]
        normal = (M @ second.flatten(1)).unflatten(1, (rank, rank)) + 1e-9 * eye
        W = torch.linalg.solve(normal, (Y @ S)[..., None])[..., 0]
        # bands were seen at different pixels, brighter or darker ones
        shift = ((Y - W @ S.T) * M).sum(1, keepdim=True) / count
        mean, Y = mean + shift, Y - shift * M
    basis, lengths, _ = torch.linalg.svd(W, full_matrices=False)
    return mean, lengths.square(), basis
