"""DiffusionMBIR: volumes from a prior of slices, with total variation between them.

Chung, Ryu, McCann, Klasky, Ye, *Solving 3D Inverse Problems using Pre-trained 2D Diffusion Models*,
CVPR 2023, arXiv:2211.10655, algorithm 1: the reference that `dds` is measured against.

    symbol        name here     meaning
    x_i           x             the noisy volume, x_0 + sigma_i eps
    s(x, sigma)   score         (D - x) / sigma^2, slice by slice
    r             snr           Langevin step e = 2 (r |z| / |s|)^2
    rho           rho_rel       penalty of ADMM, relative, see `restore.coupling`
    lambda        lambda_rel    weight of the term between slices, relative
    d, u          v             ADMM's variables, made once and carried through all levels

At every level a step of the reverse SDE, a Langevin step, then on the *noisy* volume one conjugate
gradient step on `|A x - y|^2 / 2 + rho/2 |D_z x - d + u|^2`, one step size for all slices, and one
update of d and u. For CT the end is one step `x + A^T (y - A x) / A^T A 1`. The noise of the
measurement enters nowhere: rho, lambda and the single step are all that holds it back.

Against the code: adjoints are true ones, so that rho and lambda are relative to `|A^T A|` (its
rho = 10 and lambda = 0.04 belong to a back-projection of another scale); the first slice is no
neighbour of the last unless `boundary="periodic"`; the Langevin step has the norms of each slice
and the level that the predictor reached, where theirs depend on how a volume is cut into slabs; the
last predictor step returns its mean, not noise of `sigma_min` around it; and pixels that no ray
meets are left alone by the last step. Results do not depend on the number of slices in one call.

A point near a sample, from neither posterior: its spread is too wide. Levels are those of images in
[0, 1], brought to the prior's range and to the noise levels that it knows. Cost: `(1 +
corrections)` forwards a level, of all slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.physics import Physics, Tomography
from torch import Tensor

from operators.ct import ComputedTomography
from operators.slices import Slices
from priors.schedules import log_levels
from restore.consistency import approach
from restore.coupling import Coupling
from restore.problem import Problem
from restore.solvers.replacement import langevin_step
from restore.volumes import VolumeSolver


@dataclass(frozen=True, kw_only=True)
class DiffusionMBIR(VolumeSolver):
    """DiffusionMBIR; see the module's docstring, and `VolumeSolver` for the term between slices.

    Args:
        steps: N, noise levels.
        sigma_max: first level for images in [0, 1].
        sigma_min: last level.
        corrections: Langevin steps a level.
        snr: r, size of a Langevin step.
        rho_rel: see `VolumeSolver`; from about 0.1 at few levels, and 0.3 at any number, d holds on
            to the differences of levels that were noisier, and volumes are lost in noise.
        lambda_rel: see `VolumeSolver`.
        shared: carry d and u from level to level; False begins anew at each, which loses most of
            what the term is for.
    """

    name: ClassVar[str] = "diffusion-mbir"
    paper: ClassVar[str] = "Chung et al. 2023, DiffusionMBIR"
    requires: ClassVar[tuple[str, ...]] = ("linear",)
    cost: ClassVar[str] = "3999 forwards"
    posterior: ClassVar[str] = "none: points like samples, too far apart"
    remedy: ClassVar[str] = "raise steps, or lower rho_rel"

    steps: int = 2000
    sigma_max: float = 378.0
    sigma_min: float = 0.01
    corrections: int = 1
    snr: float = 0.16
    rho_rel: float = 0.03
    lambda_rel: float = 0.001
    shared: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 2 or self.corrections < 0 or not self.snr > 0:
            raise ValueError(
                "diffusion-mbir needs steps >= 2, corrections >= 0 and snr > 0, found "
                f"{self.steps}, {self.corrections}, {self.snr}."
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                "diffusion-mbir needs 0 < sigma_min < sigma_max, found "
                f"{self.sigma_min}, {self.sigma_max}."
            )

    @property
    def length(self) -> int:
        """One estimate a level."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Predict, correct and fit at every level."""
        levels, term = [*self.levels(problem), 0.0], self.term(problem)
        if not problem.state:  # else a killed run goes on
            x = problem.noise().mul_(levels[0]).add_(problem.middle - problem.scale)
            problem.state.update(x=[x], v=term.start(x))
        (x,), v = problem.state["x"], problem.state["v"]
        for sigma, sigma_s in list(pairwise(levels))[problem.done :]:
            D = self.predict(problem, x, sigma, sigma_s)
            for _ in range(self.corrections if sigma_s > 0 else 0):
                del D
                D = self.correct(problem, x, sigma_s)
            for w in v if not self.shared else []:
                w.zero_()
            self.fit(problem, term, x, v)
            term.update(x, v)
            if sigma_s > 0:
                yield D
        if is_ct(problem.operator):
            back_project(problem, x)
        yield x

    def levels(self, problem: Problem) -> list[float]:
        """Noise levels from high to low, in the prior's units and inside what it knows."""
        low, high = problem.prior.card.sigma_range
        unit = 2 * problem.scale
        ends = min(unit * self.sigma_max, high), max(unit * self.sigma_min, low)
        return log_levels(self.steps, *ends).tolist()

    def predict(self, problem: Problem, x: Tensor, sigma: float, sigma_s: float) -> Tensor:
        """Take a step of the reverse SDE down to `sigma_s`, in place; return the denoised `D`."""
        D = problem.denoise(x, sigma)
        left, fresh = (sigma_s / sigma) ** 2, (sigma**2 - sigma_s**2) ** 0.5
        for x_z, D_z in zip(self._slices(x), self._slices(D), strict=True):
            x_z.lerp_(D_z, 1 - left)  # x + (sigma^2 - sigma_s^2) s
            if sigma_s > 0:
                x_z.add_(problem.noise(x_z), alpha=fresh)
        return D

    def correct(self, problem: Problem, x: Tensor, sigma: float) -> Tensor:
        """Take a Langevin step at `sigma`, in place; return the denoised `D`."""
        D = problem.denoise(x, sigma)
        for x_z, D_z in zip(self._slices(x), self._slices(D), strict=True):
            score, z = (D_z - x_z) / sigma**2, problem.noise(x_z)
            e = self.langevin(score, z, sigma)
            x_z.add_(e * score).add_((2 * e).sqrt() * z)
        return D

    def langevin(self, score: Tensor, z: Tensor, sigma: float) -> Tensor:
        """Size of the Langevin step of slices `(N, C, H, W)`, `(N, 1, 1, 1)`."""
        return langevin_step(score, z, self.snr)

    def fit(self, problem: Problem, term: Coupling, x: Tensor, v: list[Tensor]) -> None:
        """Bring `x` nearer to the measurement and its slices to each other, in place."""
        approach(problem, term, x, v, iterations=1)

    def _slices(self, x: Tensor) -> tuple[Tensor, ...]:
        """Views `(N, C, H, W)` of the slices of volumes; flat images are their own."""
        return x.unbind(2 + self.axis) if x.ndim == 5 else (x,)


def back_project(problem: Problem, x: Tensor) -> None:
    """Add `A^T (y - A x) / A^T A 1` to `x`, in place, where the operator sees it at all."""
    share = problem.A_adjoint(problem.A(torch.ones_like(x)))
    seen = share > 1e-6 * share.max()  # not rounding of zero
    step = problem.A_adjoint(problem.y - problem.A(x)).div_(share.masked_fill_(~seen, 1))
    x.add_(step.mul_(seen))


def is_ct(operator: Physics | torch.nn.Module) -> bool:
    """Whether all weights are lengths of rays, so that dividing by their sums makes sense."""
    if isinstance(operator, Slices):
        return all(is_ct(each) for each in operator.operators)
    return isinstance(operator, ComputedTomography | Tomography)
