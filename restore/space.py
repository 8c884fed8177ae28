"""Where a diffusion lives: the pixels of an image, or the latents of an autoencoder.

A solver that only needs "an image is `decode(z)`" runs in both. Coordinates are centred and have a
half-range of 1, in which papers state their constants:

    z_t = alpha_t z_0 + sigma_t eps,   image = decode(z_0),   residual = (A(image) - y) / scale

with `scale` the half-range of images. In pixels `decode` is `middle + scale z`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from priors import Latent
from priors.schedules import DDPM, Discrete, Schedule
from restore.problem import Problem


class Space:
    """The coordinates of one problem.

    Args:
        problem: the chunk that a solver works on.

    Attributes:
        shape: `(N, c, *)` of `z`.
        entries: of one `z`.
        schedule: the prior's own, else None.
        highest: noise level sigma / alpha up to which the prior knows.

    Raises:
        ValueError: an autoencoder that does not return images of the shape it was given.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.latent = problem.prior if isinstance(problem.prior, Latent) else None
        denoiser = self.latent.denoiser if self.latent else problem.prior
        low, high = denoiser.card.value_range
        self.middle, self.scale = (low + high) / 2, (high - low) / 2
        self.highest = denoiser.card.sigma_range[1] / self.scale
        schedule = getattr(denoiser, "schedule", None)
        self.schedule = schedule if isinstance(schedule, Schedule) else None
        self.shape = problem.shape if self.latent is None else self._latent_shape(self.latent)
        self.entries = torch.Size(self.shape[1:]).numel()

    @property
    def table(self) -> Discrete:
        """The discrete schedule of a DDPM-type network, or DDPM's own."""
        return self.schedule if isinstance(self.schedule, Discrete) else DDPM()

    def times(self, steps: int) -> Tensor:
        """Return `steps` times of `table`, from its last to its first."""
        return torch.linspace(len(self.table.alphas_cumprod) - 1, 0, steps).round()

    def noise(self) -> Tensor:
        """Standard normal noise `(N, c, *)`."""
        return self.problem.noise(torch.empty(self.shape, device="meta"))

    def denoise(self, z_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """Return `E[z_0 | z_t]`; one forward."""
        D = self.problem.denoise(self._at(z_t, alpha), self.scale * sigma / alpha)
        return (D - self.middle) / self.scale

    def linearise(
        self, z_t: Tensor, alpha: float, sigma: float
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return `E[z_0 | z_t]` and the product with its transposed Jacobian in `z_t`."""
        D, vjp = self.problem.linearise(self._at(z_t, alpha), self.scale * sigma / alpha)
        return (D - self.middle) / self.scale, lambda v: vjp(v) / alpha

    def decode(self, z: Tensor) -> Tensor:
        """Return images `(N, C, *spatial)` in the prior's range."""
        own = self.middle + self.scale * z
        return own if self.latent is None else self.latent.decode(own)

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates of images."""
        own = x if self.latent is None else self.latent.encode(x)
        return (own - self.middle) / self.scale

    def data_gradient(self, z: Tensor, weight: Tensor | float) -> Tensor:
        """Gradient in `z` of `weight |residual|^2 / 2`.

        It passes through the decoder, not through the denoiser.

        Args:
            z: `(N, c, *)`.
            weight: one for all, or `(N, 1, ..., 1)` against images.
        """
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x = self.decode(z)
        pull = weight * self.problem.data_gradient(x.detach()) / self.problem.scale**2
        return torch.autograd.grad(x, z, pull)[0]

    def residual(self, x: Tensor) -> Tensor:
        """Length of `(A x - y) / scale` for images, `(N, 1, ..., 1)`."""
        r = (self.problem.A(x) - self.problem.y) / self.problem.scale
        return r.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))

    def _at(self, z_t: Tensor, alpha: float) -> Tensor:
        return self.middle + self.scale * z_t / alpha

    def _latent_shape(self, latent: Latent) -> tuple[int, ...]:
        one = (1, *self.problem.shape[1:])
        x = torch.full(one, self.problem.middle, dtype=self.problem.y.dtype)
        with torch.no_grad():
            z = latent.encode(x.to(self.problem.y.device))
            back = tuple(latent.decode(z).shape)
        if back != one:
            raise ValueError(
                f"the autoencoder of prior '{latent.card.name}' turns images {one[1:]} into images "
                f"{back[1:]}; crop or pad to a size that it returns."
            )
        if (reason := latent.denoiser.refuse(tuple(z.shape))) is not None:
            raise ValueError(f"of the latents: {reason}")
        return (self.problem.shape[0], *z.shape[1:])
