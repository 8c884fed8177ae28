"""A diffusion of tumour masks, conditioned on PET and CT.

Dong, Gong, *Head and Neck Tumor Segmentation from [18F]F-FDG PET/CT Images Based on 3D Diffusion
Model*, arXiv:2401.17593. No code was published; the constants here are of the DDPM family.

    symbol    name here    meaning
    x_0       x_0          2 mask - 1
    x_t       x            alpha_t x_0 + sigma_t eps, the linear-beta table of DDPM
    c         images       PET and CT, joined to x_t as channels

A network that predicts `x_0` gives logits `l` of the mask. Since a mask has two values,

    E[x_0 | x_t, c] = 2 P(mask = 1 | x_t, c) - 1 = tanh(l / 2),

so that the cross-entropy trains the exact posterior mean and no clipping is needed. The noise as
target (`eps`) needs clipping, and small lesions drown in its loss.

Samples of the mask differ by their first noise (Wolleb et al. 2022, *Diffusion models for implicit
image segmentation ensembles*). Few steps over-weight the likelier of two masks. With the exact
posterior mean, a mask of 70 % came out in so many of 20 000 samples (standard error 0.3 %):

    steps       5       10      20      50
    ddim        74.5    71.9    71.0    70.6
    ancestral   77.6    73.7    72.4    71.4
    dpm++-2m    72.0    70.6    70.4    70.4
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medical.segment.network import MaskNetwork
from medical.segment.windows import blended
from priors.predictions import to_x0
from priors.schedules import DDPM, Schedule
from restore.problem import stream
from restore.samplers import grid as grids
from restore.samplers import named
from restore.samplers.sampler import Denoise, Sampler

Predicts = Literal["x0", "eps"]

SCHEDULE = DDPM()
SAMPLER, STEPS, SAMPLES = "dpm++-2m", 10, 8


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskDenoiser:
    """`D(y, s) = E[x_0 | x_0 + s n = y, c]`: what samplers walk on.

    Attributes:
        network: see `MaskNetwork`.
        images: `(1, 2, D, H, W)`, PET and CT in [-1, 1].
        predicts: what the network was trained to give.
        window: side of the windows in voxels; None takes the volume whole.
    """

    network: MaskNetwork
    images: Tensor
    predicts: Predicts = "x0"
    window: int | None = None

    def __call__(self, y: Tensor, s: float) -> Tensor:
        """Denoise `(N, 1, D, H, W)`."""
        alpha = float((1 + torch.tensor(s).double() ** 2).rsqrt())
        t = SCHEDULE.time(s).to(y)[None]

        def window(x: Tensor, images: Tensor) -> Tensor:
            out = self.network(images, x, t).float()
            return clean(out, x, alpha, s * alpha, self.predicts)

        images = self.images.expand(len(y), -1, -1, -1, -1)
        with torch.no_grad():
            return blended(window, alpha * y, images, window=self.window)


def clean(
    out: Tensor, x: Tensor, alpha: float | Tensor, sigma: float | Tensor, predicts: Predicts
) -> Tensor:
    """Mask in [-1, 1] that a network's output stands for."""
    if predicts == "x0":
        return torch.tanh(out / 2)
    return to_x0(predicts, out, x, alpha, sigma).clamp(-1, 1)


def draw(
    denoise: Denoise,
    shape: tuple[int, ...],
    *,
    samples: int = SAMPLES,
    steps: int = STEPS,
    sampler: str | Sampler = SAMPLER,
    schedule: Schedule = SCHEDULE,
    seed: int = 0,
    batch: int = 4,
    device: torch.device | str = "cpu",
    callback: Callable[[int], None] | None = None,
) -> Tensor:
    """Draw masks.

    Args:
        denoise: see `MaskDenoiser`; any `D(y, s)` will do.
        shape: `(C, *spatial)` of one.
        samples: how many.
        steps: network calls of one sample, at most; the last one removes the noise that is left.
        sampler: a name of `restore.samplers.available()`, or one.
        schedule: its levels bound the walk, its times are evenly spaced.
        seed: sample k of a seed is the same whatever `samples` and `batch`.
        batch: samples at once.
        device: where the denoiser is.
        callback: called with the number of samples that are done.

    Returns:
        `(samples, C, *spatial)`, about -1 or 1.

    Raises:
        ValueError: fewer than one sample, an unknown name, too few steps.
    """
    if samples < 1 or batch < 1:
        raise ValueError(
            f"found {samples} samples, {batch} at once, expected at least 1; raise it."
        )
    walker = named(sampler) if isinstance(sampler, str) else sampler
    low, high = schedule.level_range
    grid = grids.uniform_time(schedule, walker.steps_within(steps), high, low)
    drawn = []
    for first in range(0, samples, batch):
        streams = [stream(seed, k) for k in range(first, min(samples, first + batch))]

        def noise(like: Tensor, streams: list[torch.Generator] = streams) -> Tensor:
            return torch.stack([torch.randn(shape, generator=g) for g in streams]).to(like)

        # x_T holds alpha_T x_0 too, 0.6 % of it, which is what is sought
        x = grid[0].sigma * noise(torch.zeros(0, device=device))
        drawn.append(walker(denoise, x, grid, noise=noise))
        if callback is not None:
            callback(first + len(streams))
    return torch.cat(drawn)
