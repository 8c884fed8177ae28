"""RED-diff: a variational approximation of the posterior by stochastic optimisation.

Mardani, Song, Kautz, Vahdat, *A Variational Perspective on Solving Inverse Problems with Diffusion
Models*, ICLR 2024, arXiv:2305.04391, algorithm 1.

    symbol       name here       meaning
    mu           mu              the estimate; q(x_0) = N(mu, sigma_x0^2 I)
    alpha, sigma from `DDPM`     x_t = alpha_t x_0 + sigma_t eps
    1 / SNR_t    s               sigma_t / alpha_t
    lambda       lam             weight of the prior
    lambda_t     lam * w(s)      w(s) = s by default ("linear")

With the linear weighting the gradient of the prior term, `lambda_t (eps_hat - eps)`, is exactly
`lambda (mu - D)`: regularisation by denoising with a randomly noised input. No Jacobian of the
network is needed. The result is one point; seeds differ by optimiser noise, not by a posterior.

Both terms are means over their entries, as in the paper's code, the data term over what is
measured; `reduction="sum"` is for theory.
Constants are those of images in [-1, 1]; levels and learning rate are scaled to the prior's range.
The code returns the image before its last update; this returns the last one.

Forms of the paper and of its code:

    inpainting          lr 0.25, lam 0.25, and lam 1 for noisy data
    super-resolution    lr 0.1, lam 0.25
    nonlinear           `REDDiff.nonlinear()`: lr 0.5, lam 0.25, from the operator's own `A_dagger`;
                        the data term is differentiated through `A`
    MRI                 `REDDiff.mri()`: from `A^T y`, data term over the mean square of `y`. Its
                        code feeds a VE network images of a VP diffusion; this does not.

What it converges to is known. At a frozen level it is a quadratic fit with weight
`lam s^2 (C + s^2)^-1` on a Gaussian prior; as the level falls to zero so does that weight, and the
noise of the data is fitted, whatever lam. `s_min` stops before: with `lam s_min^2 = sigma_y^2`,
and `s_min` well below the image's own variations, the fit at rest is the posterior mean.

Cost: one forward a step.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from priors.schedules import DDPM
from restore.likelihood import KINDS
from restore.problem import Problem
from restore.solver import Solver

WEIGHTINGS = {
    "linear": lambda s: s,
    "sqrt": lambda s: s**0.5,
    "square": lambda s: s**2,
    "log": lambda s: torch.log1p(s),
    "trunc_linear": lambda s: s.clamp(max=1),
    "power2over3": lambda s: s ** (2 / 3),
    "const": lambda s: torch.ones_like(s),
}


@dataclass(frozen=True, kw_only=True)
class REDDiff(Solver):
    """RED-diff; see the module's docstring.

    Args:
        steps: K, levels of the DDPM schedule visited from high noise to low.
        lr: Adam's learning rate for images in [-1, 1].
        lam: lambda; the paper uses 0.25, and 1 for noisy measurements.
        weighting: how lambda_t grows with s, one of `WEIGHTINGS`.
        sigma_x0: standard deviation of the variational posterior.
        reduction: "mean" as the paper's code, or "sum".
        optimiser: "adam" as the paper, or "sgd".
        order: "descending" as the paper, or "random" times.
        start: "dagger" is `A^+ y` held to mid-range where data are weak, or `A_dagger` of a
            nonlinear operator; "adjoint" is `A^T y`; "middle" is mid-range. A given `init` wins.
        data: "absolute", or "relative" to half the mean square of the measurement.
        s_max: highest level visited, for images in [-1, 1]; the schedule's by default.
        s_min: lowest level visited.
    """

    name: ClassVar[str] = "red-diff"
    paper: ClassVar[str] = "Mardani et al. 2024, a variational perspective (RED-diff)"
    requires: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str] = "1000 forwards"
    posterior: ClassVar[str] = "none: a point estimate"
    remedy: ClassVar[str] = "lower lr or raise lam"
    likelihoods: ClassVar[tuple[str, ...]] = KINDS

    steps: int = 1000
    lr: float = 0.1
    lam: float = 0.25
    weighting: str = "linear"
    sigma_x0: float = 0.0
    reduction: Literal["mean", "sum"] = "mean"
    optimiser: Literal["adam", "sgd"] = "adam"
    order: Literal["descending", "random"] = "descending"
    start: Literal["dagger", "adjoint", "middle"] = "dagger"
    data: Literal["absolute", "relative"] = "absolute"
    s_max: float = math.inf
    s_min: float = 0.0

    @classmethod
    def nonlinear(cls) -> "REDDiff":
        """The paper's settings for phase retrieval, HDR, JPEG and nonlinear deblurring."""
        return cls(lr=0.5)

    @classmethod
    def mri(cls) -> "REDDiff":
        """The settings of its code for accelerated MRI."""
        return cls(start="adjoint", data="relative")

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise ValueError(
                f"unknown weighting '{self.weighting}'; choose from {', '.join(WEIGHTINGS)}."
            )
        if self.steps < 1 or self.lr <= 0 or self.lam < 0:
            raise ValueError(
                f"red-diff needs steps >= 1, lr > 0 and lam >= 0, found {self.steps}, {self.lr}, "
                f"{self.lam}."
            )
        if not self._levels(DDPM()):
            raise ValueError(
                f"no level of the schedule lies between s_min={self.s_min:g} and "
                f"s_max={self.s_max:g}; its levels run from 0.01 to 157."
            )

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Descend on the measurement and the prior together."""
        schedule = DDPM()
        mu = self._start(problem)
        optimiser = self._optimiser(mu, problem.scale)
        ones = [1] * (mu.ndim - 1)
        v = w = torch.ones((1, *ones), dtype=mu.dtype, device=mu.device)
        measured = problem.observed.expand_as(problem.y).flatten(1).sum(1).clamp_min(1)
        if self.reduction == "mean":
            v, w = v / measured.reshape(-1, *ones), w / problem.pixels
        if self.data == "relative":
            power = problem.y.square().flatten(1).sum(1) / measured
            v = 2 * v / power.clamp_min(1e-12).reshape(-1, *ones)
        for t in self._times(problem, self._levels(schedule)):
            # noise the estimate: in VE variables x_t / alpha_t = mu + s eps
            level = schedule.level(t).to(mu).expand(len(mu))
            s = level * problem.scale
            x_0 = mu + self.sigma_x0 * problem.scale * problem.noise() if self.sigma_x0 else mu
            eps = problem.noise()
            D = problem.denoise(x_0 + s.reshape(-1, *ones) * eps, s)
            # gradient: data term + lambda_t (eps_hat - eps), eps_hat = (x_t - alpha_t D) / sigma_t
            lam_t = self.lam * (WEIGHTINGS[self.weighting](level) / level).reshape(-1, *ones)
            optimiser.zero_grad()
            mu.grad = v * problem.data_gradient(x_0) + w * lam_t * (x_0 - D)
            optimiser.step()
            yield mu.clone()

    def _start(self, problem: Problem) -> Tensor:
        if problem.init is not None or self.start == "dagger":
            return problem.first_guess().clone()
        if self.start == "middle":
            return problem.y.new_full(problem.shape, problem.middle)
        if not isinstance(problem.operator, LinearPhysics):
            raise ValueError("a nonlinear operator has no adjoint; set start='dagger' or 'middle'.")
        return problem.A_adjoint(problem.y).clone()

    def _levels(self, schedule: DDPM) -> list[int]:
        """Times of the schedule whose levels may be visited, rising."""
        levels = schedule.level(torch.arange(schedule.steps))
        return ((levels >= self.s_min) & (levels <= self.s_max)).nonzero().flatten().tolist()

    def _times(self, problem: Problem, available: list[int]) -> Iterator[Tensor]:
        """Yield the time of every step: one for all images, or each sample's own random ones."""
        if self.order == "random":
            times = torch.tensor(available)
            for _ in range(self.steps):
                own = [torch.randint(len(times), (1,), generator=g) for g in problem.streams]
                yield times[torch.cat(own)].repeat_interleave(problem.images)
            return
        stride = max(1, len(available) // self.steps)
        grid = available[::stride][: self.steps][::-1]
        for i in range(self.steps):  # more steps than levels repeat levels
            yield torch.tensor(grid[i * len(grid) // self.steps])

    def _optimiser(self, mu: Tensor, scale: float) -> torch.optim.Optimizer:
        # Adam's step has the units of the image; a gradient step scales by itself
        if self.optimiser == "adam":
            return torch.optim.Adam([mu], lr=self.lr * scale, betas=(0.9, 0.99))
        return torch.optim.SGD([mu], lr=self.lr)
