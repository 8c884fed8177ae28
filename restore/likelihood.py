"""Likelihoods of measurements under other noise than Gaussian: counts, transmission, magnitudes.

`energy(z, y)` is `-log p(y | z)` up to what does not depend on the clean measurement `z = A(x)`,
every image its own sum. Solvers that only descend on it, or sample by its gradient, can use any.

    noise         model                                  -log p(y | z)
    gaussian      y = z + n                              |y - z|^2 / (2 sigma^2)
    poisson       y = N / counts, N ~ Poisson(counts z)  counts z - N log z
    transmission  y = log(photons / N) / depth           photons exp(-depth z) + N depth z
    rician        y = |z + n_1 + i n_2|                  z^2 / (2 sigma^2) - log I_0(z y / sigma^2)

Estimates of images pass through where no measurement can be. Energies are therefore continued,
finite and convex: below a tenth of an expected count `log` by its parabola, with a parabola added
below none; below an optical depth of zero `exp` by its parabola.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from deepinv.physics import GaussianNoise as DeepinvGaussianNoise
from deepinv.physics import NoiseModel, Physics, ZeroNoise
from torch import Tensor

from operators.noise import PoissonNoise, RicianNoise, TransmissionNoise

_HALF = 0.5  # counts: the least variance of a count, and what a count of none is taken for
_DIM = 0.1  # counts expected, below which the logarithm is continued


class Likelihood(ABC):
    """Of measurements `y` `(B, ...)` given clean ones `z` of the same shape, entry by entry.

    Attributes:
        kind: the word of `Solver.likelihoods`.
    """

    kind: ClassVar[str]

    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        """`-log p(y | z)` `(B,)`, up to a constant of `y`."""
        return self.entries(z, y).flatten(1).sum(1)

    @abstractmethod
    def entries(self, z: Tensor, y: Tensor) -> Tensor:
        """What `energy` sums, shaped like `y`."""

    @abstractmethod
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """Derivative of `energy` with respect to `z`, shaped like `y`."""

    @abstractmethod
    def curvature(self, z: Tensor, y: Tensor) -> Tensor:
        """A bound on the second derivative at `z`, at least 0, shaped like `y`."""

    @abstractmethod
    def precision(self, y: Tensor) -> Tensor:
        """One over the variance of the noise at a clean measurement of about `y`."""

    @abstractmethod
    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """`y` less its mean in standard deviations of the model at `z`."""

    def power(self, z: Tensor) -> Tensor:
        """Mean square of `residual` at the truth: 1, and less where few counts are expected."""
        return torch.ones_like(z)

    def quadratic(self, y: Tensor) -> "Gaussian":
        """The Gaussian likelihood of the same variance at `y`, entry by entry."""
        return Gaussian(self.precision(y).rsqrt())


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """White Gaussian noise.

    Args:
        sigma: standard deviation, a number or one for each entry of `y`.
    """

    kind: ClassVar[str] = "gaussian"
    sigma: float | Tensor

    def entries(self, z: Tensor, y: Tensor) -> Tensor:
        """See the table of the module."""
        return (y - z).square() / (2 * self.sigma**2)

    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """See `Likelihood.gradient`."""
        return (z - y) / self.sigma**2

    def curvature(self, z: Tensor, y: Tensor) -> Tensor:
        """The same everywhere."""
        return torch.ones_like(y) / self.sigma**2

    def precision(self, y: Tensor) -> Tensor:
        """The same everywhere."""
        return torch.ones_like(y) / self.sigma**2

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """See `Likelihood.residual`."""
        return (y - z) / self.sigma


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts; of `operators.PoissonNoise`.

    Args:
        counts: expected at `z` of 1.
    """

    kind: ClassVar[str] = "poisson"
    counts: float

    def entries(self, z: Tensor, y: Tensor) -> Tensor:
        """`rate - N log rate`, continued where it is dim."""
        rate, N = self.counts * z, self.counts * y
        below = (rate / _DIM - 1).clamp(max=0)
        log = rate.clamp_min(_DIM).log() + below - below.square() / 2
        return rate - N * log + rate.clamp(max=0).square() / 2

    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """See `Likelihood.gradient`."""
        rate, N = self.counts * z, self.counts * y
        slope = 1 / rate.clamp_min(_DIM) - (rate / _DIM - 1).clamp(max=0) / _DIM
        return self.counts * (1 - N * slope + rate.clamp(max=0))

    def curvature(self, z: Tensor, y: Tensor) -> Tensor:
        """`N / rate^2`, and at least what it is where the measurement is met."""
        rate, N = self.counts * z, self.counts * y
        here = N / rate.clamp_min(_DIM) ** 2 + (rate < 0)
        return self.counts**2 * torch.maximum(here, 1 / N.clamp_min(1))

    def precision(self, y: Tensor) -> Tensor:
        """`counts / y`."""
        return self.counts**2 / (self.counts * y).clamp_min(_HALF)

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """Pearson's; rates below half a count have its variance."""
        return self.counts * (y - z) / (self.counts * z).clamp_min(_HALF).sqrt()

    def power(self, z: Tensor) -> Tensor:
        """See `Likelihood.power`."""
        rate = (self.counts * z).clamp_min(0)
        return rate / rate.clamp_min(_HALF)


@dataclass(frozen=True)
class Transmission(Likelihood):
    """Photons that came through, as a logarithm; of `operators.TransmissionNoise`.

    Args:
        photons: sent.
        depth: optical depth at `z` of 1.
    """

    kind: ClassVar[str] = "transmission"
    photons: float
    depth: float

    def entries(self, z: Tensor, y: Tensor) -> Tensor:
        """See the table of the module."""
        return self._rate(z) + self._count(y) * self.depth * z

    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """See `Likelihood.gradient`."""
        slope = self.photons * torch.exp(-self._within(z)) * (1 - self._below(z))
        return self.depth * (self._count(y) - slope)

    def curvature(self, z: Tensor, y: Tensor) -> Tensor:
        """`depth^2` times photons expected, and at least those where the measurement is met."""
        return self.depth**2 * torch.maximum(self._rate(z), self._count(y))

    def precision(self, y: Tensor) -> Tensor:
        """`depth^2` times photons seen."""
        return self.depth**2 * self._count(y).clamp_min(_HALF)

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """Pearson's, of more photons for a smaller `y`."""
        rate = self._rate(z)
        return (rate - self._count(y)) / rate.clamp_min(_HALF).sqrt()

    def power(self, z: Tensor) -> Tensor:
        """See `Likelihood.power`."""
        rate = self._rate(z)
        return rate / rate.clamp_min(_HALF)

    def _within(self, z: Tensor) -> Tensor:
        return (self.depth * z).clamp_min(0)

    def _below(self, z: Tensor) -> Tensor:
        return (self.depth * z).clamp(max=0)

    def _rate(self, z: Tensor) -> Tensor:
        """Photons expected, continued below a depth of 0."""
        below = self._below(z)
        return self.photons * torch.exp(-self._within(z)) * (1 - below + below.square() / 2)

    def _count(self, y: Tensor) -> Tensor:
        """Photons seen, none where the noise model wrote half of one."""
        N = self.photons * torch.exp(-self.depth * y)
        return torch.where(N < 0.75, 0, N)


@dataclass(frozen=True)
class Rician(Likelihood):
    """Magnitudes of complex values with Gaussian noise; of `operators.RicianNoise`.

    Args:
        sigma: standard deviation of each part, above 0.
    """

    kind: ClassVar[str] = "rician"
    sigma: float

    def entries(self, z: Tensor, y: Tensor) -> Tensor:
        """`z^2 / (2 sigma^2) - log I_0(z y / sigma^2)`."""
        t = z * y / self.sigma**2
        return z.square() / (2 * self.sigma**2) - torch.special.i0e(t).log() - t.abs()

    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """`(z - y I_1 / I_0) / sigma^2`."""
        t = z * y / self.sigma**2
        return (z - y * torch.special.i1e(t) / torch.special.i0e(t)) / self.sigma**2

    def curvature(self, z: Tensor, y: Tensor) -> Tensor:
        """`1 / sigma^2`: `log I_0` is convex."""
        return torch.ones_like(y) / self.sigma**2

    def precision(self, y: Tensor) -> Tensor:
        """`1 / sigma^2`, that of large values."""
        return torch.ones_like(y) / self.sigma**2

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """With mean and variance of the distribution (Rice 1944)."""
        q = (z.double() / self.sigma).square() / 4
        bessel = (1 + 2 * q) * torch.special.i0e(q) + 2 * q * torch.special.i1e(q)
        mean = (torch.pi / 2) ** 0.5 * bessel
        variance = torch.where(q > 1e6, 1, 2 + 4 * q - mean.square())  # 1 there, but for rounding
        return ((y.double() / self.sigma - mean) / variance.sqrt()).to(y)


def noise_kind(physics: Physics) -> str:
    """The word for an operator's noise: "gaussian", also without noise, or another."""
    model = physics.noise_model
    if isinstance(model, ZeroNoise | DeepinvGaussianNoise) or not isinstance(model, NoiseModel):
        return Gaussian.kind
    for noise, kind in _KINDS.items():
        if isinstance(model, noise):
            return kind
    return type(model).__name__


def likelihood(physics: Physics) -> Likelihood | None:
    """The likelihood of an operator's noise; None for Gaussian noise or none, which is squares.

    Raises:
        ValueError: noise without a density, or of a kind not known here.
    """
    model = physics.noise_model
    if noise_kind(physics) == Gaussian.kind:
        return None
    if isinstance(model, PoissonNoise):
        return Poisson(model.counts)
    if isinstance(model, TransmissionNoise):
        return Transmission(model.photons, model.depth)
    if isinstance(model, RicianNoise):
        if model.sigma == 0:
            raise ValueError(
                "Rician noise has sigma=0 and therefore no likelihood, expected a number above 0; "
                "set physics.noise_model = operators.RicianNoise(sigma)."
            )
        return Rician(model.sigma)
    raise ValueError(
        f"the operator's noise is {type(model).__name__}, expected Gaussian, "
        f"{', '.join(noise.__name__ for noise in _KINDS)} or none; set physics.noise_model."
    )


_KINDS: dict[type[NoiseModel], str] = {
    PoissonNoise: Poisson.kind,
    TransmissionNoise: Transmission.kind,
    RicianNoise: Rician.kind,
}

KINDS = (Gaussian.kind, *_KINDS.values())
