"""Priors whose denoiser and posterior are known in closed form: the truth solvers are held against.

A Gaussian prior `N(m, C)` with `C = B diag(c) B^T` has, at noise level `sigma`,

    D(x) = m + B diag(c / (c + sigma^2)) B^T (x - m),

and under `y = A x + n`, `n ~ N(0, sigma_y^2 I)`, the posterior mean and covariance

    m + K (y - A m),   C - K A C,   K = C A^T (A C A^T + sigma_y^2 I)^-1.

A mixture reweights its components by their evidence, for the denoiser and for the posterior alike;
point masses are Gaussians of no variance. Everything is float64 unless the caller's `x` is not;
samples and posteriors are computed on the CPU.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from priors.bases import Basis, Dense, Hartley
from priors.denoiser import Card, Denoiser, per_image
from priors.posteriors import (
    DiracPosterior,
    GaussianPosterior,
    MixturePosterior,
    sample_mixture,
)


class Gaussian(Denoiser):
    """The prior `N(mean, B diag(variances) B^T)`.

    Args:
        mean: `(C, *spatial)`.
        basis: orthonormal basis in which the covariance is diagonal.
        variances: of the coefficients, `(C, *spatial)`, not negative.
        value_range: nominal range of the images, for solvers whose constants assume one.

    Raises:
        ValueError: for variances of another size or below zero.
    """

    mean: Tensor
    variances: Tensor

    def __init__(
        self,
        mean: Tensor,
        basis: Basis,
        variances: Tensor,
        *,
        value_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        shape = tuple(mean.shape)
        super().__init__(
            Card(
                name="gaussian",
                channels=shape[0],
                spatial_dims=len(shape) - 1,
                image_shape=shape,
                value_range=value_range,
                exact=True,
                description="Gaussian prior in closed form",
            )
        )
        if variances.numel() != mean.numel() or not bool((variances >= 0).all()):
            raise ValueError(
                f"variances must be {mean.numel()} numbers >= 0 for images {shape}, found "
                f"{variances.numel()} with minimum {float(variances.min()):.3g}."
            )
        self.basis = basis
        self.register_buffer("mean", mean.double())
        self.register_buffer("variances", variances.double().reshape(shape))

    @classmethod
    def dense(
        cls, mean: Tensor, covariance: Tensor, *, value_range: tuple[float, float] = (0.0, 1.0)
    ) -> "Gaussian":
        """Build from a covariance matrix `(n, n)` of the flattened image.

        Raises:
            ValueError: when the matrix is not a covariance, beyond rounding.
        """
        covariance = covariance.double()
        variances, columns = torch.linalg.eigh(covariance)
        slack = 1e-6 * float(covariance.abs().max())
        if float((covariance - covariance.T).abs().max()) > slack or float(variances[0]) < -slack:
            raise ValueError(
                "covariance must be symmetric and positive semi-definite, found smallest "
                f"eigenvalue {float(variances[0]):.3g}; symmetrise it or correct its entries."
            )
        variances = variances.clamp_min(0).reshape(mean.shape)  # what rounding left below zero
        return cls(mean, Dense(columns), variances, value_range=value_range)

    @classmethod
    def power_law(
        cls, image_shape: tuple[int, ...], *, mean: float = 0.5, std: float = 0.15
    ) -> "Gaussian":
        """Build a periodic image prior of power `1 / max(|f|, 1)^2` and pixel std `std`.

        `f` counts cycles a side; channels are independent.
        """
        axes = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in image_shape[1:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0)
        power = 1 / grid.clamp_min(1)
        variances = (power * std**2 / power.mean()).expand(image_shape)
        return cls(torch.full(image_shape, mean), Hartley(), variances)

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Return `E[x_0 | x]`; see `Denoiser.forward`."""
        mean, variances = self.mean.to(x), self.variances.to(x)
        total = variances + per_image(sigma, x).square()
        gain = variances / total.clamp_min(torch.finfo(x.dtype).tiny)  # 0 where nothing varies
        return mean + self.basis.synthesise(gain * self.basis.analyse(x - mean))

    def covariance(self, x: Tensor) -> Tensor:
        """Apply the prior covariance to images `(B, C, *spatial)`."""
        return self.basis.synthesise(self.variances.to(x) * self.basis.analyse(x))

    def log_prob(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Log density `(B,)` of noisy images; needs `sigma > 0` where a variance is zero."""
        total = (self.variances.to(x) + per_image(sigma, x).square()).expand(x.shape)
        energy = self.basis.analyse(x - self.mean.to(x)).square() / total
        return -0.5 * (energy + total.log() + math.log(2 * math.pi)).flatten(1).sum(1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)` clean images, float64."""
        z = torch.randn((count, *self.mean.shape), generator=generator, dtype=torch.float64)
        return self.mean + self.basis.synthesise(self.variances.sqrt() * z)

    def posterior(self, y: Tensor, operator: LinearPhysics, sigma_y: float) -> "GaussianPosterior":
        """Exact posterior of one measurement; see `GaussianPosterior`."""
        return GaussianPosterior(self, y, operator, sigma_y)


class GaussianMixture(Denoiser):
    """A mixture of Gaussian priors on images of one shape.

    Args:
        weights: K numbers > 0; normalised here.
        components: K Gaussians on images of one shape.

    Raises:
        ValueError: when weights and components do not match, or shapes differ.
    """

    log_weights: Tensor

    def __init__(self, weights: Sequence[float], components: Sequence[Gaussian]) -> None:
        if len(weights) != len(components) or not weights or min(weights) <= 0:
            raise ValueError(
                f"a mixture needs as many weights > 0 as components, found {len(weights)} weights "
                f"and {len(components)} components."
            )
        if len({c.mean.shape for c in components}) > 1:
            raise ValueError(
                "components of a mixture must know images of one shape, found "
                f"{sorted({tuple(c.mean.shape) for c in components})}; build them alike."
            )
        card = components[0].card
        super().__init__(
            replace(card, name="gaussian-mixture", description="Gaussian mixture in closed form")
        )
        self.components = torch.nn.ModuleList(components)
        w = torch.tensor(list(weights), dtype=torch.float64)
        self.register_buffer("log_weights", (w / w.sum()).log())

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Return `E[x_0 | x]`; see `Denoiser.forward`."""
        parts = torch.stack([component(x, sigma) for component in self.components])
        return torch.einsum("kb,kb...->b...", self.responsibilities(x, sigma), parts)

    def responsibilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Probability `(K, B)` of each component given the noisy images."""
        scores = [component.log_prob(x, sigma) for component in self._gaussians]
        return torch.softmax(torch.stack(scores) + self.log_weights.to(x)[:, None], dim=0)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)` clean images, float64."""
        return sample_mixture(self.log_weights.exp(), self._gaussians, count, generator)

    def posterior(self, y: Tensor, operator: LinearPhysics, sigma_y: float) -> "MixturePosterior":
        """Exact posterior of one measurement `y` `(1, ...)`; needs `sigma_y > 0`."""
        parts = [component.posterior(y, operator, sigma_y) for component in self._gaussians]
        evidence = torch.tensor([p.log_evidence for p in parts], dtype=torch.float64)
        return MixturePosterior(torch.softmax(self.log_weights + evidence, 0), parts)

    @property
    def _gaussians(self) -> Sequence[Gaussian]:
        return cast(Sequence[Gaussian], self.components)


class Dirac(Denoiser):
    """Point masses at known images: the prior of a data set, or of one image.

    Args:
        atoms: `(K, C, *spatial)`.
        weights: K numbers > 0, equal by default.

    Raises:
        ValueError: no atoms, or other than K weights > 0.
    """

    atoms: Tensor
    log_weights: Tensor

    def __init__(self, atoms: Tensor, weights: Sequence[float] | None = None) -> None:
        w = torch.ones(len(atoms)) if weights is None else torch.tensor(list(weights))
        if len(w) != len(atoms) or len(w) == 0 or not bool((w > 0).all()):
            raise ValueError(
                f"point masses need as many weights > 0 as atoms, found {len(w)} weights and "
                f"{len(atoms)} atoms."
            )
        shape = tuple(atoms.shape[1:])
        super().__init__(
            Card(
                name="dirac",
                channels=shape[0],
                spatial_dims=len(shape) - 1,
                image_shape=shape,
                exact=True,
                description="point masses at known images",
            )
        )
        self.register_buffer("atoms", atoms.double())
        self.register_buffer("log_weights", (w.double() / w.double().sum()).log())

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Return `E[x_0 | x]`; see `Denoiser.forward`."""
        share = self.responsibilities(x, sigma)
        return (share.T @ self.atoms.to(x).flatten(1)).reshape(x.shape)

    def responsibilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Probability `(K, B)` of each atom given the noisy images."""
        apart = self.atoms.to(x).flatten(1)[:, None] - x.flatten(1)[None]
        energy = apart.square().sum(2) / per_image(sigma, x).flatten().square()
        return torch.softmax(self.log_weights.to(x)[:, None] - energy / 2, dim=0)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)` clean images, float64."""
        return DiracPosterior(self.log_weights.exp(), self.atoms).sample(count, generator)

    def posterior(self, y: Tensor, operator: Physics, sigma_y: float) -> DiracPosterior:
        """Exact posterior of one measurement `y` `(1, ...)` with Gaussian noise, any operator.

        Raises:
            ValueError: several measurements, or `sigma_y` not above zero.
        """
        if len(y) != 1 or not sigma_y > 0:
            raise ValueError(
                f"point masses need one measurement and sigma_y > 0, found {len(y)} and "
                f"sigma_y={sigma_y}; without noise the evidence is not finite."
            )
        with torch.no_grad():
            apart = (operator.A(self.atoms) - y.double()).flatten(1)
        return self.reweighted(-apart.square().sum(1) / (2 * sigma_y**2))

    def reweighted(self, log_likelihood: Tensor) -> DiracPosterior:
        """Posterior for any noise, given `log p(y | atom)` `(K,)` up to a constant."""
        return DiracPosterior(torch.softmax(self.log_weights + log_likelihood, 0), self.atoms)
