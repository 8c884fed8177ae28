"""DPM-OT: begin at noisy copies of reference images, matched to noise by optimal transport.

Li, Li, Wang, Lei, Luo, Gu, *DPM-OT: A New Diffusion Probabilistic Model Based on Optimal
Transport*, ICCV 2023, arXiv:2307.11308. Reference images are noised to an intermediate level once;
semi-discrete optimal transport cuts the space of pure noise z into one cell for each of them, all
of equal mass,

    i(z) = argmax_i <y_i, z> + h_i,   h minimising E max_i (<y_i, z> + h_i) - mean_i h_i,

whose gradient is the mass of each cell less `1 / n`. A draw is the noisy copy that its noise falls
to, and any sampler carries it from that level to a clean image: the high noise levels are skipped.

    symbol    name here     meaning
    y_i       latents       noised references, `alpha x_i + sigma eps` of the grid's first point
    h         potentials    heights of the n planes
    z         z             standard normal noise

**It repeats its references.** There are n starts and no more. A deterministic sampler draws n
different images, each as near to its reference as the level is low; whatever the network learned of
other images at high noise is not used. This is memorisation by construction: use it to begin from
an atlas, never as evidence of what a prior holds, nor with references that must stay private.

Exact in the limit of many draws. Cost: no denoiser calls; `steps * batch * n^2` products to fit,
whatever the size of the images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.samplers.grid import Grid, Point
from restore.samplers.sampler import Denoise, Noise, Sampler, no_noise

Source = Callable[[int, torch.Generator], Tensor]
"""Draw flattened noises `(count, d)`, float64."""


def noised(references: Tensor, at: Point, generator: torch.Generator) -> Tensor:
    """Noisy copies `alpha x + sigma eps` of references `(n, C, *spatial)`."""
    eps = torch.randn(references.shape, generator=generator, dtype=torch.float64)
    return at.alpha * references + at.sigma * eps.to(references)


def fit(
    latents: Tensor,
    generator: torch.Generator,
    *,
    source: Source | None = None,
    steps: int = 1000,
    batch: int = 4096,
) -> "Transport":
    """Fit the potentials by stochastic gradient descent with Adam, averaged over the second half.

    Args:
        latents: `(n, C, *spatial)`, see the module's docstring; at least two.
        generator: source of the Monte-Carlo draws.
        source: draws the noise; standard normal by default.
        steps: of Adam, whose rate falls to zero.
        batch: draws a step.

    Raises:
        ValueError: fewer than two latents, or latents that do not differ.
    """
    y, n = latents.detach().cpu().double().flatten(1), len(latents)
    if source is None:
        # normal noise matters through its n products with the latents alone
        squares, axes = torch.linalg.eigh(y @ y.T)
        y = axes * squares.clamp_min(0).sqrt()
    draw = source or (lambda m, g: torch.randn(m, n, generator=g, dtype=torch.float64))
    scale = float((draw(batch, generator) @ (y - y.mean(0)).T).std())
    if n < 2 or not scale > 1e-9 * float(y.norm()):
        raise ValueError(
            f"optimal transport needs two or more different references, found {n} that do not "
            "differ; add images."
        )
    h = torch.zeros(n, dtype=torch.float64)
    mean, optimiser = torch.zeros_like(h), torch.optim.Adam([h], lr=0.02 * scale)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    for step in range(steps):
        cells = (draw(batch, generator) @ y.T + h).argmax(1)
        h.grad = torch.bincount(cells, minlength=n) / batch - torch.full_like(h, 1 / n)
        optimiser.step()
        schedule.step()
        if step >= steps // 2:
            mean += h / (steps - steps // 2)
    return Transport(latents, (mean - mean.mean()).to(latents.device))


@dataclass(frozen=True)
class Transport:
    """Potentials that assign noise to latents; made by `fit`.

    Attributes:
        latents: `(n, C, *spatial)`.
        potentials: `(n,)`, float64, of mean zero.
    """

    latents: Tensor
    potentials: Tensor

    def assign(self, z: Tensor) -> Tensor:
        """Index `(B,)` of the latent that each noise `(B, C, *spatial)` falls to."""
        y = self.latents.double().flatten(1)
        return (z.double().flatten(1) @ y.T + self.potentials).argmax(1)

    def masses(self, z: Tensor) -> Tensor:
        """Share `(n,)` of the noises `(B, C, *spatial)` that falls to each latent; aim `1 / n`."""
        return torch.bincount(self.assign(z), minlength=len(self.latents)) / len(z)

    def start(self, z: Tensor) -> Tensor:
        """Latents `(B, C, *spatial)` that noises fall to."""
        return self.latents[self.assign(z)]

    def __call__(
        self, denoise: Denoise, z: Tensor, grid: Grid, sampler: Sampler, *, noise: Noise = no_noise
    ) -> Tensor:
        """Carry noises `(B, C, *spatial)` to clean images.

        Args:
            denoise: `D(y, s)`; a prior will do.
            z: standard normal.
            grid: its first point is that of the latents.
            sampler: walks the grid.
            noise: of random samplers.
        """
        return sampler(denoise, self.start(z).to(z), grid, noise=noise)
