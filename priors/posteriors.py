"""Posteriors `p(x_0 | y)` of the exact priors, by dense algebra: for some thousand pixels.

Computed in float64 on the CPU; see `priors.exact` for the formulas.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

if TYPE_CHECKING:
    from priors.exact import Gaussian


class Posterior(Protocol):
    """An exact posterior `p(x_0 | y)` of images `(C, *spatial)`."""

    @property
    def mean(self) -> Tensor:
        """Posterior mean `(C, *spatial)`."""
        ...

    @property
    def std(self) -> Tensor:
        """Posterior standard deviation of every pixel `(C, *spatial)`."""
        ...

    def cdf(self, x: Tensor, /) -> Tensor:
        """Probability that a pixel is at most `x` `(..., C, *spatial)`, pixel by pixel."""
        ...

    def sample(self, count: int, generator: torch.Generator, /) -> Tensor:
        """Draw `(count, C, *spatial)`, float64."""
        ...


class GaussianPosterior:
    """`p(x_0 | y)` for a Gaussian prior, by dense algebra: for images of some thousand pixels.

    Args:
        prior: the Gaussian.
        y: one measurement `(1, ...)`.
        operator: linear physics in float64.
        sigma_y: noise std; 0 asks for the limit of vanishing noise.

    Attributes:
        mean: posterior mean `(C, *spatial)`.
        std: posterior standard deviation `(C, *spatial)`.
        matrix: the operator `A`, `(m, n)`.
        gain: `K`, `(n, m)`.

    Raises:
        ValueError: for several measurements, or noise below zero.
    """

    def __init__(
        self, prior: "Gaussian", y: Tensor, operator: LinearPhysics, sigma_y: float
    ) -> None:
        if len(y) != 1 or not sigma_y >= 0:
            raise ValueError(
                f"an exact posterior takes one measurement and sigma_y >= 0, found {len(y)} and "
                f"sigma_y={sigma_y}; ask for one at a time."
            )
        self.prior, self.y, self.operator, self.sigma_y = prior, y.double(), operator, sigma_y
        shape = prior.mean.shape
        n = prior.mean.numel()
        self.matrix = _matrix(operator, shape)
        rows = self.matrix.reshape(-1, *shape)
        self.cross = prior.covariance(rows).reshape(-1, n).T  # C A^T
        noise = sigma_y**2 * torch.eye(len(rows), dtype=torch.float64)
        evidence = self.matrix @ self.cross + noise
        if sigma_y == 0:
            self.gain = self.cross @ torch.linalg.pinv(evidence, hermitian=True)
            self.factor = None
        else:
            self.factor = torch.linalg.cholesky(evidence)
            self.gain = torch.cholesky_solve(self.cross.T, self.factor).T
        self.residual = self.y.flatten() - self.matrix @ prior.mean.flatten()
        self.mean = prior.mean + (self.gain @ self.residual).reshape(shape)
        unit = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
        variance = prior.covariance(unit).reshape(n, n).diagonal()
        variance = variance - (self.gain * self.cross).sum(1)
        self.std = variance.clamp_min(0).sqrt().reshape(shape)

    @property
    def log_evidence(self) -> float:
        """`log p(y)`, for the weights of a mixture; needs `sigma_y > 0`."""
        if self.factor is None:
            raise ValueError("a noiseless measurement has no finite evidence; use sigma_y > 0.")
        white = torch.linalg.solve_triangular(self.factor, self.residual[:, None], upper=False)
        log_det = 2 * self.factor.diagonal().log().sum() + len(white) * math.log(2 * math.pi)
        return float(-0.5 * (white.square().sum() + log_det))

    def cdf(self, x: Tensor) -> Tensor:
        """Probability that a pixel is at most `x`, pixel by pixel."""
        tiny = torch.finfo(torch.float64).tiny
        return torch.special.ndtr((x - self.mean) / self.std.clamp_min(tiny))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)` by Matheron's rule: move prior draws onto the measurement."""
        x = self.prior.sample(count, generator)
        noise = torch.randn((count, len(self.matrix)), generator=generator, dtype=torch.float64)
        misfit = self.y.flatten() - x.flatten(1) @ self.matrix.T - self.sigma_y * noise
        return x + (misfit @ self.gain.T).reshape(x.shape)


@dataclass(frozen=True)
class MixturePosterior:
    """`p(x_0 | y)` for a mixture prior: again a mixture.

    Attributes:
        weights: posterior probability `(K,)` of each component.
        components: posterior of each component.
    """

    weights: Tensor
    components: list[GaussianPosterior]

    @property
    def mean(self) -> Tensor:
        """Posterior mean `(C, *spatial)`."""
        means = torch.stack([p.mean for p in self.components])
        return torch.einsum("k,k...->...", self.weights, means)

    @property
    def std(self) -> Tensor:
        """Posterior standard deviation `(C, *spatial)`, between and within components."""
        mean = self.mean
        spread = torch.stack([p.std.square() + (p.mean - mean).square() for p in self.components])
        return torch.einsum("k,k...->...", self.weights, spread).sqrt()

    def cdf(self, x: Tensor) -> Tensor:
        """Probability that a pixel is at most `x`, pixel by pixel."""
        parts = torch.stack([p.cdf(x) for p in self.components])
        return torch.einsum("k,k...->...", self.weights, parts)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)`."""
        return sample_mixture(self.weights, self.components, count, generator)


@dataclass(frozen=True)
class DiracPosterior:
    """`p(x_0 | y)` for a prior of point masses: the same points with other weights.

    Attributes:
        weights: posterior probability `(K,)` of each point, float64.
        atoms: the points `(K, C, *spatial)`, float64.
    """

    weights: Tensor
    atoms: Tensor

    @property
    def mean(self) -> Tensor:
        """Posterior mean `(C, *spatial)`."""
        return torch.einsum("k,k...->...", self.weights, self.atoms)

    @property
    def std(self) -> Tensor:
        """Posterior standard deviation of every pixel `(C, *spatial)`."""
        spread = (self.atoms - self.mean).square()
        return torch.einsum("k,k...->...", self.weights, spread).sqrt()

    def cdf(self, x: Tensor) -> Tensor:
        """Probability that a pixel is at most `x`, pixel by pixel."""
        total = torch.zeros_like(x, dtype=torch.float64)
        for weight, atom in zip(self.weights, self.atoms, strict=True):
            total = total + weight * (atom <= x)
        return total

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)`."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.atoms[chosen]


def sample_mixture(
    weights: Tensor,
    components: Sequence["Gaussian"] | Sequence[GaussianPosterior],
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Choose components, then draw each its share, in the order chosen."""
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    shape = components[0].mean.shape
    out = torch.empty((count, *shape), dtype=torch.float64)
    for k, component in enumerate(components):
        where = chosen == k
        if bool(where.any()):
            out[where] = component.sample(int(where.sum()), generator)
    return out


def _matrix(operator: LinearPhysics, shape: torch.Size, chunk: int = 512) -> Tensor:
    """The operator as a dense matrix `(m, n)`, float64."""
    n = math.prod(shape)
    unit = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    with torch.no_grad():
        columns = [operator.A(part).flatten(1) for part in unit.split(chunk)]
    return torch.cat(columns).T.contiguous()
