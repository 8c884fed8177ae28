"""DDS: decomposed diffusion sampling, volumes by a prior of slices.

Chung, Lee, Ye, *Decomposed Diffusion Sampler for Accelerating Large-Scale Inverse Problems*, ICLR
2024, arXiv:2303.05754, algorithms 1 and 4; the term between slices is that of Chung, Ryu, McCann,
Klasky, Ye, *Solving 3D Inverse Problems using Pre-trained 2D Diffusion Models*, CVPR 2023,
arXiv:2211.10655.

    symbol       name here    meaning
    x_hat_0      x_0          the denoiser at x_t (Tweedie), then M steps of conjugate gradients on
                              A^T A x = A^T y from there
    gamma        gamma        of noisy data: (gamma A^T A + I) x = gamma A^T y + x_hat_0
    eps_hat      eps          (x_t - x_hat_0) / s, of *before* the data step
    eta          eta          share of fresh noise, x_{t-1} = x_0 + s' (eta z + (1 - eta^2)^1/2 eps)
    rho, lambda  rho_rel, ... of the term between slices; one ADMM step a level, z-variables shared

Here `x_t` is divided by `alpha_t`, and `s = sigma_t / alpha_t`. The result is the last `x_0` after
its data step.

Few conjugate gradient steps keep `x_0` in a Krylov subspace, near the manifold of images as the
paper argues, which fits noiseless data by nothing else. Data with noise are weighed here by `s^2 /
sigma_y^2` and not by one `gamma`: more steps then come nearer to the minimum of a problem that
keeps to the prior by itself, and where `A` is ill conditioned that is what is wanted. On CT over an
arc of 90 degrees, a head at 128 x 128 x 16, PSNR over the planes is 20.4 dB; 20.8 with the same
steps spent on levels below 6; then 21.5, 21.8 and 22.0 with 20, 50 and 100 steps of conjugate
gradients (total variation at its best: 20.3). The mean of four samples, ten times as much of the
term, or no fresh noise gain nothing: what is wrong is the same in all samples. See
`DDS.limited_angle`.

Volumes `(B, C, D, H, W)` are denoised slice by slice along `axis` when the prior is one of flat
images, and complex images channel by channel when it is one of a single channel. On flat images
there is no term between slices.

A sample-like point and not a posterior mean: average seeds for that. Not a posterior sample either,
the prior between slices is hand-made. Cost: one forward a step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from priors.schedules import DDPM
from restore.consistency import approach
from restore.problem import Problem
from restore.samplers.grid import GRIDS, build
from restore.volumes import VolumeSolver


@dataclass(frozen=True, kw_only=True)
class DDS(VolumeSolver):
    """Decomposed diffusion sampling; see the module's docstring.

    Args:
        steps: levels visited of the DDPM schedule.
        eta: share of fresh noise, in [0, 1].
        cg_steps: M, conjugate gradient steps a level.
        data: how noisy data are weighed against `x_hat_0`: "paper" by `gamma` at every level,
            "level" by `s^2 / sigma_y^2`, the variances of the two. Noiseless data by neither.
        gamma: of "paper", in units of `1 / |A^T A|`.
        s_max: highest level visited, for images in [-1, 1]; None is the schedule's, 157.
        grid: how levels are spread, a word of `restore.samplers.grid.GRIDS`; "time" is the paper's,
            "lambda" (even in log-noise) was better by 0.4 dB on CT of few views.
        rho_rel: rho over `|A^T A|`, see `VolumeSolver`.
        lambda_rel: lambda likewise. The default still fits noiseless data; noisy data of operators
            that differ from slice to slice gain by three times as much.
    """

    name: ClassVar[str] = "dds"
    paper: ClassVar[str] = "Chung et al. 2024, decomposed diffusion sampling"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian")
    cost: ClassVar[str] = "50 forwards"
    posterior: ClassVar[str] = "heuristic: hand-made prior between slices"
    remedy: ClassVar[str] = "raise cg_steps, or lower lambda_rel"

    steps: int = 50
    eta: float = 0.85
    cg_steps: int = 5
    data: Literal["paper", "level"] = "level"
    gamma: float = 5.0
    s_max: float | None = None
    grid: str = "lambda"
    rho_rel: float = 0.03
    lambda_rel: float = 0.0005

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 2 or not 0 <= self.eta <= 1 or self.cg_steps < 1 or not self.gamma > 0:
            raise ValueError(
                "dds needs steps >= 2, eta in [0, 1], cg_steps >= 1 and gamma > 0, found "
                f"{self.steps}, {self.eta}, {self.cg_steps}, {self.gamma}."
            )
        if self.s_max is not None and not self.s_max > DDPM().level_range[0]:
            raise ValueError(
                f"dds has s_max={self.s_max:g}, expected more than the lowest level of 0.01."
            )
        for value, known in ((self.data, ("paper", "level")), (self.grid, tuple(GRIDS))):
            if value not in known:
                raise ValueError(f"unknown option '{value}' of dds; choose {', '.join(known)}.")

    @classmethod
    def limited_angle(cls) -> "DDS":
        """For CT over an arc: data fitted nearly to the end at every level.

        Directions at the rim of the missing wedge are measured, but far weaker than others. In
        the paper's 5 steps conjugate gradients do not reach them, and the prior, asked to invent
        the wedge, invents them too. With "level" the fit is that of two variances, so that going
        on does not fit the noise. Levels above 6, at which no image is left, are skipped.
        """
        return cls(cg_steps=50, s_max=6.0)

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Alternate denoising, fitting the data and noising less, in place wherever it can be."""
        levels, term = self._levels(problem), self.term(problem)
        weigh = self._weights(problem)
        if not problem.state:  # else a killed run goes on
            x = problem.noise().mul_(levels[0]).add_(problem.middle)
            problem.state.update(x=[x], v=term.start(x))
        (x,), v = problem.state["x"], problem.state["v"]
        for i, s in list(enumerate(levels))[problem.done :]:
            # denoise; a copy, because what a prior returns may be its own
            x_0 = problem.denoise(x, s).clone(memory_format=torch.contiguous_format)
            eps = x.sub_(x_0).div_(s)
            # fit the data, and each slice to its neighbours
            approach(problem, term, x_0, v, iterations=self.cg_steps, weight=weigh(s))
            term.update(x_0, v)
            # noise to the next level, part old noise, part fresh
            if i + 1 < self.steps:
                eps.mul_((1 - self.eta**2) ** 0.5).add_(problem.noise(), alpha=self.eta)
                x = eps.mul_(levels[i + 1]).add_(x_0)
            yield x_0

    def _levels(self, problem: Problem) -> list[float]:
        schedule = DDPM()
        low, high = schedule.level_range
        high = high if self.s_max is None else min(high, self.s_max)
        points = build(self.grid, schedule, self.steps - 1, high, low).points
        return [problem.scale * point.level for point in points]

    def _weights(self, problem: Problem) -> Callable[[float], Tensor]:
        """Weight of `x_hat_0` against the data, `(N, 1, ..., 1)`, as a function of the level."""
        noise = problem.sigma_y
        if self.data == "level":
            return lambda s: noise.square() / s**2
        weight = torch.where(noise > 0, self.gain(problem) / self.gamma, 0)
        return lambda s: weight
