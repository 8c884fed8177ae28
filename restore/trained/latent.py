"""A restoration diffusion on the latents of an autoencoder, as the released ResShift is one.

The degraded image is encoded, the diffusion runs around its latents as it would around an image,
and what it arrives at is decoded. The pair of maps is any two callables; the released models take a
VQGAN's code before quantisation, and quantise in the decoder.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import operators
from priors import Card
from restore.problem import Problem
from restore.trained.pair_prior import PairPrior

Map = Callable[[Tensor], Tensor]


class LatentPairs(PairPrior):
    """A network trained on pairs of latents, with the maps between latents and images.

    Args:
        card: of the images.
        latents: the network, its card in units of the latents; what it was trained for is told in
            terms of images.
        encode: images `(B, C, *spatial)` to latents; the mean, not a draw.
        decode: latents to images. Both keep dtype and device and take each image by itself.
    """

    def __init__(self, card: Card, latents: PairPrior, encode: Map, decode: Map) -> None:
        super().__init__(card, latents.network, latents.trained, latents.predictor)
        self.latents, self.encode, self.decode = latents, encode, decode


def on_latents(problem: Problem, prior: LatentPairs, y_0: Tensor) -> Problem:
    """Return the same problem where the degraded image's latents are what was measured."""
    with torch.no_grad():
        z_0 = prior.encode(y_0)
    shape = tuple(z_0.shape)
    return replace(
        problem,
        y=z_0,
        operator=operators.denoise(shape[1:]),
        prior=prior.latents,
        shape=shape,
        sigma_y=torch.zeros_like(problem.sigma_y),
        observed=torch.ones_like(z_0),
        init=None,
        likelihood=None,
    )
