"""Priors against classical denoisers on held-out photographs.

Seven photographs that ship with scikit-image, scikit-learn and PyWavelets, and on which no shipped
prior was trained; Gaussian noise from a fixed seed per image; every method sees the same noisy
images and the true noise level. Results are clipped to [0, 1], and PSNR is averaged over images.

    BM3D            package `bm3d` at its defaults; a colour image channel by channel
    CBM3D           the same package's method for colour, which finds its blocks in the luminance
    NLM             scikit-image's non-local means, `h = 0.8 sigma`
    Wiener, corpus  the power law fitted to the training photographs, stored in the prior's file
    Wiener, test    a Wiener filter that knows the mean spectrum of the very images of the test

The last is an oracle: no other filter that scales cosine coefficients, the same for all images,
has a smaller expected error on them before clipping. Where a prior has handed over to its power law
(from `sigma` = 1 in those that ship) it is the first Wiener filter itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priors import Denoiser, Gaussian
from priors.bases import Cosine
from priors.networks import Handover
from restore.metrics import psnr

Method = Callable[[Tensor, float], Tensor]  # noisy (1, C, H, W), sigma -> clean

SIGMAS = (15 / 255, 25 / 255, 50 / 255, 0.5, 1.0, 3.0)
WIENER = ("Wiener, corpus", "Wiener, test")
_HIGHEST_FOR_PATCHES = 0.3  # above, block matching finds nothing and only Wiener is a rival


@dataclass(frozen=True)
class Row:
    """One noise level.

    Attributes:
        prior: name of the prior.
        sigma: std of the noise in units of a [0, 1] image.
        images: names of the photographs.
        scores: method -> PSNR in dB of every photograph; the prior stands first.
    """

    prior: str
    sigma: float
    images: tuple[str, ...]
    scores: Mapping[str, tuple[float, ...]]

    @property
    def psnr(self) -> dict[str, float]:
        """Method -> mean PSNR in dB."""
        return {name: float(np.mean(values)) for name, values in self.scores.items()}

    @property
    def gaps(self) -> dict[str, float]:
        """Rival -> how many dB the prior is above it; of the Wiener filters only the better."""
        mean = self.psnr
        best = max((name for name in WIENER if name in mean), key=lambda name: mean[name])
        rivals = [name for name in mean if name not in (self.prior, *WIENER)]
        return {name: mean[self.prior] - mean[name] for name in (*rivals, best)}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return asdict(self) | {"n": len(self.images), "psnr": self.psnr, "gaps": self.gaps}


def photographs(channels: int, *, size: int = 256) -> dict[str, Tensor]:
    """Name -> central crop `(1, C, size, size)`, float32 in [0, 1].

    Args:
        channels: 1 for all photographs in grey (`skimage.color.rgb2gray`), 3 for those in colour.
        size: side in pixels.

    Raises:
        ValueError: other channels, or scikit-learn or PyWavelets are not installed.
    """
    if channels not in (1, 3):
        raise ValueError(
            f"the photographs have 1 or 3 channels, the prior {channels}; take others."
        )
    from skimage import data
    from skimage.color import rgb2gray

    sample = _development("sklearn.datasets").load_sample_image
    arrays = {name: getattr(data, name)() for name in ("camera", "astronaut", "chelsea", "coffee")}
    arrays |= {name: sample(f"{name}.jpg") for name in ("china", "flower")}
    arrays["aero"] = _development("pywt.data").aero()
    crops = {}
    for name, array in arrays.items():
        x = array / 255
        if channels == 3 and x.ndim == 2:
            continue
        x = rgb2gray(x) if channels == 1 and x.ndim == 3 else x
        top, left = ((side - size) // 2 for side in x.shape[:2])
        crop = torch.from_numpy(x[top : top + size, left : left + size]).float()
        crops[name] = (crop if crop.ndim == 3 else crop[..., None]).permute(2, 0, 1)[None]
    return crops


def run(
    prior: Denoiser,
    images: Mapping[str, Tensor],
    *,
    sigmas: Sequence[float] = SIGMAS,
    bm3d: bool = True,
) -> Iterator[Row]:
    """Denoise every image at every noise level by every method.

    Args:
        prior: what is tested.
        images: name -> clean image `(1, C, H, W)` in [0, 1], all of one size.
        sigmas: noise levels.
        bm3d: False leaves BM3D out.

    Yields:
        One `Row` a noise level.

    Raises:
        ValueError: the prior does not take these images, or `bm3d` is not installed.
    """
    if refusal := prior.refuse(tuple(next(iter(images.values())).shape)):
        raise ValueError(refusal)
    wiener: dict[str, Method] = {WIENER[1]: fitted_wiener(torch.cat(list(images.values())))}
    if isinstance(prior, Handover):
        wiener = {WIENER[0]: prior.gaussian} | wiener
    patches: dict[str, Method] = {"NLM": non_local_means}
    if bm3d and any(sigma <= _HIGHEST_FOR_PATCHES for sigma in sigmas):
        colour = prior.card.channels == 3
        patches = block_matching(colour=colour) | patches
    for sigma in sigmas:
        rivals = (patches if sigma <= _HIGHEST_FOR_PATCHES else {}) | wiener
        methods: dict[str, Method] = {prior.card.name: prior} | rivals
        scores: dict[str, list[float]] = {name: [] for name in methods}
        for seed, clean in enumerate(images.values()):
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
            noisy = clean + sigma * noise
            for name, method in methods.items():
                with torch.no_grad():
                    scores[name].append(float(psnr(method(noisy, sigma), clean)))
        frozen = {name: tuple(values) for name, values in scores.items()}
        yield Row(prior.card.name, sigma, tuple(images), frozen)


def fitted_wiener(images: Tensor) -> Method:
    """Build the Wiener filter that knows the mean spectrum of `images` `(B, C, H, W)`.

    Colours are first turned into the components that are uncorrelated in these images.
    """
    x = images.double()
    mean = x.mean((0, 2, 3))
    centred = x - mean[:, None, None]
    columns = torch.linalg.eigh(torch.einsum("bchw,bdhw->cd", centred, centred))[1]
    power = Cosine().analyse(torch.einsum("ck,bchw->bkhw", columns, centred)).square().mean(0)
    gaussian = Gaussian(torch.zeros_like(power), Cosine(), power)

    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        components = torch.einsum("ck,bchw->bkhw", columns, noisy - mean[:, None, None])
        return mean[:, None, None] + torch.einsum(
            "ck,bkhw->bchw", columns, gaussian(components, sigma)
        )

    return denoise


def non_local_means(noisy: Tensor, sigma: float) -> Tensor:
    """Denoise by scikit-image's non-local means at the true noise level.

    Patches are weighted evenly in grey and by a Gaussian in colour: each is the better one there.
    """
    from skimage.restoration import denoise_nl_means

    def method(x: np.ndarray) -> np.ndarray:
        grey = x.shape[-1] == 1
        return denoise_nl_means(
            x, 5, 6, h=0.8 * sigma, sigma=sigma, fast_mode=grey, channel_axis=-1
        )

    return _on_array(method, noisy)


def block_matching(*, colour: bool) -> dict[str, Method]:
    """BM3D and, for colour, CBM3D too.

    Raises:
        ValueError: the package is not installed.
    """
    package = _development("bm3d")

    def by_channel(noisy: Tensor, sigma: float) -> Tensor:
        def method(x: np.ndarray) -> np.ndarray:
            return np.stack([package.bm3d(x[..., c], sigma) for c in range(x.shape[-1])], -1)

        return _on_array(method, noisy)

    def together(noisy: Tensor, sigma: float) -> Tensor:
        return _on_array(lambda x: package.bm3d_rgb(x, sigma), noisy)

    return {"BM3D": by_channel} | ({"CBM3D": together} if colour else {})


def _on_array(method: Callable[[np.ndarray], np.ndarray], x: Tensor) -> Tensor:
    """Apply a method for arrays `(H, W, C)` to an image `(1, C, H, W)`."""
    array = x[0].permute(1, 2, 0).double().numpy()
    return torch.from_numpy(method(array).reshape(array.shape)).permute(2, 0, 1)[None]


def _development(module: str) -> Any:
    """Import what only the benches need."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the bench needs '{error.name}', which is not installed; install restore-imaging[dev]."
        ) from None
