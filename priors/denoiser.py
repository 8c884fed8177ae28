"""The prior as the rest of the toolkit sees it: a denoiser with a card.

A diffusion prior is known through one function,

    D(x, sigma) = E[x_0 | x_0 + sigma * n = x],   n ~ N(0, I),

the minimum-mean-square-error denoiser at every noise level (the "VE" form). All else follows:
`score = (D - x) / sigma^2` (Tweedie) and `Cov[x_0 | x] = sigma^2 dD/dx`. A network trained on other
variables (noise prediction, velocity, a [-1, 1] range, integer time steps) is brought to this form
by an adapter, so that solvers meet no special case.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from deepinv.models import Denoiser as DeepinvDenoiser
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a user must know before trusting a prior.

    Attributes:
        name: the word that `priors.load` knows it by.
        channels: number of image channels, or None when any will do.
        spatial_dims: 2 for images, 3 for volumes, None when any will do.
        value_range: the range clean images live in; sigma is in the same units.
        sigma_range: noise levels at which the denoiser was trained or checked.
        image_shape: `(C, *spatial)` when the prior knows one image size only, else None.
        exact: True for closed-form priors, whose Jacobian is symmetric.
        licence: terms of the weights.
        training_data: what it saw, in one sentence.
        sha256: hash of the weight file, empty for priors without one.
        description: one sentence for the table of `restore priors`.
        extra: anything else recorded beside the weights (sources, PSNR, recipe).
    """

    name: str
    channels: int | None = None
    spatial_dims: int | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    sigma_range: tuple[float, float] = (0.0, float("inf"))
    image_shape: tuple[int, ...] | None = None
    exact: bool = False
    licence: str = "not stated"
    training_data: str = "not stated"
    sha256: str = ""
    description: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)


class Denoiser(DeepinvDenoiser):
    """Base of every prior: `forward(x, sigma)` is the posterior mean of the clean image.

    Subclasses set `card` and implement `forward`. A deepinv `Denoiser` has the same call, so either
    can be used where the other is expected.

    Attributes:
        card: see `Card`.
    """

    card: Card

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise.

        Args:
            x: noisy images `(B, C, *spatial)` in the units of `card.value_range`.
            sigma: noise standard deviation in the same units, one number or one per image `(B,)`.
            **kwargs: accepted for deepinv's sake and ignored.

        Returns:
            `E[x_0 | x]`, same shape and dtype as `x`, never clipped.
        """
        raise NotImplementedError

    def refuse(self, shape: tuple[int, ...]) -> str | None:
        """Say in one sentence why images of `shape` `(B, C, *spatial)` do not suit this prior."""
        card, channels, spatial = self.card, shape[1], tuple(shape[2:])
        if card.image_shape is not None and tuple(shape[1:]) != tuple(card.image_shape):
            return (
                f"prior '{card.name}' knows images of shape {tuple(card.image_shape)}, found "
                f"{tuple(shape[1:])}; resize the image or build the prior for that shape."
            )
        if card.spatial_dims is not None and len(spatial) != card.spatial_dims:
            slices = (card.spatial_dims, len(spatial)) == (2, 3)
            return (
                f"prior '{card.name}' is for {card.spatial_dims}-D images, found "
                f"{len(spatial)} spatial dimensions in {tuple(shape)}; "
                f"{'wrap it, priors.SliceWise(prior), or ' if slices else ''}choose another prior."
            )
        if card.channels is not None and channels != card.channels:
            return (
                f"prior '{card.name}' expects {card.channels} channel"
                f"{'s' if card.channels != 1 else ''}, found {channels}; "
                "`restore priors` lists the others."
            )
        return None


def per_image(sigma: float | Tensor, x: Tensor) -> Tensor:
    """Noise level as `(B, 1, ..., 1)`, or `(1, 1, ..., 1)` for one number, to meet `x`."""
    level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if level.ndim > 1:
        level = level.flatten(1)[:, 0]
    return level.reshape(-1, *[1] * (x.ndim - 1))
