"""How probable an image is under a prior: its density, exactly, by the probability-flow ODE.

Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, *Score-Based Generative Modeling through
Stochastic Differential Equations*, ICLR 2021, arXiv:2011.13456, section 4.3 and appendix D.2.

    symbol       name here     meaning
    y, s         y, s          image plus noise of std s: every diffusion's x / alpha
    eps          -             noise that the denoiser sees in y, (y - D) / s
    div          div           divergence, n c / (c + s^2) - tr dD/dy in the frame z
    v            probes        random signs, the same during the whole solve
    z            z             the frame of `restore.samplers.runge_kutta`

The flow `dy/ds = eps(y, s)` carries the density `p_s` along: `d log p/ds = -div eps`. It starts at
the grid's last level, the lowest, and ends at its first, where the density is taken to be
`N(mean, variance + s^2)`. In the frame `z`, whose scale is known at every level,

    log p_low(y) = log N(z_high; 0, I) - n log r_low + int div d(log s).

The result is the density of images *with noise of the lowest level*, at the image given; an image
without noise is not drawn from it. What is left of error:

- the grid's, which vanishes with order 2 (`heun`) or 4 (`rk4`);
- what level s, the highest, still knows of the images: about `d / s` nats an entry, of either sign,
  for a mean wrong by d, and `d / s^2` for a variance;
- that of a trace by probes. Signs know the diagonal of a Jacobian exactly: a covariance that is
  diagonal in pixels leaves no error at all, any other leaves the trace a variance of
  `2 (|J|_F^2 - sum_i J_ii^2)`, J symmetric, over the number of probes.

Densities of networks are as good as their Jacobians: a network that is not a gradient gives the
density that its flow transports, which is a density all the same.

Cost an evaluation: one forward, and a VJP for every probe, or for every entry of an image.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from priors.denoiser import Denoiser
from priors.jacobian import generator_of, linearise, signs
from priors.schedules import EDM
from restore.samplers.grid import Grid, uniform_lambda
from restore.samplers.runge_kutta import CLASSICAL, HEUN, Frame, State, Velocity, step

Method = Literal["rk4", "heun", "adaptive"]
TABLEAUS = {"heun": HEUN, "rk4": CLASSICAL}

# in widths of the range of images, where a prior does not say: of the shipped networks
_LOW, _HIGH = 0.002, 50.0


class LogDensity(NamedTuple):
    """Log densities of images with noise of the lowest level.

    Attributes:
        nats: `(B,)`, float64.
        nats_per_dim: the same over the number of entries of an image.
        bits_per_dim: code length of data of 8 bits, `-nats_per_dim / ln 2 + log2(256 / width)`,
            the width of the range of images being 256 of its levels (8 for [0, 1], 7 for [-1, 1]).
            A bound on the code length if numbers `u` spread evenly in [0, 1) were added to the
            integers, `(k + u) / 256`.
        std_error: of `nats` over the probes `(B,)`; 0 for an exact trace, NaN for one probe.
        level: the noise level whose density it is.
        calls: evaluations of the denoiser for an image, most over the images.
    """

    nats: Tensor
    nats_per_dim: Tensor
    bits_per_dim: Tensor
    std_error: Tensor
    level: float
    calls: int


def default_grid(prior: Denoiser, steps: int = 20) -> Grid:
    """Levels evenly spaced in `log s` over those that a prior knows."""
    low, high = prior.card.value_range
    first, last = prior.card.sigma_range
    top, bottom = min(_HIGH * (high - low), last), max(_LOW * (high - low), first)
    return uniform_lambda(EDM(), steps, top, bottom)


@torch.no_grad()
def log_density(
    prior: Denoiser,
    x: Tensor,
    grid: Grid | None = None,
    *,
    method: Method = "rk4",
    tol: float = 1e-5,
    mean: float | Tensor | None = None,
    variance: float | Tensor | None = None,
    probes: int | None = None,
    seed: int = 0,
) -> LogDensity:
    """Log density of images under a prior.

    Args:
        prior: any denoiser.
        x: images `(B, C, *spatial)` in its range, float64 for the tightest results; each is
            treated as if it were alone.
        grid: levels to step through, `default_grid` by default; its schedule does not matter.
        method: "rk4" or "heun" on the grid; "adaptive" goes from its last level to its first by
            scipy's RK45, image by image.
        tol: relative and absolute tolerance of "adaptive": in std of the noisy image, and in nats
            a dimension.
        mean: of the images, a number or `(C, *spatial)`; the middle of the range by default.
        variance: of a pixel, positive, likewise; of a uniform law on the range by default.
        probes: random signs for the trace; None takes every entry of the image in turn.
        seed: of the probes, which are the same for every image.

    Raises:
        ValueError: an image that does not suit the prior, or numbers that are none.
    """
    _refuse(prior, x, method, probes, tol)
    grid = grid or default_grid(prior)
    frame = _frame(prior, x, mean, variance)
    vectors = _vectors(x, probes, seed)
    levels = [point.level for point in reversed(grid.points)]
    n = x[0].numel()
    found, calls = [], 0
    for part in x.split(1 if method == "adaptive" else len(x)):
        flow = _Flow(prior, frame, vectors)
        start = (frame.enter(part, levels[0]), part.new_zeros(len(part), max(1, probes or 1)))
        start = (start[0], start[1].double())
        if method == "adaptive":
            z, gained = _adaptive(flow, start, levels[0], levels[-1], tol)
        else:
            z, gained = start
            for s, t in pairwise(levels):
                z, gained = step(flow, (z, gained), s, t, TABLEAUS[method])
        end = -0.5 * (z.double().square() + math.log(2 * math.pi)).flatten(1).sum(1)
        found.append(end[:, None] + gained)
        calls = max(calls, flow.calls)
    radius = torch.as_tensor(frame.radius(levels[0]), dtype=torch.float64, device=x.device)
    every = torch.cat(found) - radius.expand(x.shape[1:]).log().sum()
    return _result(every, n, prior, levels[0], calls, exact=probes is None)


class _Flow:
    """`dz/dtau` and the divergence by every probe."""

    def __init__(self, prior: Denoiser, frame: Frame, vectors: Tensor | None) -> None:
        self.prior, self.frame, self.vectors = prior, frame, vectors
        self.calls = 0

    def __call__(self, s: float, state: State) -> State:
        y = self.frame.leave(state[0], s)
        D, vjp = linearise(lambda y: self.prior(y, s), y)
        self.calls += 1
        gain = torch.as_tensor(self.frame.gain(s), dtype=torch.float64, device=y.device)
        white = gain.expand(y.shape[1:]).sum()
        return self.frame.velocity(y, D, s), white - self._traces(y, vjp)

    def _traces(self, y: Tensor, vjp: Callable[[Tensor], Tensor]) -> Tensor:
        """Trace of the Jacobian by every probe `(B, K)`, or exactly `(B, 1)`."""
        if self.vectors is not None:
            products = [(v * vjp(v.expand_as(y))).double() for v in self.vectors]
            return torch.stack([p.flatten(1).sum(1) for p in products], 1)
        total = torch.zeros(len(y), dtype=torch.float64, device=y.device)
        for i in range(y[0].numel()):
            v = torch.zeros_like(y)
            v.flatten(1)[:, i] = 1
            total += vjp(v).flatten(1)[:, i].double()
        return total[:, None]


def _adaptive(f: Velocity, state: State, start: float, end: float, tol: float) -> State:
    """Solve for one image by scipy's RK45 with error control.

    The control takes a root mean square over the state: divided by the root of the size, the log
    density weighs as much as all pixels together.
    """
    from scipy.integrate import solve_ivp

    z, gained = state
    n, root = z.numel(), math.sqrt(z.numel())

    def unpack(packed: np.ndarray) -> State:
        both = torch.from_numpy(np.ascontiguousarray(packed)).to(z.device)
        return both[:n].reshape(z.shape).to(z.dtype), both[n:].reshape(gained.shape) * root

    def pack(z: Tensor, gained: Tensor) -> np.ndarray:
        return torch.cat([z.double().flatten(), gained.flatten() / root]).cpu().numpy()

    solved = solve_ivp(
        lambda tau, packed: pack(*f(math.exp(tau), unpack(packed))),
        (math.log(start), math.log(end)),
        pack(z, gained),
        rtol=tol,
        atol=tol,
    )
    if not solved.success:
        raise ValueError(f"the flow could not be followed ({solved.message}); raise tol.")
    return unpack(solved.y[:, -1])


def _frame(
    prior: Denoiser, x: Tensor, mean: float | Tensor | None, variance: float | Tensor | None
) -> Frame:
    low, high = prior.card.value_range
    mean = (low + high) / 2 if mean is None else mean
    variance = (high - low) ** 2 / 12 if variance is None else variance
    if not bool((torch.as_tensor(variance) > 0).all()):
        raise ValueError("the variance of the images must be positive; give that of their pixels.")
    return Frame(
        mean.to(x) if isinstance(mean, Tensor) else mean,
        variance.to(x) if isinstance(variance, Tensor) else variance,
    )


def _vectors(x: Tensor, probes: int | None, seed: int) -> Tensor | None:
    """Signs `(K, 1, C, *spatial)`, or None for every entry in turn."""
    if probes is None:
        return None
    like = torch.empty((probes, 1, *x.shape[1:]), dtype=torch.float64)
    return signs(like, generator_of(seed)).to(x)


def _result(
    every: Tensor, n: int, prior: Denoiser, level: float, calls: int, *, exact: bool
) -> LogDensity:
    """Gather from the log densities `(B, K)` by every probe."""
    nats, probes = every.mean(1), every.shape[1]
    low, high = prior.card.value_range
    error = torch.zeros_like(nats) if exact else every.new_full(nats.shape, math.nan)
    if probes > 1:
        error = every.std(1) / math.sqrt(probes)
    bits = -nats / (n * math.log(2)) + math.log2(256 / (high - low))
    return LogDensity(nats, nats / n, bits, error, level, calls)


def _refuse(prior: Denoiser, x: Tensor, method: str, probes: int | None, tol: float) -> None:
    if (reason := prior.refuse(tuple(x.shape))) is not None:
        raise ValueError(reason)
    if method not in (*TABLEAUS, "adaptive"):
        raise ValueError(f"unknown method '{method}'; choose rk4, heun or adaptive.")
    if (probes is not None and probes < 1) or not tol > 0:
        raise ValueError(f"expected probes >= 1 and tol > 0, found {probes} and {tol}.")
