"""Channels-last storage: the order in which vector units and oneDNN read a convolution's input.

Weights in the order (out, height, width, in) make every convolution return channels-last features,
whatever the order of the image. The priors that ship are stored so; a network of an adapter as a
rule is not. Only the order of additions changes, hence the last bits.
"""

import copy

import torch
from torch import nn

from priors.denoiser import Denoiser
from priors.faster.inside import on_network


def channels_last(prior: Denoiser) -> Denoiser:
    """Store the weights of a two- or three-dimensional network with channels last.

    Args:
        prior: left as it is; the copy has weights of its own.

    Returns:
        The same denoiser up to rounding.
    """
    return on_network(prior, "channels-last", _reordered)


def is_channels_last(prior: Denoiser) -> bool:
    """Whether there is nothing to reorder."""
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    weights = [p for p in prior.parameters() if p.ndim in orders]
    return all(w.is_contiguous(memory_format=orders[w.ndim]) for w in weights)


def _reordered(network: nn.Module) -> nn.Module:
    volumes = any(p.ndim == 5 for p in network.parameters())
    order = torch.channels_last_3d if volumes else torch.channels_last
    return copy.deepcopy(network).to(memory_format=order)
