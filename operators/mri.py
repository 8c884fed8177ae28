"""Magnetic resonance imaging: part of the Fourier transform, through one coil or several."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence

import torch
from deepinv.physics import MRI, LinearPhysics, MultiCoilMRI
from torch import Tensor

from .noise import noise_model
from .repaired import Repaired
from .validate import image_size, number, seeded, whole


class ManyCoils(Repaired, MultiCoilMRI):
    """deepinv's `MultiCoilMRI`, whose complex coil maps survive a change of precision."""


def mri(
    image_shape: Sequence[int],
    *,
    acceleration: float = 4.0,
    centre_fraction: float = 0.08,
    coils: int = 1,
    coil_maps: Tensor | None = None,
    seed: int = 0,
    noise: float = 0.0,
) -> LinearPhysics:
    """Accelerated Cartesian MRI: `y_c = M F S_c x` with the orthonormal, centred transform `F`.

    Complex images travel as two channels, real and imaginary.

    Args:
        image_shape: `(2, H, W)` of one clean image.
        acceleration: `W` over the number of columns of k-space that are measured.
        centre_fraction: share of the columns, around zero frequency, that are always measured.
        coils: number of receiver coils; more than one get the smooth maps of `birdcage`.
        coil_maps: complex sensitivities `(N, H, W)` of one's own; replace `coils`.
        seed: of the columns outside the centre.
        noise: standard deviation of Gaussian noise on each real and imaginary part.

    Returns:
        Linear operator from `(B, 2, H, W)` to `(B, 2, H, W)` for one coil, to `(B, 2, N, H, W)`
        for several; zero where k-space was not measured.

    Raises:
        ValueError: not two channels, bad numbers, or coil maps of another size.
    """
    shape = image_size(image_shape, channels=2, hint="MRI takes real and imaginary parts")
    mask = cartesian_mask(shape[1:], acceleration, centre_fraction, seed)
    coils = whole("coils", coils, low=1, high=256, do="give the number of receiver coils")
    if coil_maps is None and coils == 1:
        return MRI(mask=mask, noise_model=noise_model(noise))
    maps = birdcage(shape[1:], coils) if coil_maps is None else _checked(coil_maps, shape[1:])
    return ManyCoils(mask=mask, coil_maps=maps, img_size=shape, noise_model=noise_model(noise))


def cartesian_mask(
    size: tuple[int, int], acceleration: float, centre_fraction: float, seed: int
) -> Tensor:
    """Measured columns of k-space: a full centre, the rest drawn at random.

    Args:
        size: `(H, W)`.
        acceleration: `W` over the number of measured columns, at least 1.
        centre_fraction: share of the columns around zero frequency, at index `W // 2`.
        seed: of the random columns.

    Returns:
        `(H, W)` of zeros and ones, float32.

    Raises:
        ValueError: bad numbers, or a centre larger than all that may be measured.
    """
    acceleration = number("acceleration", acceleration, low=1, do="give 1 for a full measurement")
    share = number("centre_fraction", centre_fraction, low=0, high=1, do="give a share of columns")
    width = size[1]
    measured, centre = max(1, round(width / acceleration)), round(share * width)
    if centre > measured:
        raise ValueError(
            f"the centre takes {centre} of {width} columns but acceleration={acceleration:g} "
            f"leaves {measured}; lower centre_fraction or the acceleration."
        )
    columns = torch.zeros(width)
    first = width // 2 - centre // 2
    columns[first : first + centre] = 1
    outside = (columns == 0).nonzero().flatten()
    chosen = torch.randperm(len(outside), generator=seeded(seed))[: measured - centre]
    columns[outside[chosen]] = 1
    return columns.expand(size).clone()


def birdcage(size: tuple[int, int], coils: int) -> Tensor:
    """Smooth maps of coils evenly spaced on a ring of 1.5 half image sizes.

    The sensitivity falls as one over the distance, its phase turns with the direction, and the sum
    of squares over the coils is 1 at every pixel.

    Args:
        size: `(H, W)`.
        coils: number of coils.

    Returns:
        `(coils, H, W)`, complex64.
    """
    y = torch.linspace(-1, 1, size[0], dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, size[1], dtype=torch.float64)[None, :]
    turn = (torch.arange(coils, dtype=torch.float64) * 2 * math.pi / coils)[:, None, None]
    dx, dy = x - 1.5 * torch.cos(turn), y - 1.5 * torch.sin(turn)
    maps = torch.polar(1 / torch.hypot(dx, dy), torch.atan2(dx, -dy) - turn)
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def _checked(coil_maps: Tensor, size: tuple[int, int]) -> Tensor:
    if coil_maps.ndim != 3 or tuple(coil_maps.shape[1:]) != tuple(size):
        raise ValueError(
            f"coil_maps have shape {tuple(coil_maps.shape)}, expected (N, {size[0]}, {size[1]}); "
            "give one map of the image's size per coil."
        )
    if not coil_maps.is_complex() or not torch.isfinite(torch.view_as_real(coil_maps)).all():
        raise ValueError(
            f"coil_maps are of {coil_maps.dtype}, expected finite complex numbers; "
            "use torch.complex(real, imaginary)."
        )
    return coil_maps
