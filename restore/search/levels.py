"""Search of the noise levels that suit a sampler, a prior and a number of steps.

Li et al., *AutoDiffusion: Training-Free Optimization of Time Steps and Architectures for Automated
Diffusion Model Acceleration*, ICCV 2023, arXiv:2309.10438: evolution over sorted time steps, half
of the first population mutated from the usual grids. Here levels are real numbers, so that SciPy's
differential evolution (Storn, Price 1997; a candidate gives way to a better one only) does it, and
a Nelder-Mead simplex finishes.

The usual grids are scored first: on the starts of the objective the result is never worse than the
best of them. Whether it is better on others is what held-out starts tell.

Cost: `population * generations` runs of the sampler on all starts, or fewer. A run can end in a
local minimum, which a wasted step betrays (two levels nearly alike); another seed then helps.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import differential_evolution, minimize

from operators.validate import whole
from priors.schedules import VP, RectifiedFlow, Schedule
from restore.samplers import grid as grids
from restore.samplers.sampler import Sampler
from restore.search.objectives import Objective
from restore.search.stored import Searched

Vector = NDArray[np.float64]
Candidate = tuple[Sampler, tuple[float, ...]]
"""A sampler and the levels of its grid."""

Tick = Callable[[float], None]
"""Called after every evaluation with the best score so far."""

USUAL: dict[str, tuple[str, Schedule]] = {
    "lambda": ("lambda", VP()),
    "edm": ("edm", VP()),
    "level": ("level", VP()),
    "vp time": ("time", VP()),
    "vp quadratic": ("quadratic", VP()),
    "flow time": ("time", RectifiedFlow()),
}
"""Usual grids: a word of `grid.GRIDS`, and the schedule, for images of std 1, that it divides."""

ENDS = (1.0, 4.0, 16.0)  # where usual grids end, in units of the lowest level, when that is free
EVOLUTION = 0.5  # share of the evaluations before the simplex
JITTER = 0.08  # std of the first mutations, as a share of the range in lam
_GAP = 1e-3  # least distance of two levels, likewise


@dataclass(frozen=True)
class Places:
    """Vectors in `[0, 1]^size` and the falling levels that they stand for, evenly in `lam`.

    The first level is `high`; the last is `low` or, when `free`, sought too.

    Attributes:
        steps: number of steps, one less than levels.
        high: first level.
        low: lowest level.
        free: whether the last level may be above the lowest.
        unit: standard deviation of the clean images, for which a schedule's time is scaled.
    """

    steps: int
    high: float
    low: float
    free: bool
    unit: float = 1.0

    @classmethod
    def of(cls, objective: Objective, steps: int) -> "Places":
        """Levels between the ends of an objective."""
        unit = float(objective.truth.std())
        return cls(steps, objective.high, objective.low, objective.clean, unit)

    @property
    def size(self) -> int:
        """Number of levels that are sought."""
        return self.steps if self.free else self.steps - 1

    def levels(self, vector: Vector) -> tuple[float, ...]:
        """Levels of a vector, whatever its order."""
        inner = np.sort(np.clip(vector, 0, 1))
        share = np.concatenate([[0.0], inner if self.free else np.append(inner, 1.0)])
        place = _GAP * np.arange(self.steps + 1) + (1 - _GAP * self.steps) * share
        return tuple((self.high * (self.low / self.high) ** place).tolist())

    def vector(self, levels: Sequence[float]) -> Vector:
        """Vector of falling levels."""
        place = np.log(np.asarray(levels) / self.high) / math.log(self.low / self.high)
        share = (place - _GAP * np.arange(self.steps + 1)) / (1 - _GAP * self.steps)
        return np.clip(share[1:] if self.free else share[1:-1], 0, 1)


@dataclass
class Trials:
    """Scores what a search proposes, nothing twice, and remembers the best.

    Attributes:
        objective: what to make small.
        tick: see `Tick`.
        history: best score so far after every evaluation.
        best: what had it.
    """

    objective: Objective
    tick: Tick | None = None
    history: list[float] = field(default_factory=list)
    best: Candidate | None = None
    _known: dict[tuple[str, tuple[float, ...]], float] = field(default_factory=dict)

    def __call__(self, sampler: Sampler, levels: Sequence[float]) -> float:
        """Score one candidate."""
        key = repr(sampler), tuple(float(f"{level:.10g}") for level in levels)
        if key in self._known:
            return self._known[key]
        score = self._known[key] = self.objective(sampler, levels)
        if self.best is None or score < self.history[-1]:
            self.best = sampler, tuple(levels)
        self.history.append(min([score, *self.history[-1:]]))
        if self.tick is not None:
            self.tick(self.history[-1])
        return score

    def searched(self, usual: Mapping[str, Candidate]) -> tuple[Searched, Candidate]:
        """Return the best, and the best of the usual.

        Raises:
            ValueError: when everything diverged.
        """
        if self.best is None or not math.isfinite(self.history[-1]):
            raise ValueError(
                "every candidate of the search diverged; raise the lowest noise level or check "
                "the prior."
            )
        sampler, levels = self.best
        name = min(usual, key=lambda each: self(*usual[each]))
        found = Searched(
            sampler=sampler,
            levels=levels,
            score=self.history[-1],
            baseline=name,
            baseline_score=self(*usual[name]),
            objective=self.objective.name,
            evaluations=len(self.history),
        )
        return found, usual[name]


def search_levels(
    objective: Objective,
    sampler: Sampler,
    steps: int,
    *,
    population: int = 30,
    generations: int = 10,
    seed: int = 0,
    tick: Tick | None = None,
) -> tuple[Searched, Candidate]:
    """Search the levels of a sampler's grid.

    Args:
        objective: what to make small; `objective.clean` says whether the last level is free.
        sampler: one that draws no noise.
        steps: number of steps of the grid.
        population: candidates at a time, five or more.
        generations: times `population`, the evaluations.
        seed: any whole number; the same seed finds the same levels.
        tick: see `Tick`.

    Returns:
        What was found, and the best of the usual to compare it with.

    Raises:
        ValueError: numbers out of range, a single step whose two levels are both fixed, or a
            random sampler.
    """
    budget = check(objective, steps, population, generations, seed)
    rng = np.random.default_rng(seed)
    if sampler.random:
        raise ValueError(
            f"sampler '{sampler.name}' draws noise and follows no trajectory that a search could "
            "hold it against; choose one that does not, such as ddim."
        )
    places = Places.of(objective, steps)
    trials = Trials(objective, tick)
    usual: dict[str, Candidate] = {k: (sampler, v) for k, v in usual_levels(places).items()}
    scored = sorted(usual.values(), key=lambda one: trials(*one))

    def score(vector: Vector) -> float:
        return trials(sampler, places.levels(vector))

    first = np.array([places.vector(levels) for _, levels in scored])
    differential_evolution(
        score,
        [(0, 1)] * places.size,
        init=mutated(first, population, rng),
        maxiter=2 * generations,
        tol=0,
        polish=False,
        seed=rng,  # pyright: ignore[reportCallIssue]  # rng since SciPy 1.15, which knows both
        callback=lambda _, convergence=0.0: len(trials.history) >= EVOLUTION * budget,
    )
    finish(trials, places, budget)
    return trials.searched(usual)


def usual_levels(places: Places) -> dict[str, tuple[float, ...]]:
    """Levels of the usual grids by name; with several ends where the end is free."""
    ends = [places.low * factor for factor in (ENDS if places.free else (1.0,))]
    found = {}
    for name, (kind, schedule) in USUAL.items():
        for low in (end for end in ends if end < places.high / 2):
            unit = places.unit
            grid = grids.GRIDS[kind](schedule, places.steps, places.high / unit, low / unit)
            inner = [point.level * unit for point in grid.points[1:-1]]
            found[f"{name} to {low:.3g}"] = (places.high, *inner, low)
    return found


def mutated(vectors: Vector, count: int, rng: np.random.Generator) -> Vector:
    """First population: up to half of it the best vectors given, the rest mutants of those."""
    kept = vectors[: max(1, count // 2)]
    parents = kept[np.arange(count - len(kept)) % len(kept)]
    return np.concatenate([kept, parents + JITTER * rng.standard_normal(parents.shape)]).clip(0, 1)


def finish(trials: Trials, places: Places, budget: int) -> None:
    """Spend what is left of the evaluations on a simplex around the best levels."""
    if trials.best is None or (left := budget - len(trials.history)) <= places.size:
        return
    sampler, levels = trials.best
    minimize(
        lambda vector: trials(sampler, places.levels(vector)),
        places.vector(levels),
        method="Nelder-Mead",
        bounds=[(0, 1)] * places.size,
        options={"maxfev": left, "xatol": 1e-4, "fatol": 0},
    )


def check(objective: Objective, steps: int, population: int, generations: int, seed: int) -> int:
    """Check a search's numbers and return the evaluations that it may use.

    Raises:
        ValueError: see `search_levels`.
    """
    least = 1 if objective.clean else 2
    whole("steps", steps, low=least, do="with fewer there is nothing to search")
    whole("population", population, low=5, do="evolution combines several candidates")
    whole("generations", generations, low=1, do="choose more")
    whole("seed", seed, low=0, do="choose another")
    return population * generations
