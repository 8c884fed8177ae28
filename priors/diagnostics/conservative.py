"""Is the denoiser the gradient of anything? Its Jacobian must be symmetric, its curl zero.

The exact denoiser is `D = x + sigma^2 grad log p(x)`, so `J = dD/dx` is symmetric and the work
`∮ D . dl` round every closed loop is zero. A network is neither by construction; how far it is off
says whether solves that assume symmetry (conjugate gradients) and statements about a density can
be trusted. Three views, from exact to free of derivatives:

    exact_asymmetry      |J - J^T| / |J + J^T| (Frobenius) from the whole Jacobian of a small image
    jacobian_asymmetry   the same by a few random products
    circulation          the same by loops of finite size, from denoised images alone

The last leaves out the part of `J` that is a multiple of the identity, which no loop can see.
"""

import math

import torch
from torch import Tensor

from priors.denoiser import Denoiser
from priors.jacobian import dense, generator_of, jvp, normal, vjp


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
    generator = generator or generator_of(0)
    minus, plus = x.new_zeros(len(x)), x.new_zeros(len(x))
    for _ in range(probes):
        v = normal(x, generator)
        Jv = jvp(lambda z: prior(z, sigma), x, v)
        JTv = vjp(lambda z: prior(z, sigma), x, v)
        minus += (Jv - JTv).flatten(1).square().sum(1)
        plus += (Jv + JTv).flatten(1).square().sum(1)
    return torch.sqrt(minus / plus)


def exact_asymmetry(prior: Denoiser, x: Tensor, sigma: float) -> float:
    """Return `|J - J^T| / |J + J^T|` (Frobenius) at one small noisy image.

    Args:
        prior: the denoiser.
        x: `(1, C, *spatial)`; n Jacobian products for n entries.
        sigma: its noise level.

    Raises:
        ValueError: for several images.
    """
    J = dense(lambda z: prior(z, sigma), x)
    return float((J - J.T).norm() / (J + J.T).norm())


@torch.no_grad()
def circulation(
    prior: Denoiser,
    x: Tensor,
    sigma: float,
    *,
    radius: float | None = None,
    planes: int = 8,
    points: int = 8,
    generator: torch.Generator | None = None,
) -> float:
    """Curl against shear of the denoiser, averaged over discs of finite size.

    By Green's theorem the mean Jacobian over a disc in the plane of orthonormal `u`, `v` is

        M_ab = 1 / (pi r^2) ∮ D_a n_b dl,   n = outward normal, a, b in {u, v},

    which the trapezoidal rule on the circle gives to spectral accuracy.

    Args:
        prior: the denoiser.
        x: centres of the discs, noisy images `(B, C, *spatial)`.
        sigma: their noise level.
        radius: of the discs, units of the images; by default `sigma sqrt(n) / 10`, a tenth of the
            length of the noise.
        planes: random planes.
        points: on each circle; an even number of at least 4.
        generator: of the planes; by default the same each time.

    Returns:
        `|M_uv - M_vu| / |M_uv + M_vu|`, root mean squares over planes and images; its relative
        standard error is about `1 / sqrt(planes B)`.
    """
    generator = generator or generator_of(0)
    r = sigma * math.sqrt(x[0].numel()) / 10 if radius is None else radius
    curl, shear = 0.0, 0.0
    for _ in range(planes):
        u, v = _plane(x, generator)
        M = x.new_zeros(2, 2, len(x))
        for angle in torch.arange(points, dtype=torch.float64).mul(2 * math.pi / points).tolist():
            c, s = math.cos(angle), math.sin(angle)
            D = prior(x + r * (c * u + s * v), sigma)
            along = torch.stack([_dot(u, D), _dot(v, D)])
            M += torch.stack([c * along, s * along], 1) * (2 / (r * points))
        curl += float((M[0, 1] - M[1, 0]).square().sum())
        shear += float((M[0, 1] + M[1, 0]).square().sum())
    return math.sqrt(curl / shear) if shear > 0 else 0.0


def _plane(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two random orthonormal images for every image of `x`."""
    pair = torch.stack([normal(x, generator).flatten(1) for _ in range(2)], -1)
    u, v = torch.linalg.qr(pair)[0].unbind(-1)
    return u.reshape(x.shape), v.reshape(x.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)
