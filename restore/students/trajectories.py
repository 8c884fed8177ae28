"""Learn jumps from whole trajectories of the teacher: regression on the solution of its ODE.

A teacher that is cheap enough is integrated once, finely, from many starts. Any two points of a
trajectory, or a point and its clean end, are then an exact example of a jump, and the student is
fitted to them with no bootstrap and no moving target. This is the offline form of progressive and
of consistency-trajectory distillation (Salimans and Ho 2022, arXiv:2202.00512; Kim et al. 2024,
arXiv:2310.02279); restricted to first and last points it is knowledge distillation (Luhman and
Luhman 2021, arXiv:2101.02388), and with one velocity for all of a path it is reflow.

    loss of a jump = rms(G(x_t, t, u) - (x_u - (u / t) x_t) / (1 - u / t)) / e(t)

with the error `e(t)` that one expects of a denoiser, so that every level counts alike.

Starting some jumps where the student itself arrives, beside the trajectory, and asking for the
clean end of the trajectory all the same, did not help: draws in two to four calls came out worse by
a tenth, in a short run that also drew its levels otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from priors.denoiser import per_image
from priors.training import Loss, Network, expected_rmse
from restore.samplers.grid import Grid
from restore.samplers.sampler import Denoise, Path, Sampler


@dataclass(frozen=True)
class Trajectories:
    """Points of a teacher's trajectories.

    Attributes:
        points: `(N, K, C, *spatial)`, noisiest first; the last are clean. Any dtype.
        levels: their K noise levels, falling to 0.

    Raises:
        ValueError: levels that do not match or do not fall.
    """

    points: Tensor
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if self.points.shape[1] != len(self.levels) or not falling or len(self.levels) < 2:
            raise ValueError(
                f"trajectories of {self.points.shape[1]} points need as many falling levels, found "
                f"{len(self.levels)}; correct these."
            )

    def __len__(self) -> int:
        return len(self.points)


def trace(denoise: Denoise, x: Tensor, grid: Grid, sampler: Sampler) -> Trajectories:
    """Integrate the teacher and keep every point.

    Args:
        denoise: the teacher.
        x: `(N, C, *spatial)` at the first level of the grid, `alpha x_0 + sigma eps`.
        grid: the points to keep.
        sampler: a deterministic integrator.
    """
    path, points = Path(denoise, grid), [x / grid[0].alpha]
    for step, at in zip(sampler.steps(path, x), grid.points[1:], strict=True):
        x = step
        points.append(x / at.alpha)
    points.append(path.D(x, grid[-1]))
    levels = (*(at.level for at in grid.points), 0.0)
    return Trajectories(torch.stack(points, 1), levels)


def jump_loss(
    parts: Sequence[Trajectories],
    batch: int,
    *,
    from_start: float = 0.3,
    to_end: float = 0.4,
) -> Loss:
    """Build the loss of random jumps; the network is called as `G(x, t, u)`.

    Args:
        parts: trajectories of equal levels and sizes.
        batch: jumps a step.
        from_start: share of jumps that begin at the noisiest point.
        to_end: share of jumps that end at the clean image.
    """
    levels = torch.tensor(parts[0].levels, dtype=torch.float32)
    sizes = torch.tensor([len(part) for part in parts], dtype=torch.float64)
    last = len(levels) - 1

    def loss(network: Network, generator: torch.Generator) -> Tensor:
        u = torch.rand((4, batch), generator=generator)
        i = torch.where(u[0] < from_start, 0, (u[1] * last).long())
        j = torch.where(u[2] < to_end, last, i + 1 + (u[3] * (last - i)).long())
        chosen = parts[int(torch.multinomial(sizes, 1, generator=generator))]
        n = torch.randint(len(chosen), (batch,), generator=generator)
        x, y = chosen.points[n, i].float(), chosen.points[n, j].float()
        start, end = levels[i], levels[j]
        ratio = per_image(end / start, x)
        average = (y - ratio * x) / (1 - ratio)
        error = (network(x, start, end) - average).square().flatten(1).mean(1)
        return ((error + 1e-12).sqrt() / expected_rmse(start)).mean()

    return loss
