"""Estimate what DPM-Solver-v3 must know of a model, from clean images.

Zheng, Lu, Chen, Zhu, *DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model
Statistics*, NeurIPS 2023, arXiv:2310.13268, section 3.1; definitions are in `model_statistics`. In
`y = x_0 + u n`, a trajectory has `dy / dlam = D - y`, so that `f'` is the difference of `D` between
two neighbouring levels on it, and `l' y + l (D - y)`.

Cost: four denoiser calls an image and level, one of them with a gradient.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators.validate import seeded, whole
from restore.samplers.model_statistics import Statistics
from restore.samplers.sampler import Denoise

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Clean images, noise, probes -> `(K, B, C, *spatial)` to average."""


def estimate(
    denoise: Denoise,
    images: Tensor,
    lam: Sequence[float] | Tensor,
    *,
    seed: int = 0,
    per_pixel: bool = False,
    batch_size: int = 16,
    delta: float = 0.02,
) -> Statistics:
    """Estimate the statistics of a model from clean images.

    Diagonals of Jacobians are estimated with one Rademacher probe an image (Hutchinson), changes
    along trajectories by central differences. All levels share their noise and probes, so that
    tables are smooth in `lam`. The error of a table of steps `d` is of order `d^2`.

    Args:
        denoise: `D(y, s)`, differentiable in `y`.
        images: `(N, C, *spatial)` clean images.
        lam: rising half log-SNR of the table; steps of 0.1 or less.
        seed: of noise and probes.
        per_pixel: one value a pixel, as in the paper, rather than one a channel; needs many images.
        batch_size: images at a time.
        delta: half the length in `lam` of a central difference.
    """
    whole("batch_size", batch_size, low=1, do="choose a positive one")
    table = torch.as_tensor(lam, dtype=torch.float64)
    generator = seeded(seed)
    n = torch.randn(images.shape, generator=generator, dtype=torch.float64).to(images)
    v = torch.randn(images.shape, generator=generator, dtype=torch.float64).to(images).sign()
    batches = list(zip(*(t.split(batch_size) for t in (images, n, v)), strict=True))

    def average(measure: Measure) -> Tensor:
        total = torch.stack([measure(*batch).cpu().double().sum(1) for batch in batches]).sum(0)
        means = total / len(images)
        if per_pixel:
            return means
        return means.flatten(2).mean(2).reshape(*means.shape[:2], *[1] * (images.ndim - 2))

    l = torch.stack([average(_linear(denoise, u))[0] for u in torch.exp(-table).tolist()])  # noqa: E741
    dl = torch.gradient(l, spacing=(table,), dim=0, edge_order=2)[0]
    rows = zip(table.tolist(), l, dl, strict=True)
    moments = torch.stack([average(_moments(denoise, at, delta, *row)) for at, *row in rows])
    f, df, product, square = moments.unbind(1)

    # where f hardly varies nothing can be learnt from its variation
    variance = square - f**2
    varies = variance > 1e-9 * square
    s = torch.where(varies, (product - f * df) / torch.where(varies, variance, 1), 0)
    return Statistics(lam=table, l=l, s=s, b=df - s * f)


def _linear(denoise: Denoise, u: float) -> Measure:
    """`1 - diag(dD / dy)` at noise level u."""

    def measure(x0: Tensor, n: Tensor, v: Tensor) -> Tensor:
        with torch.enable_grad():
            y = (x0 + u * n).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(denoise(y, u), y, v)
        return (1 - v * gradient)[None]

    return measure


def _moments(denoise: Denoise, lam: float, delta: float, l: Tensor, dl: Tensor) -> Measure:  # noqa: E741
    """`f`, `f'`, `f f'` and `f^2`."""

    @torch.no_grad()
    def measure(x0: Tensor, n: Tensor, v: Tensor) -> Tensor:
        u, a, da = math.exp(-lam), l.to(x0), dl.to(x0)
        y = x0 + u * n
        F = y - denoise(y, u)  # dy / dlam = -F
        ahead = denoise(y - delta * F, u * math.exp(-delta))
        behind = denoise(y + delta * F, u * math.exp(delta))
        f = F - a * y
        df = -F - (ahead - behind) / (2 * delta) - da * y + a * F
        return torch.stack((f, df, f * df, f**2))

    return measure
