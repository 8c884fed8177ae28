"""Momentum for samplers: damp what diverges in few steps, at the price of accuracy.

Wizadwongsa, Chinchuthakun, Khungurn, Raj, Suwajanakorn, *Diffusion Sampling with Momentum for
Mitigating Divergence Artifacts*, ICLR 2024, arXiv:2307.11118: Heavy-Ball and Generalised
Heavy-Ball Variants (GHVB).

    symbol    name here    meaning
    beta      beta         share of the new increment in the average; 1 is no momentum
    v_n       v            running average (1 - beta) v_{n-1} + beta e_n
    e_n       e            increment of the base method; GHVB averages the noise itself
    k-1+beta  order        label of GHVB: 1.8 has k = 2 and beta = 0.8

**Order.** An average lags `(1 - beta) / beta` steps behind. Heavy-Ball leaves that in, and has
order 1 on every base; relative to DDIM its error is `(2 - beta) / beta` on DDIM and
`2 (1 - beta) / beta` on bases of order 2. GHVB takes it out again: its asymptotic order on grids
even in level is k for every beta. On other grids its weights, made for even steps, leave order 2.

**Stability.** In `dy/ds = kappa y` with even steps of level, `z = |kappa| (s_n - s_{n+1})`, the
methods are stable up to (`stability_limit`)

    Heavy-Ball on DDIM        2 (2 - beta) / beta
    Heavy-Ball on AB2, 2M     (2 - beta) / beta
    GHVB, k = 2               2 - beta
    GHVB, k = 3               6 (2 - beta) / (12 - beta)
    GHVB, k = 4               3 (2 - beta) / (11 - beta)

A prior alone stays below `z = (s_n - s_{n+1}) / s_n < 1`; strong guidance multiplies it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from operators.validate import one_of
from restore.samplers.sampler import Path, Sampler, noise_in, transfer

ADAMS_BASHFORTH = (1.0, 1 / 2, 5 / 12, 3 / 8)
"""Weights of the backward differences of a slope, over one even step."""

BASES = {"ddim": (False, 1), "ab2": (False, 2), "2m": (True, 2)}
"""Base of Heavy-Ball: whether it extrapolates denoised images rather than noises, and its order."""


@dataclass(frozen=True, kw_only=True)
class HeavyBall(Sampler):
    """Heavy-Ball momentum on the increments of a base method; see the module's docstring.

    Args:
        beta: share of the new increment, in (0, 1].
        base: "ddim", "ab2" (two-step Adams-Bashforth on the noise) or "2m" (DPM-Solver++ 2M).
    """

    name: ClassVar[str] = "heavy-ball"
    paper: ClassVar[str] = "Wizadwongsa et al. 2024, Heavy-Ball"
    order: ClassVar[str] = "1"
    memory: ClassVar[bool] = True

    beta: float = 0.8
    base: str = "2m"

    def __post_init__(self) -> None:
        one_of("heavy-ball's base", self.base, list(BASES))
        if not 0 < self.beta <= 1:
            raise ValueError(f"heavy-ball needs 0 < beta <= 1, found {self.beta}; choose within.")

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Extrapolate to the middle of the step, average with the past, move."""
        data, order = BASES[self.base]
        last, v = None, None
        for i, (t, s) in enumerate(pairwise(path.grid.points)):
            D = path.D(x, t)
            new = D if data else noise_in(x, D, t)

            # half a step ahead, in lam for images and in level for noises
            e = new
            if order == 2 and last is not None:
                before = path.grid[i - 1]
                ahead = (s.lam - t.lam) / (t.lam - before.lam)
                if not data:
                    ahead = (s.level - t.level) / (t.level - before.level)
                e = new + ahead / 2 * (new - last)

            v = e if v is None else (1 - self.beta) * v + self.beta * e
            x, last = transfer(x, t, s, noise_in(x, v, t) if data else v), new
            yield x

    def stability_limit(self) -> float:
        """Largest stable `z` of even steps; of "2m", in the limit of small steps of lam."""
        return _limit(self.beta, ADAMS_BASHFORTH[: BASES[self.base][1]])


@dataclass(frozen=True, kw_only=True)
class GHVB(Sampler):
    """Generalised Heavy-Ball; see the module's docstring.

    Args:
        label: `k - 1 + beta` in (0, 4]; whole numbers are Adams-Bashforth of that order.
    """

    paper: ClassVar[str] = "Wizadwongsa et al. 2024, GHVB"
    memory: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("ghvb-1.8", "ghvb-2.8")

    label: float = 1.8

    def __post_init__(self) -> None:
        if not 0 < self.label <= len(ADAMS_BASHFORTH):
            raise ValueError(f"ghvb needs a label in (0, 4], found {self.label}; choose within.")

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return f"ghvb-{self.label:g}"

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Asymptotic order."""
        return f"{self.k} on grids even in level" + (", else 2" if self.k > 2 else "")

    @property
    def k(self) -> int:
        """Number of averages that a step combines."""
        return math.ceil(self.label)

    @property
    def beta(self) -> float:
        """Share of the new noise in the average."""
        return self.label - (self.k - 1)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the backward differences of `v`: Adams-Bashforth's, with the lag undone.

        An average is `v = beta / (beta + (1 - beta) nabla) eps`, `nabla` the backward difference;
        the weights are the first k terms of Adams-Bashforth's series times its inverse.
        """
        lag, ab = (1 - self.beta) / self.beta, (0.0, *ADAMS_BASHFORTH)
        return tuple(ab[j + 1] + lag * ab[j] for j in range(self.k))

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Average the noise, take its backward differences, move along their weighted sum."""
        differences: list[Tensor] = []
        for t, s in pairwise(path.grid.points):
            v = path.eps(x, t)
            if differences:
                v = (1 - self.beta) * differences[0] + self.beta * v

            # v, v - v', v - 2 v' + v'', ...: one more each step until there are k
            new = [v]
            for old in differences[: self.k - 1]:
                new.append(new[-1] - old)
            differences = new

            slope = sum((w * d for w, d in zip(self.weights, differences, strict=False)), 0 * v)
            x = transfer(x, t, s, slope)
            yield x

    def stability_limit(self) -> float:
        """Largest stable `z` of even steps."""
        return _limit(self.beta, self.weights)


def _limit(beta: float, weights: Sequence[float]) -> float:
    """Step at which the root -1 appears: there every backward difference doubles."""
    return 2 * (2 - beta) / (beta * sum(w * 2**j for j, w in enumerate(weights)))
