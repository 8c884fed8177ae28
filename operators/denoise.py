"""Denoising: the instrument saw the image itself, `A = I`."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any, Literal

import torch
from deepinv.physics import Denoising
from torch import Tensor

from .noise import PoissonNoise, RicianNoise, noise_model
from .repaired import per_image
from .svd import SVD
from .validate import image_size, number, one_of

Distribution = Literal["gaussian", "poisson", "rician"]


class Identity(Denoising):
    """deepinv's `Denoising`, which also tells what it does to a spectrum."""

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """`argmin_x gamma/2 |x - y|^2 + 1/2 |x - z|^2`: a weighted mean, one weight an image."""
        weight = per_image(gamma, z)
        return (weight * y + z) / (weight + 1)

    def gram_spectrum(self, power: Tensor) -> Tensor:
        """Spectrum of `A C A^T` for a stationary covariance `C` of spectrum `power`: the same."""
        return power

    def svd(self) -> SVD:
        """All ones."""
        return SVD(torch.ones(()), *[lambda x: x] * 4)


def denoise(
    image_shape: Sequence[int],
    *,
    distribution: Distribution = "gaussian",
    counts: float = 100.0,
    noise: float = 0.0,
) -> Denoising:
    """Noise only: `y = x + n`, or counts, or a magnitude.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)` of one clean image.
        distribution: "gaussian"; "poisson", `counts y ~ Poisson(counts x)`, for few photons;
            "rician", `y = |x + n_1 + i n_2|`, for magnitude images of MRI.
        counts: expected counts at white, for "poisson".
        noise: standard deviation of the Gaussian noise, or of each part of the Rician, in units of
            the image.

    Returns:
        Operator from `(B, C, ...)` to `(B, C, ...)`.

    Raises:
        ValueError: a bad shape or level, or an unknown distribution.
    """
    one_of("distribution", distribution, ("gaussian", "poisson", "rician"))
    sigma = number("noise", noise, low=0, do="give a standard deviation in the units of the image")
    if distribution == "poisson" and sigma > 0:
        raise ValueError(f"noise is {sigma:g} but Poisson noise follows from counts; drop noise.")
    model = {
        "gaussian": lambda: noise_model(sigma),
        "poisson": lambda: PoissonNoise(counts),
        "rician": lambda: RicianNoise(sigma),
    }[distribution]()
    physics = Identity(noise_model=model)
    physics.img_size = image_size(image_shape, dims=(2, 3))
    return physics
