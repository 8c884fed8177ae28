"""The operator doctor at many sizes: even, odd, oblong, and volumes.

Adjoints that are right at 64x64 and wrong at 63x64 are the commonest defect of published operators.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deepinv.physics import Physics
from tqdm.auto import tqdm

from ..validate import image_size
from .check import Report, check

Make = Callable[[tuple[int, ...]], Physics]

PLANES = ((32, 32), (31, 31), (24, 40), (23, 41), (36, 48), (35, 20), (17, 64), (64, 48))
VOLUMES = ((18, 20, 24), (17, 19, 21), (12, 12, 12))
# colour, grey, complex, spectral: tried in turn until one is accepted
CHANNELS = ((3, 1, 2, 8), (1, 3, 2, 8))


@dataclass(frozen=True)
class Trial:
    """One size.

    Attributes:
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        report: what `check` found, or None when the operator could not be built.
        refusal: the sentence with which the operator was refused at this size, which is no fault.
        error: what else went wrong while it was built, which is one.
    """

    image_shape: tuple[int, ...]
    report: Report | None = None
    refusal: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong at this size."""
        return not self.error and (self.report is None or self.report.ok)

    def __str__(self) -> str:
        if self.report is not None:
            return str(self.report)
        return f"{_size(self)}: {'refused: ' if self.refusal else ''}{self.refusal or self.error}"


@dataclass(frozen=True)
class Sweep:
    """What `sweep` found, size by size.

    Attributes:
        trials: the sizes.
    """

    trials: tuple[Trial, ...]

    @property
    def ok(self) -> bool:
        """Whether some size was accepted and nothing is wrong at any."""
        return any(t.report for t in self.trials) and all(t.ok for t in self.trials)

    @property
    def refusal(self) -> str:
        """Why there is nothing to report, or nothing when there is."""
        if not all(t.refusal for t in self.trials):
            return ""
        if len({t.refusal for t in self.trials}) == 1:
            return self.trials[0].refusal
        # one example of every kind of refusal, whatever its numbers
        kinds = {re.sub(r"\d+", "", t.refusal): t for t in self.trials}
        examples = "; ".join(f"{_size(t)}: {t.refusal.rstrip('.')}" for t in kinds.values())
        return f"none of {len(self.trials)} sizes was accepted, for example {examples}."

    def __str__(self) -> str:
        return "\n".join(map(str, self.trials))


def sweep(
    make: Make,
    shapes: Sequence[Sequence[int]] | None = None,
    *,
    seed: int = 0,
    progress: bool | None = None,
) -> Sweep:
    """Examine an operator at many sizes.

    Args:
        make: builds the operator for an image shape; a `ValueError` means that it rightly refuses
            the size, any other error is a finding.
        shapes: `(C, H, W)` or `(C, D, H, W)` each. By default eight planes, even, odd and oblong,
            and three volumes, each with a number of channels that the operator takes.
        seed: of the random images.
        progress: show a bar; None on a terminal only.

    Returns:
        A `Sweep`: `sweep.ok`, `sweep.trials`, and `str(sweep)` for reading.

    Raises:
        ValueError: a bad shape.
        OSError: the operator needs a file that is not there.
    """
    if shapes is not None:
        asked = [[image_size(shape, dims=(2, 3))] for shape in shapes]
    else:
        sizes = enumerate(PLANES + VOLUMES)
        asked = [[(c, *size) for c in CHANNELS[i % len(CHANNELS)]] for i, size in sizes]
    hidden = None if progress is None else not progress
    bar = tqdm(asked, desc="sizes", disable=hidden, leave=False)
    tried = [_attempts(make, options, seed) for options in bar]
    channels = {attempts[-1].image_shape[0] for attempts in tried if not attempts[-1].refusal}
    return Sweep(tuple(_telling(attempts, channels) for attempts in tried))


def _size(trial: Trial) -> str:
    return "x".join(map(str, trial.image_shape))


def _attempts(make: Make, shapes: Sequence[tuple[int, ...]], seed: int) -> list[Trial]:
    """Trials up to the first that is not refused."""
    trials: list[Trial] = []
    for shape in shapes:
        trials.append(_try(make, shape, seed))
        if not trials[-1].refusal:
            break
    return trials


def _telling(attempts: list[Trial], channels: set[int]) -> Trial:
    """The one that was not refused, or the refusal that is not about the channels."""
    if not attempts[-1].refusal:
        return attempts[-1]
    return next((t for t in attempts if t.image_shape[0] in channels), attempts[0])


def _try(make: Make, shape: tuple[int, ...], seed: int) -> Trial:
    try:
        physics = make(shape)
    except ValueError as error:
        return Trial(shape, refusal=" ".join(str(error).split()) or "without a word.")
    except OSError:  # a missing file is missing at every size
        raise
    except Exception as error:  # the user's function may raise anything
        words = " ".join(str(error).split())
        return Trial(shape, error=f"cannot be built: {type(error).__name__}: {words}")
    if not isinstance(physics, Physics):
        raise TypeError(
            f"the operator is of type {type(physics).__name__}, expected a deepinv Physics; return "
            "one, for example deepinv.physics.LinearPhysics(A=..., A_adjoint=...)."
        )
    return Trial(shape, report=check(physics, shape, seed=seed))
