"""OU-VE: the mean drifts to the degraded image while noise explodes (SGMSE).

Richter, Welker, Lemercier, Lay, Gerkmann, *Speech Enhancement and Dereverberation with
Diffusion-Based Generative Models*, IEEE/ACM TASLP 2023, arXiv:2208.05830, on the SDE of Welker,
Richter, Gerkmann, Interspeech 2022, arXiv:2203.17004; their spectrograms are images here.

    dx = theta (y_0 - x) dt + g dw,   g(t) = smin (smax / smin)^t sqrt(2 L),   L = log(smax / smin)

    symbol           name here      meaning
    gamma            theta          stiffness: alpha_t = exp(-theta t)
    sigma_min, max   smin, smax     sigma_t^2 = c (e^{2 L t} - e^{-2 theta t})
    -                c              smin^2 L / (theta + L)
    t_eps            t_eps          where the walk ends, its noise still visible
    r                snr            the corrector's step is 2 (r sigma)^2

`x - y_0` is an ordinary diffusion with `(sigma / alpha)^2 = c (e^{2 (theta + L) t} - 1)`, and any
sampler walks it. `sampler="reverse-diffusion"` is the papers' own: at each time an annealed
Langevin step, then an Euler step of the reverse SDE, the last one without its noise. For a Gaussian
of variance `D` that Langevin step settles at `D / (1 - e / 2D)`, e its size: 4/3 of the variance
where noise dominates and r = 1/2.

**The start forgets part of the image.** At t = 1 the mean still holds `alpha = 0.22` of the
residual, and the papers start from `y_0` and noise alone. Of `y_0 - E[x_0 | y_0]` there remains,
for a posterior of variance v, the share `start_bias`:

    alpha^2 v / (alpha^2 v + sigma^2)         random walks
    alpha (v / (alpha^2 v + sigma^2))^(1/2)   deterministic walks: several times more

`start="predicted"` puts it back from the network's own regression, for one call more; so does
`storm`, which runs around a prediction to begin with.

Cost: `steps` forwards, twice as many with a corrector.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from operators.validate import one_of, whole
from operators.words import nearest
from priors.denoiser import per_image
from priors.schedules import Schedule
from priors.training import Loss, Network
from restore.problem import Problem
from restore.samplers import available as samplers
from restore.samplers import named
from restore.samplers.grid import Grid, Point
from restore.samplers.predictor_corrector import PredictorCorrector, score
from restore.samplers.sampler import Path, Sampler
from restore.trained.network import PairNetwork
from restore.trained.pair_prior import PairPrior
from restore.trained.pairs import Pairs
from restore.trained.restorer import Restorer, expected

OWN = "reverse-diffusion"
STARTS = ("degraded", "predicted")


@dataclass(frozen=True)
class OUVESchedule(Schedule):
    """See the module's docstring; t in [0, 1].

    Attributes:
        theta: stiffness of the drift, >= 0; 0 is a variance-exploding diffusion.
        smin: lower end of the noise, in units of the images.
        smax: upper end, above `smin`.
    """

    theta: float = 1.5
    smin: float = 0.025
    smax: float = 0.25

    def diffusion(self, t: float) -> float:
        """`g(t)^2`."""
        return 2 * self._L * (self.smin * math.exp(self._L * t)) ** 2

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self.theta * t)

    def _level(self, t: Tensor) -> Tensor:
        return torch.sqrt(self._c * torch.expm1(2 * (self.theta + self._L) * t))

    def _sigma(self, t: Tensor) -> Tensor:
        return self._alpha(t) * self._level(t)

    def _time(self, level: Tensor) -> Tensor:
        return torch.log1p(level**2 / self._c) / (2 * (self.theta + self._L))

    @property
    def level_range(self) -> tuple[float, float]:
        """See `Schedule.level_range`."""
        return 0.0, float(self.level(1.0))

    @property
    def _L(self) -> float:
        return math.log(self.smax / self.smin)

    @property
    def _c(self) -> float:
        return self.smin**2 * self._L / (self.theta + self._L)


@dataclass(frozen=True, kw_only=True)
class ReverseDiffusion(Sampler):
    """The papers' sampler: Langevin correction, then an Euler step of the reverse SDE.

    Args:
        schedule: gives drift and diffusion.
        corrections: Langevin steps at each time, >= 0.
        snr: their r.
        legacy: every step has length 1 / N, as in the authors' first code, though N times from 1
            to t_eps lie `(1 - t_eps) / (N - 1)` apart; their later code takes the true lengths.
    """

    name: ClassVar[str] = OWN
    paper: ClassVar[str] = "Richter et al. 2023, SGMSE"
    order: ClassVar[str] = "1, in law"
    random: ClassVar[bool] = True

    schedule: OUVESchedule
    corrections: int = 1
    snr: float = 0.5
    legacy: bool = False

    def calls(self, steps: int) -> int:
        """One call for each prediction and each correction."""
        return (1 + self.corrections) * steps

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Correct, predict, add noise."""
        for t, s in pairwise(path.grid.points):
            h = self._length(path, t.t - s.t)
            mean = self.mean(path, x, t, h)
            x = mean + math.sqrt(self.schedule.diffusion(t.t) * h) * path.noise(mean)
            yield x

    def last(self, path: Path, x: Tensor) -> Tensor:
        """Correct, and step from the last point to time 0 without noise."""
        at = path.grid[-1]
        return self.mean(path, x, at, self._length(path, at.t))

    def mean(self, path: Path, x: Tensor, t: Point, h: float) -> Tensor:
        """Correct at `t`, then take the Euler step of length `h`, without noise."""
        corrector = PredictorCorrector(step=2 * self.snr**2)
        for _ in range(self.corrections):
            x = corrector.correct(path, x, t)
        moved = self.schedule.diffusion(t.t) * score(path, x, t)
        return x + h * (self.schedule.theta * x + moved)

    def _length(self, path: Path, true: float) -> float:
        return 1 / len(path.grid.points) if self.legacy else true


@dataclass(frozen=True, kw_only=True)
class OUVE(Restorer):
    """OU-VE; see the module's docstring.

    The noise is halved against the papers, whose signals live in [-1, 1].

    Args:
        theta: stiffness of the drift.
        smin: lower end of the noise.
        smax: upper end of the noise.
        t_eps: last time.
        steps: N, times evenly spaced from 1 to `t_eps`; 30 in the papers.
        sampler: a word of `restore.samplers.available()`, or "reverse-diffusion". Random by
            default: of what the start forgets, and of the network's errors, an ODE keeps more.
        start: what the start is noise around: "degraded", the papers', or "predicted".
        corrections: Langevin steps at each time, of "reverse-diffusion".
        snr: their r.
        legacy: step lengths of the authors' first code, of "reverse-diffusion".
    """

    name: ClassVar[str] = "ou-ve"
    paper: ClassVar[str] = "Richter et al. 2023, SGMSE"
    cost: ClassVar[str] = "10 forwards"

    theta: float = 1.5
    smin: float = 0.025
    smax: float = 0.25
    t_eps: float = 0.03
    steps: int = 10
    sampler: str = "ancestral"
    start: str = "degraded"
    corrections: int = 1
    snr: float = 0.5
    legacy: bool = False

    def __post_init__(self) -> None:
        whole("steps", self.steps, low=2, do="raise it")
        one_of("start", self.start, STARTS)
        known = [OWN, *samplers()]
        if self.sampler not in known:
            raise ValueError(f"unknown sampler '{self.sampler}'; {nearest(self.sampler, known)}")
        if not (0 < self.smin < self.smax and self.theta >= 0 and 0 < self.t_eps < 1):
            raise ValueError(
                "ou-ve needs 0 < smin < smax, theta >= 0 and 0 < t_eps < 1, found "
                f"{self.smin}, {self.smax}, {self.theta} and {self.t_eps}; correct these."
            )
        if not (self.corrections >= 0 and self.snr > 0):
            raise ValueError(
                f"ou-ve needs corrections >= 0 and snr > 0, found {self.corrections} and "
                f"{self.snr}; correct these."
            )

    @property
    def schedule(self) -> OUVESchedule:
        """See `OUVESchedule`."""
        return OUVESchedule(self.theta, self.smin, self.smax)

    @property
    def grid(self) -> Grid:
        """N times, evenly spaced."""
        times = torch.linspace(1, self.t_eps, self.steps, dtype=torch.float64)
        return Grid(self.schedule, tuple(times.tolist()))

    @property
    def walker(self) -> Sampler:
        """The sampler by its name."""
        if self.sampler == OWN:
            return ReverseDiffusion(
                schedule=self.schedule,
                corrections=self.corrections,
                snr=self.snr,
                legacy=self.legacy,
            )
        return named(self.sampler)

    def first_point(self, problem: Problem, y_0: Tensor, noise: Tensor) -> Tensor:
        """Noise alone, or the predicted residual's share of the first point too."""
        u, at = super().first_point(problem, y_0, noise), self.grid[0]
        if self.start == "degraded":
            return u
        problem.count.forwards += 1
        assert isinstance(problem.prior, PairPrior)
        return at.alpha * expected(problem.prior, y_0) + u

    def finish(self, path: Path, u: Tensor) -> Tensor:
        """Remove the noise of the last point: by the papers' last step, or by denoising."""
        walker = self.walker
        if isinstance(walker, ReverseDiffusion):
            return walker.last(path, u)
        return super().finish(path, u)

    @classmethod
    def loss(cls, pairs: Pairs, network: PairNetwork) -> Loss:
        """Score matching: `|sigma score + n|^2 / 2`, times uniform.

        With `x_t = alpha u_0 + sigma n` the noise that a denoiser leaves is `(u_0 - D) / s`.
        """
        solver = cls()

        def loss(call: Network, generator: torch.Generator) -> Tensor:
            x_0, y_0 = pairs(generator)
            u_0 = x_0 - y_0
            t = torch.rand(len(u_0), generator=generator, dtype=torch.float64)
            s = solver.schedule.level(solver.t_eps + (1 - solver.t_eps) * t).float()
            z = u_0 + per_image(s, u_0) * torch.randn(u_0.shape, generator=generator)
            z, y_0, u_0, s = (v.to(network.device) for v in (z, y_0, u_0, s))
            z = z.contiguous(memory_format=torch.channels_last)
            return ((call(z, y_0, s) - u_0) / per_image(s, z)).square().mean() / 2

        return loss


def start_bias(schedule: OUVESchedule, v: float, *, random: bool) -> float:
    """Share of `y_0 - E[x_0 | y_0]` that a start at `y_0` leaves in the mean of the samples.

    For a Gaussian posterior of variance `v`, in the limit of many steps; without chance.

    Args:
        schedule: gives `alpha` and `sigma` at the start, t = 1.
        v: variance of the posterior, in squared units of the images.
        random: of random walks, else of deterministic ones.
    """
    alpha, sigma = float(schedule.alpha(1.0)), float(schedule.sigma(1.0))
    kept = v / (alpha**2 * v + sigma**2)
    return alpha**2 * kept if random else alpha * math.sqrt(kept)
