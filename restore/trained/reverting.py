"""Schedules of mean-reverting diffusions, and what their networks may predict.

    alpha_t = e^-reversion(t),   sigma_t^2 = sigma_inf^2 (1 - alpha_t^2)

A network that predicts noise, image or velocity says the same; `FromPrediction` brings one to the
form of this package. Sources: `restore.trained.mean_reverting`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from operators.validate import one_of
from priors.denoiser import per_image
from priors.predictions import from_x0, to_x0
from priors.schedules import Schedule

Kind = Literal["noise", "data", "velocity"]
KINDS: dict[str, str] = {"noise": "eps", "data": "x0", "velocity": "v"}  # of `priors.predictions`


class Reverting(Schedule):
    """Base of the schedules: `alpha = e^-reversion(t)`, `sigma = sigma_inf sqrt(1 - alpha^2)`."""

    sigma_inf: float

    def reversion(self, t: Tensor) -> Tensor:
        """Integral of theta from the clean image to time `t`."""
        raise NotImplementedError

    def _when(self, reversion: Tensor) -> Tensor:
        raise NotImplementedError

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self.reversion(t))

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_inf * torch.sqrt(-torch.expm1(-2 * self.reversion(t)))

    def _level(self, t: Tensor) -> Tensor:
        return self.sigma_inf * torch.sqrt(torch.expm1(2 * self.reversion(t)))

    def _time(self, level: Tensor) -> Tensor:
        return self._when(torch.log1p((level / self.sigma_inf) ** 2) / 2)


@dataclass(frozen=True)
class SteadyReverting(Reverting):
    """Constant theta: `reversion(t) = rate t`, the smooth schedule on which orders show.

    Attributes:
        sigma_inf: noise around the degraded image in the end, in units of the images.
        rate: theta; 5.3 leaves 0.5 % of the residual at t = 1.
    """

    sigma_inf: float = 50 / 255
    rate: float = 5.3

    def reversion(self, t: Tensor) -> Tensor:
        """See `Reverting.reversion`."""
        return self.rate * t

    def _when(self, reversion: Tensor) -> Tensor:
        return reversion / self.rate


@dataclass(frozen=True)
class CosineReverting(Reverting):
    """IR-SDE's table of T + 1 times, 0 to T: theta is `1 - cos^2`, scaled so that alpha_T = end.

    Between two times the reversion is straight and alpha and sigma follow from it, which authors'
    code interpolates each on its own.

    Attributes:
        sigma_inf: noise around the degraded image in the end, in units of the images; the authors
            advise 30/255 to 50/255.
        steps: T.
        end: share of the residual that is left at T.
        clean: whether time 0 is the clean image, as in IR-SDE. MR Sampler counts theta_0 too, so
            that time 0 has some noise (0.0022 at the defaults), and a step can lead there.
    """

    sigma_inf: float = 50 / 255
    steps: int = 100
    end: float = 0.005
    clean: bool = False

    def reversion(self, t: Tensor) -> Tensor:
        """See `Reverting.reversion`."""
        table = self._table.to(t.device)
        i = t.floor().long().clamp(0, self.steps - 1)
        return table[i] + (t - i) * (table[i + 1] - table[i])

    def _when(self, reversion: Tensor) -> Tensor:
        table = self._table.to(reversion.device)
        i = torch.searchsorted(table[1:-1].contiguous(), reversion.contiguous(), right=True)
        return i + (reversion - table[i]) / (table[i + 1] - table[i])

    @property
    def level_range(self) -> tuple[float, float]:
        """See `Schedule.level_range`."""
        return float(self.level(0.0)), float(self.level(float(self.steps)))

    @cached_property
    def _table(self) -> Tensor:
        x = torch.arange(self.steps + 3, dtype=torch.float64) / (self.steps + 2)
        kept = torch.cos((x + 0.008) / 1.008 * math.pi / 2) ** 2
        sums = (1 - kept / kept[0])[1:-1].cumsum(0)  # of theta, not of a beta
        sums = sums - sums[0] if self.clean else sums
        return -math.log(self.end) * sums / sums[-1]


class FromPrediction(nn.Module):
    """A network of the authors' kind, `network(x_t, mu, t)`, in the form of `PairPrior`.

    Args:
        network: predicts noise, image or velocity; `t` is `(B,)`.
        kind: which of them.
        schedule: with the constants that it was trained with.
    """

    def __init__(self, network: nn.Module, kind: Kind, schedule: Reverting) -> None:
        super().__init__()
        self.network, self.kind, self.schedule = (
            network,
            one_of("kind", kind, list(KINDS)),
            schedule,
        )

    def forward(self, z: Tensor, y_0: Tensor, s: float | Tensor) -> Tensor:
        """Return `E[u_0 | z, y_0]`; see `PairNetwork.forward`."""
        level = torch.as_tensor(s, dtype=torch.float64, device=z.device).flatten().expand(len(z))
        t = self.schedule.time(level)
        w = per_image(self.schedule.alpha(t), z) * z
        value = self.network(y_0 + w, y_0, t.to(z.dtype))
        value = value - y_0 if self.kind == "data" else value
        return to_residual(self.kind, value, w, t, self.schedule)


def to_residual(kind: str, value: Tensor, w: Tensor, t: float | Tensor, of: Reverting) -> Tensor:
    """Residual `u_0 = x_0 - mu` that a prediction at `w = x_t - mu` stands for.

    In units of `sigma_inf` the diffusion preserves variance, where the velocity
    `sigma_inf alpha eps - (sigma / sigma_inf) u_0` is the usual one.

    Args:
        kind: "noise", "data" (here `u_0` itself) or "velocity".
        value: the prediction, shape of `w`.
        w: `(B, C, *spatial)`.
        t: time, one number or one per image `(B,)`.
        of: the schedule.
    """
    unit = of.sigma_inf
    inner = value if kind == "noise" else value / unit
    return unit * to_x0(KINDS[kind], inner, w / unit, of.alpha(t), of.sigma(t) / unit)


def from_residual(kind: str, u_0: Tensor, w: Tensor, t: float | Tensor, of: Reverting) -> Tensor:
    """Prediction that stands for a residual: the inverse of `to_residual`."""
    unit = of.sigma_inf
    value = from_x0(KINDS[kind], u_0 / unit, w / unit, of.alpha(t), of.sigma(t) / unit)
    return value if kind == "noise" else unit * value
