"""Twisted sequential Monte Carlo: samples whose share of every mode is right.

Guidance by one Gaussian (moment matching, Rozet et al. 2024, arXiv:2405.13712) moves a sample
towards the data but cannot decide how many belong to which mode; no number of steps changes that.
Here the same likelihood `g_s(x) = N(y; A D, A C A^T + sigma_y^2 I)` is a *twist* (Wu, Trippe,
Naesseth, Blei, Cunningham, *Practical and Asymptotically Exact Conditional Sampling in Diffusion
Models*, 2023, arXiv:2306.17775): it proposes, weights correct the proposal, and resampling acts on
them. Against the paper: the likelihood's own covariance, a second-order chain, weights of the noise
instead of transition densities, sorted systematic resampling, and a restart.

    start     x ~ N(middle, s_0^2 I), log w = log g_0(x)
    propose   z = z_0 + sqrt(kappa) (D_y - D) / u,   z_0 ~ N(0, I),   kappa = 1 - u^2 / s^2
    move      x_hat = D + (u/s)^2 (x - D) + u sqrt(kappa) z
              x'    = x_hat + (kappa / 2) (D(x_hat, u) - D)            (stochastic Heun, s -> u)
    weigh     log w += log g_u(x') - log g_s(x) + |z_0|^2 / 2 - |z|^2 / 2
    resample  when fewer than half of the particles are effective

The prior moves by the same map with z = z_0, so the last two terms are the exact likelihood ratio
of the two chains, for any shift and any map: the weighted particles follow the prior's chain times
`g`, without error from the proposal.

    restart   x + t* eps, then draws from the Gaussian approximation down from t* (as in
              `MomentLadder`), where t* is the largest level at which `K` does not depend on the
              noise, that is, where the posterior is Gaussian around each sample: duplicates part,
              the spread within a mode becomes exact, weights stay.

N particles serve all n samples of an image, so `samples=n` returns a set, not a sequence. Pooled
over seeds the sets have the right law from a few dozen particles on; how near one set comes depends
on N.

Where measurements speak of separate parts of the image, the parts are weighed and resampled
separately (`restore.parts`): several independent ambiguities need no more particles than one.

With m measurements and L levels a sample costs (N/n) (L (2 + m) - 1) calls and some 40 for the
restart: 500 for one measurement, 1,000 for eight with `mult=2`.

Above `m_max` measurements weights hold more noise than knowledge (their variance grows with m), and
another solver takes over.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from priors.schedules import log_levels
from restore.moments import MomentMatching, Moments
from restore.population import Population
from restore.problem import Problem
from restore.solver import Solver
from restore.solvers.moment_ladder import MomentLadder

_PROBES, _TRIALS = 64, 8  # samples that try out a restart level, and how many levels are tried


@dataclass(frozen=True, kw_only=True)
class TwistedSMC(Solver):
    """Twisted sequential Monte Carlo; see the module's docstring.

    Args:
        levels: noise levels, log-spaced.
        sigma_max: first level, in widths of the prior's range; above the largest principal
            standard deviation of the images.
        sigma_min: last level.
        mult: particles for each returned sample.
        min_particles: fewest particles, however few samples are asked for.
        ess: share of effective particles below which they are resampled.
        coupling: correlation of two measurements, given a particle, above which they are weighed
            together; below 0 all are, as in the paper.
        restart_levels: levels of the last descent; 0 returns the particles as they are.
        lanczos: Jacobian products for the square root of the covariance there.
        constancy: relative change of `C` under which the posterior counts as Gaussian.
        m_max: most measurements an image; with more, `MomentLadder` does the work and the notes of
            the result say that mode weights were not corrected.
    """

    name: ClassVar[str] = "twisted-smc"
    paper: ClassVar[str] = "after Wu et al. 2023, twisted diffusion sampler; moment-matching twist"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian", "noise")
    cost: ClassVar[str] = "325 forwards + 180 VJPs for 1 measurement and 16 samples or more"
    posterior: ClassVar[str] = "posterior; mode weights right up to 8 measurements"
    remedy: ClassVar[str] = "raise levels, mult or sigma_max"
    joint: ClassVar[bool] = True

    levels: int = 40
    sigma_max: float = 10.0
    sigma_min: float = 0.003
    mult: int = 4
    min_particles: int = 64
    ess: float = 0.5
    coupling: float = 0.03
    restart_levels: int = 5
    lanczos: int = 2
    constancy: float = 0.01
    m_max: int = 8

    def __post_init__(self) -> None:
        if self.levels < 2 or not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"twisted-smc needs levels >= 2 and 0 < sigma_min < sigma_max, found "
                f"{self.levels}, {self.sigma_min}, {self.sigma_max}."
            )
        if min(self.mult, self.min_particles, self.lanczos) < 1:
            raise ValueError(
                "twisted-smc needs mult, min_particles and lanczos of at least 1, found "
                f"{self.mult}, {self.min_particles}, {self.lanczos}."
            )
        if self.restart_levels < 0 or self.m_max < 0:
            raise ValueError(
                "twisted-smc needs restart_levels >= 0 and m_max >= 0, found "
                f"{self.restart_levels}, {self.m_max}."
            )
        if not 0 <= self.ess <= 1 or not self.constancy > 0:
            raise ValueError(
                f"twisted-smc needs ess in [0, 1] and constancy > 0, found {self.ess}, "
                f"{self.constancy}."
            )

    @property
    def length(self) -> int:
        """One estimate a step of the descent, then one a level of the restart or the choice."""
        return self.levels - 1 + max(1, self.restart_levels)

    def stand_in(self, observed: Tensor) -> tuple[Solver, str] | None:
        """Leave many measurements to the moment ladder."""
        m = int((observed != 0).flatten(1).sum(1).max())
        if m <= self.m_max:
            return None
        return MomentLadder(), (
            f"mode weights not corrected: {m} measurements, at most {self.m_max} (m_max) can be "
            "weighed; samples are the moment ladder's"
        )

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Move the population down, choose the samples, let them part."""
        n, generator = len(problem.streams), problem.streams[0]
        width = 2 * problem.scale
        grid = (log_levels(self.levels, self.sigma_max, self.sigma_min) * width).tolist()
        match = MomentMatching(problem)
        shape = (max(self.mult * n, self.min_particles), problem.images, *problem.shape[1:])
        start = problem.middle + grid[0] * noise(shape, problem, generator)
        particles = Population(
            match, start, grid[0], ess=self.ess, coupling=self.coupling, generator=generator
        )
        for s, u in pairwise(grid):
            yield particles.at.D_y[:n].flatten(0, 1)
            z_0 = noise(shape, problem, generator)
            x, log_ratio = move(match, particles.x, particles.at, s, u, z_0)
            particles.advance(x, u, log_ratio)
        x = particles.choose(grid[-1], n)
        problem.notes.update(particles.notes())
        if self.restart_levels == 0:
            yield x.flatten(0, 1)
            return
        # a stream of its own: how many levels are tried depends on the images
        trial = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        t = restart_level(match, x, grid[0], grid[-1], self.constancy, trial)
        problem.notes["restart level"] = t.tolist()
        x = x + _column(t, x) * noise(x.shape, problem, generator)
        last = ladder(match, x, t, grid[-1], self.restart_levels, self.lanczos, generator)
        yield from (x_0.flatten(0, 1) for x_0 in last)


def move(
    match: MomentMatching, x: Tensor, at: Moments, s: float, u: float, z_0: Tensor
) -> tuple[Tensor, Tensor]:
    """Propose and move from level `s` to `u`.

    Args:
        match: the likelihood.
        x: particles `(N, B, C, *spatial)`.
        at: the likelihood at them.
        s: their level.
        u: the next one.
        z_0: white noise.

    Returns:
        Moved particles, and the log ratio of prior to proposal of every pixel, `(N, B, P)`.
    """
    kappa = 1 - (u / s) ** 2
    shift = math.sqrt(kappa) / u * (at.D_y - at.D)
    x_hat = at.D + (u / s) ** 2 * (x - at.D) + u * math.sqrt(kappa) * (z_0 + shift)
    moved = x_hat + kappa / 2 * (match.denoise(x_hat, u) - at.D)
    return moved, -((z_0 + shift / 2) * shift).double().flatten(2)


def noise(shape: tuple[int, ...], problem: Problem, generator: torch.Generator) -> Tensor:
    """Standard normal noise `(N, B, ...)`, the same for every image of a batch."""
    draw = torch.randn((shape[0], 1, *shape[2:]), generator=generator, dtype=torch.float64)
    return draw.to(dtype=problem.y.dtype, device=problem.y.device).expand(shape)


def restart_level(
    match: MomentMatching,
    x: Tensor,
    highest: float,
    lowest: float,
    tol: float,
    generator: torch.Generator,
) -> Tensor:
    """Find the largest noise level at which the posterior is Gaussian around each sample.

    There `C` is the same for two noises on one sample: seen by the measurements, in the trace of
    `K`, and along a random direction, since modes may also differ where nothing is measured.

    Args:
        match: the likelihood.
        x: clean samples `(n, B, C, *spatial)`.
        highest: largest level to try.
        lowest: what to return when none passes.
        tol: mean relative change that passes.
        generator: of the noises.

    Returns:
        Levels `(B,)`.
    """
    x = x[:: max(1, len(x) // _PROBES)][:_PROBES]
    found = torch.full((x.shape[1],), lowest, dtype=x.dtype, device=x.device)
    passing = torch.ones_like(found, dtype=torch.bool)
    for t in log_levels(_TRIALS, highest, min(2 * lowest, highest / 2)).flip(0).tolist():
        v = noise(x.shape, match.problem, generator)
        one, two = (
            match.variances(x + t * noise(x.shape, match.problem, generator), t, v)
            for _ in range(2)
        )
        changes = [relative_change(a, b) for a, b in zip(one, two, strict=True)]
        passing &= torch.stack(changes).amax(0) < tol
        if not bool(passing.any()):
            break
        found = torch.where(passing, t, found)
    return found


def relative_change(a: Tensor, b: Tensor) -> Tensor:
    """Mean over particles of `|a - b| / (a + b)`, `(B,)`; 0 where both are."""
    return ((a - b).abs() / (a + b).abs().clamp_min(torch.finfo(a.dtype).tiny)).mean(0)


def ladder(
    match: MomentMatching,
    x: Tensor,
    start: Tensor,
    end: float,
    levels: int,
    lanczos: int,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Descend by draws from the Gaussian approximation, exact where the posterior is Gaussian.

    Args:
        match: the likelihood.
        x: particles `(n, B, C, *spatial)` at level `start`.
        start: first level of every image `(B,)`.
        end: last level.
        levels: their number, log-spaced.
        lanczos: Jacobian products for the square root of the covariance.
        generator: of all noise.

    Yields:
        The draws, clean images.
    """
    problem = match.problem
    share = torch.linspace(0, 1, levels, dtype=x.dtype, device=x.device)[:, None]
    grid = torch.lerp(start.log(), torch.full_like(start, end).log(), share).exp()
    for s, t in zip(grid, [*grid[1:], None], strict=True):
        n = match.white(len(x), generator)
        x_0 = match.draw(x, s, noise(x.shape, problem, generator), n, lanczos)
        yield x_0
        if t is not None:
            rho = _column(t / s, x)
            spread = _column(t, x) * (1 - rho**2).sqrt()
            x = x_0 + rho**2 * (x - x_0) + spread * noise(x.shape, problem, generator)


def _column(t: Tensor, x: Tensor) -> Tensor:
    """One number an image, shaped against particles `(n, B, C, *spatial)`."""
    return t.reshape(1, -1, *[1] * (x.ndim - 2))
