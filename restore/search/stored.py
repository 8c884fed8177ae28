"""What a search found, as a small file that people can read.

A sampler with the noise levels that were found for it, how far it is from the truth and from the
best usual grid, and where it comes from. `load` refuses a damaged file and levels that a prior does
not know.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from priors.denoiser import Card
from priors.schedules import EDM, Schedule
from restore.files import atomic
from restore.samplers import available, named
from restore.samplers import grid as grids
from restore.samplers.grid import Grid
from restore.samplers.sampler import Sampler
from restore.samplers.solver_schedule import Rule, SolverSchedule

KIND = "restore sampler, searched"


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A sampler and the noise levels found for it.

    Attributes:
        sampler: a `SolverSchedule`, or one of `restore.samplers.available()`.
        levels: noise levels of its grid, falling, in units of the images.
        score: root-mean-square error on the starts of the search.
        held_out: the same on other starts, nan when not measured.
        baseline: the best of the usual grids, in words.
        baseline_score: its error on the starts of the search.
        baseline_held_out: its error on the others.
        objective: `exact` or `paired`; see `objectives`.
        evaluations: candidates scored.
        about: prior, image size, seed and whatever else tells where it comes from.
    """

    sampler: Sampler
    levels: tuple[float, ...]
    score: float
    held_out: float = math.nan
    baseline: str = ""
    baseline_score: float = math.nan
    baseline_held_out: float = math.nan
    objective: str = ""
    evaluations: int = 0
    about: Mapping[str, object] = field(default_factory=dict)

    @property
    def compared(self) -> tuple[float, float]:
        """Its error and the baseline's: on held-out starts where measured."""
        if math.isnan(self.held_out):
            return self.score, self.baseline_score
        return self.held_out, self.baseline_held_out

    @property
    def gain(self) -> float:
        """How many times smaller its error is than the baseline's."""
        ours, usual = self.compared
        return usual / ours if ours > 0 else math.inf

    @property
    def calls(self) -> int:
        """Network calls, the final denoising included."""
        return self.sampler.calls(len(self.levels) - 1) + 1

    def __str__(self) -> str:
        """One sentence on what was gained."""
        levels = ", ".join(f"{level:.3g}" for level in self.levels)
        ours, usual = self.compared
        where = "" if math.isnan(self.held_out) else " on starts that the search did not see"
        verdict = (
            f"{self.gain:.2f} times less than the {usual:.4g} of {self.baseline}"
            if self.gain > 1
            else f"no less than the {usual:.4g} of {self.baseline}: search on more starts"
        )
        return f"{self.calls} calls at levels {levels}: error {ours:.4g}{where}, {verdict}."

    def grid(self, schedule: Schedule | None = None) -> Grid:
        """The levels on a schedule, noise levels themselves by default."""
        return grids.from_levels(schedule or EDM(), self.levels)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; not a number becomes None."""
        plain = {name: value for name, value in vars(self).items() if name != "sampler"}
        plain = {k: None if v != v else v for k, v in plain.items()}
        rules = self.sampler.rules if isinstance(self.sampler, SolverSchedule) else ()
        return {
            "kind": KIND,
            "sampler": _name(self.sampler),
            "calls": self.calls,
            **plain,
            "levels": list(self.levels),
            "rules": [asdict(rule) for rule in rules],
            "about": dict(self.about),
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write as JSON, atomically; see `restore.files.atomic` for refusals."""
        with atomic(path, overwrite=overwrite) as partial:
            partial.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, card: Card | None = None) -> "Searched":
        """Read back.

        Args:
            path: a file of `save`.
            card: of the prior that is to be sampled.

        Raises:
            ValueError: damaged, not such a file, or with levels outside the card's `sigma_range`.
            FileNotFoundError: no such file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file '{path}'; make one with `restore search`.")
        try:
            found = cls._read(json.loads(Path(path).read_text(encoding="utf-8")))
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{Path(path).name}' is not a searched sampler ({_words(error)}); copy it again "
                "or make one with `restore search`."
            ) from error
        if card is not None:
            found.check(card)
        return found

    def check(self, card: Card) -> None:
        """Refuse a prior that does not know these noise levels.

        Raises:
            ValueError: levels outside the card's `sigma_range`.
        """
        low, high = card.sigma_range
        if not low <= self.levels[-1] <= self.levels[0] <= high:
            raise ValueError(
                f"the searched levels run from {self.levels[0]:g} to {self.levels[-1]:g} and prior "
                f"'{card.name}' knows {low:g} to {high:g}; search again for this prior."
            )

    @classmethod
    def _read(cls, plain: dict[str, Any]) -> "Searched":
        if not isinstance(plain, dict) or plain.get("kind") != KIND:
            raise ValueError(f"its kind is not '{KIND}'")
        rules = tuple(Rule(**rule) for rule in plain["rules"])
        sampler = SolverSchedule(rules=rules) if rules else named(plain["sampler"])
        levels = tuple(float(level) for level in plain["levels"])
        if not len(levels) > 1 or not all(0 < b < a < math.inf for a, b in pairwise(levels)):
            raise ValueError("its levels do not fall")
        if rules and len(rules) != len(levels) - 1:
            raise ValueError(f"it has {len(rules)} rules for {len(levels) - 1} steps")
        return cls(
            sampler=sampler,
            levels=levels,
            score=_number(plain["score"]),
            held_out=_number(plain["held_out"]),
            baseline=str(plain["baseline"]),
            baseline_score=_number(plain["baseline_score"]),
            baseline_held_out=_number(plain["baseline_held_out"]),
            objective=str(plain["objective"]),
            evaluations=int(plain["evaluations"]),
            about=dict(plain["about"]),
        )


def load(
    path: str | Path, sampler: str | None = None, card: Card | None = None
) -> tuple[Sampler, Grid]:
    """Read the sampler and the grid of a file.

    Args:
        path: a file of `Searched.save`.
        sampler: a name, to walk the levels with another sampler than they were found for.
        card: of the prior that is to be sampled.

    Raises:
        ValueError: see `Searched.load`; or another sampler is wanted for a solver schedule.
        FileNotFoundError: no such file.
    """
    found = Searched.load(path, card)
    if sampler is None:
        return found.sampler, found.grid()
    if isinstance(found.sampler, SolverSchedule):
        raise ValueError(
            f"'{Path(path).name}' holds the rules of its own sampler, found '{sampler}' besides; "
            "leave the sampler out."
        )
    return named(sampler), found.grid()


def _name(sampler: Sampler) -> str:
    """The word that brings a sampler back.

    Raises:
        ValueError: when there is none.
    """
    if isinstance(sampler, SolverSchedule):
        return sampler.name
    for name, known in available().items():
        if repr(known) == repr(sampler):
            return name
    raise ValueError(
        f"sampler {sampler} has no name in `restore samplers`, so that a file could not bring it "
        "back; search one of those."
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _words(error: Exception) -> str:
    """What is wrong, without the full stop."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return " ".join(str(error).split()).rstrip(".")
