"""A student: it jumps along a teacher's trajectories from any noise level to any lower one.

A student is no denoiser. `jump(x, t, u)` returns a point of the trajectory through `x`, of which
`jump(x, t, 0)` is a sharp image and not `E[x_0 | x]`; likelihood guidance, whose formulas need that
mean and its Jacobian, would be wrong with it. It draws images, and it starts or shortens a chain.

From pure noise down to the level `high` the teacher is a Gaussian and its trajectory is known in
closed form; only below does the network run. Drawing in n calls is n jumps. Between two jumps part
of the noise may be renewed (Kim et al. 2024, arXiv:2310.02279, gamma-sampling; trajectory
consistency distillation): jump to `v = (1 - gamma) u`, then add noise of std `sqrt(u^2 - v^2)`.
gamma = 0 is deterministic, gamma = 1 is multistep consistency sampling (Song et al. 2023,
arXiv:2303.01469, algorithm 1). With the exact jump every gamma keeps the law of `x_u`.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from priors.denoiser import Card
from restore.problem import stream
from restore.samplers.sampler import Noise, no_noise
from restore.students.flow_map import FlowMap
from restore.students.gaussian import gaussian_flow, gaussian_start

Jump = Callable[[Tensor, float, float], Tensor]
"""Carries `x` from one noise level to a lower one, in the form `x_0 + s n`."""

LEVELS = {1: (), 2: (0.45,), 3: (0.62, 0.16), 4: (0.85, 0.23, 0.1)}
"""Number of calls -> levels visited between the first and 0, for images in [0, 1].

Those of the shipped student that come nearest to its teacher, of all on its training grid.
"""


def walk(
    jump: Jump,
    x: Tensor,
    levels: Sequence[float],
    *,
    gamma: float = 0.0,
    noise: Noise = no_noise,
) -> Tensor:
    """Jump from level to level; see the module's docstring.

    Args:
        jump: see `Jump`.
        x: `(B, C, *spatial)` at the first level.
        levels: falling; the last may be 0.
        gamma: share of the fall that is overdone and filled with fresh noise, in [0, 1].
        noise: draws it.

    Returns:
        `x` at the last level.

    Raises:
        ValueError: levels that do not fall, or gamma outside [0, 1].
    """
    if len(levels) < 2 or not all(a > b >= 0 for a, b in pairwise(levels)) or not 0 <= gamma <= 1:
        raise ValueError(
            f"jumps need two or more falling levels >= 0 and gamma in [0, 1], found {levels} and "
            f"{gamma}; correct these."
        )
    for start, end in pairwise(levels):
        low = (1 - gamma) * end
        x = jump(x, start, low)
        if low < end:
            x = x + math.sqrt(end**2 - low**2) * noise(x)
    return x


class Student(nn.Module):
    """See the module's docstring.

    Args:
        card: of the student; `extra` names the teacher, its hash and how near the student comes.
        network: the mean slope of a jump.
        high: highest level that the network knows; above, the power law's own flow is exact.
    """

    is_denoiser: ClassVar[bool] = False

    def __init__(self, card: Card, network: FlowMap, high: float) -> None:
        super().__init__()
        self.card, self.network, self.high = card, network, high

    def jump(self, x: Tensor, start: float, end: float) -> Tensor:
        """Carry images along the teacher's trajectories.

        Args:
            x: `(B, C, H, W)`, images plus noise of std `start`, in the teacher's units.
            start: noise level of `x`.
            end: level to reach, lower; 0 is the clean image.

        Returns:
            `x` at level `end`, same shape and dtype; one network call unless `end >= high`.

        Raises:
            ValueError: levels that do not fall.
        """
        if not math.inf > start > end >= 0:
            raise ValueError(
                f"a jump goes from a level to a lower one >= 0, found {start} to {end}; correct "
                "these."
            )
        if start > self.high:
            reached = max(end, self.high)
            x, start = gaussian_flow(self.network.law, x, start, reached), reached
        if start == end:
            return x
        with torch.no_grad():
            average = self.network(x, start, end)
        return (end / start) * x + (1 - end / start) * average

    def draw(
        self,
        count: int,
        image_shape: tuple[int, ...],
        *,
        calls: int = 4,
        seed: int = 0,
        gamma: float = 0.0,
        levels: Sequence[float] | None = None,
    ) -> Tensor:
        """Draw images.

        Args:
            count: number of images.
            image_shape: `(C, H, W)`; of the size of the training patches, or near it.
            calls: network calls, 1 to 4.
            seed: any integer; image i of a seed is the same whatever `count`.
            gamma: see `walk`.
            levels: those between the first and 0, in place of the default ones of `calls`.

        Returns:
            `(count, C, H, W)`, float32, not clipped.

        Raises:
            ValueError: a shape that does not suit, or calls outside 1 to 4.
        """
        channels = self.network.channels
        if count < 1 or len(image_shape) != 3 or image_shape[0] != channels:
            raise ValueError(
                f"student '{self.card.name}' draws at least one image ({channels}, H, W), found "
                f"count {count} and shape {tuple(image_shape)}; correct these."
            )
        if levels is None and calls not in LEVELS:
            raise ValueError(
                f"student '{self.card.name}' draws in 1 to {max(LEVELS)} calls, found {calls}; "
                "give levels= for more."
            )
        streams = [stream(int(seed), i) for i in range(count)]

        def noise(like: Tensor) -> Tensor:
            shape = like.shape[1:]
            drawn = [torch.randn(shape, generator=g, dtype=torch.float64) for g in streams]
            return torch.stack(drawn).to(like)

        like = next(self.parameters()).new_empty((count, *image_shape))
        x = gaussian_start(self.network.law, noise(like), self.high)
        between = LEVELS[calls] if levels is None else tuple(levels)
        return walk(self.jump, x, (self.high, *between, 0.0), gamma=gamma, noise=noise)

    def refuse(self, shape: tuple[int, ...] = ()) -> str:
        """Say in one sentence why a student cannot stand in for a prior, whatever the images."""
        teacher = self.card.extra.get("teacher")
        return (
            f"'{self.card.name}' is a student: it jumps along trajectories and does not know "
            "E[x_0 | x], which this method needs; "
            + (f"take its teacher '{teacher}'." if teacher else "take a denoiser.")
        )

    def forward(self, x: Tensor, *levels: object, **kwargs: object) -> Tensor:
        """Refuse to be called as a denoiser.

        Raises:
            TypeError: always, in one sentence.
        """
        raise TypeError(self.refuse())
