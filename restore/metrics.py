"""How near a restored image is to the truth: PSNR and SSIM, one number per image.

Both compare what a viewer sees: the estimate is clipped to [0, 1] first (`clip=False` compares it
as it is). The data range is always 1.
"""

import torch
from torch import Tensor

SSIM_WINDOW = 11  # pixels: the Gaussian of std 1.5 of Wang et al., cut at 3.5 stds


def psnr(x: Tensor, truth: Tensor, *, clip: bool = True) -> Tensor:
    """Peak signal-to-noise ratio `-10 log10 mean (x - truth)^2`.

    Args:
        x: estimates `(B, C, *spatial)`.
        truth: clean images in [0, 1], same shape or one that broadcasts to it.
        clip: bring `x` to [0, 1] first.

    Returns:
        dB, float64 `(B,)`; infinite for equal images.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    x, truth = _pair(x, truth, clip)
    return -10 * torch.log10((x - truth).square().flatten(1).mean(1))


def ssim(x: Tensor, truth: Tensor, *, clip: bool = True) -> Tensor:
    """Structural similarity, averaged over channels and over windows inside the image.

    The index of Wang, Bovik, Sheikh and Simoncelli (2004), by scikit-image with their settings: a
    Gaussian window of std 1.5 pixels and population covariances.

    Args:
        x: estimates `(B, C, *spatial)`.
        truth: clean images in [0, 1], same shape or one that broadcasts to it.
        clip: bring `x` to [0, 1] first.

    Returns:
        float64 `(B,)`, 1 for equal images.

    Raises:
        ValueError: shapes that do not fit each other, or a side shorter than the window.
    """
    from skimage.metrics import structural_similarity

    x, truth = _pair(x, truth, clip)
    if min(x.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs at least {SSIM_WINDOW} pixels on every side, found "
            f"{'x'.join(map(str, x.shape[2:]))}; use psnr for so small an image."
        )
    values = [
        structural_similarity(
            a,
            b,
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x.numpy(), truth.numpy(), strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)


def band_psnr(x: Tensor, truth: Tensor, *, clip: bool = True) -> Tensor:
    """PSNR of every channel alone; papers on hyperspectral cubes report its mean over bands.

    Args:
        x: estimates `(B, C, *spatial)`.
        truth: clean images in [0, 1], same shape or one that broadcasts to it.
        clip: bring `x` to [0, 1] first.

    Returns:
        dB, float64 `(B, C)`.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    x, truth = _pair(x, truth, clip)
    return -10 * torch.log10((x - truth).square().flatten(2).mean(2))


def spectral_angle(x: Tensor, truth: Tensor) -> Tensor:
    """Mean angle between the spectra of pixels (SAM): blind to brightness, not to colour.

    Args:
        x: estimates `(B, C, *spatial)`; not clipped.
        truth: clean images, same shape or one that broadcasts to it.

    Returns:
        Degrees, float64 `(B,)`.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    x, truth = _pair(x, truth, clip=False)
    cosine = torch.nn.functional.cosine_similarity(x, truth, dim=1).clamp(-1, 1)
    return torch.rad2deg(cosine.arccos()).flatten(1).mean(1)


def _pair(x: Tensor, truth: Tensor, clip: bool) -> tuple[Tensor, Tensor]:
    if x.ndim < 3 or x.shape[1:] != truth.shape[1:] or truth.shape[0] not in (1, x.shape[0]):
        raise ValueError(
            f"cannot compare images {tuple(x.shape)} with truth {tuple(truth.shape)}; both must be "
            "(B, C, *spatial) of one size."
        )
    x, truth = x.detach().cpu().double(), truth.detach().cpu().double()
    return (x.clamp(0, 1) if clip else x), truth.expand_as(x)
