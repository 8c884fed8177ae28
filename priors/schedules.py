"""Noise schedules: how much image and how much noise a diffusion holds at time `t`.

    x_t = alpha_t x_0 + sigma_t eps,   eps ~ N(0, I),   level s_t = sigma_t / alpha_t.

Divided by `alpha_t`, every diffusion is `x_0` plus white noise of standard deviation `s_t`: the
form in which `priors.Denoiser` works. A schedule is therefore two functions of time, and
`time(level)` brings a noise level back to the time at which a network saw it. A restoration
diffusion adds `(1 - alpha_t) y_0` for a degraded image `y_0`; in `u = x - y_0` it is the same
schedule.

Every method takes a float or tensor and returns a float64 tensor of the same shape.

Sources: Song et al. 2021, arXiv:2011.13456 (VP, sub-VP, VE); Karras et al. 2022, arXiv:2206.00364
(EDM); Liu et al. 2022, arXiv:2209.03003 (rectified flow); Ho et al. 2020, arXiv:2006.11239 (DDPM).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

Number = float | Tensor


class Schedule(ABC):
    """The pair `alpha(t)`, `sigma(t)`, and the way back from a noise level to its time.

    A schedule implements `_alpha`, `_sigma` and `_time` on float64 tensors, and `level_range`.
    """

    def alpha(self, t: Number) -> Tensor:
        """Factor on the clean image at time `t`."""
        return self._alpha(_f64(t))

    def sigma(self, t: Number) -> Tensor:
        """Noise standard deviation at time `t`, in units of `x_0`."""
        return self._sigma(_f64(t))

    def level(self, t: Number) -> Tensor:
        """Noise level `sigma / alpha` at time `t`: the noise of `x_t / alpha_t`."""
        return self._level(_f64(t))

    def time(self, level: Number) -> Tensor:
        """Time at which `sigma / alpha` equals `level`."""
        return self._time(_f64(level))

    @property
    def level_range(self) -> tuple[float, float]:
        """Lowest and highest noise level that the schedule reaches."""
        return 0.0, math.inf

    @abstractmethod
    def _alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _time(self, level: Tensor) -> Tensor: ...

    def _level(self, t: Tensor) -> Tensor:
        return self._sigma(t) / self._alpha(t)


@dataclass(frozen=True)
class VP(Schedule):
    """Variance-preserving SDE: `alpha^2 = exp(-B)`, `sigma^2 = 1 - alpha^2`, `t` in [0, 1].

    `B(t) = b0 t + (b1 - b0) t^2 / 2` is the integral of the rate `b0 + (b1 - b0) t`
    (arXiv:2011.13456, appendix C).

    Attributes:
        b0: rate at `t = 0`.
        b1: rate at `t = 1`.
    """

    b0: float = 0.1
    b1: float = 20.0

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._B(t) / 2)

    def _sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._B(t)))

    def _level(self, t: Tensor) -> Tensor:
        return torch.sqrt(torch.expm1(self._B(t)))

    def _time(self, level: Tensor) -> Tensor:
        return self._t(torch.log1p(level**2))

    @property
    def level_range(self) -> tuple[float, float]:
        """See `Schedule.level_range`."""
        return 0.0, float(self.level(1.0))

    def _B(self, t: Tensor) -> Tensor:
        return self.b0 * t + (self.b1 - self.b0) * t**2 / 2

    def _t(self, B: Tensor) -> Tensor:
        # root of the quadratic in the form that stays exact near t = 0 and for b0 = b1
        return 2 * B / (self.b0 + torch.sqrt(self.b0**2 + 2 * (self.b1 - self.b0) * B))


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP SDE: `alpha` of `VP`, but `sigma = 1 - alpha^2` as a standard deviation.

    arXiv:2011.13456, appendix C (there as the variance, its square).
    """

    def _sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self._B(t))

    def _level(self, t: Tensor) -> Tensor:
        return 2 * torch.sinh(self._B(t) / 2)

    def _time(self, level: Tensor) -> Tensor:
        return self._t(2 * torch.asinh(level / 2))


@dataclass(frozen=True)
class VE(Schedule):
    """Variance-exploding SDE: `alpha = 1`, `sigma = sigma_min (sigma_max / sigma_min)^t`.

    Attributes:
        sigma_min: noise at `t = 0`.
        sigma_max: noise at `t = 1` (50 for CIFAR-10, 348 for faces at 256 pixels, in [0, 1] units).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(t * math.log(self.sigma_max / self.sigma_min))

    def _time(self, level: Tensor) -> Tensor:
        ratio = math.log(self.sigma_max / self.sigma_min)
        return torch.log(level / self.sigma_min) / ratio

    @property
    def level_range(self) -> tuple[float, float]:
        """See `Schedule.level_range`."""
        return self.sigma_min, self.sigma_max


@dataclass(frozen=True)
class EDM(Schedule):
    """`alpha = 1`, `sigma = t`: time is the noise level itself."""

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return t

    def _time(self, level: Tensor) -> Tensor:
        return level


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """Straight lines from image (`t = 0`) to noise (`t = 1`): `alpha = 1 - t`, `sigma = t`."""

    def _alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def _sigma(self, t: Tensor) -> Tensor:
        return t

    def _time(self, level: Tensor) -> Tensor:
        return 1 / (1 + 1 / level)  # s / (1 + s), also at s = inf


@dataclass(frozen=True)
class Discrete(Schedule):
    """The table of a discrete diffusion: `alpha^2 = alphas_cumprod`, `sigma^2 = 1 - alpha^2`.

    Time is the step `0 .. n - 1`; between two steps the logarithm of the level is interpolated.

    Attributes:
        alphas_cumprod: `alpha^2` of every step, strictly decreasing, inside (0, 1).

    Raises:
        ValueError: if the table is not so, or a time or level lies outside it.
    """

    alphas_cumprod: tuple[float, ...] = field(repr=False)

    def __post_init__(self) -> None:
        table = _f64(self.alphas_cumprod)
        ok = len(table) > 1 and table.max() < 1 and table.min() > 0 and (table.diff() < 0).all()
        if not ok:
            raise ValueError(
                "alphas_cumprod must hold two or more strictly decreasing values inside (0, 1), "
                f"found {len(table)} values from {table[:2].tolist()}; check the beta schedule."
            )

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.rsqrt(1 + self._level(t) ** 2)

    def _sigma(self, t: Tensor) -> Tensor:
        level = self._level(t)
        return level * torch.rsqrt(1 + level**2)

    def _level(self, t: Tensor) -> Tensor:
        return torch.exp(_interpolate(t, self._steps, self._log_level, "step"))

    def _time(self, level: Tensor) -> Tensor:
        return _interpolate(torch.log(level), self._log_level, self._steps, "log level")

    @property
    def level_range(self) -> tuple[float, float]:
        """See `Schedule.level_range`."""
        ends = self._log_level[[0, -1]].exp().tolist()
        return ends[0], ends[1]

    @cached_property
    def _log_level(self) -> Tensor:
        table = _f64(self.alphas_cumprod)
        return (torch.log1p(-table) - torch.log(table)) / 2

    @cached_property
    def _steps(self) -> Tensor:
        return torch.arange(len(self.alphas_cumprod), dtype=torch.float64)


@dataclass(frozen=True)
class DDPM(Discrete):
    """Linear-beta table of DDPM; at the defaults its levels run from 0.0100 to 157.4.

    Attributes:
        steps: number of steps.
        beta_min: beta of the first step.
        beta_max: beta of the last step.
    """

    alphas_cumprod: tuple[float, ...] = field(init=False, repr=False)
    steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 2e-2

    def __post_init__(self) -> None:
        beta = torch.linspace(self.beta_min, self.beta_max, self.steps, dtype=torch.float64)
        table = torch.cumprod(1 - beta, 0).tolist()
        object.__setattr__(self, "alphas_cumprod", tuple(table))
        super().__post_init__()


def log_levels(n: int, sigma_max: float, sigma_min: float) -> Tensor:
    """Noise levels in geometric progression.

    Args:
        n: how many.
        sigma_max: the first.
        sigma_min: the last.

    Returns:
        Decreasing levels `(n,)`, float64; no final zero.

    Raises:
        ValueError: unless `n >= 2` and `0 < sigma_min < sigma_max`.
    """
    _check_grid(n, sigma_max, sigma_min)
    return torch.exp(_ramp(n, math.log(sigma_max), math.log(sigma_min)))


def edm_levels(n: int, sigma_max: float, sigma_min: float, rho: float = 7.0) -> Tensor:
    """Noise levels evenly spaced in `sigma^(1 / rho)` (arXiv:2206.00364, equation 5).

    Args:
        n: how many.
        sigma_max: the first.
        sigma_min: the last.
        rho: warping; 1 is linear, larger values put more levels at low noise.

    Returns:
        Decreasing levels `(n,)`, float64; no final zero.

    Raises:
        ValueError: unless `n >= 2` and `0 < sigma_min < sigma_max`.
    """
    _check_grid(n, sigma_max, sigma_min)
    return _ramp(n, sigma_max ** (1 / rho), sigma_min ** (1 / rho)) ** rho


def _ramp(n: int, first: float, last: float) -> Tensor:
    return torch.linspace(first, last, n, dtype=torch.float64)


def _check_grid(n: int, sigma_max: float, sigma_min: float) -> None:
    if n < 2 or not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"a noise grid needs n >= 2 and 0 < sigma_min < sigma_max, found n={n}, "
            f"sigma_min={sigma_min:g}, sigma_max={sigma_max:g}; correct these."
        )


def _f64(value: Number | tuple[float, ...]) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _interpolate(at: Tensor, grid: Tensor, values: Tensor, what: str) -> Tensor:
    """Piecewise linear function through `(grid, values)`, grid increasing; refuses the outside."""
    grid, values = grid.to(at.device), values.to(at.device)
    slack = 1e-9  # rounding of a value that was computed from the table's own end
    if not bool(((at >= grid[0] - slack) & (at <= grid[-1] + slack)).all()):
        raise ValueError(
            f"{what} must lie in [{float(grid[0]):g}, {float(grid[-1]):g}] for this schedule, "
            f"found {float(at.min()):g} to {float(at.max()):g}; stay within its table."
        )
    right = torch.searchsorted(grid, at.detach().contiguous()).clamp(1, len(grid) - 1)
    weight = (at - grid[right - 1]) / (grid[right] - grid[right - 1])
    return torch.lerp(values[right - 1], values[right], weight)
