"""Lens: a blur that grows from the centre of the image to its corners."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from deepinv.physics import SpaceVaryingBlur
from torch import Tensor

from .kernels import gaussian_taps, outer
from .noise import noise_model
from .repaired import Repaired
from .validate import image_size, number, one_of, whole

Boundary = Literal["reflect", "replicate", "circular"]


class Lens(Repaired, SpaceVaryingBlur):
    """deepinv's `SpaceVaryingBlur`, with inverses that converge."""


def lens(
    image_shape: Sequence[int],
    *,
    sigma: float = 0.5,
    edge_sigma: float = 3.0,
    levels: int = 5,
    boundary: Boundary = "reflect",
    noise: float = 0.0,
) -> Lens:
    """Sharp in the middle, blurred towards the corners: `y = sum_k w_k (h_k * x)`.

    Product convolution (Escande and Weiss 2017): images blurred by Gaussians `h_k` of increasing
    width, mixed with weights `w_k` that depend on the distance from the centre, linear between the
    two nearest widths. The weights sum to one, so that an even image stays as it is.

    Args:
        image_shape: `(C, H, W)` of one clean image.
        sigma: standard deviation of the Gaussian in the centre, pixels.
        edge_sigma: standard deviation in the corners, pixels.
        levels: number of widths, at least 2.
        boundary: "reflect" mirrors about the last pixel, "replicate" repeats it, "circular" wraps
            around.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator on `(B, C, H, W)`.

    Raises:
        ValueError: unknown word, bad number, or a kernel larger than the image.
    """
    shape = image_size(image_shape)
    height, width = shape[1:]
    one_of("boundary", boundary, get_args(Boundary))
    levels = whole("levels", levels, low=2, high=64, do="give the number of widths")
    do = "give a standard deviation in pixels"
    start = number("sigma", sigma, above=0, high=256, do=do)
    stop = number("edge_sigma", edge_sigma, above=0, high=256, do=do)
    taps = [gaussian_taps(s) for s in torch.linspace(start, stop, levels).tolist()]
    longest = max(map(len, taps))
    if longest > min(height, width):
        raise ValueError(
            f"the widest kernel is {longest}x{longest} pixels but the image only {height}x{width}; "
            "choose a narrower blur or a larger image."
        )
    filters = torch.stack([_centred(outer((t, t)), longest) for t in taps])
    physics = Lens(
        filters=filters.float()[None, None],
        multipliers=radial_weights((height, width), levels).float()[None, None],
        padding=boundary,
        use_fft=True,
        mask_first=False,
        noise_model=noise_model(noise),
    )
    physics.img_size = shape
    return physics


def radial_weights(size: tuple[int, int], levels: int) -> Tensor:
    """Weights of `levels` rings, linear in the distance from the centre to the corners.

    Returns:
        `(levels, H, W)`, float64, of sum 1 at every pixel.
    """
    row, column = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in size)
    distance = torch.hypot(row[:, None], column)
    place = distance / distance.max().clamp(min=1) * (levels - 1)
    ring = torch.arange(levels, dtype=torch.float64)[:, None, None]
    return (1 - (place - ring).abs()).clamp(min=0)


def _centred(kernel: Tensor, side: int) -> Tensor:
    margin = (side - len(kernel)) // 2
    return torch.nn.functional.pad(kernel, [margin] * 4)
