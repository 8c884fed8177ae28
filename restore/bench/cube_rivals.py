"""What classical methods make of a cube, each at the setting that the truth likes best.

An oracle that no user has: upper bounds of what these methods give in practice.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from deepinv.physics import Downsampling, Inpainting, Physics
from torch import Tensor

from operators import noise_sigma
from restore.metrics import band_psnr

Candidate = tuple[str, Tensor]

_TV = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # weights, in noise stds
_EIGEN = (4, 6, 8, 10)  # eigenimages that TV is tried on


def best_of_each(y: Tensor, operator: Physics, truth: Tensor) -> Iterator[Candidate]:
    """The best restoration of each method that fits the operator.

    Args:
        y: one measured cube `(1, ...)`.
        operator: noise, missing entries or downsampling.
        truth: the clean cube `(1, C, H, W)`, which chooses among the settings.

    Yields:
        Name with settings, and the cube `(1, C, H, W)`.
    """
    sigma = float(noise_sigma(operator))
    start, what = filled(y, operator, truth)
    if what:
        yield what, start
    methods: tuple[Callable[[Tensor, float], Iterator[Candidate]], ...]
    methods = truncated, band_tv, eigen_tv
    for method in methods:
        scored = [(float(band_psnr(x, truth).mean()), n, x) for n, x in method(start, sigma)]
        _, name, x = max(scored, key=lambda entry: entry[0])
        yield (f"{what} + {name}" if what else name), x


def filled(y: Tensor, operator: Physics, truth: Tensor) -> tuple[Tensor, str]:
    """A cube of full size, by interpolation of every band where entries are missing."""
    from skimage.transform import resize

    if isinstance(operator, Inpainting):
        mask = torch.as_tensor(operator.mask)[0]
        bands = [_linear(band, seen) for band, seen in zip(y[0], mask, strict=True)]
        return torch.stack(bands)[None], "linear interpolation"
    if isinstance(operator, Downsampling):
        size = truth.shape[2:]
        large = [np.asarray(resize(b, size, order=3, mode="symmetric")) for b in y[0].numpy()]
        return torch.from_numpy(np.stack(large))[None].to(y), "bicubic"
    return y, ""


def truncated(y: Tensor, sigma: float = 0.0) -> Iterator[Candidate]:
    """Truncated singular value decompositions of the bands."""
    U, s, Vt = torch.linalg.svd(y[0].flatten(1).double(), full_matrices=False)
    for R in range(1, len(s)):
        cube = (U[:, :R] * s[:R]) @ Vt[:R]
        yield f"SVD of rank {R}", cube.reshape(y.shape).to(y)


def band_tv(y: Tensor, sigma: float) -> Iterator[Candidate]:
    """Total variation of every band alone."""
    for level in _TV:
        yield f"TV {level:g} a band", _tv(y[0], level * sigma)[None]


def eigen_tv(y: Tensor, sigma: float) -> Iterator[Candidate]:
    """Total variation of a few eigenimages, in whose orthonormal basis noise stays white."""
    U, _, _ = torch.linalg.svd(y[0].flatten(1).double(), full_matrices=False)
    for R in _EIGEN:
        basis = U[:, :R].to(y)
        images = torch.einsum("cr,chw->rhw", basis, y[0])
        for level in _TV:
            smooth = _tv(images, level * sigma)
            cube = torch.einsum("cr,rhw->chw", basis, smooth)[None]
            yield f"SVD of rank {R}, TV {level:g}", cube


def _tv(images: Tensor, weight: float) -> Tensor:
    from skimage.restoration import denoise_tv_chambolle

    smooth = [denoise_tv_chambolle(image, weight=weight) for image in images.double().numpy()]
    return torch.from_numpy(np.stack(smooth)).to(images)


def _linear(band: Tensor, mask: Tensor) -> Tensor:
    from scipy.interpolate import griddata

    values, seen = band.double().numpy(), mask.numpy() > 0
    where, everywhere = np.argwhere(seen), np.argwhere(np.ones_like(seen))
    inside = griddata(where, values[seen], everywhere, method="linear")
    nearest = griddata(where, values[seen], everywhere, method="nearest")
    whole = np.where(np.isnan(inside), nearest, inside).reshape(values.shape)
    return torch.from_numpy(whole).to(band)
