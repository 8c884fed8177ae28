"""The moment-matching likelihood of few measurements, in full: with its normalisation.

    p(y | x_s) ~ g(x_s) = N(y; A D, K),   K = A C A^T + sigma_y^2 I,   C = s^2 J,   J = dD/dx

and under it `E[x_0 | x_s, y] = D_y = D + C A^T K^-1 (y - A D)` (Rozet et al. 2024,
arXiv:2405.13712). With m measurements `C A^T` is m products with the Jacobian, of which `K` and
its determinant follow exactly: no iterative solve, and a likelihood whose values at different
`x_s` can be compared, as weights of particles must be.

Particles are `(N, B, C, *spatial)`: N for each of B measurements. Network calls take as many as
`Problem.per_call` allows; `A` itself is only called to find its m rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from restore.lanczos import lanczos_root
from restore.problem import Problem

Level = float | Tensor  # one number, or one an image `(B,)`


@dataclass(frozen=True)
class Moments:
    """Moments of `p(x_0 | x_s)` and the likelihood at N particles.

    Attributes:
        D: `E[x_0 | x_s]`, `(N, B, C, *spatial)`.
        D_y: `E[x_0 | x_s, y]` under the Gaussian approximation.
        K: covariance of the measurements, `(N, B, m, m)`, float64.
        r: residuals `y - A D`, `(N, B, m)`, float64.
        energy: share that each pixel has in each row of `A C`, mean square over particles,
            `(B, m, P)`, float64.
    """

    D: Tensor
    D_y: Tensor
    K: Tensor
    r: Tensor
    energy: Tensor

    def log_g(self, rows: Tensor | None = None) -> Tensor:
        """Return `log g + (m/2) log 2 pi` `(N, B)`, of the rows where `rows` `(B, m)` is 1."""
        K, r = self.K, self.r
        if rows is not None:
            K = K * rows[:, :, None] * rows[:, None, :] + torch.diag_embed(1 - rows)
            r = r * rows
        factor = torch.linalg.cholesky(K)
        white = torch.linalg.solve_triangular(factor, r[..., None], upper=False)[..., 0]
        return -0.5 * white.square().sum(2) - factor.diagonal(dim1=2, dim2=3).log().sum(2)


class MomentMatching:
    """The likelihood of the measurements of one problem.

    Args:
        problem: a linear problem with Gaussian noise.

    Attributes:
        rows: `(m, B, C, *spatial)`, the rows of `A` that see each image; zeros where an image has
            fewer than m.
        y: what they measured, `(B, m)`, float64.
        noise: variance of that, `(B, m)`; 1 at rows of zeros, which then say nothing.
        seen: 1 at rows of the image, 0 at rows of zeros, `(B, m)`.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        y = problem.y[: problem.images]
        seen = problem.observed[: problem.images].expand_as(y).flatten(1)
        m = max(1, int(seen.sum(1).max()))  # a blind operator has one row of zeros
        index = seen.argsort(dim=1, descending=True, stable=True)[:, :m]
        self.seen = seen = seen.gather(1, index)
        self.y = (seen * y.flatten(1).gather(1, index)).double()
        variance = problem.sigma_y[: problem.images].reshape(-1, 1).double().square()
        self.noise = torch.where(seen != 0, variance, torch.ones_like(variance))
        units = torch.zeros_like(y).flatten(1).expand(m, *y.flatten(1).shape)
        units = units.scatter(2, index.T[..., None], seen.T[..., None]).reshape(m, *y.shape)
        assert isinstance(problem.operator, LinearPhysics)
        self.rows = y.new_zeros((m, problem.images, *problem.shape[1:]))
        for k, unit in enumerate(units):
            self.rows[k] = problem.operator.A_adjoint(unit)

    def white(self, count: int, generator: torch.Generator) -> Tensor:
        """White noise of `count` measurements `(count, B, m)`, the same for every image.

        The first columns do not depend on m, which is that of the image with most measurements.
        """
        start = int(torch.randint(2**62, (), generator=generator))
        columns = [
            torch.randn(
                count, generator=torch.Generator().manual_seed(start + k), dtype=self.y.dtype
            )
            for k in range(len(self.rows))
        ]
        return torch.stack(columns, 1).to(self.y.device)[:, None].expand(count, len(self.y), -1)

    def __call__(self, x: Tensor, s: Level) -> Moments:
        """Evaluate at particles `x` of level `s`: one forward and m VJPs each."""
        m, found = self.y.shape[1], []
        energy = self.y.new_zeros((x.shape[1], m, x[0, 0].numel()))
        for part, image, level in self._slices(x, s):
            local = _Gaussian(self, part, image, level)
            r = self.y[image] - local.measure(local.D)
            found.append((local.D, local.D + local.move(local.solve(r)), local.K, r))
            energy.index_add_(0, image, local.energy())
        D, D_y, K, r = (torch.cat(column) for column in zip(*found, strict=True))
        return Moments(
            D=D.reshape(x.shape),
            D_y=D_y.reshape(x.shape),
            K=K.reshape(*x.shape[:2], m, m),
            r=r.reshape(*x.shape[:2], m),
            energy=energy / len(x),
        )

    def denoise(self, x: Tensor, s: Level) -> Tensor:
        """Return `D` alone: one forward each."""
        parts = [self.problem.denoise(part, level) for part, _, level in self._slices(x, s)]
        return torch.cat(parts).reshape(x.shape)

    def variances(self, x: Tensor, s: Level, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `x_0` given each particle still varies by: one forward and m + 1 VJPs each.

        Args:
            x: particles `(N, B, C, *spatial)`.
            s: their level.
            v: probes of the same shape.

        Returns:
            The trace of `K` and `v^T C v`, `(N, B)`.
        """
        v, found, done = v.flatten(0, 1), [], 0
        for part, image, level in self._slices(x, s):
            local = _Gaussian(self, part, image, level)
            probe = v[done : done + len(part)]
            done += len(part)
            along = (probe * local.vjp(probe)).flatten(1).sum(1)
            trace = (local.K.diagonal(dim1=1, dim2=2) * self.seen[image]).sum(1)
            found.append((trace, along.double() * _per_particle(level, along).double() ** 2))
        trace, along = (
            torch.cat(column).reshape(x.shape[:2]) for column in zip(*found, strict=True)
        )
        return trace, along

    def draw(self, x: Tensor, s: Level, z: Tensor, n: Tensor, lanczos: int) -> Tensor:
        """Draw from the Gaussian approximation of `p(x_0 | x_s = x, y)` by Matheron's rule.

        Args:
            x: particles `(N, B, C, *spatial)`.
            s: their level.
            z: white noise of the same shape.
            n: white noise `(N, B, m)`.
            lanczos: Jacobian products for the square root of the covariance.

        Returns:
            Clean images, same shape: one forward and m + `lanczos` VJPs each.
        """
        z, n = z.flatten(0, 1), n.flatten(0, 1)
        parts, done = [], 0
        for part, image, level in self._slices(x, s):
            local = _Gaussian(self, part, image, level)
            here = slice(done, done + len(part))
            done += len(part)
            root, _ = lanczos_root(local.vjp, z[here], lanczos)
            w = _per_particle(level, root) * root
            r = self.y[image] - local.measure(local.D + w) - self.noise[image].sqrt() * n[here]
            parts.append(local.D + w + local.move(local.solve(r)))
        return torch.cat(parts).reshape(x.shape)

    def _slices(self, x: Tensor, s: Level) -> Iterator[tuple[Tensor, Tensor, Level]]:
        """Cut the particles into network calls: particles, their images' numbers, their levels."""
        flat, b = x.flatten(0, 1), x.shape[1]
        size = self.problem.per_call or len(flat)
        for start in range(0, len(flat), size):
            part = flat[start : start + size]
            image = torch.arange(start, start + len(part), device=x.device) % b
            yield part, image, s[image] if isinstance(s, Tensor) else s


class _Gaussian:
    """The Gaussian approximations of `x_0` and `y` at particles `(N, C, *spatial)`."""

    def __init__(self, match: MomentMatching, x: Tensor, image: Tensor, s: Level) -> None:
        rows = match.rows[:, image]
        self.D, self.vjp = match.problem.linearise(x, s)
        variance = _per_particle(s, x).square()
        CAt = [variance * self.vjp(row) for row in rows]  # J is symmetric
        self.CAt = torch.stack(CAt, dim=1)
        self.a = rows.transpose(0, 1).flatten(2)
        K = _positive(torch.einsum("nip,njp->nij", self.a, self.CAt.flatten(2)).double())
        self.K = K + torch.diag_embed(match.noise[image])
        self.factor = torch.linalg.cholesky(self.K)

    def measure(self, x: Tensor) -> Tensor:
        """Return `A x` `(N, m)`, float64."""
        return torch.einsum("nmp,np->nm", self.a, x.flatten(1)).double()

    def solve(self, r: Tensor) -> Tensor:
        """Return `K^-1 r` `(N, m)`."""
        return torch.cholesky_solve(r[..., None], self.factor)[..., 0]

    def move(self, v: Tensor) -> Tensor:
        """Return `C A^T v`, images."""
        return torch.einsum("nm,nm...->n...", v.to(self.D), self.CAt)

    def energy(self) -> Tensor:
        """Share of every pixel in every row of `C A^T`, `(N, m, pixels)`, float64."""
        square = self.CAt.flatten(2).double().square()
        return square / square.sum(2, keepdim=True).clamp_min(torch.finfo(square.dtype).tiny)


def _per_particle(s: Level, x: Tensor) -> Tensor:
    """Levels shaped against particles `x` `(N, ...)`."""
    return torch.as_tensor(s, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 1))


def _positive(K: Tensor) -> Tensor:
    """Nearest symmetric positive semi-definite matrices: a network's Jacobian promises neither."""
    K = (K + K.transpose(1, 2)) / 2
    if K.shape[1] <= 1:
        return K.clamp_min(0)
    values, vectors = torch.linalg.eigh(K)
    return (vectors * values.clamp_min(0)[:, None]) @ vectors.transpose(1, 2)
