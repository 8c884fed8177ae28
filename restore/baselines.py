"""The best classical restorations of scikit-image, to be beaten honestly.

Every method is run at several settings and **the best one by PSNR against the truth is reported**:
an oracle that no user has, so these numbers are an upper bound of what the method gives in
practice. The diffusion solvers they are compared with get no such help.

- blur: Wiener filters then denoising, unsupervised Wiener, denoising then Richardson-Lucy.
- missing pixels: biharmonic, linear and cubic interpolation, then denoising.
- too small: denoising, then Lanczos or spline enlargement, sharpened or not.
- noise: total variation, non-local means, wavelets.
"""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from deepinv.physics import Blur, Denoising, Downsampling, Inpainting, Physics
from torch import Tensor

from operators import noise_sigma
from restore.metrics import psnr

Array = np.ndarray  # (H, W, C) float64, as scikit-image wants it
Candidate = tuple[str, Array]


@dataclass(frozen=True)
class Baseline:
    """The best classical restoration found.

    Attributes:
        name: method and settings, for a table.
        image: `(1, C, H, W)`, dtype and device of the measurement.
        psnr: dB against the truth.
    """

    name: str
    image: Tensor
    psnr: float


def best(y: Tensor, operator: Physics, truth: Tensor) -> Baseline:
    """Run the classical methods that fit the operator and keep the best.

    Args:
        y: one measurement `(1, ...)`.
        operator: blur, mask, downsample or denoise, as `operators.parse` builds them.
        truth: the clean image `(1, C, H, W)`, which chooses among the settings.

    Raises:
        ValueError: an operator for which there is no classical method here.
    """
    noisy, sigma = _to_array(y), float(noise_sigma(operator))
    match operator:
        case Downsampling():
            candidates = enlarge(noisy, truth.shape[-2] // y.shape[-2], sigma)
        case Blur() if y.shape == truth.shape:
            candidates = deblur(noisy, _plane(operator.filter), sigma)
        case Denoising():
            candidates = itertools.chain([("noisy", noisy)], denoise(noisy, sigma))
        case Inpainting() if _shared(operator.mask):
            candidates = inpaint(noisy, _plane(operator.mask) > 0, sigma)
        case _:
            raise ValueError(
                f"no classical baseline for operator {type(operator).__name__}; expected a "
                "circular blur, a mask that all channels share, downsampling or denoising."
            )
    scored = [(float(psnr(_to_tensor(x, y), truth)), name, x) for name, x in candidates]
    top, name, image = max(scored, key=lambda entry: entry[0])
    return Baseline(name, _to_tensor(image, y), top)


def deblur(y: Array, kernel: Array, sigma: float) -> Iterator[Candidate]:
    """Wiener and Richardson-Lucy deconvolution of `(H, W, C)` with a circular boundary."""
    from skimage.restoration import (
        denoise_tv_chambolle,
        richardson_lucy,
        unsupervised_wiener,
        wiener,
    )

    for balance in np.geomspace(1e-4, 1, 13):
        sharp = _per_channel(lambda c, b=balance: np.asarray(wiener(c, kernel, b, clip=False)), y)
        yield from _denoised(f"Wiener {balance:.2g}", sharp, sigma)
    yield (
        "unsupervised Wiener",
        _per_channel(lambda c: np.asarray(unsupervised_wiener(c, kernel, clip=False, rng=0)[0]), y),
    )
    edge = max(kernel.shape)
    for level in (0, 0.5, 1, 2):
        start = denoise_tv_chambolle(y, weight=2 * level * sigma, channel_axis=-1) if level else y
        wide = np.pad(start.clip(1e-3), [(edge, edge), (edge, edge), (0, 0)], mode="wrap")
        for rounds in (10, 20, 40, 80):
            sharp = _per_channel(
                lambda c, n=rounds: richardson_lucy(c, kernel, n, clip=False), wide
            )
            yield f"TV {level:g}, Richardson-Lucy {rounds}x", sharp[edge:-edge, edge:-edge]


def inpaint(y: Array, seen: Array, sigma: float) -> Iterator[Candidate]:
    """Interpolate the pixels of `(H, W, C)` that were not seen, then denoise."""
    from scipy.interpolate import griddata
    from skimage.restoration import inpaint_biharmonic

    where, everywhere = np.argwhere(seen), np.indices(seen.shape).reshape(2, -1).T
    nearest = griddata(where, y[seen], everywhere, method="nearest").reshape(y.shape)
    yield from _denoised("biharmonic", inpaint_biharmonic(y, ~seen, channel_axis=-1), sigma)
    for method in ("linear", "cubic"):
        try:
            filled = griddata(where, y[seen], everywhere, method=method).reshape(y.shape)
        except RuntimeError:  # Qhull: the seen pixels lie on one line
            continue
        filled = np.where(np.isnan(filled), nearest, filled)  # outside the hull
        yield from _denoised(method, filled, sigma)


def enlarge(y: Array, factor: int, sigma: float) -> Iterator[Candidate]:
    """Enlarge `(H, W, C)`, denoised or not, by interpolation; sharpen or not."""
    from skimage.filters import unsharp_mask
    from skimage.transform import resize

    size = y.shape[0] * factor, y.shape[1] * factor
    methods: dict[str, Callable[[Array], Array]] = {
        "bicubic": lambda x: np.asarray(resize(x, size, order=3, mode="edge", clip=False)),
        "quintic": lambda x: np.asarray(resize(x, size, order=5, mode="edge", clip=False)),
        "Lanczos": lambda x: _lanczos(x, size),
    }
    for method, up in methods.items():
        for name, small in _denoised(method, y, sigma):
            wide = up(small)
            yield name, wide
            for amount in (0.5, 1.0, 2.0):
                # by hand: scikit-image 0.26 fills 3 rows only when channel_axis is -1
                sharp = _per_channel(
                    lambda c, a=amount: np.asarray(
                        unsharp_mask(c, factor / 2, a, preserve_range=True)
                    ),
                    wide,
                )
                yield f"{name}, sharpened {amount:g}", sharp


def denoise(y: Array, sigma: float) -> Iterator[Candidate]:
    """Total variation, non-local means and wavelet shrinkage of `(H, W, C)`, weak to strong."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

    for level in (0.25, 0.5, 1, 2, 4, 8) if sigma > 0 else ():
        s = level * sigma
        yield f"TV {level:g}", denoise_tv_chambolle(y, weight=2 * s, channel_axis=-1)
        yield (
            f"non-local means {level:g}",
            denoise_nl_means(y, 5, 6, h=0.8 * s, sigma=s, fast_mode=True, channel_axis=-1),
        )
        if importlib.util.find_spec("pywt"):  # scikit-image's own optional dependency
            yield f"wavelets {level:g}", denoise_wavelet(y, sigma=s, channel_axis=-1)


def _denoised(name: str, x: Array, sigma: float) -> Iterator[Candidate]:
    yield name, x
    for after, clean in denoise(x, sigma):
        yield f"{name}, {after}", clean


def _per_channel(f: Callable[[Array], Array], x: Array) -> Array:
    return np.stack([f(x[..., c]) for c in range(x.shape[-1])], axis=-1)


def _lanczos(x: Array, size: tuple[int, int]) -> Array:
    import PIL.Image

    def one(plane: Array) -> Array:
        picture = PIL.Image.fromarray(plane.astype(np.float32))
        return np.asarray(picture.resize((size[1], size[0]), PIL.Image.Resampling.LANCZOS))

    return _per_channel(one, x)


def _shared(mask: Any) -> bool:
    """Whether all channels miss the same pixels."""
    return bool((mask == mask[:, :1]).all())


def _plane(t: object) -> Array:
    """The last two dimensions of a kernel or mask that is the same for every channel."""
    assert isinstance(t, Tensor)
    return t.detach().cpu().double().reshape(-1, *t.shape[-2:])[0].numpy()


def _to_array(t: Tensor) -> Array:
    return t[0].detach().cpu().double().permute(1, 2, 0).numpy()


def _to_tensor(x: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(x.transpose(2, 0, 1).copy())[None].to(like)
