"""Convolution through the Fourier transform, on a torus and with padding.

The kernel's centre is at index `K // 2` of every axis.
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from deepinv.physics import Blur
from scipy.fft import next_fast_len
from torch import Tensor, fft
from torch.nn.functional import pad

from .repaired import Repaired, per_image
from .separable import Constant, refuse_other_size
from .svd import SVD, Decomposed
from .transforms import hartley


class Transfer:
    """A kernel's Fourier transform `h` on a grid.

    Args:
        kernel: `(K, L)` or `(J, K, L)`, float64.
        size: of the grid, nowhere smaller than the kernel.
    """

    def __init__(self, kernel: Tensor, size: Sequence[int]) -> None:
        self.kernel, self.size = kernel, tuple(size)

    @cached_property
    def half(self) -> Constant:
        """What `rfftn` keeps."""
        return Constant(self._full()[..., : self.size[-1] // 2 + 1].clone())

    @cached_property
    def gain(self) -> Constant:
        """`|h|` at all frequencies."""
        return Constant(self._full().abs())

    @cached_property
    def phase(self) -> Constant:
        """`h / |h|`, 1 where `h` is 0; what `rfftn` keeps."""
        h = self.half.master
        return Constant(torch.where(h == 0, 1, h / torch.where(h == 0, 1, h.abs())))

    def _full(self) -> Tensor:
        wide = self.kernel.new_zeros(self.size)
        wide[tuple(map(slice, self.kernel.shape))] = self.kernel
        axes = tuple(range(wide.ndim))
        h = fft.fftn(wide.roll([-(k // 2) for k in self.kernel.shape], axes))
        # the symmetry of a real kernel to the last bit, so that phases are those of a real map
        return (h + h.flip(axes).roll([1] * wide.ndim, axes).conj()) / 2


class CircularBlur(Decomposed, Blur):
    """Convolution on a torus, diagonal in Fourier space: `y = F^-1 h F x`.

    In real coordinates `V` is the Hartley transform, `s = |h|`, and the phase of `h` is part of
    `U`. A `Blur` of deepinv for whoever asks for its kind or its `filter`.

    Args:
        kernel: `(K, L)` or `(J, K, L)`, float64.
        **options: of deepinv's `Blur`.
    """

    filter: Tensor

    def __init__(self, kernel: Tensor, **options: Any) -> None:
        super().__init__(filter=kernel.float()[None, None], padding="circular", **options)
        self.kernel = kernel
        self._transfers: dict[tuple[int, ...], Transfer] = {}

    def A(self, x: Tensor) -> Tensor:
        """Blur images `(B, C, *spatial)` of any size the kernel fits into."""
        return _filter(self._transfer(x).half(x), x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Correlate with the kernel."""
        return _filter(self._transfer(y).half(y).conj(), y)

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """Pseudo-inverse, without the frequencies that are let through below the cutoff."""
        h = self._transfer(y).half(y)
        keep = h.abs() > self.cutoff * h.abs().max()
        return _filter(torch.where(keep, 1 / h, 0), y)

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """`argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2`, exact.

        Args:
            z: images `(B, C, *spatial)`.
            y: measurements `(B, C, *spatial)`.
            gamma: weight of the data, one number or one per image `(B,)`.

        Returns:
            Images `(B, C, *spatial)`.
        """
        axes = tuple(range(2, z.ndim))
        h, weight = self._transfer(z).half(z), per_image(gamma, z)
        top = weight * h.conj() * fft.rfftn(y, dim=axes) + fft.rfftn(z, dim=axes)
        bottom = 1 + weight * (h.real.square() + h.imag.square())
        return fft.irfftn(top / bottom, s=z.shape[2:], dim=axes)

    def gram_spectrum(self, power: Tensor) -> Tensor:
        """Spectrum of `A C A^T`, `C` stationary of spectrum `power` `(B, C, *spatial)`."""
        return self._transfer(power).gain(power).square() * power

    def svd(self) -> SVD:
        """Hartley coordinates `(B, C, *spatial)`."""
        assert self.img_size is not None
        axes = tuple(range(2, 1 + len(self.img_size)))
        transfer = self._transfer(self.filter.new_empty(1, *self.img_size, device="meta"))
        return SVD(
            s=transfer.gain(self.filter),
            Vt=lambda x: hartley(x, axes),
            V=lambda c: hartley(c, axes),
            U=lambda c: _filter(transfer.phase(c), hartley(c, axes)),
            Ut=lambda y: hartley(_filter(transfer.phase(y).conj(), y), axes),
        )

    def update_parameters(self, **parameters: Any) -> None:
        """Parameters of the noise; the kernel stays."""
        if parameters.get("filter") is not None:
            raise ValueError("the blur has its kernel; build another with operators.blur(kernel=).")
        super().update_parameters(**parameters)

    def _transfer(self, x: Tensor) -> Transfer:
        size = tuple(x.shape[2:])
        if size not in self._transfers:
            self._transfers[size] = Transfer(self.kernel, size)
        return self._transfers[size]


class PaddedBlur(Repaired):
    """Convolution of a padded image, without a torus; only pixels that see no end of it are kept.

    Args:
        kernel: `(K, L)` or `(J, K, L)`, float64.
        size: of the images.
        boundary: "valid", "reflect", "replicate" or "zero".
        **options: of deepinv's `LinearPhysics`.
    """

    def __init__(self, kernel: Tensor, size: Sequence[int], boundary: str, **options: Any) -> None:
        super().__init__(**options)
        self.boundary, self.size, taps = boundary, tuple(size), tuple(kernel.shape)
        axes = list(zip(self.size, taps, strict=True))
        self.pixels = [Constant(padded(n, k, boundary)) for n, k in axes]
        self.wide = tuple(len(pixels.master) for pixels in self.pixels)
        self.seen = tuple(p - k + 1 for p, k in zip(self.wide, taps, strict=True))
        self.before = tuple(k - 1 - k // 2 for k in taps)  # first pixel that sees no end
        # zeros behind the padded image change nothing, and make a size that the FFT likes
        fast = [next_fast_len(n, real=True) for n in self.wide]
        self.transfer = Transfer(kernel, fast)  # pyright: ignore[reportArgumentType] typed as None

    def A(self, x: Tensor) -> Tensor:
        """Pad, blur and crop images `(B, C, *spatial)`."""
        refuse_other_size(x, "images", self.size)
        if self.boundary in ("reflect", "replicate"):
            after = [w - n - b for w, n, b in zip(self.wide, self.size, self.before, strict=True)]
            x = pad(x, _sides(self.before, after), mode=self.boundary)
        x = _place(x, self._start, self.transfer.size)
        return _cut(_filter(self.transfer.half(x), x), self.before, self.seen)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Put back what was cropped, correlate, and fold the padding back in."""
        refuse_other_size(y, "measurements", self.seen)
        y = _place(y, self.before, self.transfer.size)
        y = _filter(self.transfer.half(y).conj(), y)
        if self.boundary not in ("reflect", "replicate"):
            return _cut(y, self._start, self.size)
        y = _cut(y, self._start, self.wide)
        for i, (n, pixels) in enumerate(zip(self.size, self.pixels, strict=True)):
            axis = i - len(self.size)
            shape = (*y.shape[:axis], n, *y.shape[y.ndim + axis + 1 :])
            y = y.new_zeros(shape).index_add(axis, pixels(y), y)
        return y

    @property
    def _start(self) -> Sequence[int]:
        """Where the image, padded by repeated pixels, lies on the grid of the FFT."""
        return self.before if self.boundary == "zero" else [0] * len(self.before)


def padded(n: int, k: int, boundary: str) -> Tensor:
    """Pixel that each pixel of a padded axis repeats, -1 for none.

    Args:
        n: number of pixels.
        k: number of taps, at most `n`.
        boundary: "valid" pads nothing; "reflect" mirrors about the middle of the last pixel, as
            torch does, "replicate" repeats it; "zero" has nothing there.

    Returns:
        `(n,)` for "valid", `(n + k - 1,)` otherwise.
    """
    if boundary == "valid":
        return torch.arange(n)
    p = torch.arange(-(k - 1 - k // 2), n + k // 2)
    if boundary == "reflect":
        return (n - 1) - ((n - 1) - p.abs()).abs()
    if boundary == "replicate":
        return p.clamp(0, n - 1)
    return torch.where((p >= 0) & (p < n), p, -1)


def gathering_matrix(pixels: Tensor, taps: Tensor, n: int) -> Tensor:
    """Matrix of a convolution along a padded axis that keeps the "valid" part.

    Args:
        pixels: `(P,)`, from `padded`.
        taps: `(K,)`, float64.
        n: number of pixels before padding.

    Returns:
        `(P - K + 1, n)`, float64.
    """
    read = pixels.unfold(0, len(taps), 1)
    weights = torch.where(read >= 0, taps.flip(0), 0)
    return taps.new_zeros(len(read), n).scatter_add(1, read.clamp(min=0), weights)


def _filter(gain: Tensor, x: Tensor) -> Tensor:
    axes = tuple(range(2, x.ndim))
    return fft.irfftn(gain * fft.rfftn(x, dim=axes), s=x.shape[2:], dim=axes)


def _place(x: Tensor, before: Sequence[int], size: Sequence[int]) -> Tensor:
    """Put images into larger ones of zeros."""
    after = [s - b - n for s, b, n in zip(size, before, x.shape[2:], strict=True)]
    return pad(x, _sides(before, after))


def _cut(x: Tensor, before: Sequence[int], size: Sequence[int]) -> Tensor:
    """Take images out of larger ones."""
    return x[(..., *[slice(b, b + n) for b, n in zip(before, size, strict=True)])]


def _sides(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """What torch's `pad` wants, the last axis first."""
    pairs = list(zip(before, after, strict=True))
    return [n for pair in reversed(pairs) for n in pair]
