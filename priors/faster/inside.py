"""Where in a prior its network sits, and how to exchange it without touching the original.

A prior is a nest: a handover holds tiles, these hold an adapter, and innermost is the network that
costs the time. Everything around it (skip connections, closed forms, the map between variables) is
cheap and stays in the precision of the image.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from torch import nn

from priors.adapters import Adapter
from priors.denoiser import Card, Denoiser
from priors.latent import Latent
from priors.networks import Handover, NoisePredictor
from priors.tiled import Tiled

Change = Callable[[nn.Module], nn.Module]
M = TypeVar("M", bound=nn.Module)

_HOLDER: dict[type[Denoiser], str] = {
    NoisePredictor: "net",
    Adapter: "network",
    Handover: "network",
    Tiled: "prior",
    Latent: "denoiser",
}
# first and last convolution: DRUNet, diffusers
EDGES = ("m_head", "m_tail", "conv_in", "conv_out")


def on_network(prior: Denoiser, name: str, change: Change) -> Denoiser:
    """Copy a prior, weights shared, with `change(network)` in place of its network.

    Args:
        prior: what holds the network, at any depth.
        name: word for the change, added to `card.extra["faster"]`.
        change: takes the network and returns what is called instead.

    Raises:
        ValueError: a closed-form prior, which has no network.
    """
    copied = _descend(prior, change)
    copied.card = _named(prior.card, name)
    return copied


def on_predictor(
    prior: Denoiser, name: str, change: Callable[[NoisePredictor], NoisePredictor]
) -> Denoiser:
    """Copy a prior with its whole noise predictor replaced, for changes that follow the images.

    Raises:
        ValueError: the prior holds none, or calls it tile by tile.
    """

    def descend(part: Denoiser) -> Denoiser:
        if isinstance(part, NoisePredictor):
            return change(part)
        if isinstance(part, Handover):
            return clone(part, network=descend(part.network))
        what = "calls it tile by tile" if isinstance(part, Tiled) else "holds none"
        raise ValueError(
            f"'{name}' needs a noise predictor called on whole images and prior "
            f"'{prior.card.name}' {what}; load the prior without tiles or choose another option."
        )

    copied = descend(prior)
    copied.card = _named(prior.card, name)
    return copied


def clone(module: M, **children: nn.Module) -> M:
    """Copy a module, sharing weights, with some children replaced."""
    copied = copy.copy(module)
    copied._modules = {**module._modules, **children}
    return copied


def swap(module: nn.Module, change: Callable[[str, nn.Module], nn.Module | None]) -> nn.Module:
    """Copy a tree of modules, sharing weights; `change(name, child)` returns a substitute or None.

    Substituted children are not entered.
    """
    children = {}
    for name, child in module.named_children():
        new = change(name, child)
        children[name] = swap(child, change) if new is None else new
    return clone(module, **children)


def _descend(prior: Denoiser, change: Change) -> Denoiser:
    holder = next((word for kind, word in _HOLDER.items() if isinstance(prior, kind)), None)
    if holder is None:
        raise ValueError(
            f"prior '{prior.card.name}' is a {type(prior).__name__} without a network; expected "
            "one of priors.load or of an adapter."
        )
    inner = getattr(prior, holder)
    new = _descend(inner, change) if isinstance(inner, Denoiser) else change(inner)
    return clone(prior, **{holder: new})


def _named(card: Card, name: str) -> Card:
    known = card.extra.get("faster", ())
    assert isinstance(known, tuple)
    return replace(card, extra={**card.extra, "faster": (*known, name)})
