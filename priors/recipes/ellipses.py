"""Random pictures of overlapping ellipses, the textbook training data of tomography."""

import math

import torch
from torch import Tensor

COUNT = 40
MEAN_SIDE = 0.2


def ellipses(size: int, generator: torch.Generator) -> Tensor:
    """Draw one picture `(size, size)` in [0, 1]: many ellipses whose grey values add up.

    Sides and contrasts are exponentially distributed (few large and strong, many small and weak);
    half of the pictures have contrasts a tenth as strong, as soft tissues have.
    """
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    u = torch.rand((COUNT, 6), generator=generator, dtype=torch.float64)
    faint = float(torch.rand((), generator=generator)) < 0.5
    picture = torch.full((size, size), 0.35 if faint else 0.0)
    for sign, tall, wide, top, left, turn in u.tolist():
        a, b = (0.01 - MEAN_SIDE * math.log(1 - t) for t in (tall, wide))
        cos, sin = math.cos(math.pi * turn), math.sin(math.pi * turn)
        dy, dx = y - (2 * top - 1), x - (2 * left - 1)
        inside = ((dx * cos + dy * sin) / a).square() + ((dy * cos - dx * sin) / b).square() <= 1
        picture += (0.04 if faint else 0.4) * (sign - (0.5 if faint else 0.35)) * inside
    return picture.clamp(0, 1)
