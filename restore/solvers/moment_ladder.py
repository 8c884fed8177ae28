"""Moment ladder: exact conditional draws down a short ladder of noise levels.

The Gaussian approximation of MMPS (Rozet et al. 2024, arXiv:2405.13712),
`p(x_0 | x_s) ~ N(D, s^2 J)`, sampled instead of integrated, so that a handful of levels replaces an
integrator's dozens:

    draw      w ~ N(0, s^2 J), n ~ N(0, sigma_y^2 I), r = y - A (D + w) - n,
              x_0 = D + w + s^2 J A^T K^-1 r,   K = sigma_y^2 I + s^2 A J A^T     (Matheron's rule)
    descend   x_t = x_0 + (t/s)^2 (x_s - x_0) + t sqrt(1 - (t/s)^2) eps           (Gaussian bridge)

For a Gaussian prior every state has exactly the posterior law, whatever the levels: no error of
discretisation is left. Three parts make a level cheap, all from the same Jacobian products:

    square root     `w` by a few Lanczos steps on J; its total variance is exact at any number
    preconditioner  the products reveal the prior's radial power spectrum `c(f)`; with it,
                    M = sigma_y^2 I + s^2 A F* diag(c / (c + s^2)) F A^T is close to K at every s,
                    for every A, and never calls the network
    safe solve      residual-minimising steps of bounded length, because a network's Jacobian is
                    not symmetric; what is left of the residual is corrected through the model

Draws repeated at one level are Gibbs sweeps: they leave the posterior as it is.

The spectrum is a preconditioner, never the covariance: used as the covariance it is wrong by a
third of a standard deviation on a prior that is not stationary.

Cost a level: one forward, `lanczos` VJPs for the root and at most `max_iter` for the solve.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.linalg import conjugate_gradient, conjugate_residual
from priors.schedules import log_levels
from restore.lanczos import lanczos_root
from restore.problem import Problem
from restore.solver import Solver
from restore.spectrum import RadialSpectrum


@dataclass(frozen=True, kw_only=True)
class MomentLadder(Solver):
    """Exact conditional draws down a ladder; see the module's docstring.

    Args:
        levels: number K of noise levels.
        sigma_top: first level for an image 64 pixels wide, in widths of the prior's range; grows
            with the image, whose mean must drown in the noise.
        sigma_max: second level.
        sigma_min: last level, from which the result is drawn; the lowest the prior is reliable at.
        lanczos: Jacobian products for the square root of the covariance.
        max_iter: most Jacobian products of a solve.
        tol: relative residual at which a solve stops.
        sweeps: extra draws at `sweep_level`: they forget the errors of the levels above, where a
            prior that is not Gaussian is approximated worst. On photographs with four pixels of
            five missing, six sweeps are worth half a decibel; a Gaussian prior needs none.
        sweep_level: where, in widths of the prior's range.
    """

    name: ClassVar[str] = "moment-ladder"
    paper: ClassVar[str] = "after Rozet et al. 2024; exact draws and learnt preconditioner"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian", "noise")
    cost: ClassVar[str] = "12 forwards + at most 36 VJPs"
    posterior: ClassVar[str] = "posterior; exact for Gaussian priors"
    remedy: ClassVar[str] = "raise levels and max_iter, or add sweeps"

    levels: int = 6
    sigma_top: float = 3.0
    sigma_max: float = 1.0
    sigma_min: float = 0.03
    lanczos: int = 1
    max_iter: int = 2
    tol: float = 0.05
    sweeps: int = 6
    sweep_level: float = 0.1

    def __post_init__(self) -> None:
        if self.levels < 2 or not 0 < self.sigma_min < self.sigma_max <= self.sigma_top:
            raise ValueError(
                "moment-ladder needs levels >= 2 and 0 < sigma_min < sigma_max <= sigma_top, found "
                f"{self.levels}, {self.sigma_min}, {self.sigma_max}, {self.sigma_top}."
            )
        if self.lanczos < 1 or self.max_iter < 0 or self.sweeps < 0:
            raise ValueError(
                "moment-ladder needs lanczos >= 1, max_iter >= 0 and sweeps >= 0, found "
                f"{self.lanczos}, {self.max_iter}, {self.sweeps}."
            )

    @property
    def length(self) -> int:
        """One draw a level and a sweep."""
        return self.levels + self.sweeps

    def grid(self, side: int) -> list[float]:
        """Noise levels for an image of longest side `side` pixels, in widths of the range."""
        top = max(self.sigma_max, self.sigma_top * max(1.0, side / 64))
        grid = [top, self.sigma_min]
        if self.levels > 2:
            grid = [top, *log_levels(self.levels - 1, self.sigma_max, self.sigma_min).tolist()]
        below = next((i for i, s in enumerate(grid) if s <= self.sweep_level), len(grid) - 1)
        return grid[:below] + [self.sweep_level] * self.sweeps + grid[below:]

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Draw, descend, draw again."""
        width = 2 * problem.scale
        grid = [s * width for s in self.grid(max(problem.shape[2:]))]
        x = problem.middle + grid[0] * problem.noise()
        spectrum = RadialSpectrum(problem.shape, x)
        for s, t in zip(grid, [*grid[1:], None], strict=True):
            x_0 = self.draw(problem, x, s, spectrum)
            yield x_0
            if t is not None:
                rho = t / s if t < s else 0.0  # a repeated level starts from fresh noise
                x = x_0 + rho * (t / s) * (x - x_0) + t * math.sqrt(1 - rho**2) * problem.noise()

    def draw(self, problem: Problem, x: Tensor, s: float, spectrum: RadialSpectrum) -> Tensor:
        """Draw `x_0 ~ p(x_0 | x_s = x, y)` under the Gaussian approximation."""
        D, J = problem.linearise(x, s)
        root, pairs = lanczos_root(J, problem.noise(), self.lanczos)
        spectrum.update(pairs, s)
        w = s * root
        n = problem.noise_y * problem.noise(problem.y)
        r = (problem.y - problem.A(D + w) - n) * problem.observed

        def K(v: Tensor) -> tuple[Tensor, Tensor]:
            image = s**2 * J(problem.A_adjoint(v))
            return problem.A(image) + problem.noise_y**2 * v, image

        power = spectrum.power(s)
        M_inverse = self.preconditioner(problem, power, spectrum)
        solution = conjugate_residual(
            K, r, precondition=M_inverse, tol=self.tol, max_iter=self.max_iter, max_step=3.0
        )
        x_0 = D + w + spectrum.filter(problem.A_adjoint(solution.residual), power)
        return x_0 if solution.images is None else x_0 + solution.images

    def preconditioner(
        self, problem: Problem, power: Tensor, spectrum: RadialSpectrum
    ) -> Callable[[Tensor], Tensor]:
        """Return `v -> M^-1 v`: a division in Fourier space where A allows, else cheap steps."""
        gram = problem.gram_spectrum(power)
        if gram is not None:
            return lambda v: spectrum.filter(v, 1 / (gram + problem.sigma_y**2))

        def M(v: Tensor) -> Tensor:
            image = spectrum.filter(problem.A_adjoint(v), power)
            return problem.A(image) + problem.noise_y**2 * v

        return lambda v: conjugate_gradient(M, v, tol=0.1, max_iter=20)
