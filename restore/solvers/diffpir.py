"""DiffPIR: plug-and-play restoration along a diffusion.

Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool, *Denoising Diffusion Models for Plug-and-Play Image
Restoration*, CVPR-W 2023, arXiv:2305.08995, algorithm 1.

    symbol     name here     meaning
    x_0^(t)    D             the denoiser at x_t
    x_hat_0    x_0           argmin_x |y - A x|^2 + rho_t |x - D|^2
    rho_t      rho           lambda sigma_y^2 / s^2, s = sigma_t / alpha_t
    zeta       zeta          share of fresh noise when going to the next level

The proximal step is solved by conjugate gradients for any linear operator (the paper's closed
forms are special cases). On the last level the paper neither fits the data nor adds noise; the
released code there returns the noisy image of the level before, this returns its denoised `D`.

A point estimate in practice: its samples spread neither as the posterior nor as the prior. Cost:
one forward a step, no derivative of the network. Constants are those of images in [-1, 1].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operators.linalg import proximal
from priors.schedules import DDPM
from restore.problem import Problem
from restore.solver import Solver


@dataclass(frozen=True, kw_only=True)
class DiffPIR(Solver):
    """DiffPIR; see the module's docstring.

    Args:
        steps: levels visited of the DDPM schedule's 1000.
        lam: lambda, strength of the prior.
        zeta: share of fresh noise, in [0, 1]; the paper takes 0.1 for blur, 0.25 for
            super-resolution, 1 for inpainting.
        grid: "quad" spends more steps at low noise, as the paper; "uniform" spreads them.
    """

    name: ClassVar[str] = "diffpir"
    paper: ClassVar[str] = "Zhu et al. 2023, DiffPIR"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian")
    cost: ClassVar[str] = "100 forwards"
    posterior: ClassVar[str] = "none: spread is neither posterior nor prior"
    remedy: ClassVar[str] = "raise lam"

    steps: int = 100
    lam: float = 1.0
    zeta: float = 0.1
    grid: Literal["quad", "uniform"] = "quad"

    def __post_init__(self) -> None:
        if not 2 <= self.steps <= 1000 or self.lam <= 0 or not 0 <= self.zeta <= 1:
            raise ValueError(
                "diffpir needs 2 <= steps <= 1000, lam > 0 and 0 <= zeta <= 1, found "
                f"{self.steps}, {self.lam}, {self.zeta}."
            )

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Alternate denoising, fitting the data and noising less."""
        schedule = DDPM()
        times = self._times(schedule.steps)
        alphas, sigmas = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
        scale, middle = problem.scale, problem.middle  # image = middle + scale * x
        # the paper floors sigma_y in rho, so that noiseless data are fitted nearly exactly
        sigma_y = problem.sigma_y.clamp_min(0.001)
        x = alphas[0] * (problem.first_guess() - middle) / scale + sigmas[0] * problem.noise()
        for i, (alpha, sigma) in enumerate(zip(alphas, sigmas, strict=True)):
            # denoise
            s = scale * sigma / alpha
            D = problem.denoise(middle + scale * x / alpha, s)
            if i + 1 == self.steps:
                yield D
                return
            # fit the data
            x_0 = proximal(problem, D, problem.y, self.lam * sigma_y**2 / s**2)
            # noise to the next level, part old noise, part fresh
            eps = (x - alpha * (x_0 - middle) / scale) / sigma
            mixed = (1 - self.zeta) ** 0.5 * eps + self.zeta**0.5 * problem.noise()
            x = alphas[i + 1] * (x_0 - middle) / scale + sigmas[i + 1] * mixed
            yield x_0

    def _times(self, available: int) -> Tensor:
        ramp = torch.linspace(0, 1, self.steps, dtype=torch.float64)
        if self.grid == "quad":
            ramp = 1 - (1 - ramp) ** 2
        return ((1 - ramp) * (available - 1)).round()
