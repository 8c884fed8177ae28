"""Trajectories through k-space: points in cycles per pixel, from -0.5 to 0.5 along every axis."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..validate import number, one_of, whole

GOLDEN = (math.sqrt(5) - 1) / 2
# golden means in two dimensions (Chan et al., Magnetic Resonance in Medicine 61, 2009)
MEANS = (0.465571231876768, 0.682327803828019)


def trajectory_points(
    name: str,
    size: Sequence[int],
    *,
    shots: int,
    samples: int | None = None,
    turns: float = 4.0,
    golden: bool = False,
) -> Tensor:
    """The points of a trajectory by its name.

    Args:
        name: "radial" or "spiral".
        size: `(H, W)` or `(D, H, W)`.
        shots: number of spokes or of interleaved spirals.
        samples: of one shot; by default two per pixel along a spoke, one along a spiral.
        turns: of one spiral.
        golden: turn from shot to shot by the golden angle instead of evenly.

    Returns:
        `(shots * samples, 2 or 3)`, float64.

    Raises:
        ValueError: bad numbers, an unknown name, or spirals through a volume.
    """
    one_of("trajectory", name, ("radial", "spiral"))
    shots = whole("shots", shots, low=1, do="give the number of spokes or spirals")
    turns = number("turns", turns, above=0, do="give the turns of one spiral")
    if name == "spiral" and len(size) == 3:
        raise ValueError(
            "a spiral is flat but the image is a volume, expected a flat image; "
            "write slices:axis=0|noncartesian:trajectory=spiral."
        )
    pixels = max(size)
    if samples is None:
        # a spiral of n turns is pi n / 2 times as long as k-space is wide
        samples = 2 * pixels if name == "radial" else math.ceil(math.pi / 2 * turns * pixels)
    samples = whole("samples", samples, low=1, do="give the number of samples of one shot")
    if len(size) == 3:
        return spokes(ball(shots), samples)
    if name == "radial":
        return spokes(circle(shots, math.pi, golden), samples)
    return spirals(circle(shots, 2 * math.pi, golden), samples, turns)


def circle(shots: int, span: float, golden: bool) -> Tensor:
    """Directions `(shots, 2)`, evenly over an angle or each a golden part of it further.

    Winkelmann et al., IEEE Transactions on Medical Imaging 26, 2007.
    """
    angle = torch.arange(shots, dtype=torch.float64) * span * (GOLDEN if golden else 1 / shots)
    return torch.stack((torch.sin(angle), torch.cos(angle)), 1)


def ball(shots: int) -> Tensor:
    """Directions `(shots, 3)` over half the sphere, by the golden means."""
    shot = torch.arange(shots, dtype=torch.float64)
    height, angle = shot * MEANS[0] % 1, 2 * math.pi * shot * MEANS[1]
    radius = (1 - height**2).sqrt()
    return torch.stack((height, radius * torch.sin(angle), radius * torch.cos(angle)), 1)


def spokes(directions: Tensor, samples: int) -> Tensor:
    """Evenly spaced points from border to border, one of them in the middle."""
    radius = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    return (directions[:, None] * radius[:, None]).flatten(0, 1)


def spirals(starts: Tensor, samples: int, turns: float) -> Tensor:
    """Archimedean spirals from the middle to the border, at nearly constant speed."""
    time = (torch.arange(samples, dtype=torch.float64) / samples).sqrt()
    turn = 2 * math.pi * turns * time
    sin, cos = torch.sin(turn), torch.cos(turn)
    dy, dx = starts[:, :1], starts[:, 1:]
    points = torch.stack((dy * cos + dx * sin, dx * cos - dy * sin), -1)
    return (points * time[:, None] / 2).flatten(0, 1)


def checked_points(points: Tensor, dims: int) -> Tensor:
    """Points of one's own, if they lie in k-space.

    Raises:
        ValueError: another shape, or points beyond half a cycle per pixel.
    """
    if points.ndim != 2 or points.shape[1] != dims or len(points) == 0:
        raise ValueError(
            f"the trajectory has shape {tuple(points.shape)}, expected (S, {dims}); "
            "flatten the shots and give one point a row."
        )
    if points.is_complex() or not (points.abs() <= 0.5).all():
        raise ValueError(
            "the trajectory has points beyond 0.5, expected cycles per pixel from -0.5 to 0.5; "
            "divide radians by 2 pi."
        )
    return points.detach().double()
