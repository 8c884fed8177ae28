"""Stripes: a sensor of one line that scans the scene, its elements uneven or dead."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any, get_args

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from .mask import Direction
from .noise import noise_model
from .svd import SVD, Decomposed
from .validate import image_size, number, one_of, seeded


class Gains(Decomposed, LinearPhysics):
    """`y = g x` with numbers `g >= 0` shaped like `x`; where they are zero there is no noise."""

    gains: Tensor

    def __init__(self, gains: Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.img_size = tuple(gains.shape)
        self.register_buffer("gains", gains[None])

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Scale: `(B, C, *spatial)` to the same."""
        return self.gains * x

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        """The same."""
        return self.gains * y

    def noise(self, x: Tensor, **parameters: Any) -> Tensor:
        """Noise of the lines that are alive, as strong whatever their gain."""
        return torch.where(self.gains > 0, self.noise_model(x, **parameters), x)

    def svd(self) -> SVD:
        """`U = V = I`, `s = g`."""
        return SVD(self.gains, *[lambda x: x] * 4)


def stripes(
    image_shape: Sequence[int],
    *,
    dead: float = 0.1,
    strength: float = 0.1,
    direction: Direction = "vertical",
    seed: int = 0,
    noise: float = 0.0,
) -> Gains:
    """Striping and dead lines of a push-broom sensor: `y = g x`, one gain a line and band.

    Every detector element scans one line of one band; some are dead, the others respond unevenly.
    The gains are known, as after a flat-field calibration.

    Args:
        image_shape: `(bands, H, W)` of one clean cube.
        dead: fraction of the lines of a band that are missing, other lines in every band.
        strength: standard deviation of the gains about one; no gain falls below 0.1.
        direction: "vertical" or "horizontal" lines.
        seed: of the dead lines and the gains.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, bands, H, W)` to the same.

    Raises:
        ValueError: bad numbers, or every line dead.
    """
    bands, height, width = shape = image_size(image_shape)
    one_of("direction", direction, get_args(Direction))
    dead = number("dead", dead, low=0, high=1, do="give the fraction of dead lines")
    strength = number("strength", strength, low=0, high=1, do="give the spread of the gains")
    length = width if direction == "vertical" else height
    missing = round(dead * length)
    if missing == length:
        raise ValueError(f"all {length} lines of a band are dead, expected one alive; lower dead.")
    generator = seeded(seed)
    gains = torch.randn(bands, length, generator=generator, dtype=torch.float64)
    gains = (1 + strength * gains).clamp(min=0.1)
    for band in gains:
        band[torch.randperm(length, generator=generator)[:missing]] = 0
    lines = gains[:, None, :] if direction == "vertical" else gains[:, :, None]
    return Gains(lines.expand(shape).float(), noise_model=noise_model(noise))
