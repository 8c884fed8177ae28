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

_STEPS = 50  # power iterations of the spectral start


class Diffraction(Physics):
    """`y = |F P M_k x|`, `k = 1 ... K`: Fourier magnitudes of the masked, zero-padded image.

    `F` is orthonormal, so that `|y|^2 = K |x|^2`. Without masks (K = 1, `M = I`) the image is
    determined up to its sign and, where it is surrounded by zeros, up to shifts and a point
    reflection; random signs break those.

    Args:
        shape: `(C, H, W)` of one image.
        oversampling: the padded image is so many times larger along both sides.
        signs: masks `(K, H, W)`.
        **kwargs: for deepinv's `Physics`.
    """

    signs: Tensor

    def __init__(
        self, shape: tuple[int, ...], oversampling: float, signs: Tensor, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.img_size = self.image_shape = shape
        self.padded = tuple(round(oversampling * n) for n in shape[1:])
        self.register_buffer("signs", signs.float())

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Magnitudes: `(B, C, H, W)` to `(B, C K, H', W')`, `H' = oversampling H`."""
        return self.field(x).abs().flatten(1, 2)

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """A start, not an inverse: the spectral estimate, or a flat image where it is useless.

        With several masks the leading eigenvector of `A^T diag(y^2) A`, scaled to the energy of
        the measurement (Candes, Li and Soltanolkotabi 2015); its sign is that of a bright image.
        Without masks the eigenvector knows only the image's spectrum, and the start is the constant
        of the right mean, which the zero frequency tells.

        Args:
            y: measurements `(B, C K, H', W')`.

        Returns:
            Images `(B, C, H, W)`.
        """
        count = len(self.signs)
        channels, height, width = self.image_shape
        y = y.unflatten(1, (channels, count))
        area = (self.padded[0] * self.padded[1]) ** 0.5
        flat = y[:, :, :1, :1, 0] * area / (height * width)
        x = flat.expand(-1, -1, height, width).clone()
        if count == 1:
            return x
        energy = (y.square().flatten(2).sum(2) / count).sqrt()[..., None, None]
        x = torch.ones_like(x)
        for _ in range(_STEPS):
            x = self.back(y.square() * self.field(x))
            x = x / x.flatten(2).norm(dim=2)[..., None, None].clamp_min(1e-12)
        return energy * x * torch.where(x.sum((2, 3), keepdim=True) < 0, -1, 1)

    def field(self, x: Tensor) -> Tensor:
        """The complex field on the detector: `(B, C, H, W)` to `(B, C, K, H', W')`."""
        wide = [0, self.padded[1] - x.shape[-1], 0, self.padded[0] - x.shape[-2]]
        return fft.fft2(pad(self.signs * x.unsqueeze(2), wide), norm="ortho")

    def back(self, field: Tensor) -> Tensor:
        """Adjoint of `field`, real part: `(B, C, K, H', W')` to `(B, C, H, W)`."""
        height, width = self.image_shape[1:]
        image = fft.ifft2(field, norm="ortho").real[..., :height, :width]
        return (self.signs * image).sum(2)


def phase(
    image_shape: Sequence[int],
    *,
    oversampling: float = 2.0,
    masks: int = 0,
    seed: int = 0,
    noise: float = 0.0,
) -> Diffraction:
    """Phase retrieval: magnitudes of the oversampled, orthonormal Fourier transform.

    Args:
        image_shape: `(C, H, W)` of one clean image.
        oversampling: how many times larger the transform is along both sides; 2 measures the whole
            autocorrelation.
        masks: number of random sign masks in front of the image (coded diffraction); 0 for none.
        seed: of the masks.
        noise: standard deviation of Gaussian noise on the magnitudes.

    Returns:
        Nonlinear operator from `(B, C, H, W)` to `(B, C max(masks, 1), H', W')`; its `A_dagger` is
        a start for solvers.

    Raises:
        ValueError: bad numbers.
    """
    shape = image_size(image_shape)
    oversampling = number("oversampling", oversampling, low=1, high=16, do="2 is usual")
    masks = whole("masks", masks, low=0, high=64, do="give the number of sign masks")
    signs = torch.ones(1, *shape[1:])
    if masks:
        draw = torch.randint(0, 2, (masks, *shape[1:]), generator=seeded(seed))
        signs = 2.0 * draw - 1
    return Diffraction(shape, oversampling, signs, noise_model=noise_model(noise))
