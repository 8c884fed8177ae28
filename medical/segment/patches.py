"""Training patches of PET/CT: half of them with tumour, mirrored, re-exposed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medical.segment.intensity import Intensity, mask_tensor
from medical.segment.network import BLANK
from medical.segment.pair import Pair
from operators.validate import whole

GAIN, SHIFT = 0.1, 0.04  # of uptake, relative; of CT numbers, 0.04 being 10 HU


class Case(NamedTuple):
    """A patient: PET and CT `(2, D, H, W)` in [-1, 1], mask `(1, D, H, W)` of zeros and ones."""

    images: Tensor
    mask: Tensor

    @classmethod
    def of(cls, pair: Pair, intensity: Intensity) -> "Case":
        """From a pair with its mask."""
        return cls(intensity.tensor(pair)[0], mask_tensor(pair)[0])


class MaskPatches:
    """Draws batches from cases.

    Args:
        cases: at least one; the smaller ones are padded with air.
        size: side of a patch in voxels.
        batch: patches.
        foreground: share of the patches that are made to hold a voxel of a tumour.
        mirror: flip left and right, the one symmetry that patients have.

    Raises:
        ValueError: no cases, or not one voxel of tumour in all of them.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        size: int = 32,
        batch: int = 4,
        *,
        foreground: float = 0.5,
        mirror: bool = True,
    ) -> None:
        self.size = whole("size", size, low=1, do="raise it")
        self.batch = whole("batch", batch, low=1, do="raise it")
        self.foreground, self.mirror = foreground, mirror
        self.cases = [_padded(case, size) for case in cases]
        self.tumours = [case.mask[0].nonzero() for case in self.cases]
        if not any(map(len, self.tumours)):
            raise ValueError(
                f"none of {len(self.cases)} cases has a voxel of tumour in its mask, expected "
                "some; check the labels."
            )

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw `(B, 2, size, size, size)` and `(B, 1, size, size, size)`."""
        drawn = [self._one(generator) for _ in range(self.batch)]
        images, masks = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        return images, masks

    def _one(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        u = torch.rand(4, generator=generator)
        i = int(torch.randint(len(self.cases), (), generator=generator))
        images, mask = self.cases[i]
        free = torch.tensor(images.shape[1:]) - self.size
        first = (torch.rand(3, generator=generator) * (free + 1)).long()
        if u[0] < self.foreground and len(self.tumours[i]):
            voxels = self.tumours[i]
            voxel = voxels[int(torch.randint(len(voxels), (), generator=generator))]
            inside = (torch.rand(3, generator=generator) * self.size).long()
            first = (voxel - inside).clamp_min(0).minimum(free)
        here = (..., *(slice(int(a), int(a) + self.size) for a in first))
        images, mask = _exposed(images[here], u), mask[here]
        if self.mirror and u[1] < 0.5:
            images, mask = images.flip(-1), mask.flip(-1)
        return images, mask


def _exposed(images: Tensor, u: Tensor) -> Tensor:
    """PET with another gain, CT with another zero; air and no uptake stay what they are."""
    pet, ct = images
    gain, shift = 1 + GAIN * (2 * u[2] - 1), SHIFT * (2 * u[3] - 1)
    return torch.stack([((pet + 1) * gain - 1).clamp(-1, 1), (ct + shift).clamp(-1, 1)])


def _padded(case: Case, size: int) -> Case:
    margins = [m for n in reversed(case.mask.shape[1:]) for m in (0, max(0, size - n))]
    if not any(margins):
        return case
    return Case(F.pad(case.images, margins, value=BLANK), F.pad(case.mask, margins))
