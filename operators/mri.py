"""Cartesian magnetic resonance imaging: part of the Fourier transform, seen by one coil or several.

`y_n = M F S_n x`: sensitivities `S_n` of `N` coils (none for a single coil), the orthonormal
centred Fourier transform `F`, and a mask `M` of measured samples (Pruessmann et al., SENSE,
Magnetic Resonance in Medicine 42, 1999).
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from deepinv.physics import LinearPhysics, NoiseModel
from torch import Tensor
from torch.fft import fftshift, ifftshift

from .fourier.coils import checked_maps, chosen_maps
from .fourier.kspace import Cartesian, centred_fourier, centred_inverse, to_channels, to_complex
from .fourier.sampling import Pattern, sampling_mask
from .noise import noise_model
from .svd import SVD, Decomposed
from .validate import image_size

CACHED = 2**18  # complex numbers in the cache of one thread, 2 MiB


class SingleCoil(Decomposed, Cartesian):
    """`y = M F x`: singular values 1 at measured samples, 0 elsewhere."""

    def A(self, x: Tensor, **parameters: Any) -> Tensor:
        """Measure images `(B, 2, *spatial)`: k-space of the same shape, zero where not measured."""
        self.update_parameters(**parameters)
        return self._fill(self._transform(ifftshift(to_complex(x), dim=self.axes)))

    def A_adjoint(self, y: Tensor, **parameters: Any) -> Tensor:
        """Zero-filled reconstruction, which is the pseudo-inverse as well."""
        self.update_parameters(**parameters)
        return to_channels(fftshift(self._transpose(y), dim=self.axes).conj())

    def A_adjoint_A(self, x: Tensor, **parameters: Any) -> Tensor:
        """`A^T A x`, along the axes that are not fully measured only."""
        self.update_parameters(**parameters)
        z = self._project(ifftshift(to_complex(x), dim=self.axes))
        return to_channels(fftshift(z, dim=self.axes))

    def svd(self) -> SVD:
        """Coordinates are the samples of k-space, two real numbers each."""
        return SVD(
            s=self.mask,
            Vt=lambda x: centred_fourier(x, self.axes),
            V=lambda c: centred_inverse(c, self.axes),
            U=lambda c: c,
            Ut=lambda y: y,
        )


class MultiCoil(Cartesian):
    """`y_n = M F S_n x`.

    Args:
        mask: 1 where k-space is measured, `(*spatial)`.
        coil_maps: complex sensitivities `(N, *spatial)`.
        noise_model: noise of the measured samples.
    """

    maps: Tensor

    def __init__(self, mask: Tensor, coil_maps: Tensor, noise_model: NoiseModel) -> None:
        super().__init__(mask, noise_model)
        # with the origin in the corner, so that no image of a coil has to be shifted
        self.register_buffer("maps", ifftshift(coil_maps, dim=self.axes)[None])

    @property
    def coil_maps(self) -> Tensor:
        """Complex sensitivities `(1, N, *spatial)`, origin in the middle."""
        return fftshift(self.maps, dim=self.axes)

    def A(self, x: Tensor, **parameters: Any) -> Tensor:
        """Measure images `(B, 2, *spatial)`: k-space `(B, 2, N, *spatial)` of every coil."""
        self.update_parameters(**parameters)
        z = ifftshift(to_complex(x), dim=self.axes)[:, None]
        return self._fill(torch.cat([self._transform(maps * z) for maps in self._few(z)], 2))

    def A_adjoint(self, y: Tensor, **parameters: Any) -> Tensor:
        """Zero-filled images of the coils, combined by the conjugate sensitivities."""
        self.update_parameters(**parameters)
        few = self._few(y[:, :1])
        parts = zip(few, y.split(few[0].shape[1], 2), strict=True)
        z = reduce(torch.add, ((maps * self._transpose(part)).sum(1) for maps, part in parts))
        return to_channels(fftshift(z, dim=self.axes).conj())

    def A_adjoint_A(self, x: Tensor, **parameters: Any) -> Tensor:
        """`A^T A x`, along the axes that are not fully measured only."""
        self.update_parameters(**parameters)
        z = ifftshift(to_complex(x), dim=self.axes)[:, None]
        few = self._few(z)
        z = reduce(torch.add, ((m.conj() * self._project(m * z)).sum(1) for m in few))
        return to_channels(fftshift(z, dim=self.axes))

    def _few(self, z: Tensor) -> tuple[Tensor, ...]:
        """The maps in groups whose images stay in the processor's cache, or in little memory."""
        pixels = z.shape[0] * math.prod(self.img_size[1:])
        caches = torch.get_num_threads() if z.device.type == "cpu" else 256
        return self.maps.split(max(1, caches * CACHED // pixels), 1)

    def update_parameters(self, coil_maps: Tensor | None = None, **parameters: Any) -> None:
        """Use other sensitivities `(N, *spatial)`, or another mask, from now on."""
        super().update_parameters(**parameters)
        if coil_maps is not None:
            maps = checked_maps(coil_maps, self.img_size[1:])
            self.maps = ifftshift(maps, dim=self.axes)[None].to(self.maps)


def mri(
    image_shape: Sequence[int],
    *,
    acceleration: float = 4.0,
    centre_fraction: float = 0.08,
    pattern: Pattern = "random",
    coils: int = 1,
    coil_maps: Tensor | None = None,
    mask: Tensor | None = None,
    file: Path | str | None = None,
    seed: int = 0,
    noise: float = 0.0,
) -> LinearPhysics:
    """Accelerated Cartesian MRI: `y_c = M F S_c x` with the orthonormal, centred transform `F`.

    Complex images travel as two channels, real and imaginary. The read-out runs along `H`: the
    phase encodings are the columns `W` of an image, and the plane `(D, W)` of a volume.

    Args:
        image_shape: `(2, H, W)` of one clean image or `(2, D, H, W)` of one volume.
        acceleration: samples of k-space over those that are measured.
        centre_fraction: share of the phase encodings, along their axis, around zero frequency that
            are always measured.
        pattern: "random" columns; "uniform", every `acceleration`-th column besides the centre;
            "poisson", a variable-density Poisson disc in the plane of an image, or in the plane of
            the phase encodings of a volume.
        coils: number of receiver coils; more than one get the smooth maps of `birdcage`.
        coil_maps: complex sensitivities `(N, *spatial)` of one's own; replace `coils`.
        mask: zeros and ones of one's own, `(*spatial)` or the plane `(D, W)` of a volume; replaces
            the pattern.
        file: the same as a picture, white where measured, or a `.npy` array: `(H, W)`, or `(D, W)`
            for a volume.
        seed: of what is random in the pattern.
        noise: standard deviation of Gaussian noise on each real and imaginary part.

    Returns:
        Linear operator from `(B, 2, *spatial)` to `(B, 2, *spatial)` for one coil, to
        `(B, 2, N, *spatial)` for several; zero where k-space was not measured.

    Raises:
        ValueError: not two channels, bad numbers, a pattern that cannot be had, a mask or coil
            maps of another size.
        FileNotFoundError: there is no such mask file.
    """
    shape = image_size(
        image_shape, channels=2, dims=(2, 3), hint="MRI takes real and imaginary parts"
    )
    size = shape[1:]
    maps = chosen_maps(coils, coil_maps, size)
    measured = sampling_mask(
        size,
        pattern=pattern,
        acceleration=acceleration,
        centre_fraction=centre_fraction,
        seed=seed,
        mask=mask,
        file=file,
    )
    if maps is None:
        return SingleCoil(measured, noise_model(noise))
    return MultiCoil(measured, maps, noise_model(noise))
