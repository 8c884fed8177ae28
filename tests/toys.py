"""Small worlds that are known exactly, for the tests of solvers."""

import deepinv
import torch

import operators
from priors import Card, Gaussian, GaussianMixture, Latent
from restore.problem import stream

F64 = torch.float64


class Pairs:
    """Basis of independent pairs of pixels along the last axis."""

    def __init__(self):
        self.columns = torch.tensor([[1, 1], [1, -1]], dtype=F64) / 2**0.5

    def analyse(self, x):
        return x @ self.columns.to(x)

    def synthesise(self, c):
        return c @ self.columns.T.to(c)


def pairs(rho, count=1, value_range=(-1.0, 1.0)):
    """`count` pairs of pixels of variance 1 and correlation `rho`, images `(1, count, 2)`."""
    variances = torch.tensor([1 + rho, 1 - rho], dtype=F64).expand(1, count, 2)
    return Gaussian(torch.zeros(1, count, 2), Pairs(), variances, value_range=value_range)


def first_of_pairs(count=1, value=1.0, noise=0.0):
    """See the first pixel of every pair, and find `value` there."""
    mask = torch.tensor([1.0, 0.0], dtype=F64).expand(1, 1, count, 2)
    model = operators.GaussianNoise(noise) if noise else None
    operator = deepinv.physics.Inpainting((1, count, 2), mask=mask, noise_model=model).to(F64)
    return operator, value * mask


def matrix_operator(matrix, image_shape, noise=0.0):
    """The operator `y = matrix @ x.flatten()`, from `image_shape` to `(1, m, 1)`."""
    matrix = matrix.to(F64)
    m = len(matrix)
    model = operators.GaussianNoise(noise) if noise else None
    return deepinv.physics.LinearPhysics(
        A=lambda x, **_: (x.flatten(1) @ matrix.T.to(x)).reshape(-1, 1, m, 1),
        A_adjoint=lambda y, **_: (y.flatten(1) @ matrix.to(y)).reshape(-1, *image_shape),
        img_size=tuple(image_shape),
        noise_model=model,
    )


def dense(covariance, mean=None, value_range=(-1.0, 1.0)):
    """A Gaussian on images `(1, 1, n)`."""
    n = len(covariance)
    mean = torch.zeros(n) if mean is None else torch.as_tensor(mean)
    return Gaussian.dense(mean.reshape(1, 1, n), covariance, value_range=value_range)


def two_modes(variance=0.01, distance=1.0, pixels=2):
    """Equal weights at `-distance` and `distance`."""
    shape = (1, 1, pixels)
    parts = [
        Gaussian.dense(torch.full(shape, m), variance * torch.eye(pixels), value_range=(-1.0, 1.0))
        for m in (-distance, distance)
    ]
    return GaussianMixture([1, 1], parts)


def columns(n, k, seed=0):
    """`k` orthonormal columns `(n, k)`."""
    draw = torch.randn((n, k), generator=torch.Generator().manual_seed(seed), dtype=F64)
    return torch.linalg.qr(draw)[0]


def linear_latent(denoiser, W, image_shape):
    """The latent prior `x = W z`, `z = W^T x`; images and latents in [-1, 1]."""
    shape = tuple(denoiser.card.image_shape)
    return Latent(
        denoiser,
        encode=lambda x: (x.flatten(1) @ W.to(x)).reshape(-1, *shape),
        decode=lambda z: (z.flatten(1) @ W.T.to(z)).reshape(-1, *image_shape),
        card=Card(name="linear", value_range=(-1.0, 1.0)),
    )


def affine_map(solver, y, operator, prior, shape, seed=0):
    """The map from starting noise to result of a solver that draws nothing else.

    On a Gaussian prior it is affine: `n + 1` samples of `n` entries give it without chance.

    Returns:
        `(M, b)`, result `M eps + b` on flattened images; and the largest deviation from it.
    """
    n = torch.Size(shape).numel()
    result = solver(y, operator, prior, samples=n + 3, seed=seed, batch_size=n + 3)
    eps = [torch.randn(shape, generator=stream(seed, i), dtype=F64) for i in range(n + 3)]
    inputs = torch.stack(eps).flatten(1)
    inputs = torch.cat([inputs, torch.ones(n + 3, 1, dtype=F64)], 1)
    outputs = result.samples[:, 0].flatten(1)
    found = torch.linalg.lstsq(inputs, outputs).solution
    gap = float((inputs @ found - outputs).abs().max())
    return found[:-1].T, found[-1], gap
