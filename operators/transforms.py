"""Orthonormal transforms of real images."""

from collections.abc import Sequence

import torch
from torch import Tensor


def hartley(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Hartley transform `Re F x - Im F x` with the orthonormal `F`: real, and its own inverse.

    A circular convolution whose transfer function is even in frequency is diagonal in it.

    Args:
        x: real images.
        axes: the spatial axes.

    Returns:
        Coefficients in the shape of `x`.
    """
    f = torch.fft.fftn(x, dim=tuple(axes), norm="ortho")
    return f.real - f.imag
