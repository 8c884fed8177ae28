"""Phase retrieval: the detector sees how strong the diffracted light is, not its phase."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

import torch
from deepinv.physics import Physics
from torch import Tensor, fft
from torch.nn.functional import pad

from .noise import noise_model
from .validate import image_size, number, seeded, whole

_STEPS = 50  # of the alternating projections that find a start


class Diffraction(Physics):
    """`y = |F P M_k x|`, `k = 1 ... K`: Fourier magnitudes of the masked, zero-padded image.

    `F` is orthonormal, so that `|y|^2 = K |x|^2`; zero frequency comes first. Without masks (K = 1,
    `M = I`) the image is determined up to its sign and, where it is surrounded by zeros, up to
    shifts and a point reflection; random signs leave only the sign.

    Args:
        shape: `(C, H, W)` of one image.
        padded: size of the padded image.
        signs: masks `(K, H, W)` of plus and minus one.
        intensity: measure the square of the magnitude.
        **options: for deepinv's `Physics`.
    """

    signs: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        padded: tuple[int, ...],
        signs: Tensor,
        intensity: bool,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.img_size, self.padded, self.intensity = shape, padded, intensity
        self.register_buffer("signs", signs)

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Diffract: `(B, C, H, W)` to `(B, C K, *padded)`; its derivative at darkness is zero."""
        field = self.field(x).flatten(1, 2)
        return field.real**2 + field.imag**2 if self.intensity else field.abs()

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """A start, not an inverse: fifty steps of error reduction from a random positive image.

        Fienup, *Phase retrieval algorithms: a comparison*, 1982: in turn the measured magnitudes
        are put in and what is negative or outside the image taken out. Several masks determine the
        image; without any the start has the right spectrum and stagnates between the image and its
        reflection.

        Args:
            y: measurements `(B, C K, *padded)`.

        Returns:
            Images `(B, C, H, W)`.
        """
        y = y.unflatten(1, (self.img_size[0], -1)).clamp(min=0)
        magnitude = y.sqrt() if self.intensity else y
        x = 0.5 + torch.rand(self.img_size, generator=seeded(0), dtype=torch.float64).to(y)
        energy = magnitude.square().flatten(2).sum(2) / len(self.signs)
        x = x * (energy.sqrt() / x.flatten(1).norm(dim=1))[..., None, None]
        for _step in range(_STEPS):
            x = self.back(magnitude * self.field(x).sgn()) / len(self.signs)
            x = x.clamp(min=0)
        return x

    def field(self, x: Tensor) -> Tensor:
        """The complex field on the detector: `(B, C, H, W)` to `(B, C, K, H', W')`."""
        wide = [0, self.padded[1] - x.shape[-1], 0, self.padded[0] - x.shape[-2]]
        return fft.fft2(pad(self.signs * x.unsqueeze(2), wide), norm="ortho")

    def back(self, field: Tensor) -> Tensor:
        """Adjoint of `field`, real part: `(B, C, K, H', W')` to `(B, C, H, W)`."""
        height, width = self.img_size[1:]
        image = fft.ifft2(field, norm="ortho").real[..., :height, :width]
        return (self.signs * image).sum(2)


def phase(
    image_shape: Sequence[int],
    *,
    oversampling: float = 2.0,
    masks: int = 0,
    intensity: bool = False,
    seed: int = 0,
    noise: float = 0.0,
) -> Diffraction:
    """Phase retrieval: magnitudes of the oversampled, orthonormal Fourier transform.

    Args:
        image_shape: `(C, H, W)` of one clean image.
        oversampling: how many times larger the transform is along both sides; 2 measures the whole
            autocorrelation.
        masks: number of random sign masks in front of the image (coded diffraction); 0 for none.
        intensity: measure the square of the magnitude.
        seed: of the masks.
        noise: standard deviation of Gaussian noise, in units of the measurement.

    Returns:
        Nonlinear operator from `(B, C, H, W)` to `(B, C max(masks, 1), H', W')` with `H' =
        round(oversampling H)`; its `A_dagger` is a start for solvers.

    Raises:
        ValueError: bad numbers.
    """
    shape = image_size(image_shape)
    factor = number("oversampling", oversampling, low=1, high=16, do="2 is usual")
    masks = whole("masks", masks, low=0, high=64, do="give the number of sign masks")
    padded = tuple(round(factor * n) for n in shape[1:])
    draw = torch.randint(0, 2, (masks, *shape[1:]), generator=seeded(seed))
    signs = 2.0 * draw - 1 if masks else torch.ones(1, *shape[1:])
    return Diffraction(shape, padded, signs, intensity, noise_model=noise_model(noise))
