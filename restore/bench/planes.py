"""How near a volume is to the truth, looked at in its three planes.

A volume is read slice by slice, and a method that treats one plane well may tear the others. Every
score is taken in every slice of an orientation and averaged over slices; the data range is that of
the true slice, and **only voxels of the body count**: air around it is easy, and would raise every
score. Slices that hold little of the body, or a single value, are left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore.metrics import SSIM_WINDOW

PLANES = ("axial", "coronal", "sagittal")  # across D, H and W

_AIR = 0.05  # of the largest value
_LEAST = 0.25  # of the fullest slice's body


@dataclass(frozen=True)
class Scores:
    """Of one volume.

    Attributes:
        psnr: dB in each of `PLANES`.
        ssim: in each of `PLANES`; NaN where a slice is smaller than the window.
        jump: rms error of the differences between neighbours along D.
        roughness: mean absolute difference between neighbours along D over that of the truth; 1
            when slices vary as they should, less when they are smeared.
    """

    psnr: tuple[float, float, float]
    ssim: tuple[float, float, float]
    jump: float
    roughness: float


def body(truth: Tensor) -> Tensor:
    """Voxels `(D, H, W)` of `(1, 1, D, H, W)` that are not air around the body.

    Those above 5 % of the largest value, and what they enclose in their slice across D.
    """
    from scipy.ndimage import binary_fill_holes

    solid = (truth[0, 0] > _AIR * truth.max()).cpu().numpy()
    return torch.from_numpy(np.stack([np.asarray(binary_fill_holes(one)) for one in solid]))


def score(x: Tensor, truth: Tensor, mask: Tensor | None = None) -> Scores:
    """Compare a volume with the truth.

    Args:
        x: volume `(1, 1, D, H, W)`, clipped to [0, 1] here.
        truth: in [0, 1].
        mask: voxels `(D, H, W)` that count; `body(truth)` by default.

    Raises:
        ValueError: other shapes, or a mask without voxels.
    """
    mask = body(truth) if mask is None else mask
    if x.shape != truth.shape or truth.shape[:2] != (1, 1) or mask.shape != truth.shape[2:]:
        raise ValueError(
            f"cannot compare {tuple(x.shape)} with {tuple(truth.shape)} inside "
            f"{tuple(mask.shape)}; expected volumes (1, 1, D, H, W) and a mask (D, H, W)."
        )
    if not bool(mask.any()):
        raise ValueError("the mask holds no voxel; the volume is empty, or give another.")
    a, b = (v[0, 0].detach().cpu().double().clamp(0, 1) for v in (x, truth))
    found = [_plane(*(v.movedim(axis, 0) for v in (a, b, mask))) for axis in range(3)]
    (p0, s0), (p1, s1), (p2, s2) = found
    both = mask[1:] & mask[:-1]
    jumps, true = a.diff(dim=0)[both], b.diff(dim=0)[both]
    return Scores(
        psnr=(p0, p1, p2),
        ssim=(s0, s1, s2),
        jump=float((jumps - true).square().mean().sqrt()),
        roughness=float(jumps.abs().mean() / true.abs().mean()),
    )


def _plane(x: Tensor, truth: Tensor, mask: Tensor) -> tuple[float, float]:
    """PSNR and SSIM, averaged over the slices `x[i]` that hold enough of the body."""
    area = mask.flatten(1).sum(1)
    varies = truth.flatten(1).amax(1) > truth.flatten(1).amin(1)
    chosen = torch.nonzero((area >= _LEAST * area.max()) & varies).flatten().tolist()
    pairs = [_slice(x[i], truth[i], mask[i]) for i in chosen]
    return float(np.mean([p for p, _ in pairs])), float(np.mean([s for _, s in pairs]))


def _slice(x: Tensor, truth: Tensor, mask: Tensor) -> tuple[float, float]:
    from skimage.metrics import structural_similarity

    width = float(truth.max() - truth.min())
    error = (x - truth)[mask].square().mean()
    decibels = float(10 * torch.log10(width**2 / error))
    if min(x.shape) < SSIM_WINDOW:
        return decibels, float("nan")
    found: Any = structural_similarity(
        x.numpy(),
        truth.numpy(),
        data_range=width,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return decibels, float(found[1][mask.numpy()].mean())
