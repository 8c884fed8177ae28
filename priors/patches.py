"""Training patches from a folder's worth of photographs, drawn for variety.

Photographs are large, soft at pixel level and mostly sky. Four choices make small sharp patches of
them: every scene is kept at three sizes, scenes are drawn by a low power of their area, of two
crops the one with more gradient is usually kept, and crops are flipped, inverted and re-exposed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_REDUCTIONS = {1: 0.40, 2: 0.35, 3: 0.25}
_AREA_POWER = 0.35
SMALLEST_SIDE = 128
_PICK_SHARPER = 0.75
_INVERT = 0.15
_GAMMA = 0.25


class Patches:
    """A source of clean training patches.

    Args:
        scenes: images `(C, H, W)` uint8, each side at least 128 pixels.
        size: side of the square patches, at most 128 pixels.
        batch: patches a draw.

    Raises:
        ValueError: without scenes, for a scene too small or not uint8, for patches too large.
    """

    def __init__(self, scenes: Sequence[Tensor], *, size: int = 64, batch: int = 8) -> None:
        if not scenes or not 0 < size <= SMALLEST_SIDE:
            raise ValueError(
                f"patches need scenes and a size of 1 to {SMALLEST_SIDE} pixels, found "
                f"{len(scenes)} scenes and size {size}; correct these."
            )
        self.size, self.batch = size, batch
        self.levels, weights = [], []
        for i, scene in enumerate(scenes):
            short = min(scene.shape[1:])
            if short < SMALLEST_SIDE or scene.dtype != torch.uint8:
                raise ValueError(
                    f"scene {i} is {scene.dtype} of shape {tuple(scene.shape)}, expected uint8 "
                    f"with both sides >= {SMALLEST_SIDE} pixels; leave it out."
                )
            kept = {k: w for k, w in _REDUCTIONS.items() if short >= k * SMALLEST_SIDE}
            area_weight = (scene.shape[1] * scene.shape[2]) ** _AREA_POWER
            for reduction, weight in kept.items():
                self.levels.append(_reduce(scene, reduction))
                weights.append(area_weight * weight / sum(kept.values()))
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Draw `(batch, C, size, size)` float32 patches in [0, 1]."""
        chosen = torch.multinomial(self.weights, self.batch, replacement=True, generator=generator)
        return torch.stack([self._patch(self.levels[i], generator) for i in chosen.tolist()])

    def plain_batch(self, generator: torch.Generator) -> Tensor:
        """Draw a batch of crops as the scenes have them, for validation."""
        return self.plain(self.batch, generator)

    def plain(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, size, size)` crops as the scenes have them, for statistics."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        where = torch.rand((count, 2), generator=generator).tolist()
        pairs = zip(chosen.tolist(), where, strict=True)
        return torch.stack([self._crop(self.levels[i], *uv) for i, uv in pairs])

    def _patch(self, scene: Tensor, generator: torch.Generator) -> Tensor:
        u = torch.rand(8, generator=generator).tolist()
        patch = self._crop(scene, u[0], u[1])
        if u[2] < _PICK_SHARPER:
            patch = max(patch, self._crop(scene, u[3], u[4]), key=_sharpness)
        patch = turn(patch, int(8 * u[5]))
        if u[6] < _INVERT:
            patch = 1 - patch
        if u[7] < _GAMMA:
            patch = patch ** (0.7 * 2 ** (u[7] / _GAMMA))
        return patch

    def _crop(self, scene: Tensor, u: float, v: float) -> Tensor:
        top = int(u * (scene.shape[1] - self.size + 1))
        left = int(v * (scene.shape[2] - self.size + 1))
        return scene[:, top : top + self.size, left : left + self.size].float() / 255


def _reduce(scene: Tensor, factor: int) -> Tensor:
    """Average blocks of `factor` x `factor` pixels."""
    if factor == 1:
        return scene
    return F.avg_pool2d(scene.float(), factor).round().to(torch.uint8)


def _sharpness(patch: Tensor) -> float:
    return float(patch.diff(dim=1).abs().mean() + patch.diff(dim=2).abs().mean())


def turn(patch: Tensor, which: int) -> Tensor:
    """Return one of the eight flips and quarter turns."""
    patch = patch.rot90(which % 4, (1, 2))
    return patch.flip(2) if which >= 4 else patch
