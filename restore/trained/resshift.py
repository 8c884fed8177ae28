"""ResShift: diffusion by residual shifting.

Yue, Wang, Loy, *ResShift: Efficient Diffusion Model for Image Super-resolution by Residual
Shifting*, NeurIPS 2023, arXiv:2307.12348, and its journal version, arXiv:2403.07319.

    symbol       name here     meaning
    e_0          -u_0          y_0 - x_0, the residual
    eta_t        eta           share of the degraded image: alpha_t = 1 - eta_t
    kappa        kappa         sigma_t = kappa sqrt(eta_t)
    p            p             exponent of the grid on which sqrt(eta) grows geometrically

The chain of T steps shifts the clean image to the degraded one while noise grows; `x - y_0` is an
ordinary diffusion. `sqrt(eta)` grows from `min_noise / kappa` to 0.99, so that eta_T = 0.9801: the
start drops two per cent of the residual. The reverse step is the exact posterior of the chain.

Few steps make the samples narrower than the posterior, by design: for data of variance v the
variance that remains is known in closed form, `sampled_variance`. Cost: T forwards.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from priors.schedules import Schedule
from restore.samplers.grid import Grid
from restore.samplers.sampler import Sampler
from restore.samplers.sum_constrained import SumConstrained
from restore.trained.restorer import Restorer

_END = 0.99  # of sqrt(eta)


@dataclass(frozen=True)
class ResShiftSchedule(Schedule):
    """`alpha = 1 - eta(t)`, `sigma = kappa sqrt(eta(t))` for t in [1, T], real between the steps.

    Attributes:
        steps: T.
        kappa: noise of the degraded image, in units of the images.
        p: exponent of the grid.
        min_noise: sigma of the first step, t = 1.
    """

    steps: int = 15
    kappa: float = 1.0
    p: float = 0.3
    min_noise: float = 0.02

    def eta(self, t: Tensor) -> Tensor:
        """Share of the degraded image at time `t`."""
        place = ((t - 1) / (self.steps - 1)).clamp_min(0) ** self.p
        return (self._first * torch.exp(place * self._growth)) ** 2

    def _alpha(self, t: Tensor) -> Tensor:
        return 1 - self.eta(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.kappa * self.eta(t).sqrt()

    def _time(self, level: Tensor) -> Tensor:
        # kappa r / (1 - r^2) = level, for r = sqrt(eta)
        r = 2 * level / (self.kappa + torch.sqrt(self.kappa**2 + 4 * level**2))
        place = (torch.log(r / self._first) / self._growth).clamp_min(0)
        return 1 + (self.steps - 1) * place ** (1 / self.p)

    @property
    def level_range(self) -> tuple[float, float]:
        """See `Schedule.level_range`."""
        return float(self.level(1.0)), float(self.level(float(self.steps)))

    @property
    def _first(self) -> float:
        return min(self.min_noise / self.kappa, self.min_noise)

    @property
    def _growth(self) -> float:
        return math.log(_END / self._first)


@dataclass(frozen=True, kw_only=True)
class ResShift(Restorer):
    """ResShift; see the module's docstring.

    Constants are halved against the paper, whose images live in [-1, 1].

    Args:
        steps: T, 15 or 4 in the papers.
        kappa: noise at the degraded image.
        p: exponent of the grid.
        min_noise: noise of the first step; the papers take 0.02 for 15 steps, 0.1 for 4.
        eta: 1 is the paper's random chain, 0 its deterministic limit.
    """

    name: ClassVar[str] = "resshift"
    paper: ClassVar[str] = "Yue et al. 2023, ResShift"
    cost: ClassVar[str] = "15 forwards"

    steps: int = 15
    kappa: float = 1.0
    p: float = 0.3
    min_noise: float = 0.02
    eta: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 2 or not 0 < self.min_noise < self.kappa or self.p <= 0:
            raise ValueError(
                "resshift needs steps >= 2, p > 0 and 0 < min_noise < kappa, found "
                f"{self.steps}, {self.p}, {self.min_noise}, {self.kappa}."
            )

    @property
    def schedule(self) -> ResShiftSchedule:
        """See `ResShiftSchedule`."""
        return ResShiftSchedule(self.steps, self.kappa, self.p, self.min_noise)

    @property
    def grid(self) -> Grid:
        """All steps of the chain, the last first."""
        return Grid(self.schedule, tuple(float(t) for t in range(self.steps, 0, -1)))

    @property
    def walker(self) -> Sampler:
        """The posterior of the chain."""
        return SumConstrained(eta=self.eta)


def sampled_variance(schedule: ResShiftSchedule, v: float) -> float:
    """Variance of ResShift's samples where that of the data is `v`: a recursion without chance.

    With `D_t = alpha_t^2 v + sigma_t^2` the network's gain is `g_t = alpha_t v / D_t`.
    """
    variance = float(schedule.sigma(float(schedule.steps))) ** 2
    for t in range(schedule.steps, 0, -1):
        alpha, sigma = float(schedule.alpha(float(t))), float(schedule.sigma(float(t)))
        gain = alpha * v / (alpha**2 * v + sigma**2)
        if t == 1:
            return gain**2 * variance
        kept = (float(schedule.sigma(t - 1.0)) / sigma) ** 2
        moved = kept + (float(schedule.alpha(t - 1.0)) - kept * alpha) * gain
        fresh = float(schedule.sigma(t - 1.0)) ** 2 * (1 - kept)
        variance = moved**2 * variance + fresh
    raise AssertionError("unreachable")
