"""The networks that ship, and how a network becomes a prior for the whole range of sigma.

`NoisePredictor` is deepinv's DRUNet (Zhang et al., *Plug-and-Play Image Restoration with Deep
Denoiser Prior*, 2021) used the other way round: it predicts the noise and subtracts it,

    D(x, sigma) = x - N(x, sigma).

After equal training this gains one to three decibels over predicting the image, because the
network's own error then scales with the noise. DRUNet has no bias and no normalisation, so
`D(a x, a sigma) = a D(x, sigma)` holds exactly.

That equivariance also means that a network cannot be trusted far above the noise it was trained
on: its leak of noise grows in proportion to sigma. `Handover` therefore passes to a closed-form
denoiser there, and the pair drives a diffusion from any starting level.
"""

import math

import torch
from deepinv.models import DRUNet
from torch import Tensor, nn
from torch.nn import functional as F

from priors.denoiser import Card, Denoiser, per_image

_MULTIPLE = 8  # three halvings
_SMALLEST = 32  # below this DRUNet itself pads with copies of the border


class NoisePredictor(Denoiser):
    """A bias-free DRUNet that predicts the noise.

    Args:
        card: `card.channels` sets the number of image channels.
        widths: feature channels of the four scales.
        blocks: residual blocks a scale and side.

    Raises:
        ValueError: when the card leaves the number of channels open.
    """

    def __init__(self, card: Card, widths: tuple[int, int, int, int], blocks: int) -> None:
        if card.channels is None:
            raise ValueError(
                f"network '{card.name}' needs a number of channels; set it in its card."
            )
        super().__init__(card)
        self.net = DRUNet(card.channels, card.channels, nc=widths, nb=blocks, pretrained=None)

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise images `(B, C, H, W)` of any size; see `Denoiser.forward`."""
        return x - self.noise(x, sigma).to(x.dtype)

    def noise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Predict the noise `sigma * n` in `x`, in the network's own precision."""
        x = x.to(next(self.net.parameters()).dtype)
        level = per_image(sigma, x).flatten().expand(len(x))
        return padded_call(self.net, x, level, one_by_one=not self.training)


def padded_call(net: nn.Module, x: Tensor, level: Tensor, *, one_by_one: bool) -> Tensor:
    """Run a DRUNet on images `(B, C, H, W)` of any size and levels `(B,)`.

    On the CPU a convolution chooses its algorithm by the size of the batch, and the last bit of a
    pixel with it; a sampler makes visible differences of such bits. One by one costs nothing there
    and gives an image the same bits in every batch. Training takes the batch as one.
    """
    height, width = x.shape[-2:]
    padded = _pad_by_reflection(x, _grown(height), _grown(width))
    if one_by_one and x.device.type == "cpu" and len(x) > 1:
        pairs = zip(padded.split(1), level.split(1), strict=True)
        return torch.cat([net(*one) for one in pairs])[..., :height, :width]
    return net(padded, level)[..., :height, :width]


def _grown(size: int) -> int:
    """Return the smallest size the network takes without padding of its own."""
    return max(_SMALLEST, math.ceil(size / _MULTIPLE) * _MULTIPLE)


def _pad_by_reflection(x: Tensor, height: int, width: int) -> Tensor:
    """Continue the image below and to the right; in several folds when it is very small."""
    while x.shape[-2] < height or x.shape[-1] < width:
        down = min(height - x.shape[-2], x.shape[-2] - 1)
        right = min(width - x.shape[-1], x.shape[-1] - 1)
        if down == 0 and right == 0:  # a side of one pixel has nothing to reflect
            return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]), mode="replicate")
        x = F.pad(x, (0, right, 0, down), mode="reflect")
    return x


class Handover(Denoiser):
    """A network for low noise, a closed-form denoiser for high noise, a blend between.

    The weight of the network falls linearly in `log sigma` from 1 at `low` to 0 at `high`. A blend
    of two posterior means is the posterior mean under neither prior; it is used only in a narrow
    band where the two are equally good.

    Args:
        card: card of the pair.
        network: the denoiser for `sigma <= low`.
        gaussian: the denoiser for `sigma >= high`.
        low: noise level at which the handover begins.
        high: noise level at which it ends.

    Raises:
        ValueError: unless `0 < low < high`.
    """

    def __init__(
        self, card: Card, network: Denoiser, gaussian: Denoiser, low: float, high: float
    ) -> None:
        super().__init__(card)
        if not 0 < low < high:
            raise ValueError(
                f"handover needs 0 < low < high, found low={low}, high={high}; correct these."
            )
        self.network, self.gaussian = network, gaussian
        self.low, self.high = low, high

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise images `(B, C, H, W)`; see `Denoiser.forward`."""
        level = per_image(sigma, x)
        span = math.log(self.high / self.low)
        weight = ((math.log(self.high) - level.clamp_min(1e-12).log()) / span).clamp(0, 1)
        if bool((weight == 1).all()):
            return self.network(x, sigma)
        if bool((weight == 0).all()):
            return self.gaussian(x, sigma)
        return torch.lerp(self.gaussian(x, sigma), self.network(x, sigma), weight)
