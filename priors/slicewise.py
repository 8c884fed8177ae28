"""A prior of flat images on volumes: every slice denoised by itself.

It is the prior under which slices are independent. What neighbouring slices have in common is left
to the solver, `restore.coupling`, and to the measurement.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from priors.channelwise import ChannelWise
from priors.denoiser import Denoiser, per_image
from priors.latent import Latent


class SliceWise(Denoiser):
    """A prior of volumes `(B, C, D, H, W)`, made from one of flat images.

    Attributes:
        prior: the denoiser of the slices.
        axis: spatial axis that is cut: 0 for D, 1 for H, 2 for W.
        chunk: slices of one volume in one call of the prior; bounds the memory.
        recompute: under autograd, keep only the slices and run each chunk again in the backward
            pass, so that gradients too need the memory of `chunk` slices. PyTorch cannot combine
            this with `torch.func.vjp`, `grad` or `jacrev`: set it to False for these.

    Raises:
        ValueError: no such axis, an impossible chunk, or a prior of something else than flat
            images.
    """

    def __init__(
        self, prior: Denoiser, *, axis: int = 0, chunk: int = 8, recompute: bool = True
    ) -> None:
        if axis not in (0, 1, 2) or chunk < 1:
            raise ValueError(
                f"slices need axis 0 (D), 1 (H) or 2 (W) and chunk >= 1, found axis={axis}, "
                f"chunk={chunk}; correct these."
            )
        if prior.card.spatial_dims not in (2, None) or isinstance(prior, Latent):
            kind = "latents" if isinstance(prior, Latent) else f"{prior.card.spatial_dims}-D images"
            raise ValueError(
                f"prior '{prior.card.name}' is for {kind} and cannot denoise slices; choose one of "
                "flat images."
            )
        extra = {**prior.card.extra, "axis": axis}
        super().__init__(replace(prior.card, spatial_dims=3, image_shape=None, extra=extra))
        self.prior, self.axis, self.chunk, self.recompute = prior, axis, chunk, recompute

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise volumes `(B, C, D, H, W)`; see `Denoiser.forward`."""
        slices = x.movedim(2 + self.axis, 1)
        levels = per_image(sigma, x).flatten().expand(len(x))
        if torch.is_grad_enabled() and x.requires_grad:
            done = torch.cat([self._denoise(some, s) for some, s, _ in self._cut(slices, levels)])
            return done.unflatten(0, slices.shape[:2]).movedim(1, 2 + self.axis)
        out = torch.empty_like(x)
        for some, s, write in self._cut(slices, levels):
            out.movedim(2 + self.axis, 1)[write] = self._denoise(some, s)
        return out

    def refuse(self, shape: tuple[int, ...]) -> str | None:
        """Say in one sentence why volumes of `shape` do not suit this prior."""
        if len(shape) != 5:
            return super().refuse(shape)
        return self.prior.refuse((*shape[: 2 + self.axis], *shape[3 + self.axis :]))

    def _cut(
        self, slices: Tensor, levels: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, tuple[int, slice]]]:
        """Yield few slices `(n, C, H, W)` of one volume, their levels, and where they belong."""
        for b, volume in enumerate(slices):
            for first in range(0, len(volume), self.chunk):
                some = volume[first : first + self.chunk]
                yield some, levels[b].expand(len(some)), (b, slice(first, first + len(some)))

    def _denoise(self, some: Tensor, levels: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled() and some.requires_grad:
            return checkpoint(
                self.prior, some, levels, use_reentrant=False, preserve_rng_state=False
            )
        return self.prior(some, levels)


def lift(prior: Denoiser, shape: tuple[int, ...], *, axis: int = 0, chunk: int = 8) -> Denoiser:
    """Bring a prior to images that it was not made for, where independent parts of them suit it.

    A prior of flat images is asked slice by slice about volumes, `SliceWise`; one of one channel
    channel by channel about images of two, real and imaginary part, `ChannelWise`. Any other prior
    comes back as it is, and whether it suits is for its own `refuse` to say.

    Args:
        prior: the denoiser.
        shape: `(B, C, *spatial)` of the images.
        axis: see `SliceWise`.
        chunk: see `SliceWise`.
    """
    if isinstance(prior, Latent):
        return prior
    if shape[1] == 2 and prior.card.channels == 1:
        prior = ChannelWise(prior)
    if len(shape) == 5 and prior.card.spatial_dims == 2:
        prior = SliceWise(prior, axis=axis, chunk=chunk)
    return prior
