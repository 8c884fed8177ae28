"""Problems whose posterior is known exactly.

power law   64x64, a stationary Gaussian: what a method that only fits a spectrum passes too
modulated   32x32, a Gaussian whose contrast varies seven-fold over the image: not stationary
gaussian    16x16, short-range, dense: the quick one
mixture     25 narrow modes in R^8 or R^80, one noisy measurement: several stay possible
data set    known images, photons counted: the one noise here that is not Gaussian
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

import operators
from priors import Denoiser, Dirac, Gaussian
from priors.posteriors import Posterior


@dataclass(frozen=True)
class Case:
    """One measurement `y` `(1, ...)` of one image, and the posterior.

    Attributes:
        prior: the denoiser that solvers are given.
        operator: with its noise model.
        y: the measurement.
        posterior: the truth.
        sigma: std of the noise, or None when it is not Gaussian.
    """

    prior: Denoiser
    operator: Physics
    y: Tensor
    posterior: Posterior
    sigma: float | None


# seed -> case
Task = Callable[[int], Case]


def small_gaussian() -> Gaussian:
    """16x16 pixels, pixel std 0.2, squared-exponential covariance of length 1.5 pixels."""
    axis = torch.arange(16, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    covariance = 0.04 * torch.exp(-torch.cdist(grid, grid).square() / (2 * 1.5**2))
    return Gaussian.dense(torch.full((1, 16, 16), 0.5), covariance)


def power_law_image() -> Gaussian:
    """64x64 pixels, periodic, pixel std 0.15, power `1 / max(|f|, 1)^2`."""
    return Gaussian.power_law((1, 64, 64))


def modulated_gaussian() -> Gaussian:
    """32x32 pixels, a power-law prior whose contrast varies seven-fold over the image."""
    base = Gaussian.power_law((1, 32, 32))
    unit = torch.eye(1024, dtype=torch.float64).reshape(-1, 1, 32, 32)
    axis = torch.linspace(0, 2 * math.pi, 33, dtype=torch.float64)[:32]
    contrast = 1 + 0.375 * (axis.sin()[:, None] + (axis + 1).sin()[None, :])
    scale = contrast.flatten()
    covariance = scale[:, None] * base.covariance(unit).reshape(1024, 1024) * scale[None, :]
    return Gaussian.dense(base.mean, covariance)


def glyphs(count: int = 120) -> Dirac:
    """8x8 pixels, `count` random blobs of one bright stroke each: a data set known by heart."""
    generator = torch.Generator().manual_seed(0)
    ends = 1 + 5 * torch.rand((count, 2, 2), generator=generator, dtype=torch.float64)
    width = 0.6 + 0.6 * torch.rand((count, 1, 1), generator=generator, dtype=torch.float64)
    axis = torch.arange(8, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    along = torch.linspace(0, 1, 9, dtype=torch.float64)
    stroke = torch.lerp(ends[:, :1], ends[:, 1:], along[None, :, None])  # (count, 9, 2)
    apart = (grid[None, :, :, None] - stroke[:, None, None]).norm(dim=-1).amin(-1)
    return Dirac((0.1 + 0.8 * torch.exp(-0.5 * (apart / width) ** 2))[:, None])


def gaussian_task(prior: Callable[[], Gaussian], spec: str, sigma: float) -> Task:
    """Measure draws of a Gaussian with a linear operator and Gaussian noise."""

    def make(seed: int) -> Case:
        model = prior()
        shape = tuple(model.mean.shape)
        physics = operators.parse(spec, shape, noise=sigma).to(torch.float64)
        assert isinstance(physics, LinearPhysics)
        truth = model.sample(1, torch.Generator().manual_seed(seed))
        y = operators.measure(physics, truth, seed=1000 + seed)  # other numbers than the truth's
        return Case(model, physics, y, model.posterior(y, physics, sigma), sigma)

    return make


def counted_task(prior: Callable[[], Dirac], spec: str, counts: float) -> Task:
    """Count photons of images of a data set."""

    def make(seed: int) -> Case:
        model = prior()
        shape = tuple(model.atoms.shape[1:])
        physics = operators.parse(spec, shape).to(torch.float64)
        physics.noise_model = operators.PoissonNoise(counts)
        truth = model.sample(1, torch.Generator().manual_seed(seed))
        y = operators.measure(physics, truth, seed=1000 + seed)
        rate = counts * physics.A(model.atoms)
        log_likelihood = (torch.xlogy(counts * y, rate) - rate).flatten(1).sum(1)
        return Case(model, physics, y, model.reweighted(log_likelihood), None)

    return make
