"""Volumes of any size through windows of one, blended where they overlap.

A diffusion is windowed by windowing its denoiser: the clean masks that the windows expect are
blended at every noise level, by Gaussian weights, and never their noisy states. All windows so cut
their noise from one volume and cannot disagree about which lesion is there.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

Function = Callable[..., Tensor]
"""Maps tensors `(B, C, D, H, W)` of one size to one `(B, C', D, H, W)`."""


def blended(
    function: Function, *inputs: Tensor, window: int | None, overlap: float = 0.5
) -> Tensor:
    """Evaluate a function window by window.

    Args:
        function: see `Function`.
        *inputs: `(B, C, D, H, W)`; an axis shorter than the window is taken whole.
        window: side in voxels; None takes the volume whole.
        overlap: share of a window that its neighbour covers too.

    Returns:
        `(B, C', D, H, W)`.

    Raises:
        ValueError: a window or overlap that cannot be.
    """
    if window is None:
        return function(*inputs)
    if window < 1 or not 0 <= overlap < 1:
        raise ValueError(
            f"windows need a side >= 1 and 0 <= overlap < 1, found {window} and {overlap:g}."
        )
    size = inputs[0].shape[2:]
    places = list(product(*(starts(n, window, overlap) for n in size)))
    if len(places) == 1:
        return function(*inputs)
    sides = [min(n, window) for n in size]
    weight = gaussian(sides).to(inputs[0])
    total = norm = torch.zeros(())
    for place in places:
        here = (..., *(slice(a, a + side) for a, side in zip(place, sides, strict=True)))
        out = function(*(x[here] for x in inputs))
        if total.ndim == 0:
            total = out.new_zeros((*out.shape[:2], *size))
            norm = out.new_zeros(size)
        total[here] += weight * out
        norm[here] += weight
    return total / norm


def starts(n: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis of `n`, evenly spread, the last at its end."""
    if n <= window:
        return [0]
    stride = max(1.0, window * (1 - overlap))
    count = math.ceil((n - window) / stride) + 1
    return [round(i * (n - window) / (count - 1)) for i in range(count)]


def gaussian(sides: Sequence[int]) -> Tensor:
    """Weights of a window's voxels: a Gaussian of an eighth of each side, nowhere zero."""
    weight = torch.ones(())
    for side in sides:
        at = (torch.arange(side) - (side - 1) / 2) / (side / 8)
        weight = weight[..., None] * torch.exp(-(at**2) / 2)
    return weight.clamp_min(1e-3)
