"""Positron emission tomography: blurred and attenuated line integrals, and counts."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from deepinv.physics import LinearPhysics, NoiseModel
from torch import Tensor

from .files import read_plane
from .kernels import gaussian_kernel
from .noise import PoissonNoise, noise_model
from .repaired import Repaired
from .tomography.geometry import ParallelBeam
from .tomography.projector import BUDGET, Projector, largest_singular_value, projector
from .tomography.scanners import parallel_beam, view_angles
from .validate import image_size, number

FWHM = 2 * math.sqrt(2 * math.log(2))  # full width at half maximum of a unit Gaussian
BODY = 0.9  # axes of the default ellipse over the sides of the image


class EmissionTomography(Repaired, LinearPhysics):
    """`A x = scale a P G x`: blur `G`, line integrals `P`, attenuation factors `a` of every ray.

    Args:
        projector: computes `P`.
        factors: probability that a pair of photons gets out `(bins, views)`, in (0, 1].
        blur: one small matrix for the rows and one for the columns, `(H, H)` and `(W, W)`.
        scale: of the measurement.
        **kwargs: `img_size` and `noise_model`, as everywhere in deepinv.
    """

    projector: Projector
    factors: Tensor
    down: Tensor
    across: Tensor
    scale: float

    def __init__(
        self, projector: Projector, factors: Tensor, blur: tuple[Tensor, Tensor], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.projector, self.scale = projector, 1.0
        for name, tensor in zip(("factors", "down", "across"), (factors, *blur), strict=True):
            self.register_buffer(name, tensor.float())

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Expected counts: `(B, C, H, W)` to `(B, C, bins, views)`."""
        blurred = self.down @ x @ self.across.T
        return self.scale * self.factors * self.projector(blurred)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Exact adjoint: `(B, C, bins, views)` to `(B, C, H, W)`."""
        smeared = self.projector.adjoint(self.scale * self.factors * y)
        return self.down.T @ smeared @ self.across


def pet(
    image_shape: Sequence[int],
    *,
    angles: int | Sequence[float] | Tensor = 90,
    detectors: int | None = None,
    spacing: float | None = None,
    pixel: float = 2.0,
    fwhm: float = 5.0,
    mu: float = 0.0096,
    attenuation: Path | Tensor | None = None,
    counts: float | None = None,
    normalise: bool = True,
    memory_budget: int = BUDGET,
    cache: bool = True,
    noise: float = 0.0,
) -> EmissionTomography:
    """PET of a slice: parallel coincidence lines, with resolution, attenuation and counts.

    `A x = a P G x`: `G` is a Gaussian blur of the image, `P` are line integrals by Joseph's method
    and `a = exp(-P m)` the probability that both photons leave the attenuation map `m`. Random and
    scattered coincidences, which would make the operator affine, are left out: subtract their
    expectation from the data.

    Args:
        image_shape: `(C, H, W)` of one clean image of activity.
        angles: number of views, evenly spread over 180 degrees, or their angles in degrees.
        detectors: number of bins; enough for the whole slice by default.
        spacing: distance between two bins, a pixel by default.
        pixel: side of a pixel in millimetres.
        fwhm: full width at half maximum of the blur in millimetres, 0 for none.
        mu: attenuation of 511 keV photons per millimetre where the map is 1; that of water.
        attenuation: map relative to `mu`, `(H, W)` or a file with one plane, white being 1; by
            default 1 in an ellipse nine tenths as high and as wide as the image.
        counts: expected where the sinogram is 1; sets Poisson noise instead of `noise`.
        normalise: False measures line integrals as they are, activity times millimetres;
            True divides the operator by its largest singular value.
        memory_budget: bytes for the stored matrix; above, it is computed anew at every use.
        cache: whether to keep the matrix on disk, in the user's cache folder, unless it is small.
        noise: standard deviation of Gaussian noise, in units of the sinogram.

    Returns:
        Linear operator from `(B, C, H, W)` to `(B, C, bins, views)`.

    Raises:
        ValueError: repeated angles, a map that is negative or of another size, or numbers that no
            scanner has.
        FileNotFoundError: the map's file is not there.
    """
    shape = image_size(image_shape)
    size = (shape[1], shape[2])
    views = view_angles(angles, 0.0, None, ParallelBeam.period)
    scanner = parallel_beam(size, views, detectors=detectors, spacing=spacing, pixel=pixel)
    fwhm = number("fwhm", fwhm, low=0, do="give a width in millimetres, 0 for no blur")
    mu = number("mu", mu, low=0, do="give 0 for no attenuation")
    body, model = _map(attenuation, size), _noise_model(counts, noise)
    blur = (gaussian_matrix(size[0], fwhm / pixel), gaussian_matrix(size[1], fwhm / pixel))
    rays = projector(scanner, memory_budget=memory_budget, cache=cache)
    factors = torch.exp(-mu * rays(body.float()[None, None])[0, 0].double())
    physics = EmissionTomography(rays, factors, blur, img_size=shape, noise_model=model)
    if normalise:
        ones = torch.ones(1, 1, *size)
        physics.scale = 1 / largest_singular_value(physics.A, physics.A_adjoint, ones)
    return physics


def gaussian_matrix(n: int, fwhm: float) -> Tensor:
    """Gaussian blur of `n` pixels in a row with zeros beyond, a symmetric `(n, n)`, float64.

    Args:
        n: number of pixels.
        fwhm: full width at half maximum in pixels, 0 for none.

    Raises:
        ValueError: a width of more than some hundred pixels.
    """
    if fwhm == 0:
        return torch.eye(n, dtype=torch.float64)
    taps = gaussian_kernel(fwhm / FWHM).sum(0)
    reach = len(taps) // 2
    distance = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    return torch.where(distance <= reach, taps[reach + distance.clamp(max=reach)], 0)


def _map(attenuation: Path | Tensor | None, size: tuple[int, int]) -> Tensor:
    if attenuation is None:
        y, x = ((2 * torch.arange(n).double() + 1 - n) / n for n in size)
        return (torch.hypot(y[:, None], x) <= BODY).double()
    given = attenuation if isinstance(attenuation, Tensor) else read_plane(attenuation)
    given = given.double()
    if tuple(given.shape) != size or not given.isfinite().all() or (given < 0).any():
        raise ValueError(
            f"the attenuation map has shape {tuple(given.shape)} and values from "
            f"{float(given.min()):g}, expected {size} and finite values of at least 0; give one "
            "relative to mu."
        )
    return given


def _noise_model(counts: float | None, noise: float) -> NoiseModel:
    if counts is None:
        return noise_model(noise)
    if noise != 0:
        raise ValueError(f"counts={counts:g} and noise={noise:g} are both given; give one.")
    return PoissonNoise(counts)
