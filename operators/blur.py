"""Blur: convolution of every channel with one kernel."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from deepinv.physics import Blur
from deepinv.physics.functional import filter_fft
from torch import Tensor, fft

from .kernels import file_kernel, gaussian_kernel, motion_kernel, normalised
from .noise import noise_model
from .repaired import Repaired, per_image
from .validate import image_size, one_of

Kernel = Literal["gaussian", "motion"]
Boundary = Literal["circular", "valid"]

# kernels with more taps are faster through the FFT (measured on 128 x 128 colour images)
DIRECT_TAPS = 25


class ValidBlur(Repaired, Blur):
    """deepinv's `Blur` that keeps only pixels whose whole neighbourhood was seen."""


class CircularBlur(Repaired, Blur):
    """deepinv's `Blur` on a torus, where the Fourier transform inverts it in closed form."""

    filter: Tensor

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """Pseudo-inverse; frequencies that the kernel lets through below 1e-5 stay zero."""
        h = self._transfer(y)
        inverse = torch.where(h.abs() > 1e-5, 1 / h, 0)
        return fft.irfft2(inverse * fft.rfft2(y), s=y.shape[-2:])

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """`argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2`, exact.

        Args:
            z: images `(B, C, H, W)`.
            y: measurements `(B, C, H, W)`.
            gamma: weight of the data, one number or one per image `(B,)`.

        Returns:
            Images `(B, C, H, W)`.
        """
        h = self._transfer(y)
        weight = per_image(gamma, z)
        top = weight * h.conj() * fft.rfft2(y) + fft.rfft2(z)
        return fft.irfft2(top / (weight * h.abs() ** 2 + 1), s=y.shape[-2:])

    def gram_spectrum(self, power: Tensor) -> Tensor:
        """Spectrum of `A C A^T`, `C` a stationary covariance of spectrum `power` `(B, C, H, W)`."""
        h = fft.fft2(fft.irfft2(self._transfer(power), s=power.shape[-2:]))
        return h.abs().square() * power

    def _transfer(self, y: Tensor) -> Tensor:
        """The kernel's Fourier transform, `(1, 1, H, W // 2 + 1)`."""
        return filter_fft(self.filter, y.shape[-2:], dims=(-2, -1))


def blur(
    image_shape: Sequence[int],
    *,
    kernel: Kernel | Tensor = "gaussian",
    sigma: float = 2.0,
    length: float = 15.0,
    angle: float = 0.0,
    file: Path | str | None = None,
    boundary: Boundary = "circular",
    noise: float = 0.0,
) -> Blur:
    """Out-of-focus, shaken or otherwise blurred: `y = k * x`.

    A true convolution. The kernel's centre is at index `(K // 2, L // 2)`.

    Args:
        image_shape: `(C, H, W)` of one clean image.
        kernel: "gaussian", "motion", or a plane `(K, L)`, which is scaled to sum to one.
        sigma: standard deviation of the Gaussian, pixels.
        length: length of the motion, pixels.
        angle: direction of the motion, degrees counter-clockwise from the horizontal.
        file: picture or `.npy` array with the kernel; replaces `kernel`.
        boundary: "circular" wraps around and keeps the size; "valid" gives
            `(H - K + 1, W - L + 1)`, as in a real photograph.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator on `(B, C, H, W)`.

    Raises:
        ValueError: unknown word, bad number, or a kernel larger than the image.
        FileNotFoundError: there is no such kernel file.
    """
    _, height, width = image_size(image_shape)
    one_of("boundary", boundary, ("circular", "valid"))
    plane = _plane(kernel, sigma, length, angle, file)
    if plane.shape[0] > height or plane.shape[1] > width:
        raise ValueError(
            f"the kernel is {plane.shape[0]}x{plane.shape[1]} pixels but the image only "
            f"{height}x{width}; choose a narrower blur or a larger image."
        )
    physics = (CircularBlur if boundary == "circular" else ValidBlur)(
        filter=plane.float()[None, None],
        padding=boundary,
        use_fft=plane.numel() > DIRECT_TAPS,
        noise_model=noise_model(noise),
    )
    physics.img_size = image_size(image_shape)
    return physics


def image_shape(
    measured: tuple[int, int, int],
    *,
    kernel: Kernel | Tensor = "gaussian",
    sigma: float = 2.0,
    length: float = 15.0,
    angle: float = 0.0,
    file: Path | str | None = None,
    boundary: Boundary = "circular",
    **_: object,
) -> tuple[int, int, int]:
    """Shape of the clean image behind a blurred one of shape `(C, H, W)`."""
    channels, height, width = image_size(measured)
    if boundary != "valid":
        return channels, height, width
    plane = _plane(kernel, sigma, length, angle, file)
    return channels, height + plane.shape[0] - 1, width + plane.shape[1] - 1


def _plane(
    kernel: Kernel | Tensor, sigma: float, length: float, angle: float, file: Path | str | None
) -> Tensor:
    if file is not None:
        return file_kernel(file)
    if isinstance(kernel, Tensor):
        return normalised(kernel)
    if one_of("kernel", kernel, ("gaussian", "motion")) == "gaussian":
        return gaussian_kernel(sigma)
    return motion_kernel(length, angle)
