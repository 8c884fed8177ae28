"""Weighted particles: what they weigh, and how those of little weight give way.

The weight of a particle is the likelihood `g` it has gained since the last resampling times the
ratio of the prior's chain to the proposal. Both are kept by rows and by pixels, so that a posterior
which falls into independent parts can be weighed and resampled part by part (`restore.parts`).
Images put together from parts of different particles must denoise to the same parts again: where
they do not, the parts depend on each other, and whole images are resampled.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from restore.moments import MomentMatching, Moments
from restore.parts import Parts, find_parts
from restore.resampling import effective_size, log_mean, sorted_systematic

# By which parts may contradict each other, as a share of the variance of D, and of what D removes:
# at low noise it hardly moves even an image that the prior thinks impossible.
_FOREIGN = 1e-3


class Population:
    """N particles for each of B images.

    Args:
        match: the likelihood.
        x: particles `(N, B, C, *spatial)`.
        s: their level.
        ess: share of effective particles below which they are resampled.
        coupling: correlation above which two measurements belong to one part.
        generator: of the resampling; all images see the same numbers.

    Attributes:
        x, at: the particles, and the likelihood at them.
    """

    def __init__(
        self,
        match: MomentMatching,
        x: Tensor,
        s: float,
        *,
        ess: float,
        coupling: float,
        generator: torch.Generator,
    ) -> None:
        self.match, self.ess, self.coupling, self.generator = match, ess, coupling, generator
        self.x, self.at = x, match(x, s)
        K, r = self.at.K, self.at.r
        # since the last resampling: log ratio of every pixel, and the likelihood then: of no data
        self.log_ratio = x.new_zeros((*x.shape[:2], x[0, 0].numel()), dtype=torch.float64)
        self.K, self.r = torch.eye(K.shape[2]).to(K).expand_as(K), torch.zeros_like(r)
        self.log_z = match.y.new_zeros(x.shape[1])
        self.least = torch.full_like(self.log_z, len(x))
        self.resamplings = torch.zeros_like(self.log_z)

    def advance(self, x: Tensor, s: float, log_ratio: Tensor) -> None:
        """Take the particles to `x` at level `s`, weigh them, and resample where they are few.

        Args:
            x: moved particles.
            s: their new level.
            log_ratio: log ratio of prior to proposal of every pixel, `(N, B, P)`, float64.
        """
        self.x, self.at = x, self.match(x, s)
        self.log_ratio = self.log_ratio + log_ratio
        parts = self.parts()
        size = torch.stack([effective_size(w) for w in self.log_weights(parts)]).amin(0)
        self.least = torch.minimum(self.least, size)
        seed = self.seed()  # drawn in any case, so that images do not touch each other
        poor = size < self.ess * len(x)
        if bool(poor.any()):
            self._resample(*self.select(s, len(x), parts, seed), poor)

    def choose(self, s: float, count: int) -> Tensor:
        """Return `count` clean images `(count, B, C, *spatial)` according to the weights."""
        parts, index = self.select(s, count, self.parts(), self.seed())
        return parts.take_pixels(self.at.D, index)

    def parts(self) -> Parts:
        """Find what can be weighed separately."""
        K = self.at.K - torch.diag_embed(self.match.noise)
        return find_parts(K, self.at.energy, self.match.seen, self.coupling)

    def log_weights(self, parts: Parts) -> Tensor:
        """Log weights `(m, N, B)` of the particles in each part; constant in empty ones."""
        before = replace(self.at, K=self.K, r=self.r)
        gained = [self.at.log_g(rows) - before.log_g(rows) for rows in parts.rows]
        return torch.stack(gained) + torch.einsum("kbp,nbp->knb", parts.pixels, self.log_ratio)

    def select(self, s: float, count: int, parts: Parts, seed: int) -> tuple[Parts, Tensor]:
        """Draw `count` particles for each part.

        Returns:
            The parts, joined where they turn out to depend on each other, and indices
            `(m, count, B)`.
        """
        index = self._draw(parts, count, seed)
        if bool(parts.single.all()):
            return parts, index
        expected = parts.take_pixels(self.at.D, index)
        found = self.match.denoise(parts.take_pixels(self.x, index), s)
        error = (found - expected).flatten(2).square().mean((0, 2))
        removed = (self.x - self.at.D).flatten(2).square().mean((0, 2))
        apart = self.at.D.var(0).flatten(1).mean(1)
        parts = parts.join(error > _FOREIGN * torch.minimum(removed, apart))
        return parts, self._draw(parts, count, seed)

    def _draw(self, parts: Parts, count: int, seed: int) -> Tensor:
        """Sorted systematic draws, shuffled, so that parts meet by chance: `(m, count, B)`."""
        drawn, D = [], self.at.D.flatten(2)
        for k, log_w in enumerate(self.log_weights(parts)):
            generator = torch.Generator().manual_seed(seed + k)
            offset = float(torch.rand((), generator=generator, dtype=torch.float64))
            index = sorted_systematic(D * parts.pixels[k], log_w, count, offset)
            drawn.append(index[torch.randperm(count, generator=generator).to(index.device)])
        return torch.stack(drawn)

    def _resample(self, parts: Parts, index: Tensor, poor: Tensor) -> None:
        """Replace the particles of the images that are `poor`; their weights are one again."""
        self.log_z += torch.where(poor, log_mean(self.log_weights(parts)).sum(0), 0.0)
        self.resamplings += poor
        K, r = parts.take_rows(self.at.K, self.at.r, index)

        def where(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(poor.reshape(1, -1, *[1] * (old.ndim - 2)), new, old)

        self.x = where(parts.take_pixels(self.x, index), self.x)
        self.at = Moments(
            D=where(parts.take_pixels(self.at.D, index), self.at.D),
            D_y=where(parts.take_pixels(self.at.D_y, index), self.at.D_y),
            K=where(K, self.at.K),
            r=where(r, self.at.r),
            energy=self.at.energy,
        )
        self.K, self.r = where(self.at.K, self.K), where(self.at.r, self.r)
        self.log_ratio = where(torch.zeros_like(self.log_ratio), self.log_ratio)

    def seed(self) -> int:
        """A fresh seed."""
        return int(torch.randint(2**62, (), generator=self.generator))

    def notes(self) -> dict[str, object]:
        """What the run has to report, one entry an image."""
        log_p = self.log_z + log_mean(self.log_weights(self.parts())).sum(0)
        log_p = log_p - self.match.seen.sum(1) / 2 * math.log(2 * math.pi)
        return {
            "particles": len(self.x),
            "least effective particles": self.least.tolist(),
            "resamplings": self.resamplings.int().tolist(),
            "log p(y)": log_p.tolist(),
        }
