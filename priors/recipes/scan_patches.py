"""Training patches from medical slices, drawn by patient and varied.

A patient with three hundred slices must not drown one with a single slice: the patient is drawn
first, by its share, then one of its axes, a slice, a place and a size. CT values are physical and
stay as they are; MR intensities mean nothing absolute, so they are re-exposed, and half of the
patches become the real part of a complex image with a smooth phase, so that one prior serves
magnitude images and each channel of complex ones.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from priors.patches import turn

_PICK_RICHER = 0.6
_GAMMA = 0.25
_CURVE = 0.20
_KNOTS = 6
_PHASE = 0.5
_PLAIN_PHASE = 0.3


class ScanPatches:
    """A source of clean patches of one modality.

    Args:
        stacks: slices `(N, H, W)` of every patient, one stack an axis, in the prior's range.
        shares: how often each patient is drawn, in proportion.
        reduce: factors `(smallest, largest)` by which the crops of each patient may be shrunk.
        modality: "ct" or "mr".
        size: side of the square patches.
        batch: patches a draw.

    Raises:
        ValueError: without patients, when a share or a factor is missing or a slice is too small.
    """

    def __init__(
        self,
        stacks: Mapping[str, Sequence[Tensor]],
        shares: Mapping[str, float],
        reduce: Mapping[str, tuple[float, float]],
        *,
        modality: str,
        size: int = 64,
        batch: int = 8,
    ) -> None:
        if not stacks or not stacks.keys() <= shares.keys() & reduce.keys():
            raise ValueError(
                f"every patient needs a share and factors, found stacks of {sorted(stacks)}, "
                f"shares of {sorted(shares)} and factors of {sorted(reduce)}; correct these."
            )
        for name, axes in stacks.items():
            if any(min(stack.shape[1:]) < size for stack in axes):
                raise ValueError(
                    f"patient '{name}' has slices of {[tuple(s.shape[1:]) for s in axes]}, "
                    f"expected both sides >= {size} pixels; leave it out."
                )
        self.stacks = [list(axes) for axes in stacks.values()]
        self.shares = torch.tensor([shares[name] for name in stacks], dtype=torch.float64)
        self.reduce = [reduce[name] for name in stacks]
        self.modality, self.size, self.batch = modality, size, batch

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Draw `(batch, 1, size, size)` float32 patches."""
        patches = [self._varied(self._patch(generator), generator) for _ in range(self.batch)]
        return torch.stack(patches)

    def plain(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, 1, size, size)` patches as the network sees them, for statistics."""
        patches = [self._patch(generator) for _ in range(count)]
        return torch.stack([self._signed(patch, generator) for patch in patches])

    def _varied(self, patch: Tensor, generator: torch.Generator) -> Tensor:
        turned = turn(patch, int(torch.randint(8, (), generator=generator)))
        if self.modality == "ct":
            return turned
        return self._signed(re_exposed(turned, generator), generator)

    def _signed(self, patch: Tensor, generator: torch.Generator) -> Tensor:
        if self.modality == "ct" or float(torch.rand((), generator=generator)) >= _PHASE:
            return patch
        return patch * smooth_phase(self.size, generator).cos()

    def _patch(self, generator: torch.Generator) -> Tensor:
        """Draw a crop; of two, usually the one with more in it."""
        patient = int(torch.multinomial(self.shares, 1, generator=generator))
        u = torch.rand(6, generator=generator).tolist()
        axes = self.stacks[patient]
        stack = axes[int(u[0] * len(axes))]
        scan = stack[int(u[1] * len(stack))]
        low, high = self.reduce[patient]
        side = min(round(self.size * (low + (high - low) * u[2])), *scan.shape)
        first = self._crop(scan, side, u[3], u[4])
        if u[5] >= _PICK_RICHER:
            return first
        u = torch.rand(2, generator=generator).tolist()
        return max(first, self._crop(scan, side, u[0], u[1]), key=_roughness)

    def _crop(self, scan: Tensor, side: int, u: float, v: float) -> Tensor:
        top = int(u * (scan.shape[0] - side + 1))
        left = int(v * (scan.shape[1] - side + 1))
        crop = scan[None, top : top + side, left : left + side].float()
        if side == self.size:
            return crop
        shape = (self.size, self.size)
        return F.interpolate(crop[None], shape, mode="bilinear", antialias=True)[0]


def re_exposed(patch: Tensor, generator: torch.Generator) -> Tensor:
    """Change the brightness and the contrast of a magnitude patch, as another sequence might."""
    u = torch.rand(4, generator=generator).tolist()
    patch = patch * 2 ** (1.2 * u[0] - 0.8)
    if u[1] < _GAMMA:
        patch = patch.clamp_min(0) ** (0.7 * 2 ** u[2])
    if u[3] < _CURVE:
        patch = curve(patch, torch.rand(_KNOTS - 1, generator=generator))
    return patch


def curve(patch: Tensor, heights: Tensor) -> Tensor:
    """Map intensities along a random polygon through 0: air stays dark, tissues trade places."""
    heights = torch.cat([torch.zeros(1), heights])
    at = (patch.clamp(0, 1.2) / 1.2) * (len(heights) - 1)
    left = at.long().clamp_max(len(heights) - 2)
    return torch.lerp(heights[left], heights[left + 1], at - left)


def smooth_phase(size: int, generator: torch.Generator) -> Tensor:
    """Draw a phase `(size, size)` in radians: constant, or a slow ramp with some curvature."""
    u = torch.rand(6, generator=generator).tolist()
    start = torch.tensor(2 * math.pi * u[0])
    if u[1] < _PLAIN_PHASE:
        return start.expand(size, size)
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle, slope = 2 * math.pi * u[2], math.pi * u[3]
    ramp = slope * (x * math.cos(angle) + y * math.sin(angle))
    return start + ramp + (2 * u[4] - 1) * x * y + (2 * u[5] - 1) * (x.square() - y.square())


def _roughness(patch: Tensor) -> float:
    return float(patch.diff(dim=1).abs().mean() + patch.diff(dim=2).abs().mean())
