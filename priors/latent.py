"""A prior on the latents of an autoencoder, as Stable Diffusion is one.

An image is `x = decode(z)`; the diffusion lives on `z`. Encoder and decoder are any two
differentiable callables, or an `AutoencoderKL` of diffusers. The identity twice gives back a prior
on pixels.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from priors.denoiser import Card, Denoiser

Map = Callable[[Tensor], Tensor]


class Latent(Denoiser):
    """A denoiser of latents, and the maps between latents and images.

    Its card describes the images, as that of every prior; that of `denoiser` the latents. Called,
    it denoises latents. Solvers that know nothing of latents refuse it.

    Args:
        denoiser: prior of the latents `(B, c, *)`, its card in their units. Latents scaled to unit
            variance have `value_range=(-1, 1)`.
        encode: images `(B, C, *spatial)` in `card.value_range` to latents; the mean, not a draw.
        decode: latents to images. Both keep dtype and device and take each image by itself.
        card: of the images; their range is [0, 1] by default.
    """

    def __init__(
        self, denoiser: Denoiser, encode: Map, decode: Map, *, card: Card | None = None
    ) -> None:
        super().__init__(card or Card(name=f"latent {denoiser.card.name}"))
        self.denoiser, self.encode, self.decode = denoiser, encode, decode

    @classmethod
    def from_diffusers(
        cls, denoiser: Denoiser, autoencoder: nn.Module, *, card: Card | None = None
    ) -> "Latent":
        """Build from an `AutoencoderKL` of diffusers, which works on images in [-1, 1].

        Example, for the network of a pipeline with its empty prompt `c` `(1, 77, 768)`:

            call = lambda unet, z, t: unet(z, t, c.expand(len(z), -1, -1), return_dict=False)[0]
            latents = Card(name="stable-diffusion", value_range=(-1, 1))
            schedule = Discrete(tuple(pipeline.scheduler.alphas_cumprod.tolist()))
            denoiser = Adapter(pipeline.unet, schedule, "eps", card=latents, call=call)
            prior = Latent.from_diffusers(denoiser, pipeline.vae)

        Args:
            denoiser: prior of the latents after multiplication by `scaling_factor`.
            autoencoder: the `AutoencoderKL`; put in `eval()` mode and called in its own dtype.
            card: of the images, in [0, 1] unless it says otherwise.

        Raises:
            ValueError: no `scaling_factor` in the autoencoder's configuration.
        """
        config: Any = getattr(autoencoder, "config", None)
        if not hasattr(config, "scaling_factor"):
            raise ValueError(
                f"the autoencoder is a {type(autoencoder).__name__} without scaling_factor, "
                "expected an AutoencoderKL of diffusers; give encode and decode to Latent instead."
            )
        card = card or Card(
            name=f"latent {denoiser.card.name}", channels=config.in_channels, spatial_dims=2
        )
        wrapped = _Scaled(autoencoder, card.value_range)
        prior = cls(denoiser, wrapped.encode, wrapped.decode, card=card)
        prior.autoencoder = wrapped  # a submodule, so that .to() moves it
        return prior

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise latents `(B, c, *)`, in their own units."""
        return self.denoiser(x, sigma)


class _Scaled(nn.Module):
    """An `AutoencoderKL` between images on `(low, high)` and latents of unit variance."""

    def __init__(self, autoencoder: Any, value_range: tuple[float, float]) -> None:
        super().__init__()
        low, high = value_range
        self.autoencoder = autoencoder.eval()
        self.middle, self.scale = (low + high) / 2, (high - low) / 2
        self.factor = float(autoencoder.config.scaling_factor)
        self.shift = float(getattr(autoencoder.config, "shift_factor", None) or 0)

    def encode(self, x: Tensor) -> Tensor:
        network: Any = self.autoencoder
        found = network.encode(((x - self.middle) / self.scale).to(network.dtype))
        return (found.latent_dist.mean.to(x.dtype) - self.shift) * self.factor

    def decode(self, z: Tensor) -> Tensor:
        network: Any = self.autoencoder
        found = network.decode((z / self.factor + self.shift).to(network.dtype))
        return self.middle + self.scale * found.sample.to(z.dtype)
