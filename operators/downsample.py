"""Downsampling: fewer pixels through an anti-aliasing filter."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any, get_args

import torch
from deepinv.physics import Downsampling
from torch import Tensor, fft

from .kernels import outer
from .noise import noise_model
from .repaired import per_image
from .resampling import Boundary, Filter, filter_taps, resampling_matrix
from .separable import Along, Constant, Separable
from .validate import image_size, one_of, whole


class AlignedDownsampling(Separable, Downsampling):
    """One matrix an axis, where deepinv filters every pixel and then throws most away.

    A `Downsampling` of deepinv for whoever asks for its kind, `factor` or `padding`.

    Args:
        matrices: one for every spatial axis.
        factors: how many pixels become one, for every spatial axis.
        img_size: `(C, *spatial)`.
        padding: the boundary.
        **options: of deepinv's `Downsampling`.
    """

    def __init__(
        self,
        matrices: Sequence[Along],
        *,
        factors: Sequence[int],
        img_size: tuple[int, ...],
        padding: str,
        **options: Any,
    ) -> None:
        options = {"factor": factors[-1], "filter": None, "padding": padding, **options}
        super().__init__(matrices, img_size=img_size, **options)
        self.img_size = img_size  # deepinv does not pass it on
        self.factors = tuple(factors)


class CircularDownsampling(AlignedDownsampling):
    """On a torus `A A^T` is a circular convolution, which the Fourier transform inverts."""

    def __init__(self, matrices: Sequence[Along], **options: Any) -> None:
        super().__init__(matrices, **options)
        # the other rows are the first one, moved
        passed = outer(tuple(fft.fft(a.matrix[0]).abs().square() for a in self.along))
        gram = self._fold(passed)
        self._passed = Constant(passed)
        self._gram = Constant(gram[..., : gram.shape[-1] // 2 + 1])

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """`A^T (A A^T)^-1 y`, without the frequencies that are let through below the cutoff."""
        gram = self._gram(y)
        keep = gram > self.cutoff**2 * gram.max()
        return self.A_adjoint(self._filter(torch.where(keep, 1 / gram, 0), y))

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """`argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2 = z + A^T (A A^T + 1/gamma)^-1 (y - A z)`.

        Args:
            z: images `(B, C, *spatial)`.
            y: measurements `(B, C, *small)`.
            gamma: weight of the data, one number or one per image `(B,)`.

        Returns:
            Images `(B, C, *spatial)`.
        """
        weight = per_image(gamma, z)
        inverse = weight / (1 + weight * self._gram(y))
        return z + self.A_adjoint(self._filter(inverse, y - self.A(z)))

    def gram_spectrum(self, power: Tensor) -> Tensor:
        """Spectrum `(B, C, *small)` of `A C A^T`, `C` stationary of spectrum `power`."""
        return self._fold(self._passed(power) * power)

    def _fold(self, spectrum: Tensor) -> Tensor:
        """Average the frequencies that fall onto each other on the small grid."""
        for i, factor in enumerate(self.factors):
            axis = i - len(self.factors)
            spectrum = spectrum.unflatten(axis, (factor, -1)).mean(axis - 1)
        return spectrum

    def _filter(self, gain: Tensor, y: Tensor) -> Tensor:
        axes = tuple(range(2, y.ndim))
        return fft.irfftn(gain * fft.rfftn(y, dim=axes), s=y.shape[2:], dim=axes)


def downsample(
    image_shape: Sequence[int],
    *,
    factor: int = 4,
    factor_z: int | None = None,
    filter: Filter = "bicubic",
    sigma: float | None = None,
    boundary: Boundary = "circular",
    noise: float = 0.0,
) -> AlignedDownsampling:
    """Too small by `factor`: filter, then keep one pixel of `factor` x `factor`.

    Alignment: small pixel `i` lies in the middle of the pixels `f i ... f i + f - 1` that it
    replaces, as in the resizing of every image library (`align_corners=False`). deepinv's own
    filters lie `f/2 - 1` pixels beside that.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)` of one clean image, which `factor` divides.
        factor: 2, 3, 4, 8, ...
        factor_z: that of the axis `D` of a volume, the same when None; 1 leaves the slices alone.
        filter: "bicubic" (Keys 1981, a = -1/2), "bilinear" (a triangle), "box" (the mean of the
            pixels replaced), "lanczos" (three lobes) or "gaussian", each widened by `factor`
            against aliasing.
        sigma: standard deviation of the Gaussian in pixels, `factor / 2` when None.
        boundary: "circular" wraps around; "symmetric" mirrors the image at its edge, as MATLAB's
            `imresize`; "renormalised" leaves out what lies beyond, as Pillow.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, C, H, W)` to `(B, C, H / factor, W / factor)`, or of volumes.

    Raises:
        ValueError: bad factor, unknown word, a size that the factor does not divide, or a filter
            larger than an image that wraps around.
    """
    shape = image_size(image_shape, dims=(2, 3))
    size, factors = shape[1:], _factors(len(shape) - 1, factor, factor_z)
    one_of("boundary", boundary, get_args(Boundary))
    taps = {f: filter_taps(filter, f, sigma) for f in factors}
    _refuse_sizes(size, factors)
    if boundary == "circular":
        _refuse_wide(filter, factors, [len(taps[f].weights) for f in factors], size)
    axes = list(zip(size, factors, strict=True))
    along = {(n, f): Along(resampling_matrix(n, f, taps[f], boundary)) for n, f in set(axes)}
    kind = CircularDownsampling if boundary == "circular" else AlignedDownsampling
    return kind(
        [along[axis] for axis in axes],
        factors=factors,
        img_size=shape,
        padding=boundary,
        noise_model=noise_model(noise),
    )


def image_shape(
    measured: tuple[int, ...], *, factor: int = 4, factor_z: int | None = None, **_: object
) -> tuple[int, ...]:
    """Shape of the clean image behind a small one of shape `(C, H, W)` or `(C, D, H, W)`."""
    channels, *size = image_size(measured, dims=(2, 3))
    factors = _factors(len(size), factor, factor_z)
    return (channels, *[n * f for n, f in zip(size, factors, strict=True)])


def aligned_filter(name: str, factor: int, sigma: float | None = None) -> Tensor:
    """Anti-aliasing filter for deepinv's `Downsampling` that aligns as ours.

    Args:
        name: "bicubic", "bilinear", "box", "lanczos" or "gaussian".
        factor: how many pixels become one.
        sigma: standard deviation of the Gaussian in pixels, `factor / 2` when None.

    Returns:
        `(2 R + 1, 2 R + 1)` that sums to one, float64, for convolution about its middle.
    """
    offsets, weights = filter_taps(name, factor, sigma)
    radius = int(offsets.abs().max())
    row = weights.new_zeros(2 * radius + 1)
    row[radius - offsets] = weights  # convolution reads pixel k - t for tap t
    return outer((row, row))


def _factors(dims: int, factor: int, factor_z: int | None) -> list[int]:
    factors = [whole("factor", factor, low=1, do="give 2, 3, 4 or 8")] * dims
    if factor_z is not None:
        if dims == 2:
            raise ValueError(f"factor_z is {factor_z} but the image is flat; leave factor_z out.")
        factors[0] = whole("factor_z", factor_z, low=1, do="give 1, 2, 3, 4 or 8")
    return factors


def _refuse_sizes(size: Sequence[int], factors: Sequence[int]) -> None:
    unit = "pixels" if len(size) == 2 else "voxels"
    crop = [n - n % f for n, f in zip(size, factors, strict=True)]
    factor = str(factors[0]) if len(set(factors)) == 1 else _times(factors)
    if 0 in crop:
        raise ValueError(
            f"the image is {_times(size)} {unit}, smaller than factor {factor}; choose a "
            "smaller factor or a larger image."
        )
    if crop != list(size):
        raise ValueError(
            f"the image is {_times(size)} {unit}, which {factor} does not divide; crop it to "
            f"{_times(crop)}."
        )


def _refuse_wide(
    filter: str, factors: Sequence[int], taps: Sequence[int], size: Sequence[int]
) -> None:
    if any(k > n for k, n in zip(taps, size, strict=True)):
        factor = str(factors[0]) if len(set(factors)) == 1 else _times(factors)
        raise ValueError(
            f"the {filter} filter for factor {factor} is {_times(taps)} pixels but the image only "
            f"{_times(size)}; choose a smaller factor, a larger image, or boundary=symmetric."
        )


def _times(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
