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

from dataclasses import dataclass
from typing import ClassVar

from restore.samplers.ddim import DDIM
from restore.samplers.grid import Point


@dataclass(frozen=True, kw_only=True)
class SumConstrained(DDIM):
    """See the module's docstring.

    Args:
        eta: share of fresh noise in [0, 1].
    """

    name: ClassVar[str] = "sum-constrained"
    paper: ClassVar[str] = "Yue et al. 2023, ResShift; Liu et al. 2024, RDDM"

    eta: float = 1.0

    def fresh(self, t: Point, s: Point) -> float:
        """Share of the variance at `s` that is fresh noise."""
        return self.eta * (1 - (s.sigma / t.sigma) ** 2)
