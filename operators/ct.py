"""Computed tomography: line integrals of a slice, from parallel rays or a fan."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from deepinv.physics import LinearPhysics, NoiseModel
from torch import Tensor

from .noise import TransmissionNoise, noise_model
from .repaired import Repaired
from .tomography.cache import remember
from .tomography.fbp import Window, filtered_back_projection, has_fbp
from .tomography.geometry import FanBeam, Geometry, ParallelBeam
from .tomography.projector import (
    BUDGET,
    FORMAT,
    Backend,
    Projector,
    largest_singular_value,
    projector,
)
from .tomography.scanners import fan_beam, parallel_beam, view_angles
from .validate import image_size, number, one_of

Beam = Literal["parallel", "fan"]
Inverse = Literal["fbp", "cg"]

DEPTH = 5.0  # of 25 cm of water at 70 keV


class ComputedTomography(Repaired, LinearPhysics):
    """`A x = scale P x` with the line integrals `P` of every channel.

    Args:
        projector: computes `P`.
        scale: of the measurement.
        window: of filtered back-projection.
        **kwargs: `img_size` and `noise_model`, as everywhere in deepinv.

    Attributes:
        geometry: of the scanner.
        dagger_tolerance: None, filtered back-projection is an approximate inverse.
    """

    dagger_tolerance: ClassVar[float | None] = None
    projector: Projector
    scale: float
    window: Window

    def __init__(self, projector: Projector, scale: float, window: Window, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.projector, self.scale, self.window = projector, scale, window

    @property
    def geometry(self) -> Geometry:
        """Of the scanner."""
        return self.projector.geometry

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Project: `(B, C, H, W)` to `(B, C, detectors, views)`."""
        return self.scale * self.projector(x)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Exact adjoint: `(B, C, detectors, views)` to `(B, C, H, W)`."""
        return self.scale * self.projector.adjoint(y)

    def A_dagger(
        self,
        y: Tensor,
        *,
        method: Inverse | None = None,
        window: Window | None = None,
        tol: float = 1e-6,
        max_iter: int = 200,
        **parameters: Any,
    ) -> Tensor:
        """Reconstruct without a prior.

        Args:
            y: measurements `(B, C, detectors, views)`.
            method: "fbp" (filtered back-projection, approximate), or "cg" (least squares of
                minimum norm by conjugate gradients); by default the first, unless a fan turned too
                little for it.
            window: of filtered back-projection, that of the constructor by default.
            tol: of "cg", relative residual of the normal equations.
            max_iter: of "cg", most applications of `A^T A`.
            **parameters: ignored, as everywhere in deepinv.

        Returns:
            Images `(B, C, H, W)`.

        Raises:
            ValueError: an unknown word, or "fbp" of a fan that turned too little.
        """
        default = "fbp" if has_fbp(self.geometry) else "cg"
        if one_of("method", method or default, get_args(Inverse)) == "cg":
            return super().A_dagger(y, tol=tol, max_iter=max_iter)
        self.projector.check(y, "measurements", self.projector.detector)
        chosen = self.window if window is None else window
        return filtered_back_projection(y / self.scale, self.geometry, window=chosen)


def ct(
    image_shape: Sequence[int],
    *,
    geometry: Beam = "parallel",
    angles: int | Sequence[float] | Tensor = 60,
    start: float = 0.0,
    span: float | None = None,
    detectors: int | None = None,
    spacing: float | None = None,
    pixel: float = 1.0,
    source_distance: float | None = None,
    detector_distance: float | None = None,
    window: Window = "ram-lak",
    normalise: bool = True,
    photons: float | None = None,
    attenuation: float | None = None,
    backend: Backend = "joseph",
    memory_budget: int = BUDGET,
    cache: bool = True,
    noise: float = 0.0,
) -> ComputedTomography:
    """CT of a slice: line integrals along parallel rays or a fan, by Joseph's method.

    At angle 0 rays run along the columns; angles grow counter-clockwise. Lengths are in the unit of
    `pixel`. By default the operator is divided by its largest singular value, so that its norm is 1
    and `noise` is relative to that.

    Args:
        image_shape: `(C, H, W)` of one clean slice.
        geometry: "parallel" or "fan" (a point source and a flat detector).
        angles: number of views, or their angles in degrees.
        start: of the arc of views, degrees.
        span: of the arc, its end left out; 180 degrees for parallel rays and 360 for a fan by
            default.
        detectors: number of bins; enough for the whole slice by default.
        spacing: distance between two bins; a pixel for parallel rays, and for a fan what lets it
            cover the whole slice by default.
        pixel: side of a pixel, for example in millimetres.
        source_distance: from the source of a fan to the centre, 1.5 diagonals of the slice by
            default.
        detector_distance: from the source of a fan to its detector, twice `source_distance` by
            default.
        window: of filtered back-projection.
        normalise: False measures line integrals as they are, value times length.
        photons: number that leaves the source towards each bin; sets Poisson noise in transmission
            instead of `noise`.
        attenuation: per unit length where the image is 1, for `photons`; by default such that a
            disc of value 1 as wide as the slice has an optical depth of 5, as 25 cm of water.
        backend: "joseph", or "astra" for the weights of the ASTRA toolbox.
        memory_budget: bytes for the stored matrix; above, it is computed anew at every use.
        cache: whether to keep the matrix on disk, in the user's cache folder, unless it is small.
        noise: standard deviation of Gaussian noise, in units of the sinogram.

    Returns:
        Linear operator from `(B, C, H, W)` to `(B, C, detectors, views)`.

    Raises:
        ValueError: repeated angles, a source inside the slice, a detector that sees nothing, or any
            other number that no scanner has.
    """
    shape = image_size(image_shape)
    options: dict[str, Any] = {"detectors": detectors, "spacing": spacing, "pixel": pixel}
    distances = {"source_distance": source_distance, "detector_distance": detector_distance}
    build, period = parallel_beam, ParallelBeam.period
    if one_of("geometry", geometry, get_args(Beam)) == "fan":
        build, period, options = fan_beam, FanBeam.period, {**options, **distances}
    elif given := [name for name, value in distances.items() if value is not None]:
        raise ValueError(f"parallel rays have no {given[0]}; use geometry=fan, or leave it out.")
    one_of("window", window, get_args(Window))
    scanner = build((shape[1], shape[2]), view_angles(angles, start, span, period), **options)
    rays = projector(scanner, backend=backend, memory_budget=memory_budget, cache=cache)
    scale = 1 / _norm(rays, backend) if normalise else 1.0
    model = _noise_model(scanner, scale, photons, attenuation, noise)
    return ComputedTomography(rays, scale, window, img_size=shape, noise_model=model)


def _norm(rays: Projector, backend: str) -> float:
    """Largest singular value, kept on disk with the matrix."""
    ones = torch.ones(1, 1, *rays.geometry.size)

    def find() -> dict[str, Tensor]:
        value = largest_singular_value(rays, rays.adjoint, ones)
        return {"norm": torch.tensor(value, dtype=torch.float64)}

    about = f"{FORMAT} norm {backend} {rays.geometry!r}"
    return float(remember(about, find, enabled=rays.cached)["norm"])


def _noise_model(
    scanner: Geometry, scale: float, photons: float | None, attenuation: float | None, noise: float
) -> NoiseModel:
    if photons is None:
        if attenuation is not None:
            raise ValueError("attenuation is that of photons, and none are given; give photons.")
        return noise_model(noise)
    if noise != 0:
        raise ValueError(f"photons={photons:g} and noise={noise:g} are both given; give one.")
    if attenuation is None:
        attenuation = DEPTH / (min(scanner.size) * scanner.pixel)
    attenuation = number("attenuation", attenuation, above=0, do="give it per unit length")
    return TransmissionNoise(photons, attenuation / scale)
