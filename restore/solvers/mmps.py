"""MMPS: moment-matching posterior sampling.

Rozet, Andry, Lanusse, Louppe, *Learning Diffusion Priors from Observations by Expectation
Maximization*, 2024, arXiv:2405.13712, section 4.

    symbol      name here      meaning
    sigma_t     s              noise level of x_t = x_0 + sigma_t eps
    E[x | x_t]  D              the denoiser
    V[x | x_t]  s^2 J          its covariance, by Tweedie's second identity, J = dD/dx_t

The likelihood is `p(y | x_t) ~ N(A D, sigma_y^2 I + A s^2 J A^T)`, so the posterior mean given the
measurement is

    D_y = D + s^2 J A^T u,   (sigma_y^2 I + s^2 A J A^T) u = y - A D,

and the probability-flow ODE runs on `D_y`. Exact for every Gaussian prior and linear operator; for
others the one approximation is that `p(x_0 | x_t)` is Gaussian.

Against the paper: a second-order exponential multistep step in log sigma (or any other sampler), a
warm start and a stopping rule for the solve, and a residual-minimising solver in place of GMRES,
because a network's Jacobian is not symmetric.

Cost a call of the sampler, one a level by default: one forward, one VJP for the warm start, one for
each iteration of the solve.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.linalg import conjugate_residual
from priors.schedules import log_levels
from restore.guided import suited, walk
from restore.problem import Problem
from restore.solver import Solver


@dataclass(frozen=True, kw_only=True)
class MMPS(Solver):
    """Moment-matching posterior sampling; see the module's docstring.

    Args:
        levels: noise levels, log-spaced; one step each.
        sigma_max: first level, in widths of the prior's range.
        sigma_min: last level; the sample keeps that much noise.
        tol: relative residual at which a solve stops.
        max_iter: most iterations of a solve.
        sampler: integrator of the ODE, a word of `restore samplers`; random ones sample the SDE.
    """

    name: ClassVar[str] = "mmps"
    paper: ClassVar[str] = "Rozet et al. 2024, moment matching posterior sampling"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian", "noise")
    cost: ClassVar[str] = "24 forwards + about 200 VJPs"
    posterior: ClassVar[str] = "posterior; exact for Gaussian priors"
    remedy: ClassVar[str] = "raise levels or max_iter, or use solver 'moment-ladder'"

    levels: int = 24
    sigma_max: float = 10.0
    sigma_min: float = 0.003
    tol: float = 0.02
    max_iter: int = 10
    sampler: str = "adams-2"

    def __post_init__(self) -> None:
        if self.levels < 2 or not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"mmps needs levels >= 2 and 0 < sigma_min < sigma_max, found {self.levels}, "
                f"{self.sigma_min}, {self.sigma_max}."
            )
        suited(self.sampler, self.name)

    @property
    def length(self) -> int:
        """One estimate a level."""
        return self.levels

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Integrate the conditional probability-flow ODE."""
        width = 2 * problem.scale
        grid = (log_levels(self.levels, self.sigma_max, self.sigma_min) * width).tolist()
        u = torch.zeros_like(problem.y)

        def D_y(x: Tensor, s: float) -> Tensor:
            nonlocal u
            mean, u = self.conditional_mean(problem, x, s, u)
            return mean

        x = problem.middle + grid[0] * problem.noise()
        run = suited(self.sampler, self.name)
        yield from walk(run, D_y, x, grid, problem.noise, clean=False)

    def conditional_mean(
        self, problem: Problem, x: Tensor, s: float, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return `E[x_0 | x_t = x, y]` and the solution `u` of its linear system."""
        D, vjp = problem.linearise(x, s)

        def system(v: Tensor) -> tuple[Tensor, Tensor]:
            image = s**2 * vjp(problem.A_adjoint(v))
            return problem.A(image) + problem.noise_y**2 * v, image

        r = problem.y - problem.A(D)
        warm = bool(u.any())
        Ku, moved = system(u) if warm else (u, torch.zeros_like(D))
        solution = conjugate_residual(
            system, r - Ku, reference=r, tol=self.tol, max_iter=self.max_iter
        )
        if solution.images is not None:
            moved = moved + solution.images
        return D + moved, u + solution.x
