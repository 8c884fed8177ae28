"""Compressed sensing: fewer numbers than pixels, each a random mixture of all of them."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from deepinv.physics import LinearPhysics, StructuredRandom
from torch import Tensor

from .noise import noise_model
from .repaired import Repaired, per_image
from .validate import image_size, number, one_of, seeded, whole

Kind = Literal["structured", "dense"]


class StructuredSensing(StructuredRandom):
    """`A = R F D_2 F D_1` of each channel, read as one long row of pixels.

    `D_i` are random signs, `F` the orthonormal sine transform, `R` keeps `m` of the `n` numbers.
    Two layers, because with one `R` keeps a band of frequencies, and the columns of nearby pixels
    are all but parallel. The rows are orthonormal, `A A^T = I`: the adjoint is the pseudo-inverse.
    """

    def __init__(self, shape: tuple[int, int, int], m: int, seed: int, **kwargs: Any) -> None:
        channels, height, width = shape
        super().__init__(
            img_size=(channels, 1, height * width),
            output_size=(channels, 1, m),
            n_layers=2,
            rng=seeded(seed),
            **kwargs,
        )
        self.image_shape = shape

    def A(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Sense: `(B, C, H, W)` to `(B, C, m)`."""
        return super().A(x.flatten(2).unsqueeze(2)).squeeze(2)

    def A_adjoint(self, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, C, m)` to `(B, C, H, W)`."""
        return super().A_adjoint(y.unsqueeze(2)).reshape(-1, *self.image_shape)

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """Pseudo-inverse, which is the adjoint."""
        return self.A_adjoint(y)

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """`argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2`, exact because `A A^T = I`.

        Args:
            z: images `(B, C, H, W)`.
            y: measurements `(B, C, m)`.
            gamma: weight of the data, one number or one per image `(B,)`.

        Returns:
            Images `(B, C, H, W)`.
        """
        weight = per_image(gamma, z)
        return z + weight / (1 + weight) * self.A_adjoint(y - self.A(z))


class DenseSensing(Repaired, LinearPhysics):
    """`y = M x` of each channel, with one Gaussian matrix `M (m, n)`, entries `N(0, 1/m)`."""

    matrix: Tensor

    def __init__(self, shape: tuple[int, int, int], m: int, seed: int, **kwargs: Any) -> None:
        super().__init__(img_size=shape, **kwargs)
        self.image_shape = shape
        n = shape[1] * shape[2]
        self.register_buffer("matrix", torch.randn(m, n, generator=seeded(seed)) / math.sqrt(m))

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Sense: `(B, C, H, W)` to `(B, C, m)`."""
        return x.flatten(2) @ self.matrix.T

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, C, m)` to `(B, C, H, W)`."""
        return (y @ self.matrix).unflatten(-1, self.image_shape[1:])

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """`M^T (M M^T)^-1 y`, in float64."""
        matrix = self.matrix.double()
        solved = torch.linalg.solve(matrix @ matrix.T, y.double().unsqueeze(-1)).squeeze(-1)
        return self.A_adjoint(solved.to(y))


def compressed_sensing(
    image_shape: Sequence[int],
    *,
    ratio: float = 0.25,
    kind: Kind = "structured",
    seed: int = 0,
    memory_budget: int = 512 * 2**20,
    noise: float = 0.0,
) -> LinearPhysics:
    """Compressed sensing of every channel: `m = ratio n` random mixtures of its `n` pixels.

    Args:
        image_shape: `(C, H, W)` of one clean image.
        ratio: measurements per pixel `m / n`.
        kind: "structured" (sine transforms and random signs, `n log n` work, no matrix) or
            "dense" (a Gaussian matrix, for small images).
        seed: of the random mixtures.
        memory_budget: bytes that the dense matrix may take.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, C, H, W)` to `(B, C, m)`.

    Raises:
        ValueError: bad ratio, unknown kind, or a matrix above the budget.
    """
    shape = image_size(image_shape)
    ratio = number("ratio", ratio, above=0, high=1, do="give measurements per pixel")
    n = shape[1] * shape[2]
    m = max(1, round(ratio * n))
    if one_of("kind", kind, ("structured", "dense")) == "structured":
        return StructuredSensing(shape, m, seed, noise_model=noise_model(noise))
    need = 4 * m * n
    if need > whole("memory_budget", memory_budget, low=0, do="give bytes"):
        raise ValueError(
            f"the dense {m}x{n} matrix needs {need} bytes, more than memory_budget="
            f"{memory_budget}; use kind=structured, a smaller ratio or a smaller image."
        )
    return DenseSensing(shape, m, seed, noise_model=noise_model(noise))
