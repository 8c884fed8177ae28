"""JPEG: what is left of a picture after 8x8 cosine transforms, rounded.

The baseline codec of ITU-T T.81 with half-size chroma, as libjpeg has it: standard tables scaled by
the quality, pixels rounded to whole grey levels, chroma averaged over 2x2 of them and enlarged
linearly. A picture written and read by Pillow differs by about one grey level (root mean square).

Rounding is done in earnest and its derivative, zero, replaced by one: the straight-through
estimator (Bengio, Leonard and Courville, 2013). kornia's differentiable codec rounds smoothly
instead, its tables too: at quality 100 its quantisation step is 0.12 where every encoder's is 1.
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from deepinv.physics import Physics
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from .noise import noise_model
from .separable import Constant
from .validate import image_size, whole

# T.81, tables K.1 and K.2
LUMA = """
    16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55
    14 13 16 24  40  57  69  56   14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99
"""
CHROMA = (
    """
    17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99
    24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
"""
    + "99 " * 32
)

# JFIF: luma, and blue and red less luma, each in [-0.5, 0.5] of the range
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))

# a tie, common in whole-numbered pictures, must not be broken by rounding errors
_HAIR = 1e-3


class Jpeg(Physics):
    """Compress and decompress; see the module's docstring.

    Args:
        shape: `(1, H, W)` or `(3, H, W)` of one image.
        quality: from 1 to 100.
        **options: for deepinv's `Physics`.

    Attributes:
        surrogate: what stands for a derivative that is zero.
    """

    surrogate: ClassVar[str] = "rounding passes derivatives as they are"

    def __init__(self, shape: tuple[int, ...], quality: int, **options: Any) -> None:
        super().__init__(**options)
        self.img_size = shape
        self._luma, self._chroma = (Constant(_steps(t, quality)) for t in (LUMA, CHROMA))
        self._cosines = Constant(_cosines())
        mix = torch.tensor(TO_YCC, dtype=torch.float64)
        self._mix, self._unmix = Constant(mix), Constant(torch.linalg.inv(mix))

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Compress and decompress: `(B, C, H, W)` to the same, in [0, 1]."""
        channels, height, width = x.shape[1:]
        side = 8 if channels == 1 else 16
        x = pad(255 * x - 128, (0, -width % side, 0, -height % side), mode="replicate")
        if channels == 1:
            y = self._coded(x, self._luma)
        else:
            luma, chroma = torch.einsum("kc,bchw->bkhw", self._mix(x), x).split((1, 2), 1)
            small = self._coded(avg_pool2d(chroma, 2), self._chroma)
            large = interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
            coded = torch.cat([self._coded(luma, self._luma), large], 1)
            y = torch.einsum("ck,bkhw->bchw", self._unmix(x), coded)
        return ((y[..., :height, :width] + 128) / 255).clamp(0, 1)

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """The compressed image itself, where a solver may start."""
        return y

    def _coded(self, planes: Tensor, steps: Constant) -> Tensor:
        """Round to whole grey levels, then the cosine transform of every 8x8 block to steps."""
        cosines, size = self._cosines(planes), steps(planes)[:, None, :]
        blocks = _round(planes).unflatten(3, (-1, 8)).unflatten(2, (-1, 8))
        waves = torch.einsum("ui,bcyixj,vj->bcyuxv", cosines, blocks, cosines)
        rounded = size * _round(waves / size)
        blocks = torch.einsum("ui,bcyuxv,vj->bcyixj", cosines, rounded, cosines)
        return blocks.flatten(4, 5).flatten(2, 3)


def jpeg(image_shape: Sequence[int], *, quality: int = 10, noise: float = 0.0) -> Jpeg:
    """JPEG compression: 8x8 cosine transforms rounded to steps, with half-size chroma.

    Args:
        image_shape: `(1, H, W)` or `(3, H, W)` of one clean image.
        quality: from 1, coarse, to 100.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Nonlinear operator from `(B, C, H, W)` to the same; its derivative is that without rounding.

    Raises:
        ValueError: other than 1 or 3 channels, or a bad quality.
    """
    shape = image_size(image_shape)
    if shape[0] not in (1, 3):
        raise ValueError(
            f"the image has {shape[0]} channels, expected 1 or 3; JPEG knows no other."
        )
    quality = whole("quality", quality, low=1, high=100, do="give the usual number")
    return Jpeg(shape, quality, noise_model=noise_model(noise))


def _round(q: Tensor) -> Tensor:
    """To the nearest whole number, ties away from zero, with derivative one."""
    nearest = q.sign() * (q.abs() + 0.5 + _HAIR).floor()
    return nearest.detach() + (q - q.detach())


def _steps(table: str, quality: int) -> Tensor:
    """Quantisation steps `(8, 8)` of libjpeg at a quality."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = [min(max((scale * int(step) + 50) // 100, 1), 255) for step in table.split()]
    return torch.tensor(steps, dtype=torch.float64).reshape(8, 8)


def _cosines() -> Tensor:
    """The orthonormal cosine transform of eight numbers, `(8, 8)`."""
    i = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi / 8 * i[:, None] * (i + 0.5)) / 2
    rows[0] /= math.sqrt(2)
    return rows
