"""Straight trajectories: retrain a diffusion on its own pairs of noise and image.

    pairs      z ~ N(0, I) and x(z), where the teacher's ODE carries z
    path       x_t = alpha x(z) + sigma z of a schedule
    target     the network's prediction at the pair's own noise: velocity z - x(z), or eps = z

Liu, Gong, Liu, *Flow Straight and Fast* (rectified flow), arXiv:2209.03003, equation 1 and
algorithm 1, for a velocity on `x_t = (1 - t) x + t z`. Wang et al., *Rectified Diffusion*, 2024,
arXiv:2410.07303: nothing of this needs the straight line; a network that predicts `eps` on the
schedule it knows is retrained on the same pairs, and DDIM in one step is exact where `eps` is
constant along each path. Lee, Lin, Fanti, *Improving the Training of Rectified Flows*, 2024,
arXiv:2405.20320: one reflow suffices when the ends of the path, where the regression is hard, are
drawn more often, `p(t) ~ e^(a t) + e^(a (1 - t))`, a = 4.

Exact: for a Gaussian one reflow makes the velocity affine and one Euler step right; in one
dimension paths of a monotone coupling never cross, so that one step is right for any prior. The
marginals are the teacher's only as far as the regression is exact: the distance to the teacher's
pairs is the honest error.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from priors.denoiser import per_image
from priors.predictions import check_kind, from_x0
from priors.schedules import RectifiedFlow, Schedule
from priors.training import Loss, Network
from restore.samplers.grid import Grid
from restore.samplers.sampler import Denoise, Sampler

Velocity = Callable[[Tensor, Tensor], Tensor]
"""`v(x_t, t)` with `t` `(B,)` in [0, 1], 1 is noise: `dx/dt = v`."""

_NEARLY_ONE = 1 - 1e-8  # where the image is gone and its level infinite


def pairs(denoise: Denoise, z: Tensor, grid: Grid, sampler: Sampler) -> Tensor:
    """Carry standard normal noise `z` `(N, C, *spatial)` along the teacher's ODE to images.

    The grid should start where images are negligible beside its noise.
    """
    return sampler(denoise, grid[0].sigma * z, grid)


def draw_times(count: int, generator: torch.Generator, *, a: float = 0.0) -> Tensor:
    """Draw `count` times in [0, 1] from a density `~ e^(a t) + e^(a (1 - t))`, uniform at a = 0."""
    u = torch.rand((2, count), generator=generator)
    t = u[0] if a == 0 else torch.log1p(u[0] * math.expm1(a)) / a
    return torch.where(u[1] < 0.5, t, 1 - t)


def reflow_loss(
    z: Tensor,
    x: Tensor,
    batch: int,
    *,
    kind: str = "flow",
    schedule: Schedule | None = None,
    a: float = 4.0,
) -> Loss:
    """Build the loss of one reflow; the network is called as `network(x_t, t)`.

    Args:
        z: noises `(N, C, *spatial)`.
        x: the images that the teacher makes of them.
        batch: pairs a step.
        kind: what the network predicts, see `priors.predictions`; "flow" is the velocity.
        schedule: of the path; the straight line by default, on which times lie in [0, 1].
        a: see `draw_times`.

    Raises:
        ValueError: for an unknown `kind`.
    """
    check_kind(kind)
    path = schedule or RectifiedFlow()

    def loss(network: Network, generator: torch.Generator) -> Tensor:
        n = torch.randint(len(z), (batch,), generator=generator)
        t = draw_times(batch, generator, a=a)
        alpha, sigma = (per_image(value(t), x) for value in (path.alpha, path.sigma))
        x_t = alpha * x[n] + sigma * z[n]
        target = z[n] - x[n] if kind == "flow" else from_x0(kind, x[n], x_t, alpha, sigma)
        return (network(x_t, t) - target).square().mean()

    return loss


def straightness(velocity: Velocity, z: Tensor, x: Tensor, *, times: int = 16) -> float:
    """Mean square of `(z - x) - v(x_t, t)` over pixels and even times: 0 when paths are straight.

    arXiv:2209.03003, equation 5, with the straight line between the ends as the path.
    """
    total = 0.0
    for i in range(times):
        t = (i + 0.5) / times
        at = torch.full((len(z),), t, dtype=z.dtype, device=z.device)
        total += float((z - x - velocity((1 - t) * x + t * z, at)).square().mean())
    return total / times


def euler(velocity: Velocity, z: Tensor, steps: int) -> Tensor:
    """Carry noise to images in even Euler steps from t = 1 to 0: DDIM on the same times."""
    x = z
    for i in range(steps):
        t = torch.full((len(z),), 1 - i / steps, dtype=z.dtype, device=z.device)
        x = x - velocity(x, t) / steps
    return x


def velocity_of(denoise: Callable[[Tensor, Tensor], Tensor]) -> Velocity:
    """Turn a denoiser `D(y, s)` into the velocity of the straight path: of a flow before reflow."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        sigma = per_image(t, x).clamp_max(_NEARLY_ONE)
        alpha = 1 - sigma
        D = denoise(x / alpha, (sigma / alpha).flatten())
        return from_x0("flow", D, x, alpha, sigma)

    return velocity
