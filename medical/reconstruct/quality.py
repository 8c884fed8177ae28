"""How near a restored scan is to the truth, plane by plane, where the patient is.

Air around a patient is easy, and would flatter every number; only voxels of the body count. PSNR
and SSIM are means over the slices of a plane, as papers report them, relative to one width for the
whole scan. What no plane shows is whether slices fit each other: the error of the steps from slice
to slice says that.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medical.geometry import PLANES, Plane
from medical.intensity import IntensityMap
from medical.volume import Volume

BODY = 0.1  # of the prior's range: -700 HU
_OPPOSITE = dict(zip("RASLPI", "LPIRAS", strict=True))
_WINDOW = 11  # pixels, of SSIM
_FEWEST = 64  # voxels of the body in a slice that counts


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Against the truth, inside the body.

    Attributes:
        psnr: dB in each plane; infinite where nothing is wrong.
        ssim: in each plane; None where a slice is too small for it.
        step: mean error of the differences between neighbouring slices, in units of the scan.
        error: root mean square error, in units of the scan.
        width: what counts as the full range, in units of the scan.
    """

    psnr: dict[Plane, float]
    ssim: dict[Plane, float | None]
    step: float
    error: float
    width: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def quality(x: Volume, truth: Volume, *, width: float, plane: Plane, body: Tensor) -> Quality:
    """Compare two scans on one grid, slice by slice, without a copy of either.

    Args:
        x: restored, one channel.
        truth: the same grid and units.
        width: of the full range, in units of the scan.
        plane: whose slices are to fit each other.
        body: voxels that count, bool `(I, J, K)`.
    """
    psnr: dict[Plane, float] = {}
    ssim: dict[Plane, float | None] = {}
    for view in get_args(Plane):
        scores = [
            _slice(a.numpy(), b.numpy(), m.numpy(), width)
            for a, b, m in _slices(truth, view, x.data[0], truth.data[0], body)
            if int(m.sum()) >= _FEWEST
        ]
        found = [similar for _, similar in scores if similar is not None]
        psnr[view] = (
            float(np.mean([decibels for decibels, _ in scores])) if scores else float("nan")
        )
        ssim[view] = float(np.mean(found)) if found else None
    return Quality(
        psnr=psnr,
        ssim=ssim,
        step=_step(x, truth, plane, body),
        error=_error(x, truth, plane, body),
        width=width,
    )


def _slices(volume: Volume, plane: Plane, *parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Slices of a plane of tensors `(I, J, K)`; which way they are turned does not matter here."""
    letter = PLANES[plane][0]
    axis = next(i for i, c in enumerate(volume.orientation) if c in (letter, _OPPOSITE[letter]))
    return zip(*(part.unbind(axis) for part in parts), strict=True)


def _error(x: Volume, truth: Volume, plane: Plane, body: Tensor) -> float:
    total = count = 0.0
    for a, b, m in _slices(truth, plane, x.data[0], truth.data[0], body):
        total += float((a - b)[m].double().square().sum())
        count += float(m.sum())
    return math.sqrt(total / count) if count else float("nan")


def body_of(line: IntensityMap, stack: Tensor) -> Tensor:
    """Where the patient is: bright voxels and what they enclose in a slice.

    Args:
        line: to the prior's range, in which air is 0.
        stack: in units of the scan `(D, H, W)`.

    Returns:
        Bool `(D, H, W)`; everywhere, where nothing is bright.
    """
    body = stack > float(line.inverse(torch.tensor(BODY)))
    for image in body:
        image.copy_(torch.from_numpy(ndimage.binary_fill_holes(image.numpy())))
    return body if bool(body.any()) else torch.ones_like(body)


def _slice(
    a: np.ndarray, b: np.ndarray, inside: np.ndarray, width: float
) -> tuple[float, float | None]:
    from skimage.metrics import structural_similarity

    error = float(np.square((a - b)[inside], dtype=np.float64).mean())
    decibels = 10 * float(np.log10(width**2 / error)) if error > 0 else float("inf")
    if min(a.shape) < _WINDOW:
        return decibels, None
    _, similar = structural_similarity(  # pyright: ignore[reportAssignmentType]
        a.astype(np.float64),
        b.astype(np.float64),
        data_range=width,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return decibels, float(similar[inside].mean())


def _step(x: Volume, truth: Volume, plane: Plane, body: Tensor) -> float:
    total = count = 0.0
    each = _slices(truth, plane, x.data[0], truth.data[0], body)
    for (a, b, m), (c, d, n) in pairwise(each):
        total += float((c - a - d + b)[m | n].double().abs().sum())
        count += float((m | n).sum())
    return total / count if count else float("nan")
