"""DPS: diffusion posterior sampling.

Chung, Kim, McCann, Klasky, Ye, *Diffusion Posterior Sampling for General Noisy Inverse Problems*,
ICLR 2023, arXiv:2209.14687, algorithm 1.

    symbol       name here     meaning
    alpha_bar_i  alpha^2       x_i = alpha x_0 + sigma eps, DDPM-linear, N = 1000 steps
    x_hat_0      D             the denoiser at x_i, clipped to the range of images
    zeta_i       zeta / |r|    step on the gradient of |r|^2, r = y - A(x_hat_0)

Each step is DDPM's ancestral step followed by `-zeta_i grad_{x_i} |y - A(x_hat_0)|^2`. The gradient
passes through the network: one VJP a step. Norms are per image (the released code takes them over
the batch) and the released code steps on the gradient of the norm itself, half of the paper's:
`norm="code"`.

Under Poisson noise the paper weighs the squares of r by `1 / (2 y)`: `poisson="paper"`. Otherwise,
and under other noise than Gaussian, `|r|^2` is chi-square with the model's variance, in units of
the mean one, and its gradient that of the negative log-likelihood, equal to it near the data.

A heuristic: for no fixed zeta does it sample the posterior, not even a Gaussian one. It fits the
noise; its spread is not an uncertainty. It is here because everybody compares with it, and because
it takes nonlinear operators.

Constants are those of images in [-1, 1]. Cost: one forward and one VJP a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from priors.schedules import DDPM
from restore.likelihood import KINDS, Poisson
from restore.problem import Problem
from restore.solver import Solver

_NORMS, _POISSON = ("paper", "code"), ("paper", "likelihood")


@dataclass(frozen=True, kw_only=True)
class DPS(Solver):
    """Diffusion posterior sampling; see the module's docstring.

    Args:
        steps: N, ancestral steps, spread evenly over the 1000 of the schedule.
        zeta: step size zeta of the paper.
        norm: "paper" steps on the squared norm, "code" on the norm.
        clip: clip the denoised image to the prior's range, as the paper's code does.
        poisson: "paper" weighs squares by the counts, "likelihood" descends on the likelihood.
    """

    name: ClassVar[str] = "dps"
    paper: ClassVar[str] = "Chung et al. 2023, diffusion posterior sampling"
    requires: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str] = "1000 forwards + 1000 VJPs"
    posterior: ClassVar[str] = "heuristic: fits the noise, spread is not an uncertainty"
    remedy: ClassVar[str] = "lower zeta"
    likelihoods: ClassVar[tuple[str, ...]] = KINDS

    steps: int = 1000
    zeta: float = 0.3
    norm: Literal["paper", "code"] = "paper"
    clip: bool = True
    poisson: Literal["paper", "likelihood"] = "paper"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000 or self.zeta < 0:
            raise ValueError(
                f"dps needs 1 <= steps <= 1000 and zeta >= 0, found {self.steps}, {self.zeta}."
            )
        for value, known in ((self.norm, _NORMS), (self.poisson, _POISSON)):
            if value not in known:
                raise ValueError(f"unknown option '{value}' of dps; choose {' or '.join(known)}.")

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Walk down the DDPM chain, pulled towards the measurement."""
        schedule = DDPM()
        times = torch.linspace(schedule.steps - 1, 0, self.steps, dtype=torch.float64).round()
        alphas, sigmas = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
        scale, middle = problem.scale, problem.middle  # image = middle + scale * x
        if self.poisson == "paper" and isinstance(problem.likelihood, Poisson):
            problem = replace(problem, likelihood=problem.likelihood.quadratic(problem.y))
        x = problem.noise()
        for i, (alpha, sigma) in enumerate(zip(alphas, sigmas, strict=True)):
            last = i + 1 == self.steps
            alpha_s, sigma_s = (1.0, 0.0) if last else (alphas[i + 1], sigmas[i + 1])
            # denoise
            D, vjp = problem.linearise(middle + scale * x / alpha, scale * sigma / alpha)
            inside = (D - middle).abs() <= scale
            if self.clip:
                D = D.clamp(middle - scale, middle + scale)
            # ancestral step: posterior q(x_s | x_t, x_0 = D)
            ratio = alpha / alpha_s
            kept = sigma**2 - ratio**2 * sigma_s**2  # variance added from s to t
            mean = (ratio * sigma_s**2 * x + alpha_s * kept * (D - middle) / scale) / sigma**2
            x_s = mean + (kept**0.5 * sigma_s / sigma) * problem.noise()
            # pull: gradient of |r| at x_t, by the chain rule through D(middle + scale x / alpha)
            r = problem.residual(problem.A(D))
            length = r.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, *[1] * (x.ndim - 1))
            pull = problem.data_gradient(D) * (inside if self.clip else 1)
            gradient = vjp(pull) * scale / alpha / length
            # the norm of the paper is in [-1, 1] units, `1 / scale` times ours
            x = x_s - self.zeta * (2 if self.norm == "paper" else 1) * gradient / scale
            yield middle + scale * x if last else D
