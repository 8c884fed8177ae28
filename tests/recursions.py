"""Samplers whose every step is linear, followed as matrices: the law that a program must have.

Pairs of pixels with a Gaussian prior; one weighted sum of each pair is measured. A step is
`x <- F x + g + G eps`, so that mean and covariance of the outcome are known exactly.
"""

import deepinv
import torch
from toys import F64, pairs

import operators
from operators.svd import SVD
from priors.schedules import DDPM

RHO = 0.8
WEIGHTS = torch.tensor([0.6, -1.1], dtype=F64)
COVARIANCE = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=F64)
EYE = torch.eye(2, dtype=F64)
A = WEIGHTS[None]  # (1, 2)
NORM = WEIGHTS.norm()
V = (WEIGHTS / NORM)[:, None]  # (2, 1)


class PairSums(deepinv.physics.LinearPhysics):
    """`y = w . x` of every pair; coordinates reach one direction of the two."""

    def __init__(self, count, noise):
        model = operators.GaussianNoise(noise) if noise else None
        super().__init__(img_size=(1, count, 2), noise_model=model)

    def A(self, x, **_):
        return x @ WEIGHTS[:, None].to(x)

    def A_adjoint(self, y, **_):
        return y @ WEIGHTS[None].to(y)

    def A_dagger(self, y, **_):
        return self.A_adjoint(y) / NORM**2


class DecomposedPairSums(PairSums):
    """The same, knowing its singular vectors."""

    def svd(self):
        return SVD(
            s=NORM,
            Vt=lambda x: x @ V.to(x),
            V=lambda c: c @ V.T.to(c),
            U=lambda c: c,
            Ut=lambda y: y,
        )


def ddpm_levels(steps):
    """Levels of `steps` times of the DDPM schedule, and the end."""
    times = torch.linspace(999, 0, steps, dtype=F64).round()
    return [*DDPM().level(times).tolist(), 0.0]


def denoiser(s):
    """Matrix of the denoiser of the pairs."""
    return COVARIANCE @ torch.linalg.inv(COVARIANCE + s**2 * EYE)


def follow(mean, covariance, steps):
    """Carry a Gaussian law through steps `(F, g, G)`."""
    for F, g, G in steps:
        mean, covariance = F @ mean + g, F @ covariance @ F.T + G @ G.T
    return mean, covariance


def outcome(solver, y, noise, count, *, svd=True, seed=0):
    """Restore `count` independent pairs that were measured alike; `(count, 2)`."""
    operator = (DecomposedPairSums if svd else PairSums)(count, noise)
    measurement = torch.full((1, 1, count, 1), y, dtype=F64)
    return solver(measurement, operator, pairs(RHO, count), seed=seed).samples[0, 0, 0]


def assert_law(x, mean, covariance):
    """Mean and covariance of samples `(count, 2)` within five standard errors."""
    count = len(x)
    variance = covariance.diagonal()
    assert bool(((x.mean(0) - mean).abs() <= 5 * (variance / count).sqrt() + 1e-6).all()), (
        x.mean(0),
        mean,
    )
    errors = ((covariance.square() + variance[:, None] * variance[None]) / count).sqrt()
    found = torch.cov(x.T)
    assert bool(((found - covariance).abs() <= 5 * errors + 1e-6).all()), (found, covariance)
