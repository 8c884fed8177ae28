"""The training target that serves every schedule, and the one each paper takes instead.

`E[u_0 | z, y_0]` is a function of the noise level alone, so that one network, trained at all of
them, restores under ResShift, RDDM, mean-reverting and OU-VE diffusions alike. Levels are
log-uniform from 0.03 to 30 times the residual's own std; every level counts the same, as in
Karras et al. 2022 (arXiv:2206.00364, equation 8).
"""

import math

import torch
from torch import Tensor

from priors.denoiser import per_image
from priors.training import Loss, Network
from restore.trained.network import PairNetwork
from restore.trained.pair_prior import shifted
from restore.trained.pairs import Pairs

LEVELS = (0.03, 30.0)  # in stds of the residual


def residual_loss(pairs: Pairs, network: PairNetwork, around: str = "degraded") -> Loss:
    """Build the loss: squared error of the network's target of unit variance.

    Args:
        pairs: source of clean and degraded images.
        network: whose preconditioning weighs the levels.
        around: "degraded" or "middle"; see `Trained.around`.
    """
    low, high = (network.spread * end for end in LEVELS)

    def loss(call: Network, generator: torch.Generator) -> Tensor:
        x_0, y_0 = pairs(generator)
        u_0 = x_0 - shifted(y_0, around, network.middle)
        s = log_uniform(len(u_0), low, high, generator)
        z = u_0 + per_image(s, u_0) * torch.randn(u_0.shape, generator=generator)
        z, y_0, u_0, s = (v.to(network.device) for v in (z, y_0, u_0, s))
        _, _, c_out = network.scales(z, s)
        z = z.contiguous(memory_format=torch.channels_last)
        return ((call(z, y_0, s) - u_0) / c_out).square().mean()

    return loss


def regression_loss(pairs: Pairs, network: PairNetwork, around: str = "degraded") -> Loss:
    """Build the loss of a network without a diffusion: it sees the degraded image alone."""
    level = 100 * network.spread

    def loss(call: Network, generator: torch.Generator) -> Tensor:
        x_0, y_0 = pairs(generator)
        u_0 = (x_0 - shifted(y_0, around, network.middle)).to(network.device)
        y_0 = y_0.to(network.device)
        z = torch.zeros_like(u_0).contiguous(memory_format=torch.channels_last)
        return ((call(z, y_0, level) - u_0) / network.spread).square().mean()

    return loss


def log_uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw noise levels `(count,)`."""
    u = torch.rand(count, generator=generator)
    return torch.exp(math.log(low) + u * math.log(high / low))
