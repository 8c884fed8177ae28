"""A prior of one channel on images of several: every channel denoised by itself.

Complex images travel as two channels, real and imaginary part; a prior of magnitudes is asked about
each (Chung and Ye, *Score-based diffusion models for accelerated MRI*, 2022, arXiv:2110.05243).
"""

from dataclasses import replace

from torch import Tensor

from priors.denoiser import Denoiser, per_image
from priors.latent import Latent


class ChannelWise(Denoiser):
    """A prior of any number of channels, made from one of a single channel.

    Attributes:
        prior: the denoiser of a channel.

    Raises:
        ValueError: for a prior of several channels, or of latents.
    """

    def __init__(self, prior: Denoiser) -> None:
        if prior.card.channels not in (1, None) or isinstance(prior, Latent):
            raise ValueError(
                f"prior '{prior.card.name}' is not one of a single channel and cannot denoise "
                "channels alone; choose a grey one."
            )
        super().__init__(replace(prior.card, channels=None, image_shape=None))
        self.prior = prior

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise; see `Denoiser.forward`."""
        levels = per_image(sigma, x).flatten().expand(len(x)).repeat_interleave(x.shape[1])
        return self.prior(x.flatten(0, 1)[:, None], levels).reshape(x.shape)

    def refuse(self, shape: tuple[int, ...]) -> str | None:
        """Say in one sentence why images of `shape` do not suit this prior."""
        return self.prior.refuse((shape[0], 1, *shape[2:]))
