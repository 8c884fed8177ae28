"""The sampler of residual diffusions: noise budgets add up.

Where a diffusion adds independent noise, `sigma_t^2 = sigma_s^2 + (sigma_t^2 - sigma_s^2)`, and
moves its mean separately, the reverse step given the clean image keeps `sigma_s^2 / sigma_t^2` of
the state:

    x_s = alpha_s D + sqrt(sigma_s^2 - tau^2) eps + tau z,
    tau^2 = eta sigma_s^2 (1 - sigma_s^2 / sigma_t^2)

    eta = 1   ResShift: Yue, Wang, Loy, NeurIPS 2023, arXiv:2307.12348, equation 7, and the
              "sum-constrained" variance of RDDM
    eta = 0   RDDM's implicit sampling, which is DDIM: Liu et al., CVPR 2024, arXiv:2308.13712

DDIM's own eta compares `sigma / alpha` instead, and injects more noise where alpha grows. The two
agree where alpha is constant.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from restore.samplers.sampler import Path, Sampler, noise_in


@dataclass(frozen=True, kw_only=True)
class SumConstrained(Sampler):
    """See the module's docstring.

    Args:
        eta: share of fresh noise in [0, 1].
    """

    name: ClassVar[str] = "sum-constrained"
    paper: ClassVar[str] = "Yue et al. 2023, ResShift; Liu et al. 2024, RDDM"
    order: ClassVar[str] = "1"

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sum-constrained needs 0 <= eta <= 1, found {self.eta}.")

    @property
    def random(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether it draws noise: unless eta is 0."""
        return self.eta > 0

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Denoise; keep part of the old noise, add fresh noise for the rest."""
        for t, s in pairwise(path.grid.points):
            D = path.D(x, t)
            tau2 = self.eta * s.sigma**2 * (1 - (s.sigma / t.sigma) ** 2)
            x = s.alpha * D + math.sqrt(s.sigma**2 - tau2) * noise_in(x, D, t)
            if self.eta > 0:
                x = x + math.sqrt(tau2) * path.noise(x)
            yield x
