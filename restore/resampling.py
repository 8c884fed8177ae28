"""Resampling of weighted particles, with as little chance in it as possible.

Systematic resampling gives a particle of weight w either floor(N w) or ceil(N w) copies. After
sorting the particles along the direction in which they differ most, the same holds for every
stretch of that line: groups of particles that the line tells apart get their share to within one.

Kitagawa, *Monte Carlo filter and smoother*, 1996 (systematic and sorted resampling).

Everything takes N particles of each of B images, `(N, B, ...)`, and never mixes images.
"""

import math

import torch
from torch import Tensor


def normalised(log_weights: Tensor) -> Tensor:
    """Weights `(N, B)` of sum one."""
    return torch.softmax(log_weights, dim=0)


def effective_size(log_weights: Tensor) -> Tensor:
    """Effective number of particles `(B,)`, `1 / sum w^2` (Kong, Liu, Wong 1994)."""
    return 1 / normalised(log_weights).square().sum(0)


def log_mean(log_weights: Tensor) -> Tensor:
    """Logarithm of the mean weight `(..., B)` of weights `(..., N, B)`."""
    return torch.logsumexp(log_weights, dim=-2) - math.log(log_weights.shape[-2])


def principal_order(points: Tensor, weights: Tensor, *, iterations: int = 8) -> Tensor:
    """Order of the particles along the direction of their largest variance.

    Args:
        points: `(N, B, d)`.
        weights: `(N, B)` of sum one.
        iterations: of the power method, which need not converge: any order is right, some are
            better.

    Returns:
        Indices `(N, B)`.
    """
    centred = points - torch.einsum("nb,nbd->bd", weights, points)
    far = (weights * centred.square().sum(2)).argmax(0)
    v = centred[far, torch.arange(points.shape[1], device=points.device)]
    tiny = torch.finfo(v.dtype).tiny
    for _ in range(iterations):
        v = v / v.norm(dim=1, keepdim=True).clamp_min(tiny)
        v = torch.einsum("nb,nbd->bd", weights * torch.einsum("nbd,bd->nb", centred, v), centred)
    return torch.einsum("nbd,bd->nb", centred, v).argsort(dim=0, stable=True)


def systematic(weights: Tensor, count: int, offset: float) -> Tensor:
    """Draw `count` of N particles with one random number.

    Args:
        weights: `(N, B)` of sum one, in the order in which neighbours should share.
        count: how many to draw.
        offset: uniform on [0, 1).

    Returns:
        Indices `(count, B)`, ascending.
    """
    at = (torch.arange(count, dtype=weights.dtype, device=weights.device) + offset) / count
    edges = weights.cumsum(0).T.contiguous()
    found = torch.searchsorted(edges, at.expand(len(edges), -1).contiguous(), right=True)
    return found.clamp_max(len(weights) - 1).T


def sorted_systematic(points: Tensor, log_weights: Tensor, count: int, offset: float) -> Tensor:
    """Systematic resampling along the principal direction of the particles.

    Args:
        points: `(N, B, d)`, what the particles are sorted by.
        log_weights: `(N, B)`.
        count: how many to draw.
        offset: uniform on [0, 1).

    Returns:
        Indices `(count, B)` into the particles.
    """
    weights = normalised(log_weights)
    order = principal_order(points.to(weights), weights)
    return order.gather(0, systematic(weights.gather(0, order), count, offset))
