"""How noisy a stack of slices is, where nobody says.

The finest diagonal Haar coefficients of a slice, `(a - b - c + d) / 2` of four pixels, hold almost
nothing of a smooth image; the median of their magnitudes over 0.6745 is the std of white Gaussian
noise (Donoho and Johnstone, Biometrika 81, 1994). Noise that a scanner has smoothed is larger than
this says.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_NORMAL = 0.6745  # median of the magnitude of a standard normal number
_FEWEST = 256  # coefficients


def estimate(stack: Tensor, body: Tensor | None = None) -> float:
    """Std of the noise of slices.

    Args:
        stack: `(C, D, H, W)`.
        body: bool `(D, H, W)`, voxels that count: air is often set to a constant, and would make
            noise look small; None, or too few of them, for all.
    """
    found = []
    for k in range(stack.shape[1]):
        inside = None if body is None else _corners(body[k], torch.logical_and)
        for image in stack[:, k]:
            detail = _corners(image.double(), torch.sub) / 2
            found.append(detail.flatten() if inside is None else detail[inside])
    coefficients = torch.cat(found).abs()
    if body is not None and len(coefficients) < _FEWEST:
        return estimate(stack)
    return float(coefficients.median()) / _NORMAL if len(coefficients) else 0.0


def _corners(image: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine the four pixels of every 2 x 2 square that does not overlap another."""
    h, w = (n - n % 2 for n in image.shape)
    columns = combine(image[:h, 0:w:2], image[:h, 1:w:2])
    return combine(columns[0::2], columns[1::2])
