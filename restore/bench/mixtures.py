"""Priors of many modes, where one measurement leaves several of them possible.

The prior of R^8 and R^80 has 25 narrow components (Cardoso et al. 2023, arXiv:2308.07983, scaled to
images in [0, 1]): means `0.5 + 0.2 (i, j, i, j, ...)` for i, j in -2 ... 2, standard deviation
0.025, random weights. One measurement along a random direction, noise 0.02, leaves some three to
six modes, 16 or 50 standard deviations apart. A perfect sampler's frequencies of the modes are
themselves off, by a total variation of about 0.03 at 512 samples.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
from priors import Gaussian, GaussianMixture
from restore.bench.problems import Case

SHAPES: dict[str, tuple[int, int, int]] = {"R^8": (1, 2, 4), "R^80": (1, 8, 10)}


class Rows(LinearPhysics):
    """Any few numbers that depend linearly on an image: `y = M x`, `(B, C, H, W)` to `(B, m)`.

    Args:
        matrix: `(m, C H W)`.
        image_shape: `(C, H, W)`.
        **kwargs: the noise model.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, image_shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(img_size=image_shape, **kwargs)
        self.image_shape = image_shape
        self.register_buffer("matrix", matrix)

    def A(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Measure: `(B, C, H, W)` to `(B, m)`."""
        return x.flatten(1) @ self.matrix.T

    def A_adjoint(self, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, m)` to `(B, C, H, W)`."""
        return (y @ self.matrix).reshape(-1, *self.image_shape)


class Pixels:
    """The basis of independent pixels."""

    def analyse(self, x: Tensor) -> Tensor:
        """Return the image itself."""
        return x

    synthesise = analyse


def grid_mixture(image_shape: tuple[int, ...], weights: Sequence[float]) -> GaussianMixture:
    """25 components of standard deviation 0.025 on a grid that repeats along the pixels."""
    pixels = math.prod(image_shape)
    variances = torch.full(image_shape, 0.025**2, dtype=torch.float64)
    means = [
        0.5 + 0.2 * torch.tensor([i, j], dtype=torch.float64).repeat(pixels // 2)
        for i in range(-2, 3)
        for j in range(-2, 3)
    ]
    return GaussianMixture(
        weights, [Gaussian(mean.reshape(image_shape), Pixels(), variances) for mean in means]
    )


def grid_case(image_shape: tuple[int, ...], seed: int, *, m: int = 1, sigma: float = 0.02) -> Case:
    """Draw weights (uniform on the simplex), m random directions, a truth and its measurement."""
    generator = torch.Generator().manual_seed(7919 * seed + 1)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    weights = -torch.rand(25, generator=generator, dtype=torch.float64).log()
    prior = grid_mixture(image_shape, weights.tolist())
    rows = torch.nn.functional.normalize(normal(m, math.prod(image_shape)), dim=1)
    physics = Rows(rows, image_shape, noise_model=operators.GaussianNoise(sigma))
    y = physics.A(prior.sample(1, generator)) + sigma * normal(1, m)
    return Case(prior, physics, y, prior.posterior(y, physics, sigma), sigma)
