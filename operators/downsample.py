"""Downsampling: fewer pixels through an anti-aliasing filter."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from deepinv.physics import Downsampling
from torch import Tensor, fft

from .noise import noise_model
from .repaired import Repaired
from .validate import image_size, one_of, whole

Filter = Literal["bicubic", "bilinear", "gaussian"]
FILTERS = ("bicubic", "bilinear", "gaussian")


class AlignedDownsampling(Repaired, Downsampling):
    """deepinv's circular `Downsampling` through the FFT, with a closed-form pseudo-inverse.

    deepinv filters every pixel and then throws most away, and transforms its filter again in every
    call; one product in Fourier space does the same.
    """

    factor: int
    Fh: Tensor
    Fhc: Tensor
    Fh2: Tensor

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Filter and keep every `factor`-th pixel: `(B, C, H, W)` to `(B, C, H/f, W/f)`."""
        self._update(kwargs)
        low = fft.irfft2(self._half(self.Fh) * fft.rfft2(x), s=x.shape[-2:])
        return low[..., :: self.factor, :: self.factor]

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Spread the pixels out and filter backwards: `(B, C, H/f, W/f)` to `(B, C, H, W)`."""
        self._update(kwargs)
        size = y.shape[-2] * self.factor, y.shape[-1] * self.factor
        wide = y.new_zeros(*y.shape[:-2], *size)
        wide[..., :: self.factor, :: self.factor] = y
        return fft.irfft2(self._half(self.Fhc) * fft.rfft2(wide), s=size)

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """`A^T (A A^T)^-1 y`: on the small grid `A A^T` is a circular convolution."""
        power = self.gram_spectrum(torch.ones_like(self.Fh2.real))
        inverse = torch.where(power > 1e-10, 1 / power, 0)
        return self.A_adjoint(fft.ifft2(inverse * fft.fft2(y)).real)

    def gram_spectrum(self, power: Tensor) -> Tensor:
        """Spectrum `(B, C, H/f, W/f)` of `A C A^T`, `C` stationary of spectrum `power`.

        Frequencies that fall onto each other on the small grid are averaged.
        """
        seen = self.Fh2.real * power
        seen = seen.unflatten(-1, (self.factor, -1)).mean(-2)
        return seen.unflatten(-2, (self.factor, -1)).mean(-3)

    def _half(self, spectrum: Tensor) -> Tensor:
        return spectrum[..., : spectrum.shape[-1] // 2 + 1]

    def _update(self, parameters: dict[str, Any]) -> None:
        if parameters:
            self.update_parameters(**parameters)


def downsample(
    image_shape: Sequence[int], *, factor: int = 4, filter: Filter = "bicubic", noise: float = 0.0
) -> Downsampling:
    """Too small by `factor`: filter, then keep one pixel of `factor` x `factor`.

    Alignment: small pixel `i` lies in the middle of the pixels `f i ... f i + f - 1` that it
    replaces, as in the resizing of every image library (`align_corners=False`). deepinv's own
    filters lie `f/2 - 1` pixels beside that. The boundary is circular.

    Args:
        image_shape: `(C, H, W)` of one clean image; `factor` divides `H` and `W`.
        factor: 2, 3, 4, 8, ...
        filter: "bicubic" (Keys, a = -1/2), "bilinear" (a triangle) or "gaussian" (of standard
            deviation `factor / 2` pixels), each widened by `factor` against aliasing.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, C, H, W)` to `(B, C, H / factor, W / factor)`.

    Raises:
        ValueError: bad factor, unknown filter, or a size that the factor does not divide.
    """
    shape = image_size(image_shape)
    factor = whole("factor", factor, low=1, do="give 2, 3, 4 or 8")
    height, width = shape[1:]
    if factor > min(height, width):
        raise ValueError(
            f"the image is {height}x{width} pixels, smaller than factor {factor}; choose a "
            "smaller factor or a larger image."
        )
    if height % factor or width % factor:
        raise ValueError(
            f"the image is {height}x{width} pixels, which {factor} does not divide; crop it to "
            f"{height - height % factor}x{width - width % factor}."
        )
    kernel = aligned_filter(filter, factor)
    if len(kernel) > min(height, width):
        raise ValueError(
            f"the {filter} filter for factor {factor} is {len(kernel)}x{len(kernel)} pixels but "
            f"the image only {height}x{width}; choose a smaller factor or a larger image."
        )
    return AlignedDownsampling(
        img_size=shape,
        filter=kernel.float()[None, None],
        factor=factor,
        padding="circular",
        noise_model=noise_model(noise),
    )


def aligned_filter(name: str, factor: int) -> Tensor:
    """Anti-aliasing filter that puts small pixel `i` at `f i + (f - 1) / 2`.

    Args:
        name: "bicubic", "bilinear" or "gaussian".
        factor: how many pixels become one.

    Returns:
        `(2 R + 1, 2 R + 1)` that sums to one, float64, for convolution about its middle.
    """
    one_of("filter", name, FILTERS)
    reach = {"bicubic": 2.0, "bilinear": 1.0, "gaussian": 2.0}[name] * factor
    middle = (factor - 1) / 2
    radius = max(0, math.ceil(middle + reach) - 1)
    # convolution reads pixel k - t for tap t, hence the minus
    s = ((-torch.arange(-radius, radius + 1, dtype=torch.float64) - middle) / factor).abs()
    if name == "bilinear":
        w = (1 - s).clamp(min=0)
    elif name == "gaussian":
        w = torch.exp(-0.5 * (s / 0.5) ** 2) * (s < 2)
    else:
        near = 1.5 * s**3 - 2.5 * s**2 + 1
        far = -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2
        w = torch.where(s <= 1, near, torch.where(s < 2, far, 0.0))
    kernel = torch.outer(w, w)
    return kernel / kernel.sum()


def image_shape(
    measured: tuple[int, int, int], *, factor: int = 4, **_: object
) -> tuple[int, int, int]:
    """Shape of the clean image behind a small one of shape `(C, H, W)`."""
    channels, height, width = image_size(measured)
    factor = whole("factor", factor, low=1, do="give 2, 3, 4 or 8")
    return channels, height * factor, width * factor
