"""Anti-aliasing filters of image libraries along one axis, and their matrices.

Small pixel `i` lies in the middle of the `f` pixels that it replaces, at `f i + (f - 1) / 2`.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .validate import number, one_of

Filter = Literal["bicubic", "bilinear", "box", "lanczos", "gaussian"]
Boundary = Literal["circular", "symmetric", "renormalised"]


class Taps(NamedTuple):
    """A filter: the pixels that small pixel 0 reads, and their weights.

    Attributes:
        offsets: `(K,)`, whole numbers, symmetric about `(f - 1) / 2`.
        weights: `(K,)`, float64, of unit sum.
    """

    offsets: Tensor
    weights: Tensor


def filter_taps(name: str, factor: int, sigma: float | None = None) -> Taps:
    """A filter, widened by `factor` against aliasing; none for a factor of 1.

    Args:
        name: "bicubic" (Keys 1981, a = -1/2), "bilinear", "box", "lanczos" (three lobes) or
            "gaussian" (cut at four standard deviations).
        factor: how many pixels become one.
        sigma: standard deviation of the Gaussian in pixels, `factor / 2` when None.

    Raises:
        ValueError: unknown name, or a standard deviation that is no use.
    """
    one_of("filter", name, get_args(Filter))
    if sigma is not None and name != "gaussian":
        raise ValueError(f"sigma is {sigma} but the filter {name}; write filter=gaussian.")
    if sigma is not None:
        sigma = number("sigma", sigma, low=0.1, high=256, do="give a width in pixels")
    if factor == 1:  # nothing to guard against
        return Taps(torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.float64))
    reach, profile = _profiles(0.5 if sigma is None else sigma / factor)[name]
    middle = (factor - 1) / 2
    # strictly within reach, but at least the pixels nearest to the middle
    first = math.floor(middle - max(reach * factor, 0.6)) + 1
    offsets = torch.arange(first, factor - first)
    weights = profile((offsets - middle).double().abs() / factor)
    return Taps(offsets, weights / weights.sum())


def resampling_matrix(n: int, factor: int, taps: Taps, boundary: str) -> Tensor:
    """The filter along an axis of `n` pixels, `(n / factor, n)`, float64.

    Args:
        n: number of pixels, a multiple of the factor.
        factor: how many pixels become one.
        taps: the filter.
        boundary: "circular", "symmetric" (mirrored between two pixels, as MATLAB) or
            "renormalised" (without the pixels that are not there, as Pillow).
    """
    read = factor * torch.arange(n // factor)[:, None] + taps.offsets
    weights = taps.weights.expand(read.shape)
    if boundary == "renormalised":
        weights = torch.where((read >= 0) & (read < n), weights, 0)
    elif boundary == "symmetric":
        read = read % (2 * n)
        read = torch.where(read < n, read, 2 * n - 1 - read)
    matrix = weights.new_zeros(n // factor, n).scatter_add(1, read % n, weights)
    return matrix / matrix.sum(1, keepdim=True)


def _profiles(sigma: float) -> dict[str, tuple[float, Callable[[Tensor], Tensor]]]:
    """Reach and profile of every filter, in units of a small pixel."""

    def bicubic(s: Tensor) -> Tensor:
        near = 1.5 * s**3 - 2.5 * s**2 + 1
        far = -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2
        return torch.where(s <= 1, near, far)

    return {
        "bicubic": (2.0, bicubic),
        "bilinear": (1.0, lambda s: 1 - s),
        "box": (0.5, torch.ones_like),
        "lanczos": (3.0, lambda s: torch.sinc(s) * torch.sinc(s / 3)),
        "gaussian": (4 * sigma, lambda s: torch.exp(-0.5 * (s / sigma) ** 2)),
    }
