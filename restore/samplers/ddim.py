"""DDIM: the first-order exponential integrator, and its random family.

Song, Meng, Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021, arXiv:2010.02502, equation 12.

    symbol        name here    meaning
    sigma_tau_i   fresh        std of the fresh noise, eta sigma_s sqrt(1 - e^-2h)
    eta           eta          0 follows the probability-flow ODE, 1 is DDPM's ancestral sampling

Exact in one step for a point mass, whatever eta. Order 1; under eta = 1 the variance of its samples
converges with order 1 too. For data of unit variance, N steps evenly spaced in arctan(sigma/alpha)
leave a standard deviation of `cos(pi / 2N)^N`: DDIM shrinks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from restore.samplers.grid import Point
from restore.samplers.sampler import Path, Sampler, noise_in


@dataclass(frozen=True, kw_only=True)
class DDIM(Sampler):
    """DDIM; see the module's docstring.

    Args:
        eta: share of fresh noise in [0, 1].
    """

    name: ClassVar[str] = "ddim"
    paper: ClassVar[str] = "Song et al. 2021, DDIM"
    order: ClassVar[str] = "1"

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"{self.name} needs 0 <= eta <= 1, found {self.eta}; choose within.")

    @property
    def random(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether it draws noise: unless eta is 0."""
        return self.eta > 0

    def fresh(self, t: Point, s: Point) -> float:
        """Share of the variance at `s` that is fresh noise."""
        return self.eta**2 * -math.expm1(2 * (t.lam - s.lam))

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Denoise; keep part of the old noise, add fresh noise for the rest."""
        for t, s in pairwise(path.grid.points):
            D = path.D(x, t)
            share = self.fresh(t, s)
            x = s.alpha * D + s.sigma * math.sqrt(1 - share) * noise_in(x, D, t)
            if self.eta > 0:
                x = x + s.sigma * math.sqrt(share) * path.noise(x)
            yield x
