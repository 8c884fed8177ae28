"""Consistency and trajectory distillation: neighbouring points of a trajectory must agree.

Song, Dhariwal, Chen, Sutskever, *Consistency Models*, 2023, arXiv:2303.01469, algorithm 2; Luo et
al., *Latent Consistency Models*, 2023, arXiv:2310.04378; with a free end level, Kim et al.,
*Consistency Trajectory Models*, 2024, arXiv:2310.02279.

    symbol        name here    meaning
    f(x, t -> u)  jump         point at level u of the trajectory through x at t
    c_skip        u / t        1 at u = t: the boundary condition f(x, s_min) = x
    c_out         1 - u / t    0 there
    F_theta       network      G(x, t, u), the clean image averaged over the jump
    theta^-       target       running average of theta, or theta itself without gradient

    loss = d(f_theta(x_t, t -> u), f_theta^-(x_s, s -> u)),   x_s a teacher step from x_t

One DDIM step of the teacher errs by O(h^2), and by as much do the two sides of the loss differ for
the exact jump; summed over the levels the student's bias is O(h). No trajectory is ever integrated:
a step costs one call of the teacher and two of the student. Sampling is `student.walk`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from priors.denoiser import per_image
from priors.training import Loss, Network
from priors.training import Sampler as Patches
from restore.students.flow_map import jump_with

Teacher = Callable[[Tensor, Tensor], Tensor]
"""`D(y, s)` with one level per image `(B,)`."""

_HUBER = 0.00054  # arXiv:2310.14189, equation 8: c = 0.00054 sqrt(d)


def teacher_step(teacher: Teacher, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Take one DDIM step of the teacher from level to level, `(B,)` each."""
    ratio = per_image(end / start, x)
    return ratio * x + (1 - ratio) * teacher(x, start)


def gap(
    jump: Callable[[Tensor, Tensor, Tensor], Tensor],
    teacher: Teacher,
    x: Tensor,
    start: Tensor,
    middle: Tensor,
    end: Tensor,
) -> Tensor:
    """Disagreement `f(x_t, t -> u) - f(x_s, s -> u)` of neighbouring points, t > s >= u."""
    return jump(x, start, end) - jump(teacher_step(teacher, x, start, middle), middle, end)


def consistency_loss(
    teacher: Teacher,
    patches: Patches,
    levels: Sequence[float] | Tensor,
    *,
    target: nn.Module | None = None,
    any_end: bool = False,
) -> Loss:
    """Build the loss; the network is called as `G(x, t, u)`.

    Args:
        teacher: see `Teacher`.
        patches: draws clean images from the run's generator.
        levels: falling and positive; the last is s_min, where images count as clean.
        target: the network's running average, given to `fit` as well; None takes the network
            itself without gradient.
        any_end: jump to any lower level of the list and not always to s_min.

    Raises:
        ValueError: fewer than two levels, or levels that do not fall or are not positive.
    """
    grid = torch.as_tensor(levels, dtype=torch.float32)
    if len(grid) < 2 or not bool((grid.diff() < 0).all()) or not float(grid[-1]) > 0:
        raise ValueError(
            f"consistency needs two or more falling levels > 0, found {grid.tolist()[:6]}; "
            "correct these."
        )
    last = len(grid) - 1

    def loss(network: Network, generator: torch.Generator) -> Tensor:
        clean = patches(generator)
        u = torch.rand((2, len(clean)), generator=generator)
        i = (u[0] * last).long()
        j = i + 1 + (u[1] * (last - i)).long() if any_end else torch.full_like(i, last)
        start, middle, end = grid[i], grid[i + 1], grid[j]
        noise = torch.randn(clean.shape, generator=generator)
        x = clean + per_image(start, clean) * noise
        with torch.no_grad():
            stepped = teacher_step(teacher, x, start, middle)
            goal = jump_with(network if target is None else target, stepped, middle, end)
        return pseudo_huber(jump_with(network, x, start, end) - goal).mean()

    return loss


def pseudo_huber(residual: Tensor) -> Tensor:
    """`sqrt(|r|^2 + c^2) - c` of every image `(B,)`, Song and Dhariwal 2023, arXiv:2310.14189."""
    c = _HUBER * math.sqrt(residual[0].numel())
    return (residual.square().flatten(1).sum(1) + c**2).sqrt() - c
