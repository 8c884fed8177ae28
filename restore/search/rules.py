"""Search of a solver: the rule of every step and its noise level together.

After the solver search S^3 of Liu et al. 2024, arXiv:2312.07243, section 4.2: evolution of solver
schedules from those of the field. Here SciPy's differential evolution moves levels (real) and rules
(whole numbers) at once, and a simplex over the levels of the best ends it, as in `search`.

The paper scores with a trained predictor most of the time, because its objective (FID) takes
minutes. Paired errors take as long as a few images; with them a predictor (kernel ridge regression,
rank correlation 0.7) that kept the worse half from being scored changed the result of 300 to 800
evaluations by less than the seed does, and was left out.

The first population is `usual_rules` on the best usual grids, and mutants of those.

Cost: `population * generations` runs of so many steps on all starts, or fewer. Below some 300 the
levels alone, of `adams-2`, gain as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import differential_evolution

from restore.samplers.sampler import Sampler
from restore.samplers.solver_schedule import (
    HIGHEST,
    PREDICTIONS,
    WEIGHTS,
    Rule,
    SolverSchedule,
    single_rules,
    uniform_rules,
)
from restore.search.levels import (
    JITTER,
    Candidate,
    Places,
    Tick,
    Trials,
    Vector,
    check,
    finish,
    usual_levels,
)
from restore.search.objectives import Objective
from restore.search.stored import Searched

GRIDS_TRIED = 4  # best usual grids that all usual rules are tried on
EVOLUTION = 0.6  # share of the evaluations before the simplex
GENES = 4  # whole numbers a rule


def search_solver(
    objective: Objective,
    steps: int,
    *,
    population: int = 40,
    generations: int = 10,
    seed: int = 0,
    tick: Tick | None = None,
) -> tuple[Searched, Candidate]:
    """Search rules and levels of a `SolverSchedule`; one network call a step.

    Args:
        objective: what to make small; `objective.clean` says whether the last level is free.
        steps: number of steps.
        population: candidates at a time, five or more.
        generations: times `population`, the evaluations.
        seed: any whole number; the same seed finds the same solver.
        tick: see `search.Tick`.

    Returns:
        What was found, and the best of the usual to compare it with.

    Raises:
        ValueError: see `search.search_levels`.
    """
    budget = check(objective, steps, population, generations, seed)
    rng = np.random.default_rng(seed)
    genome = Genome(Places.of(objective, steps))
    trials = Trials(objective, tick)
    usual = _usual(genome.places, trials)
    scored = sorted(usual.values(), key=lambda one: trials(*one))
    first = np.array([genome.vector(*one) for one in scored])
    differential_evolution(
        lambda vector: trials(*genome.solver(vector)),
        genome.bounds,
        integrality=genome.whole,
        init=genome.mutated(first, population, rng),
        maxiter=2 * generations,
        tol=0,
        polish=False,
        seed=rng,  # pyright: ignore[reportCallIssue]  # as in `search`
        callback=lambda _, convergence=0.0: len(trials.history) >= EVOLUTION * budget,
    )
    finish(trials, genome.places, budget)
    return trials.searched(usual)


def usual_rules(steps: int) -> dict[str, SolverSchedule]:
    """Solvers of the field that are solver schedules, by name."""
    found = {"ddim": uniform_rules(steps)}
    for order in range(2, min(HIGHEST, steps) + 1):
        for prediction in PREDICTIONS:
            found[f"adams {order} ({prediction})"] = uniform_rules(
                steps, order, prediction=prediction
            )
    if steps > 1:
        found["dpm-solver++ 2m"] = uniform_rules(steps, 2, weights="midpoint")
        found["dpm-solver++ 2s"] = single_rules(steps)
        found["dpm-solver-2"] = single_rules(steps, prediction="noise")
    return {name: SolverSchedule(rules=rules) for name, rules in found.items()}


def _usual(places: Places, trials: Trials) -> dict[str, Candidate]:
    """Usual solvers on the grids that suit DPM-Solver++ 2M, or DDIM for a single step, best."""
    rules, levels = usual_rules(places.steps), usual_levels(places)
    probe = rules.get("dpm-solver++ 2m", rules["ddim"])
    chosen = sorted(levels, key=lambda name: trials(probe, levels[name]))[:GRIDS_TRIED]
    return {
        f"{solver} on {grid}": (sampler, levels[grid])
        for grid in chosen
        for solver, sampler in rules.items()
    }


@dataclass(frozen=True)
class Genome:
    """Vectors and the solvers that they stand for: places, then order, prediction, weights, back.

    Attributes:
        places: of the levels.
    """

    places: Places

    @property
    def bounds(self) -> Sequence[tuple[float, float]]:
        """Smallest and largest value of every number."""
        rules = [
            bound
            for i in range(self.places.steps)
            for bound in (
                (1, min(HIGHEST, i + 1)),
                (0, len(PREDICTIONS) - 1),
                (0, len(WEIGHTS) - 1),
                (0, min(1, i)),
            )
        ]
        return [(0, 1)] * self.places.size + rules

    @property
    def whole(self) -> list[bool]:
        """Which numbers are whole."""
        return [False] * self.places.size + [True] * GENES * self.places.steps

    def solver(self, vector: Vector) -> tuple[SolverSchedule, tuple[float, ...]]:
        """Sampler and levels of a vector; of rules that are the same, the plainest."""
        genes = vector[self.places.size :].round().astype(int).reshape(-1, GENES).tolist()
        rules = []
        for order, prediction, weights, back in genes:
            plain = order == 1 or (order == 2 and WEIGHTS[weights] == "low")
            rules.append(
                Rule(
                    order=order,
                    prediction=PREDICTIONS[0 if order == 1 else prediction],
                    weights="exact" if plain else WEIGHTS[weights],
                    back=back,
                )
            )
        levels = self.places.levels(vector[: self.places.size])
        return SolverSchedule(rules=tuple(rules)), levels

    def vector(self, sampler: Sampler, levels: tuple[float, ...]) -> Vector:
        """Vector of a solver schedule on levels."""
        assert isinstance(sampler, SolverSchedule)
        genes = [
            (r.order, PREDICTIONS.index(r.prediction), WEIGHTS.index(r.weights), r.back)
            for r in sampler.rules
        ]
        return np.concatenate([self.places.vector(levels), np.ravel(genes).astype(float)])

    def mutated(self, vectors: Vector, count: int, rng: np.random.Generator) -> Vector:
        """First population: up to half of it the best vectors given, the rest mutants of those.

        In a mutant every place moves and one number of the rules in eight is drawn anew.
        """
        kept = vectors[: max(1, count // 2)]
        mutants = kept[np.arange(count - len(kept)) % len(kept)].copy()
        low, high = np.array(self.bounds).T
        drawn = np.floor(low + (high - low + 1) * rng.random(mutants.shape)).clip(low, high)
        moved = (mutants + JITTER * rng.standard_normal(mutants.shape)).clip(0, 1)
        anew = rng.random(mutants.shape) < 1 / 8
        mutants = np.where(self.whole, np.where(anew, drawn, mutants), moved)
        return np.concatenate([kept, mutants])
