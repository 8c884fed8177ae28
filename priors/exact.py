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
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from operators.transforms import hartley
from priors.denoiser import Card, Denoiser, per_image


class Basis(Protocol):
    """An orthonormal change of variables on images `(B, C, *spatial)`."""

    def analyse(self, x: Tensor, /) -> Tensor:
        """Return the coefficients `B^T x`."""
        ...

    def synthesise(self, c: Tensor, /) -> Tensor:
        """Return the image `B c`."""
        ...


class Hartley:
    """The real Fourier basis of periodic images; diagonalises stationary covariances."""

    def analyse(self, x: Tensor) -> Tensor:
        """Return `Re F x - Im F x`, which is its own inverse."""
        return hartley(x, range(2, x.ndim))

    synthesise = analyse


class Cosine:
    """The DCT-II basis: stationary statistics with mirrored borders, which suits photographs."""

    def analyse(self, x: Tensor) -> Tensor:
        """Transform along every spatial axis."""
        for axis in range(2, x.ndim):
            x = (x.movedim(axis, -1) @ _dct(x.shape[axis], x).T).movedim(-1, axis)
        return x

    def synthesise(self, c: Tensor) -> Tensor:
        """Transform back along every spatial axis."""
        for axis in range(2, c.ndim):
            c = (c.movedim(axis, -1) @ _dct(c.shape[axis], c)).movedim(-1, axis)
        return c


class Dense:
    """Any orthonormal basis, as the columns of a matrix `(n, n)`."""

    def __init__(self, columns: Tensor) -> None:
        self.columns = columns

    def analyse(self, x: Tensor) -> Tensor:
        """Multiply by the transposed matrix."""
        return (x.flatten(1) @ self.columns.to(x)).reshape(x.shape)

    def synthesise(self, c: Tensor) -> Tensor:
        """Multiply by the matrix."""
        return (c.flatten(1) @ self.columns.to(c).T).reshape(c.shape)


def _dct(size: int, like: Tensor) -> Tensor:
    """Orthonormal DCT-II matrix; rows are frequencies."""
    grid = torch.arange(size, dtype=torch.float64, device=like.device)
    matrix = torch.cos(math.pi / size * torch.outer(grid, grid + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.to(like.dtype)


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

    def __init__(self, prior: Gaussian, y: Tensor, operator: LinearPhysics, sigma_y: float) -> None:
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

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)` by Matheron's rule: move prior draws onto the measurement."""
        x = self.prior.sample(count, generator)
        noise = torch.randn((count, len(self.matrix)), generator=generator, dtype=torch.float64)
        misfit = self.y.flatten() - x.flatten(1) @ self.matrix.T - self.sigma_y * noise
        return x + (misfit @ self.gain.T).reshape(x.shape)


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
        return _sample_mixture(self.log_weights.exp(), self._gaussians, count, generator)

    def posterior(self, y: Tensor, operator: LinearPhysics, sigma_y: float) -> "MixturePosterior":
        """Exact posterior of one measurement `y` `(1, ...)`; needs `sigma_y > 0`."""
        parts = [component.posterior(y, operator, sigma_y) for component in self._gaussians]
        evidence = torch.tensor([p.log_evidence for p in parts], dtype=torch.float64)
        return MixturePosterior(torch.softmax(self.log_weights + evidence, 0), parts)

    @property
    def _gaussians(self) -> Sequence[Gaussian]:
        return cast(Sequence[Gaussian], self.components)


class Dirac(GaussianMixture):
    """Point masses at known images: the prior of a data set, or of one image.

    Args:
        atoms: `(K, C, *spatial)`.
        weights: K numbers > 0, equal by default.
    """

    def __init__(self, atoms: Tensor, weights: Sequence[float] | None = None) -> None:
        points = [Gaussian(a, Hartley(), torch.zeros_like(a)) for a in atoms]
        super().__init__([1.0] * len(atoms) if weights is None else weights, points)
        self.card = replace(self.card, name="dirac", description="point masses at known images")


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

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)`."""
        return _sample_mixture(self.weights, self.components, count, generator)


def _sample_mixture(
    weights: Tensor,
    components: Sequence[Gaussian] | Sequence[GaussianPosterior],
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
