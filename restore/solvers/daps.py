"""DAPS: decoupled annealing posterior sampling.

Zhang, Chu, Berner, Meng, Anandkumar, Song, *Improving Diffusion Inverse Problem Solving with
Decoupled Noise Annealing*, CVPR 2025, arXiv:2407.01521, algorithm 1, for images in pixels.

    symbol            name here     meaning
    sigma_t           s             annealing level
    x_hat_0           centre        where the probability flow from x_t ends
    r_t               spread        std about it, `r_t = sigma_t` in the paper
    beta_y            tau           std of the measurement in the sampler's target
    eta_t             h             Langevin step

At every level: follow the flow to a clean image; sample

    exp(-|y - A(x)|^2 / (2 tau^2) - |x - centre|^2 / (2 spread^2))

by Langevin steps from there; noise the sample to the next level. Levels are thereby decoupled.

In the released code the gradient is that of `|y - A x|^2 / tau^2`, so that its sampler's tau is
`0.01 / sqrt(2)` in the notation above, whatever the noise; its step 1e-4 sits on the limit of
stability for an operator of norm 1. `DAPS.paper_settings()` is that. By default tau is the noise of
the measurement and the step a fifth of `1 / L`, L the curvature of the target, from a power
iteration. Data under other noise enter by their own likelihood and need no tau.

Two approximations remain. The end of the flow is no mean and `sigma_t` no conditional std: without
data, N(0, 1) comes back with variance 2.1 where the inner sampler is exact. `variance` is the
reference without them: centre D and `spread^2 = c s^2 / (c + s^2)` give the posterior of a prior
`N(m, c I)`, `inner="exact"` its samples. Constants are those of images in [-1, 1].

Cost: `ode_steps` forwards a level, no derivative of the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from operators.linalg import dot, proximal
from priors.schedules import edm_levels
from restore.likelihood import KINDS
from restore.problem import Problem
from restore.solver import Solver

_END = 0.01  # last level of the flow before the end
_LEAST = 2 / 255  # tau for data without noise: a grey level


@dataclass(frozen=True, kw_only=True)
class DAPS(Solver):
    """Decoupled annealing posterior sampling; see the module's docstring.

    Args:
        levels: N, annealing levels before the end, without noise.
        sigma_max: first level.
        sigma_min: last level.
        ode_steps: Euler steps of the probability flow, a forward each.
        langevin_steps: K, steps of the inner sampler.
        tau: std of the measurement in its target, for images in [-1, 1]; None is the true one.
        step: "stable" takes `relative_step / L`; "paper" takes `lr`, falling to `lr_ratio lr`.
        relative_step: of "stable"; 2 is the limit of stability, and the spread is inflated by up
            to `1 / (1 - relative_step / 2)` in variance.
        lr: of "paper".
        lr_ratio: of "paper".
        inner: "langevin", or "exact" samples by a linear solve, for a linear operator with
            Gaussian noise.
        variance: c of the reference mode; None is the paper's centre and spread.
    """

    name: ClassVar[str] = "daps"
    paper: ClassVar[str] = "Zhang et al. 2025, decoupled annealing posterior sampling"
    requires: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str] = "1000 forwards"
    posterior: ClassVar[str] = "approximate: wide where little is measured"
    remedy: ClassVar[str] = "use more langevin_steps or a smaller relative_step"
    likelihoods: ClassVar[tuple[str, ...]] = KINDS

    levels: int = 200
    sigma_max: float = 100.0
    sigma_min: float = 0.1
    ode_steps: int = 5
    langevin_steps: int = 100
    tau: float | None = None
    step: Literal["stable", "paper"] = "stable"
    relative_step: float = 0.2
    lr: float = 1e-4
    lr_ratio: float = 0.01
    inner: Literal["langevin", "exact"] = "langevin"
    variance: float | None = None

    @classmethod
    def paper_settings(cls) -> "DAPS":
        """Step and tau of the released code for super-resolution, blur and random inpainting."""
        return cls(tau=0.01 / 2**0.5, step="paper")

    def __post_init__(self) -> None:
        if not (self.levels >= 2 and self.ode_steps >= 1 and self.langevin_steps >= 1):
            raise ValueError(
                "daps needs levels >= 2, ode_steps >= 1 and langevin_steps >= 1, found "
                f"{self.levels}, {self.ode_steps}, {self.langevin_steps}."
            )
        if not (0 < self.sigma_min < self.sigma_max and 0 < self.relative_step < 2 and self.lr > 0):
            raise ValueError(
                "daps needs 0 < sigma_min < sigma_max, lr > 0 and relative_step in (0, 2), beyond "
                f"which Langevin steps diverge; found {self.sigma_min}, {self.sigma_max}, "
                f"{self.lr}, {self.relative_step}."
            )
        for value, known in ((self.step, ("stable", "paper")), (self.inner, ("langevin", "exact"))):
            if value not in known:
                raise ValueError(f"unknown option '{value}' of daps; choose {' or '.join(known)}.")
        if any(v is not None and v <= 0 for v in (self.tau, self.variance)):
            raise ValueError(
                f"tau and variance of daps are found {self.tau} and {self.variance}, expected "
                "numbers above 0; leave them out for the defaults."
            )

    @property
    def length(self) -> int:
        """One estimate a level."""
        return self.levels

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Alternate the flow, the measurement and noising less."""
        scale = problem.scale
        levels = [scale * s for s in _grid(self.levels, self.sigma_max, self.sigma_min)]
        tau = self._tau(problem)
        linear = isinstance(problem.operator, LinearPhysics)
        exact = self._exact(problem)
        norm2 = squared_norm(problem) if linear and not exact else None
        x = problem.middle + levels[0] * problem.noise()
        for k, s in enumerate(levels):
            centre, spread = self._conditional(problem, x, s)
            if exact:
                x_0 = self._solve(problem, centre, spread, tau)
            else:
                x_0 = self._langevin(problem, centre, spread, tau, norm2, k)
            yield x_0
            if k + 1 < len(levels):
                x = x_0 + levels[k + 1] * problem.noise()

    def _exact(self, problem: Problem) -> bool:
        if self.inner == "langevin":
            return False
        if not isinstance(problem.operator, LinearPhysics) or problem.likelihood is not None:
            raise ValueError(
                "inner='exact' of daps needs a linear operator with Gaussian noise; use 'langevin'."
            )
        return True

    def _tau(self, problem: Problem) -> Tensor:
        """Std `(N, 1, ..., 1)` for which `data_gradient / tau^2` is the gradient of the target."""
        if problem.likelihood is not None:
            return problem.noise_power.sqrt()
        if self.tau is None:
            return problem.sigma_y.clamp_min(_LEAST * problem.scale)
        return torch.full_like(problem.sigma_y, self.tau * problem.scale)

    def _conditional(self, problem: Problem, x: Tensor, s: float) -> tuple[Tensor, float]:
        """Centre and spread of the clean image given the noisy one."""
        if self.variance is not None:
            c = self.variance * problem.scale**2
            return problem.denoise(x, s), (c * s**2 / (c + s**2)) ** 0.5
        path = _grid(self.ode_steps, s, min(_END * problem.scale, s / 10))
        for a, b in zip(path, [*path[1:], 0.0], strict=True):
            D = problem.denoise(x, a)
            x = D + b / a * (x - D)
        return x, s

    def _solve(self, problem: Problem, centre: Tensor, spread: float, tau: Tensor) -> Tensor:
        """Sample exactly: perturb both terms by their noise, then minimise."""
        y = problem.y + tau.reshape(-1, *[1] * (problem.y.ndim - 1)) * problem.noise(problem.y)
        return proximal(problem, centre + spread * problem.noise(), y, (tau / spread) ** 2)

    def _langevin(
        self,
        problem: Problem,
        centre: Tensor,
        spread: float,
        tau: Tensor,
        norm2: Tensor | None,
        k: int,
    ) -> Tensor:
        """Sample by Langevin steps from the centre."""
        x, decay = centre, 1 + k / self.levels * (self.lr_ratio - 1)
        norm2 = squared_norm(problem, centre) if norm2 is None else norm2
        for _ in range(self.langevin_steps):
            if self.step == "stable":
                bend = problem.data_curvature(x) / tau**2
                h = self.relative_step / (norm2 * bend + 1 / spread**2)
            else:
                h = torch.full_like(tau, self.lr * decay * problem.scale**2)
            slope = problem.data_gradient(x) / tau**2 + (x - centre) / spread**2
            x = x - h * slope + (2 * h).sqrt() * problem.noise()
        return x


def _grid(n: int, first: float, last: float) -> list[float]:
    return edm_levels(n, first, last).tolist() if n > 1 else [first]


def squared_norm(problem: Problem, x: Tensor | None = None, iterations: int = 20) -> Tensor:
    """Largest eigenvalue of `J^T J` `(N, 1, ..., 1)` by power iteration, J the derivative of A.

    Args:
        problem: whose operator it is.
        x: where a nonlinear one is linearised.
        iterations: products with `J^T J`; the value is approached from below.
    """
    draw = torch.randn(problem.shape[1:], generator=torch.Generator().manual_seed(0))
    v = draw.to(problem.y).expand(problem.shape)
    value = dot(v, v)
    for _ in range(iterations):
        v = v / dot(v, v).sqrt().clamp_min(1e-30)
        v = problem.gram(v, x)
        value = dot(v, v).sqrt()
    return value
