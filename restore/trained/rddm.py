"""RDDM: residual denoising diffusion models, in which residual and noise have clocks of their own.

Liu, Wang, Fan, Wang, Tang, Qu, *Residual Denoising Diffusion Models*, CVPR 2024, arXiv:2308.13712.

    symbol             name here    meaning
    I_res              r            y_0 - x_0, the residual, -u_0 here
    alpha-bar_t        A            share of the residual that is there: alpha_t = 1 - A_t
    beta-bar_t         B            std of the noise: sigma_t = B_t
    P(1 - x, a)        S            coefficients x^a, normalised, of the residual, falling
    P(x, a)            S            those of the noise's variance, rising
    s                  s            B_T^2
    sigma_t^2 / eta    tau2         variance of the fresh noise

`x_t = x_0 + A_t r + B_t eps`, so that `x - y_0` is an ordinary diffusion, from `A_T = 1`: the start
`y_0 + sqrt(s) z` drops nothing. With `A = eta, B = kappa sqrt(eta)` it is ResShift's; with
`A = 1 - sqrt(abar), B = sqrt(1 - abar)` and no degraded image it is DDIM's, the paper's
"coefficient transformation", step for step. With estimates of both, a step is

    x' = x - (A - A') r - (B - sqrt(B'^2 - tau2)) eps + tau z,    tau2 = eta B'^2 (1 - B'^2 / B^2)

and the last one, to A' = B' = 0, leaves `x_0` estimated. **Heads** tell where the estimates come
from: the residual from the network and the noise as what `x` then holds, "residual" (the paper's
SM-Res); the reverse, "noise" (SM-N), which says nothing where A = 1; or "both", one network for
each (SM-Res-N). With the residual's head alone this is `SumConstrained` on the grid of the times,
one step is plain regression, and few steps draw the samples in to the conditional mean.

**Paths.** `x` is linear in A and B, so that with estimates that do not change, any path of (A, B)
leads to the same image; with those of a network it matters. The paper gives each network its own
clock, A T or B T. Ours see `x - y_0` through its level B / (1 - A) alone, which is right on every
path: with the residual removed first, samples tend to the same law, at about the same cost; with
the noise removed first, nothing is left to tell samples apart, and the outcome is the regression.

Cost: one network call a step, two for "both".
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from operators.validate import number, one_of, whole
from priors.denoiser import per_image
from priors.schedules import Schedule
from priors.training import Loss, Network
from restore.problem import Problem
from restore.samplers.grid import Grid
from restore.samplers.sampler import Sampler
from restore.samplers.sum_constrained import SumConstrained
from restore.trained.network import PairNetwork
from restore.trained.pair_prior import PairPrior
from restore.trained.pairs import Pairs
from restore.trained.restorer import Restorer, degraded

Heads = Literal["residual", "noise", "both"]
Route = Literal["together", "residual first", "noise first"]

_HAIR = 1e-6  # steps before T at which grids start: alpha is 2e-12 there, B within 1e-9
_LEAST_ALPHA, _LEAST_SIGMA = 1e-9, 1e-6  # that a network is shown: it divides by them


class Clocks(NamedTuple):
    """Share `A` of the residual and std `B` of the noise that an image holds."""

    A: float
    B: float


@dataclass(frozen=True)
class RDDMSchedule(Schedule):
    """`alpha = 1 - A(t)`, `sigma = B(t)` for t in [0, T]; A and B^2 are straight between steps.

    With `S(t, a) = sum_{i <= t} i^a / sum_{i <= T} i^a`, the share `1 - A(t) = S(T - t, a)` and
    `B(t)^2 = s S(t, b)`; for a = b = 1 `A = t (2T - t + 1) / T (T + 1)` and
    `B^2 = s t (t + 1) / T (T + 1)`.

    Attributes:
        steps: T.
        s: `B_T^2`, in squared units of the images.
        residual_power: a >= 0; 0 is the paper's "average".
        noise_power: b >= 0.
    """

    steps: int = 1000
    s: float = 0.25
    residual_power: float = 1.0
    noise_power: float = 1.0

    def clocks(self, t: float) -> Clocks:
        """`A` and `B` at time `t`."""
        return Clocks(1 - float(self.alpha(t)), float(self.sigma(t)))

    def _alpha(self, t: Tensor) -> Tensor:
        return _straight(self._left, t)

    def _sigma(self, t: Tensor) -> Tensor:
        return _straight(self._power, t).sqrt()

    def _time(self, level: Tensor) -> Tensor:
        # on its piece, level^2 (a - f da)^2 = b + f db is a quadratic in the place f
        L2, steps = level**2, torch.arange(self.steps)
        edges = (self._power[1:-1].sqrt() / self._left[1:-1]).to(level.device)
        i = torch.searchsorted(edges, level.contiguous(), right=True)
        a, b = self._left.to(level.device)[i], self._power.to(level.device)[i]
        da, db = a - self._left.to(level.device)[i + 1], self._power.to(level.device)[i + 1] - b
        root = torch.sqrt(db**2 + 4 * L2 * da * (a * db + da * b))
        f = 2 * (L2 * a**2 - b) / (2 * L2 * a * da + db + root)
        return torch.where(level.isinf(), float(self.steps), steps.to(level.device)[i] + f)

    @cached_property
    def _left(self) -> Tensor:
        """`1 - A` after every step, without cancellation."""
        return _sums(self.steps, self.residual_power).flip(0)

    @cached_property
    def _power(self) -> Tensor:
        return self.s * _sums(self.steps, self.noise_power)


def _sums(steps: int, power: float) -> Tensor:
    """`S(0) .. S(T)`, from 0 to 1."""
    x = torch.arange(steps + 1, dtype=torch.float64) / steps
    x = torch.where(x > 0, x**power, 0)
    return x.cumsum(0) / x.sum()


def _straight(table: Tensor, t: Tensor) -> Tensor:
    table = table.to(t.device)
    i = t.floor().long().clamp(0, len(table) - 2)
    return table[i] + (t - i) * (table[i + 1] - table[i])


class TwoHeads(nn.Module):
    """One network for the residual and one for the noise: what heads="both" runs on.

    Called like either, it estimates the residual, so that it serves every other family.

    Args:
        residual: `E[u_0 | z, y_0]`, a `PairNetwork`.
        noise: likewise, but trained for and asked about the noise `(z - u_0) / s`.
    """

    def __init__(self, residual: nn.Module, noise: nn.Module) -> None:
        super().__init__()
        self.residual, self.noise = residual, noise

    def forward(self, z: Tensor, y_0: Tensor, s: float | Tensor, head: str = "residual") -> Tensor:
        """Estimate `u_0`, or the noise in `z` with `head="noise"`."""
        if head == "residual":
            return self.residual(z, y_0, s)
        return (z - self.noise(z, y_0, s)) / per_image(s, z)


@dataclass(frozen=True, kw_only=True)
class RDDM(Restorer):
    """RDDM; see the module's docstring.

    Args:
        sampling_steps: calls S; the paper takes 2 to 10 of the T that it trains on.
        steps: T.
        s: variance of the noise at the degraded image, in squared units of the images; the paper's
            1 and 0.01 over [-1, 1] are 0.25 and 0.0025 here.
        eta: 0 is the paper's deterministic sampling, 1 its random one.
        heads: where the estimates come from.
        route: "together" as trained; "residual first" or "noise first" remove one before the
            other, in S calls each.
        clip: largest estimate of a residual, or none. The paper clips at half the range, though
            residuals may be as large as the range.
    """

    name: ClassVar[str] = "rddm"
    paper: ClassVar[str] = "Liu et al. 2024, RDDM"
    cost: ClassVar[str] = "5 forwards"

    sampling_steps: int = 5
    steps: int = 1000
    s: float = 0.25
    eta: float = 0.0
    heads: Heads = "residual"
    route: Route = "together"
    clip: float | None = None

    def __post_init__(self) -> None:
        whole("steps", self.steps, low=1, do="1000 is the paper's")
        whole("sampling_steps", self.sampling_steps, low=1, high=self.steps, do="5 is the paper's")
        number("s", self.s, above=0, do="0.25 is the paper's 1")
        number("eta", self.eta, low=0, high=1, do="0 is the paper's")
        one_of("heads", self.heads, ("residual", "noise", "both"))
        one_of("route", self.route, ("together", "residual first", "noise first"))
        if self.clip is not None:
            number("clip", self.clip, above=0, do="0.5 is the paper's")

    @property
    def schedule(self) -> RDDMSchedule:
        """See `RDDMSchedule`."""
        return RDDMSchedule(self.steps, self.s)

    @property
    def times(self) -> list[int]:
        """Times from T down to 0, S + 1 of them: the paper's, truncated to whole steps."""
        return [i * self.steps // self.sampling_steps for i in range(self.sampling_steps, -1, -1)]

    @property
    def grid(self) -> Grid:
        """The times but the last, 0; the first a hair before T, where alpha is 0. S >= 2."""
        first, *later, _ = self.times
        return Grid(self.schedule, (first - _HAIR, *map(float, later)))

    @property
    def walker(self) -> Sampler:
        """The step with the residual's head."""
        return SumConstrained(eta=self.eta)

    @property
    def path(self) -> list[Clocks]:
        """Clocks that are passed, from (1, sqrt(s)) to (0, 0)."""
        together = [self.schedule.clocks(t) for t in self.times]
        if self.route == "together":
            return together
        (_, most), A, B = together[0], *zip(*together, strict=True)
        if self.route == "residual first":
            return [Clocks(a, most) for a in A] + [Clocks(0.0, b) for b in B[1:]]
        return [Clocks(1.0, b) for b in B] + [Clocks(a, 0.0) for a in A[1:]]

    @property
    def length(self) -> int:
        """One estimate a step."""
        return len(self.path) - 1

    def first_point(self, problem: Problem, y_0: Tensor, noise: Tensor) -> Tensor:
        """Noise of T: nothing of the residual is there to be dropped."""
        return math.sqrt(self.s) * noise

    def walk(self, problem: Problem, noise: Tensor) -> Iterator[Tensor]:
        """Walk as every family does, or along the path with the estimates of the heads."""
        plain = self.heads == "residual" and self.route == "together" and self.clip is None
        if plain and self.sampling_steps > 1:
            return super().walk(problem, noise)
        return self.along(problem, noise, self.path)

    def along(self, problem: Problem, noise: Tensor, path: Sequence[Clocks]) -> Iterator[Tensor]:
        """Walk along any path of clocks from (1, sqrt(s)) to (0, 0)."""
        prior = problem.prior
        assert isinstance(prior, PairPrior)
        self._check_place(prior)
        y_0 = degraded(problem, prior)
        shift, u = prior.shift(y_0), self.first_point(problem, y_0, noise)
        for t, s in pairwise(path):
            r, eps = self.estimates(prior, u, y_0, t)
            problem.count.forwards += 2 if self.heads == "both" else 1
            tau2 = self.eta * s.B**2 * (1 - (s.B / t.B) ** 2) if s.B > 0 else 0.0
            u = step(u, r, eps, t, s, tau2)
            if tau2 > 0:
                u = u + math.sqrt(tau2) * problem.noise()
            yield shift + u

    def estimates(
        self, prior: PairPrior, u: Tensor, y_0: Tensor, at: Clocks
    ) -> tuple[Tensor, Tensor]:
        """Residual `y_0 - x_0` and noise expected in `u = (1 - A) u_0 + B eps`.

        Raises:
            ValueError: heads="both" with a network that has one.
        """
        network = prior.network
        if self.heads == "both" and not isinstance(network, TwoHeads):
            raise ValueError(
                f"heads='both' needs a network with two heads, and '{prior.card.name}' has one; "
                "set heads='residual'."
            )
        alpha, sigma = max(1 - at.A, _LEAST_ALPHA), max(at.B, _LEAST_SIGMA)
        z, level = u / alpha, sigma / alpha
        with torch.no_grad():
            if self.heads == "residual":
                r = self._clipped(-prior.residual(z, y_0, level))
                return r, (u + (1 - at.A) * r) / sigma
            eps = (
                network(z, y_0, level, "noise")
                if isinstance(network, TwoHeads)
                else (z - prior.residual(z, y_0, level)) / level
            )
            if self.heads == "noise":
                return self._clipped(-(u - at.B * eps) / alpha), eps
            return self._clipped(-prior.residual(z, y_0, level)), eps

    def _clipped(self, r: Tensor) -> Tensor:
        return r if self.clip is None else r.clamp(-self.clip, self.clip)

    @classmethod
    def loss(cls, pairs: Pairs, network: PairNetwork | TwoHeads) -> Loss:
        """Build the paper's loss: mean absolute error of the residual, all times alike (SM-Res).

        Of a network with two heads, that of the noise is added (SM-Res-N). The residual is measured
        in its own std; the heads share no parameter, so that Adam is blind to their weights.
        """
        schedule = cls().schedule
        first = network.residual if isinstance(network, TwoHeads) else network
        assert isinstance(first, PairNetwork)

        def loss(call: Network, generator: torch.Generator) -> Tensor:
            x_0, y_0 = pairs(generator)
            t = torch.randint(1, schedule.steps + 1, (len(x_0),), generator=generator)
            s = (schedule.sigma(t) / schedule.alpha(t).clamp_min(_LEAST_ALPHA)).float()
            eps = torch.randn(x_0.shape, generator=generator)
            z = x_0 - y_0 + per_image(s, x_0) * eps
            z, y_0, x_0, s, eps = (v.to(first.device) for v in (z, y_0, x_0, s, eps))
            z = z.contiguous(memory_format=torch.channels_last)
            value = (call(z, y_0, s) + y_0 - x_0).abs().mean() / first.spread
            if isinstance(network, TwoHeads):
                value = value + (call(z, y_0, s, "noise") - eps).abs().mean()
            return value

        return loss


def step(u: Tensor, r: Tensor, eps: Tensor, t: Clocks, s: Clocks, tau2: float = 0.0) -> Tensor:
    """Take away residual and noise, leaving room for fresh noise of variance tau2."""
    return u - (t.A - s.A) * r - (t.B - math.sqrt(s.B**2 - tau2)) * eps


def sampled_variance(schedule: RDDMSchedule, sampling_steps: int, v: float) -> float:
    """Variance of deterministic samples where that of the data is `v`: a product of gains.

    With `D_t = alpha_t^2 v + sigma_t^2` a step scales deviations by
    `(alpha_s alpha_t v + sigma_s sigma_t) / D_t`, the last one by `alpha_t v / D_t`.
    """
    times = RDDM(sampling_steps=sampling_steps, steps=schedule.steps).times
    clocks = [schedule.clocks(t) for t in times]
    scale = clocks[0].B
    for t, s in pairwise(clocks):
        a, b = 1 - t.A, 1 - s.A
        scale *= (a * b * v + t.B * s.B) / (a**2 * v + t.B**2)
    return scale**2
