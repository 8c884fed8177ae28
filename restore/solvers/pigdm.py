"""PiGDM: pseudoinverse-guided diffusion.

Song, Vahdat, Mardani, Kautz, *Pseudoinverse-Guided Diffusion Models for Inverse Problems*, ICLR
2023, algorithm 1.

    symbol       name here       meaning
    x_hat_t      D               the denoiser at x_t
    r_t^2        r2              variance of x_0 given x_t, c s^2 / (c + s^2)
    g            vjp(pull)       J^T A^T (r^2 A A^T + sigma_y^2 I)^-1 (y - A D)
    c_1, c_2     fresh, kept     DDIM's fresh and old noise

The image given `x_t` is taken to be `N(D, r_t^2 I)`, which for a prior `N(m, c I)` it is; the paper
takes c = 1 for images in [-1, 1]. Then `D_y = D + s^2 g` is the denoised image given the
measurement as well, and "bayes" runs DDIM with it: the posterior, where the model holds. The
released code instead weights the guidance by `r^2`, smaller by `alpha_t^2`, and takes the old noise
from `D`: "code". Any sampler runs on `D_y` in DDIM's place; in "code", which moves the image after
the step, any without memory.

Everything is in VE variables `x_t / alpha_t`. The linear system is solved in closed form where
there is a singular value decomposition, else by conjugate gradients; without noise it is `A^+`. A
nonlinear operator is guided through its `A_dagger`, as if `A^+ A` were a projection.

Constants are those of images in [-1, 1]. Cost: one forward and one VJP a step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from operators.linalg import conjugate_gradient
from operators.svd import has_svd
from restore.guided import suited, walk, walk_moving
from restore.problem import Problem
from restore.samplers.ddim import DDIM
from restore.samplers.sampler import Sampler
from restore.solver import Solver

# (D, r^2) -> A^T (r^2 A A^T + sigma_y^2 I)^-1 (y - A D)
Pull = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, kw_only=True)
class PiGDM(Solver):
    """Pseudoinverse-guided diffusion; see the module's docstring.

    Args:
        steps: levels visited of the DDPM schedule's 1000, evenly in time.
        eta: 1 is ancestral sampling, 0 deterministic; of DDIM.
        variance: c, variance of the prior for images in [-1, 1].
        weighting: "bayes" or "code".
        sampler: a word of `restore samplers`; "ddim" is the paper's, with `eta`.
        tol: relative residual of the linear system, where it is iterated.
        max_iter: most iterations for it.
    """

    name: ClassVar[str] = "pigdm"
    paper: ClassVar[str] = "Song et al. 2023, pseudoinverse-guided diffusion"
    requires: ClassVar[tuple[str, ...]] = ("gaussian",)
    cost: ClassVar[str] = "100 forwards + 100 VJPs"
    posterior: ClassVar[str] = "posterior of a prior with one variance for all pixels"
    remedy: ClassVar[str] = "lower variance, or set weighting='code'"

    steps: int = 100
    eta: float = 1.0
    variance: float = 1.0
    weighting: Literal["bayes", "code"] = "bayes"
    sampler: str = "ddim"
    tol: float = 1e-4
    max_iter: int = 50

    def __post_init__(self) -> None:
        if not (1 <= self.steps <= 1000 and 0 <= self.eta <= 1 and self.variance > 0):
            raise ValueError(
                "pigdm needs 1 <= steps <= 1000, eta in [0, 1] and variance > 0, found "
                f"{self.steps}, {self.eta}, {self.variance}."
            )
        if self.weighting not in ("bayes", "code"):
            raise ValueError(
                f"unknown weighting '{self.weighting}' of pigdm; choose bayes or code."
            )
        self._sampler()

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Run the sampler on the denoised image, guided."""
        levels = problem.ddpm_levels(self.steps)
        pull = self._pull(problem)
        c = self.variance * problem.scale**2

        def guide(x: Tensor, s: float) -> tuple[Tensor, Tensor]:
            r2 = c * s**2 / (c + s**2)
            D, vjp = problem.linearise(x, s)
            return D, D + (s**2 if self.weighting == "bayes" else r2) * vjp(pull(D, r2))

        x = problem.middle + levels[0] * problem.noise()
        run, fresh = self._sampler(), problem.noise
        if self.weighting == "bayes":
            yield from walk(run, lambda x, s: guide(x, s)[1], x, levels, fresh)
        else:
            yield from walk_moving(run, guide, problem.denoise, x, levels, fresh)

    def _sampler(self) -> Sampler:
        if self.sampler == "ddim":
            return DDIM(eta=self.eta)
        return suited(self.sampler, self.name, moves=self.weighting == "code")

    def _pull(self, problem: Problem) -> Pull:
        """Choose how the linear system is solved."""
        noise2 = problem.noise_y.square()
        if not isinstance(problem.operator, LinearPhysics):
            fit = problem.A_dagger(problem.y)
            return lambda D, r2: (fit - problem.A_dagger(problem.A(D))) / (r2 + problem.sigma_y**2)
        if has_svd(problem.operator):
            return _closed_form(problem)
        if not bool(noise2.any()):
            return lambda D, r2: problem.A_dagger(problem.y - problem.A(D)) / r2

        def iterated(D: Tensor, r2: float) -> Tensor:
            u = conjugate_gradient(
                lambda v: r2 * problem.A(problem.A_adjoint(v)) + noise2 * v,
                problem.y - problem.A(D),
                tol=self.tol,
                max_iter=self.max_iter,
            )
            return problem.A_adjoint(u)

        return iterated


def _closed_form(problem: Problem) -> Pull:
    """Solve in singular values."""
    svd = problem.svd()
    seen = svd.s > 0
    noise2 = problem.sigma_y.square().reshape(-1, *[1] * (svd.s.ndim - 1))

    def pull(D: Tensor, r2: float) -> Tensor:
        gain = svd.s / torch.where(seen, r2 * svd.s.square() + noise2, 1)
        return svd.V(torch.where(seen, gain * svd.Ut(problem.y - problem.A(D)), 0))

    return pull
