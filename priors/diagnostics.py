"""What a denoiser says about itself: is its noise level, its error and its Jacobian believable?

Three identities of the exact `D(x, sigma) = E[x_0 | x]`, each a cheap test of a network:

- it is best when told the true sigma (`sigma_check` finds wrong ranges and wrong schedules);
- its mean squared error is `sigma^2 trace(dD/dx)`, Tweedie's second order (`tweedie_gap`);
- its Jacobian is a covariance over `sigma^2`, hence symmetric (`jacobian_asymmetry`).

Noise is drawn on the CPU from `seed` or `generator`, so a diagnosis repeats on any device.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from priors.denoiser import Denoiser


class SigmaCheck(NamedTuple):
    """Root mean squared error of a denoiser when told half, once and twice the true sigma."""

    half: float
    true: float
    twice: float

    @property
    def passed(self) -> bool:
        """Whether the true sigma gave the smallest error."""
        return self.true < min(self.half, self.twice)


def sigma_check(prior: Denoiser, images: Tensor, sigma: float, seed: int = 0) -> SigmaCheck:
    """Denoise the same noisy images at half, once and twice the true noise level.

    A network on [-1, 1] whose sigma was not doubled fails: it does best when told `2 sigma`.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range.
        sigma: standard deviation of the noise to add, in the same units.
        seed: of the noise.

    Returns:
        The three errors, in the units of the images.
    """
    noisy = images + sigma * _normal(images, _generator(seed))
    return SigmaCheck(*(_rmse(prior, noisy, images, factor * sigma) for factor in (0.5, 1.0, 2.0)))


def residual_std(prior: Denoiser, images: Tensor, sigma: float, seed: int = 0) -> float:
    """Root mean squared error of the denoiser on images plus noise.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range.
        sigma: standard deviation of the noise to add, in the same units.
        seed: of the noise.

    Returns:
        `rms(x_0 - D(x_0 + sigma n, sigma))` over all pixels.
    """
    noisy = images + sigma * _normal(images, _generator(seed))
    return _rmse(prior, noisy, images, sigma)


def tweedie_gap(
    prior: Denoiser, images: Tensor, sigma: float, seed: int = 0, probes: int = 4
) -> float:
    """How far the error that the denoiser expects is from the error that it makes.

    The expected mean squared error is `sigma^2 trace(J) / n` (Tweedie, second order), the trace by
    Hutchinson's estimator.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range; the more, the sharper the answer.
        sigma: standard deviation of the noise to add, in the same units.
        seed: of noise and probes.
        probes: random vectors per image for the trace.

    Returns:
        `expected std / residual_std - 1`: 0 for the exact denoiser of the images' distribution,
        positive where it is too modest, negative where it is overconfident (-1: expects no error,
        also when its trace is negative).
    """
    generator = _generator(seed)
    noisy = images + sigma * _normal(images, generator)
    traces = []
    for _ in range(probes):
        v = _normal(images, generator).sign()
        traces.append((v * _vjp(lambda x: prior(x, sigma), noisy, v)).mean())
    expected = sigma * torch.stack(traces).mean().clamp(min=0).sqrt()
    return float(expected) / _rmse(prior, noisy, images, sigma) - 1


def jacobian_asymmetry(
    prior: Denoiser,
    x: Tensor,
    sigma: float | Tensor,
    probes: int = 4,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Size of the antisymmetric part of the denoiser's Jacobian against its symmetric part.

    Args:
        prior: the denoiser.
        x: noisy images `(B, C, *spatial)`.
        sigma: noise level, one number or one per image.
        probes: random vectors `v`.
        generator: of the probes; by default the same each time.

    Returns:
        `|(J - J^T) v| / |(J + J^T) v|`, root mean squares over the probes, one per image `(B,)`: an
        estimate of the ratio of Frobenius norms. 0 for an exact prior. Solves that assume symmetry
        (conjugate gradients) are in danger well below 1.
    """
    generator = generator or _generator(0)
    minus, plus = x.new_zeros(len(x)), x.new_zeros(len(x))
    for _ in range(probes):
        v = _normal(x, generator)
        Jv = _jvp(lambda z: prior(z, sigma), x, v)
        JTv = _vjp(lambda z: prior(z, sigma), x, v)
        minus += (Jv - JTv).flatten(1).square().sum(1)
        plus += (Jv + JTv).flatten(1).square().sum(1)
    return torch.sqrt(minus / plus)


def _jvp(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    # fused attention has no forward-mode derivative
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        return torch.func.jvp(f, (x,), (v,))[1]


def _vjp(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(f(x), x, v)[0]


@torch.no_grad()
def _rmse(prior: Denoiser, noisy: Tensor, images: Tensor, sigma: float) -> float:
    return float((prior(noisy, sigma) - images).square().mean().sqrt())


def _generator(seed: int) -> torch.Generator:
    # a stream of its own: images drawn from the same seed must not equal the noise
    return torch.Generator().manual_seed(seed ^ 0x5EED_0F_D1A6)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, dtype=like.dtype, device=generator.device, generator=generator)
    return noise.to(like.device)
