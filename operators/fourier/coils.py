"""Sensitivities of receiver coils: simulated, estimated from a measurement, or one's own."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..validate import number, whole
from .kspace import to_complex

RING = 8  # coils on one ring around a volume


def birdcage(size: Sequence[int], coils: int) -> Tensor:
    """Smooth maps of coils evenly spaced around the image, at 1.5 half image sizes.

    The sensitivity falls as one over the distance, its phase turns with the direction, and the sum
    of squares over the coils is 1 at every pixel. Around a volume every eight coils, rounded up,
    are one more ring; the rings divide the depth evenly, and the coils go to them in turn.

    Args:
        size: `(H, W)` or `(D, H, W)`.
        coils: number of coils.

    Returns:
        `(coils, *size)`, complex64.
    """
    position = torch.arange(coils, dtype=torch.float64).reshape(-1, *[1] * len(size))
    turn = position * 2 * math.pi / coils
    y, x = _axis(size, -2) - 1.5 * torch.sin(turn), _axis(size, -1) - 1.5 * torch.cos(turn)
    distance = torch.hypot(x, y)
    if len(size) == 3:
        rings = math.ceil(coils / RING)
        distance = torch.hypot(distance, _axis(size, 0) + 1 - (2 * (position % rings) + 1) / rings)
    maps = torch.polar(1 / distance, (torch.atan2(x, -y) - turn).expand(distance.shape))
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def estimate_coil_maps(
    y: Tensor, *, calibration: int = 24, kernel: int = 6, threshold: float = 0.02, crop: float = 0.0
) -> Tensor:
    """Sensitivities from the fully measured centre of a multi-coil measurement, by ESPIRiT.

    Uecker et al., ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI, Magnetic
    Resonance in Medicine 71, 2014, as `sigpy` implements it. The sum of squares over the coils is
    1, and the phase is that of the first coil, which no measurement determines.

    Args:
        y: k-space of one image `(1, 2, N, *spatial)`, as `mri` measures it.
        calibration: width of the fully measured centre along every axis.
        kernel: width of the kernels that are fitted in it.
        threshold: singular values below this share of the largest are noise.
        crop: sensitivities are 0 where the eigenvalue, at most 1, lies below.

    Returns:
        `(N, *spatial)`, complex64, for `coil_maps` of `mri`.

    Raises:
        ValueError: another shape, several images, a centre that is too small or not measured, or
            the package sigpy is not installed.
    """
    calibration = whole("calibration", calibration, low=1, do="give the width of the centre")
    kernel = whole("kernel", kernel, low=1, high=calibration, do="give the width of a kernel")
    threshold = number("threshold", threshold, low=0, high=1, do="give a share of the largest")
    crop = number("crop", crop, low=0, high=1, do="give an eigenvalue")
    if y.ndim not in (5, 6) or y.shape[:2] != (1, 2):
        raise ValueError(
            f"the measurement has shape {tuple(y.shape)}, expected (1, 2, N, H, W) or "
            "(1, 2, N, D, H, W); estimate the maps of one image at a time."
        )
    k = to_complex(y)[0].detach().cpu().to(torch.complex64)
    _refuse_centre(k, calibration)
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError as error:
        raise ValueError(
            "estimating coil maps needs the package sigpy, which is not installed; run "
            "`pip install sigpy`, or give coil_maps of your own."
        ) from error
    app = EspiritCalib(
        k.numpy(),
        calib_width=calibration,
        kernel_width=kernel,
        thresh=threshold,
        crop=crop,
        show_pbar=False,
    )
    return torch.from_numpy(app.run()).to(torch.complex64)


def chosen_maps(coils: int, coil_maps: Tensor | None, size: Sequence[int]) -> Tensor | None:
    """Maps of one's own, those of `birdcage` for several coils, or None for a single coil.

    Raises:
        ValueError: no number of coils, or maps that do not fit.
    """
    coils = whole("coils", coils, low=1, high=256, do="give the number of receiver coils")
    if coil_maps is not None:
        return checked_maps(coil_maps, size)
    return birdcage(size, coils) if coils > 1 else None


def checked_maps(coil_maps: Tensor, size: Sequence[int]) -> Tensor:
    """Coil maps of one's own, if they are.

    Args:
        coil_maps: complex `(N, *size)`, or `(1, N, *size)`.
        size: `(H, W)` or `(D, H, W)`.

    Returns:
        `(N, *size)`.

    Raises:
        ValueError: another size, not complex, or not finite.
    """
    maps = coil_maps[0] if coil_maps.ndim == len(size) + 2 and len(coil_maps) == 1 else coil_maps
    if maps.ndim != len(size) + 1 or tuple(maps.shape[1:]) != tuple(size):
        raise ValueError(
            f"coil_maps have shape {tuple(coil_maps.shape)}, expected "
            f"(N, {', '.join(map(str, size))}); give one map of the image's size per coil."
        )
    if not maps.is_complex() or not torch.isfinite(torch.view_as_real(maps.resolve_conj())).all():
        raise ValueError(
            f"coil_maps are of {coil_maps.dtype}, expected finite complex numbers; "
            "use torch.complex(real, imaginary)."
        )
    return maps


def _axis(size: Sequence[int], axis: int) -> Tensor:
    """Coordinates from -1 to 1 along an axis, to be broadcast over `(coils, *size)`."""
    line = torch.linspace(-1, 1, size[axis], dtype=torch.float64)
    return line.reshape(-1, *[1] * (-axis - 1 if axis < 0 else len(size) - 1 - axis))


def _refuse_centre(k: Tensor, calibration: int) -> None:
    centre = k
    for axis in range(1, k.ndim):
        if k.shape[axis] < calibration:
            raise ValueError(
                f"calibration is {calibration} but k-space only "
                f"{'x'.join(map(str, k.shape[1:]))}; make it smaller."
            )
        centre = centre.narrow(axis, k.shape[axis] // 2 - calibration // 2, calibration)
    if (missing := int((centre == 0).all(0).sum())) > 0:
        raise ValueError(
            f"{missing} of the {centre[0].numel()} samples in the centre of k-space were not "
            "measured; lower calibration, or measure with a larger centre_fraction."
        )
