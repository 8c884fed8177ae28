"""Pixels drawn independently from one Gaussian mixture: a prior with a known diffusion.

In one dimension the probability-flow ODE is monotone and carries the distribution of `x_t` into
that of `x_u`, so that its solution is the quantile map

    x_u = F_u^-1(F_t(x_t)),   F_s the distribution function of sum_k w_k N(m_k, c_k^2 + s^2),

a nonlinear trajectory known exactly at every noise level. An orthonormal basis turns independent
pixels into a prior that couples them all and keeps the solution: what samplers are held against.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from priors.bases import Basis
from priors.denoiser import Card, Denoiser, per_image


class ProductMixture(Denoiser):
    """Independent coefficients in a basis, each of one Gaussian mixture.

    Args:
        weights: K numbers > 0; normalised here.
        means: K means.
        stds: K standard deviations >= 0.
        image_shape: `(C, *spatial)`.
        basis: orthonormal basis of the coefficients; pixels themselves by default.

    Raises:
        ValueError: when the three lists do not match or a weight is not positive.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(
        self,
        weights: Sequence[float],
        means: Sequence[float],
        stds: Sequence[float],
        image_shape: tuple[int, ...],
        basis: Basis | None = None,
    ) -> None:
        if not len(weights) == len(means) == len(stds) > 0 or min(weights) <= 0 or min(stds) < 0:
            raise ValueError(
                "a mixture needs as many means and stds >= 0 as weights > 0, found "
                f"{len(weights)} weights, {len(means)} means and {len(stds)} stds."
            )
        super().__init__(
            Card(
                name="product-mixture",
                channels=image_shape[0],
                spatial_dims=len(image_shape) - 1,
                image_shape=tuple(image_shape),
                exact=True,
                description="independent coefficients of one Gaussian mixture",
            )
        )
        w = torch.tensor(list(weights), dtype=torch.float64)
        self.register_buffer("weights", w / w.sum())
        self.register_buffer("means", torch.tensor(list(means), dtype=torch.float64))
        self.register_buffer("variances", torch.tensor(list(stds), dtype=torch.float64) ** 2)
        self.basis = basis

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Return `E[x_0 | x]`; see `Denoiser.forward`."""
        c, s2 = self._analyse(x)[..., None], per_image(sigma, x)[..., None] ** 2
        means, variances = self.means.to(x), self.variances.to(x)
        shares = torch.softmax(self._log_parts(c, s2), -1)
        parts = means + variances / (variances + s2) * (c - means)
        return self._synthesise((shares * parts).sum(-1))

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """Log density `(B,)` of images with noise of std `sigma`."""
        c, s2 = self._analyse(x)[..., None], per_image(sigma, x)[..., None] ** 2
        return torch.logsumexp(self._log_parts(c, s2), -1).flatten(1).sum(1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `(count, C, *spatial)` clean images, float64."""
        shape = (count, *(self.card.image_shape or ()))
        n = count * torch.Size(shape[1:]).numel()
        k = torch.multinomial(self.weights.cpu(), n, replacement=True, generator=generator)
        z = torch.randn(n, generator=generator, dtype=torch.float64)
        drawn = self.means.cpu()[k] + self.variances.cpu()[k].sqrt() * z
        return self._synthesise(drawn.reshape(shape))

    def cdf(self, coefficients: Tensor, sigma: float) -> Tensor:
        """Distribution function of a coefficient with noise of std `sigma`, entry by entry."""
        scale = (self.variances.to(coefficients) + sigma**2).sqrt()
        z = (coefficients[..., None] - self.means.to(coefficients)) / scale
        return (self.weights.to(coefficients) * torch.special.ndtr(z)).sum(-1)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Carry `x` exactly along the probability-flow ODE.

        Args:
            x: `(B, C, *spatial)`, float64, `x_0` plus noise of std `start`.
            start: noise level of `x`, in units of the images.
            end: noise level to reach, lower or higher.

        Returns:
            The images of the same trajectories at level `end`.
        """
        return self._synthesise(self.quantile(self._analyse(x), start, end))

    def quantile(self, coefficients: Tensor, start: float, end: float) -> Tensor:
        """Solve `F_end(result) = F_start(coefficients)` by bisection, entry by entry.

        Symmetric tails: whichever of `F` and `1 - F` is smaller is compared, in logarithms.
        """
        goal_low, goal_high = self._log_tails(coefficients, start)
        use_low = goal_low < goal_high
        reach = 40 * (float(self.variances.max()) + max(start, end) ** 2) ** 0.5
        low = torch.full_like(coefficients, float(self.means.min()) - reach)
        high = torch.full_like(coefficients, float(self.means.max()) + reach)
        for _ in range(80):
            middle = (low + high) / 2
            tail_low, tail_high = self._log_tails(middle, end)
            below = torch.where(use_low, tail_low < goal_low, tail_high > goal_high)
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def _log_tails(self, c: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        scale = (self.variances.to(c) + sigma**2).sqrt()
        z = (c[..., None] - self.means.to(c)) / scale
        log_w = self.weights.to(c).log()
        lower = torch.logsumexp(log_w + torch.special.log_ndtr(z), -1)
        upper = torch.logsumexp(log_w + torch.special.log_ndtr(-z), -1)
        return lower, upper

    def _log_parts(self, c: Tensor, s2: Tensor) -> Tensor:
        total = self.variances.to(c) + s2
        energy = (c - self.means.to(c)) ** 2 / total
        return self.weights.to(c).log() - 0.5 * (energy + torch.log(2 * torch.pi * total))

    def _analyse(self, x: Tensor) -> Tensor:
        return x if self.basis is None else self.basis.analyse(x)

    def _synthesise(self, c: Tensor) -> Tensor:
        return c if self.basis is None else self.basis.synthesise(c)
