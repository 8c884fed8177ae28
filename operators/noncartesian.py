"""Magnetic resonance imaging off the grid: spokes, spirals, and trajectories of one's own.

`y_n(k) = P^(-1/2) sum_r S_n(r) x(r) exp(-2 pi i k r)` over the `P` pixels `r`, counted from the
middle: a Cartesian trajectory gives what `mri` measures. FINUFFT does the sums (Barnett, Magland
and af Klinteberg, SIAM Journal on Scientific Computing 41, 2019).
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, cast

import torch
from deepinv.physics import LinearPhysics, NoiseModel
from torch import Tensor

from .fourier.coils import checked_maps, chosen_maps
from .fourier.kspace import to_channels, to_complex
from .fourier.nufft import Nufft, convolved, finufft, gram_kernel
from .fourier.trajectories import checked_points, trajectory_points
from .noise import noise_model
from .repaired import Repaired
from .tomography.projector import largest_singular_value
from .validate import image_size, seeded

Trajectory = Literal["radial", "spiral"]


class NonCartesian(Repaired):
    """`y_n = F_k S_n x` at points `k` anywhere in k-space.

    The sums are done on the processor, wherever the images are.

    Args:
        points: cycles per pixel `(S, 2)` or `(S, 3)`, float64, in the order of the spatial axes.
        size: `(H, W)` or `(D, H, W)`.
        coil_maps: complex sensitivities `(N, *size)`, or None for a single coil.
        noise_model: noise of the samples.
        normalise: scale the samples so that the norm is 1, for a single coil.
    """

    coil_maps: Tensor | None

    def __init__(
        self,
        points: Tensor,
        size: Sequence[int],
        coil_maps: Tensor | None,
        noise_model: NoiseModel,
        *,
        normalise: bool = True,
    ) -> None:
        super().__init__(noise_model=noise_model)  # pyright: ignore[reportArgumentType]
        self.img_size = (2, *size)
        # no buffers: they keep their digits when the precision changes
        self.points, self.kernel, self.scale = points, gram_kernel(points, tuple(size)), 1.0
        self.register_buffer("coil_maps", None)
        if normalise:
            start = torch.randn((1, 2, *size), generator=seeded(0), dtype=torch.float64)
            squared = largest_singular_value(self.A_adjoint_A, lambda x: x, start)
            self.kernel, self.scale = self.kernel / squared, squared**-0.5
        if coil_maps is not None:
            self.coil_maps = coil_maps[None]

    def A(self, x: Tensor, **parameters: Any) -> Tensor:
        """Measure images `(B, 2, *spatial)`: samples `(B, 2, S)`, or `(B, 2, N, S)` of coils."""
        self.update_parameters(**parameters)
        z = to_complex(x)
        if self.coil_maps is not None:
            z = self.coil_maps * z[:, None]
        return self.scale * to_channels(self._sums(z, adjoint=False))

    def A_adjoint(self, y: Tensor, **parameters: Any) -> Tensor:
        """Images of the coils, without density compensation, combined by the sensitivities."""
        self.update_parameters(**parameters)
        z = self._sums(to_complex(y), adjoint=True)
        if self.coil_maps is not None:
            z = (self.coil_maps.conj() * z).sum(1)
        return self.scale * to_channels(z)

    def A_adjoint_A(self, x: Tensor, **parameters: Any) -> Tensor:
        """`A^T A x` by fast Fourier transforms, a convolution."""
        self.update_parameters(**parameters)
        z, kernel = to_complex(x), self.kernel.to(x)
        if self.coil_maps is None:
            return to_channels(convolved(z, kernel))
        terms = (m.conj() * convolved(m * z, kernel) for m in self.coil_maps.unbind(1))
        return to_channels(reduce(torch.add, terms))

    def update_parameters(self, coil_maps: Tensor | None = None, **parameters: Any) -> None:
        """Use other sensitivities `(N, *spatial)` from now on."""
        super().update_parameters(**parameters)
        if coil_maps is not None:
            maps = checked_maps(coil_maps, self.img_size[1:])[None]
            self.coil_maps = maps if self.coil_maps is None else maps.to(self.coil_maps)

    def _sums(self, z: Tensor, *, adjoint: bool) -> Tensor:
        return cast(Tensor, Nufft.apply(z, self.points, self.img_size[1:], adjoint))


def noncartesian(
    image_shape: Sequence[int],
    *,
    trajectory: Trajectory | Tensor = "radial",
    shots: int = 32,
    samples: int | None = None,
    turns: float = 4.0,
    golden: bool = False,
    coils: int = 1,
    coil_maps: Tensor | None = None,
    normalise: bool = True,
    noise: float = 0.0,
) -> LinearPhysics:
    """Non-Cartesian MRI: k-space along spokes or spirals, through one coil or several.

    Complex images travel as two channels, real and imaginary. Needs the package finufft.

    Args:
        image_shape: `(2, H, W)` of one clean image or `(2, D, H, W)` of one volume.
        trajectory: "radial", spokes through the middle; "spiral", of flat images; or points of
            one's own, `(S, 2)` or `(S, 3)` in cycles per pixel from -0.5 to 0.5, in the order of
            the spatial axes.
        shots: number of spokes or of interleaved spirals.
        samples: of one shot; by default two per pixel along a spoke, one along a spiral.
        turns: of one spiral.
        golden: turn from shot to shot by the golden angle instead of evenly; spokes through a
            volume always follow the golden means.
        coils: number of receiver coils; more than one get the smooth maps of `birdcage`.
        coil_maps: complex sensitivities `(N, *spatial)` of one's own; replace `coils`.
        normalise: False leaves the samples in the units of `mri`, where the norm is as large as the
            samples are dense; True scales them to norm 1 for a single coil.
        noise: standard deviation of Gaussian noise on each real and imaginary part.

    Returns:
        Linear operator from `(B, 2, *spatial)` to `(B, 2, S)` for one coil, to `(B, 2, N, S)` for
        several. The adjoint is exact to rounding; the sums themselves are off by about 1e-5 in
        float32 and 1e-12 in float64.

    Raises:
        ValueError: not two channels, bad numbers, points outside k-space, coil maps of another
            size, or the package finufft is not installed.
    """
    shape = image_size(
        image_shape, channels=2, dims=(2, 3), hint="MRI takes real and imaginary parts"
    )
    size = shape[1:]
    maps = chosen_maps(coils, coil_maps, size)
    if isinstance(trajectory, Tensor):
        points = checked_points(trajectory, len(size))
    else:
        points = trajectory_points(
            trajectory, size, shots=shots, samples=samples, turns=turns, golden=golden
        )
    finufft()
    return NonCartesian(points, size, maps, noise_model(noise), normalise=normalise)
