"""Solver schedules: a rule for every step, and one engine that obeys them all.

Liu, Ning, Lin, Yang, Wang, *A Unified Sampling Framework for Solver Searching of Diffusion
Probabilistic Models*, ICLR 2024, arXiv:2312.07243, section 4.1 (USF).

    option of USF             name here     meaning
    Taylor order              order         evaluations used, 1 to 4
    prediction type           prediction    which function is expanded in lam: image D or noise eps
    derivative estimation     weights       exact: the polynomial through all evaluations;
                                            low: each derivative from as few of them as possible
    scaling of the terms      weights       midpoint: moments of e^lam replaced by its mean
    single- or multistep      back          points back from the latest at which the step leaves

A step leaves point `a`, `back` before the latest, and uses the evaluation there and the latest
others. That holds most exponential integrators: `ddim`; DPM-Solver-2 and 3 and DPM-Solver++ 2S,
whose inner points are points of the grid to which `back` returns; DPM-Solver++ 2M (`midpoint`);
exponential Adams of either prediction; any mixture of these. One call a step.

On an image that moves as a polynomial in `lam` of lower degree than `order`, `exact` is exact for
that prediction. `low` equals it up to order 2; `low` and `midpoint` converge with order 2 at most.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal, get_args

from torch import Tensor

from operators.validate import one_of, whole
from restore.samplers.grid import Point
from restore.samplers.phi import adams_weights, phi
from restore.samplers.sampler import Path, Sampler, noise_in

Prediction = Literal["data", "noise"]
Weights = Literal["exact", "low", "midpoint"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
HIGHEST = 4


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one step is taken; see the module's docstring.

    Raises:
        ValueError: outside the table there.
    """

    order: int = 1
    prediction: Prediction = "data"
    weights: Weights = "exact"
    back: int = 0

    def __post_init__(self) -> None:
        whole("order", self.order, low=1, high=HIGHEST, do="choose within")
        whole("back", self.back, low=0, high=HIGHEST - 1, do="choose within")
        one_of("prediction", self.prediction, PREDICTIONS)
        one_of("weights", self.weights, WEIGHTS)

    @property
    def form(self) -> float:
        """Exponent's sign in the weight of the integral, as in `phi.adams_weights`."""
        return -1.0 if self.prediction == "data" else 1.0


@dataclass(frozen=True, kw_only=True)
class SolverSchedule(Sampler):
    """A rule for every step; see the module's docstring.

    Args:
        rules: one a step. Step `i`, counted from 0, has `i + 1` evaluations to use and can go back
            `i` points.

    Raises:
        ValueError: no rules, or a rule that needs evaluations from before the start.
    """

    name: ClassVar[str] = "schedule"
    paper: ClassVar[str] = "Liu et al. 2024, USF"
    order: ClassVar[str] = "as its rules"
    memory: ClassVar[bool] = True

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        for i, rule in enumerate(self.rules):
            if rule.order > i + 1 or rule.back > i:
                raise ValueError(
                    f"step {i + 1} of a schedule has {i + 1} evaluations and {i} points to go back "
                    f"to, found order {rule.order} and back {rule.back}; lower them."
                )
        if not self.rules:
            raise ValueError("a schedule needs at least one rule, found none; give one a step.")

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Obey the rule of each step.

        Raises:
            ValueError: when the grid has another number of steps.
        """
        if path.grid.steps != len(self.rules):
            raise ValueError(
                f"a schedule of {len(self.rules)} rules needs a grid of as many steps, found "
                f"{path.grid.steps}; use the levels that it was found with."
            )
        states: deque[Tensor] = deque(maxlen=HIGHEST)  # latest first, as both that follow
        images: deque[Tensor] = deque(maxlen=HIGHEST)
        points: deque[Point] = deque(maxlen=HIGHEST)
        for rule, point, end in zip(
            self.rules, path.grid.points, path.grid.points[1:], strict=False
        ):
            points.appendleft(point)
            states.appendleft(x)
            images.appendleft(path.D(x, point))
            others = (j for j in range(len(images)) if j != rule.back)
            used = [rule.back, *islice(others, rule.order - 1)]
            start, leave = points[rule.back], states[rule.back]
            h = end.lam - start.lam
            w = step_weights([points[j].lam - start.lam for j in used], h, rule)
            if rule.prediction == "data":
                mean = sum(wj * images[j] for wj, j in zip(w, used, strict=True))
                x = end.sigma / start.sigma * leave + end.alpha * h * mean
            else:
                eps = [noise_in(states[j], images[j], points[j]) for j in used]
                mean = sum(wj * e for wj, e in zip(w, eps, strict=True))
                x = end.alpha / start.alpha * leave - end.sigma * h * mean
            yield x

    def steps_within(self, calls: int) -> int:
        """Return the number of rules, which is fixed; see `Sampler.steps_within`."""
        if calls < len(self.rules) + 1:
            raise ValueError(
                f"this schedule takes {len(self.rules) + 1} network calls, found {calls}; raise it "
                "or search another."
            )
        return len(self.rules)


def step_weights(nodes: Sequence[float], h: float, rule: Rule) -> list[float]:
    """Weights of evaluations at `nodes` in `lam`, the first of them 0, for a step of length `h`.

    `low` is a Taylor series at the start: its derivative `k` is the divided difference of the first
    `k + 1` nodes.
    """
    if rule.weights == "exact":
        return adams_weights(nodes, h, form=rule.form)
    if rule.weights == "midpoint":
        mean = phi(1, rule.form * h)
        return [mean * w for w in adams_weights(nodes, h, form=0.0)]
    weights = [0.0] * len(nodes)
    for k in range(len(nodes)):
        moment = math.factorial(k) * phi(k + 1, rule.form * h) * h**k
        for j in range(k + 1):
            weights[j] += moment / math.prod(nodes[j] - nodes[i] for i in range(k + 1) if i != j)
    return weights


def uniform_rules(
    steps: int,
    order: int = 1,
    *,
    prediction: Prediction = "data",
    weights: Weights = "exact",
) -> tuple[Rule, ...]:
    """Rules of a multistep method, which starts with the orders that its history allows."""
    return tuple(
        Rule(order=min(order, i + 1), prediction=prediction, weights=weights) for i in range(steps)
    )


def single_rules(
    steps: int, *, prediction: Prediction = "data", weights: Weights = "midpoint"
) -> tuple[Rule, ...]:
    """Rules of a second-order one-step method, a pair of points a step; an odd step ends it."""
    inner = Rule(prediction=prediction)
    outer = Rule(order=2, prediction=prediction, weights=weights, back=1)
    return tuple((inner, outer)[i % 2] for i in range(steps))
