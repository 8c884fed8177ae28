"""Cartesian k-space: the centred orthonormal Fourier transform, computed where it is measured.

Images and k-space have their origin in the middle, at index `n // 2` of every axis, and complex
numbers travel as two channels, real and imaginary.

A read-out measures whole columns of k-space. The transform along the last axis comes first; only
the columns that hold a measured sample go through the transforms along the others.
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

import torch
from deepinv.physics import NoiseModel
from torch import Tensor
from torch.fft import fft, fftn, fftshift, ifftn, ifftshift

from ..repaired import Repaired
from .sampling import checked_mask

PRUNED = 0.75  # of the columns; more are transformed all together


def to_complex(x: Tensor) -> Tensor:
    """Two channels `(B, 2, ...)` as complex numbers `(B, ...)`."""
    real, imaginary = x.unbind(1)
    return torch.complex(real, imaginary)


def to_channels(z: Tensor) -> Tensor:
    """Complex numbers `(B, ...)` as two channels `(B, 2, ...)`."""
    return torch.stack((z.real, z.imag), 1)


class Cartesian(Repaired):
    """What operators that measure samples of a Cartesian k-space have in common.

    Args:
        mask: 1 where k-space is measured, 0 elsewhere: `(H, W)` or `(D, H, W)`.
        noise_model: noise of the measured samples.

    Attributes:
        mask: the same, `(1, 1, *spatial)`.
    """

    mask: Tensor
    measured: Tensor
    at_corner: Tensor
    kept_mask: Tensor
    corner_mask: Tensor

    def __init__(self, mask: Tensor, noise_model: NoiseModel) -> None:
        super().__init__(noise_model=noise_model)  # pyright: ignore[reportArgumentType]
        self.img_size = (2, *mask.shape)
        self.axes = tuple(range(-mask.ndim, 0))
        self.register_buffer("mask", torch.zeros(1, 1, *mask.shape))
        for name in ("measured", "at_corner", "kept_mask", "corner_mask"):
            self.register_buffer(name, None, persistent=False)
        self._sample(mask)

    def _sample(self, mask: Tensor) -> None:
        """Measure other samples."""
        self.mask = checked_mask(mask, self.img_size[1:])[None, None].to(self.mask)
        mask, width = self.mask[0, 0], self.mask.shape[-1]
        # columns with a measured sample, and where they are before zero frequency is centred
        columns = mask.flatten(0, -2).any(0)
        self.pruned = bool(columns.float().mean() <= PRUNED)
        self.measured = (columns if self.pruned else torch.ones_like(columns)).nonzero().flatten()
        self.at_corner = (self.measured - width // 2) % width
        self.kept_mask = mask.index_select(-1, self.measured)
        self.whole = bool(self.kept_mask.all())
        # the axes that mix in A^T A: along the others everything is measured
        constant = [a for a in self.axes if bool((mask == mask.narrow(a, 0, 1)).all())]
        self.mixed = [a for a in self.axes if a not in constant]
        for a in constant:
            mask = mask.narrow(a, 0, 1)
        self.corner_mask = ifftshift(mask, dim=self.axes)

    def _transform(self, z: Tensor) -> Tensor:
        """Measured columns of `M F z`, for images whose origin is in the corner.

        Args:
            z: complex `(B, ..., *spatial)`.

        Returns:
            Channels `(B, 2, ..., *spatial)` with as many columns as hold a measured sample.
        """
        axes = self.axes
        if self.pruned:
            z = fft(z, norm="ortho").index_select(-1, self.at_corner)
            axes = axes[:-1]
        z = fftshift(fftn(z, dim=axes, norm="ortho"), dim=axes)
        y = torch.view_as_real(z).movedim(-1, 1)
        return y if self.whole else y * self.kept_mask

    def _fill(self, y: Tensor) -> Tensor:
        """The measured columns at their places, zeros in the others."""
        if not self.pruned:
            return y
        full = y.new_zeros(*y.shape[:-1], self.mask.shape[-1])
        return full.index_copy_(-1, self.measured, y)

    def _transpose(self, y: Tensor) -> Tensor:
        """`F^T M conj(y)`, the complex conjugate of `F^H M y`; `F` is symmetric.

        Args:
            y: channels `(B, 2, ..., *spatial)`.

        Returns:
            Complex `(B, ..., *spatial)` with the origin in the corner.
        """
        axes = self.axes
        if self.pruned:
            y = y.index_select(-1, self.measured)
            axes = axes[:-1]
        real, imaginary = (y if self.whole else y * self.kept_mask).unbind(1)
        z = fftn(ifftshift(torch.complex(real, -imaginary), dim=axes), dim=axes, norm="ortho")
        if not self.pruned:
            return z
        full = z.new_zeros(*z.shape[:-1], self.mask.shape[-1])
        return fft(full.index_copy_(-1, self.at_corner, z), norm="ortho")

    def _project(self, z: Tensor) -> Tensor:
        """`F^H M F z`, origin in the corner; axes along which all is measured drop out."""
        if not self.mixed:
            return z
        return ifftn(self.corner_mask * fftn(z, dim=self.mixed), dim=self.mixed)

    def noise(self, x: Tensor, **parameters: Any) -> Tensor:
        """Add noise to the measured samples; the others stay zero."""
        return self.mask * self.noise_model(x, **parameters)

    def update_parameters(self, mask: Tensor | None = None, **parameters: Any) -> None:
        """Measure other samples from now on, as everywhere in deepinv.

        Args:
            mask: zeros and ones `(*spatial)`, perhaps with leading dimensions that repeat it.
            **parameters: other parameters of the operator.

        Raises:
            ValueError: a mask of another size, of other values, or of several patterns.
        """
        if mask is not None:
            self._sample(mask)
        super().update_parameters(**parameters)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._sample(self.mask)


def centred_fourier(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The whole transform `F` of images `(B, 2, *spatial)`: orthonormal, origin in the middle."""
    z = ifftshift(to_complex(x), dim=axes)
    return to_channels(fftshift(fftn(z, dim=axes, norm="ortho"), dim=axes))


def centred_inverse(y: Tensor, axes: Sequence[int]) -> Tensor:
    """The inverse and adjoint of `centred_fourier`."""
    z = ifftshift(to_complex(y), dim=axes)
    return to_channels(fftshift(ifftn(z, dim=axes, norm="ortho"), dim=axes))
