"""Which way of calling a network is fastest here, on this image size, at no visible loss.

Every candidate denoises the same noisy image as the plain float32 prior. Two things are measured:

    loss     dB of PSNR that the candidate is below the plain prior, the worst over noise levels
             (its rounding errors hide in the noise of high levels and show at low ones)
    ratio    time of a plain call over time of the candidate's, the median over rounds; a round
             calls every candidate once, so that other load on the machine meets all alike

Chosen is the largest ratio among candidates within tolerance. Differences below `GAIN` are noise:
they go to the candidate that stands first, the plain prior before all.
"""

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from priors.denoiser import Denoiser
from priors.faster.bfloat16 import bfloat16
from priors.faster.compiled import compiled, has_compiler
from priors.faster.layout import channels_last, is_channels_last
from priors.faster.leaves import leaves
from priors.faster.threads import threads, use_threads

log = logging.getLogger("restore")

Wrapper = Callable[[Denoiser], Denoiser]

_WORDS: dict[str, Wrapper] = {
    "channels-last": channels_last,
    "bfloat16": bfloat16,
    "compiled": compiled,
    "one thread": lambda prior: threads(prior, 1),
}
PLAIN = "plain"
LEVELS = (0.002, 0.01, 0.05, 0.2, 0.8)  # in widths of the prior's range
GAIN = 1.05
COMPILING = 15.0  # seconds, on a cold cache
SAVED = 0.15  # share of a call that compiling saves, at least


class Row(NamedTuple):
    """One candidate.

    Attributes:
        name: words joined by " + ".
        seconds: a call, median.
        ratio: time of a plain call over this.
        loss_db: PSNR below the plain prior at the worst noise level; negative when above.
        note: "chosen", or why it is out.
    """

    name: str
    seconds: float
    ratio: float
    loss_db: float
    note: str = ""


@dataclass(frozen=True)
class Choice:
    """What `fastest` found.

    Attributes:
        prior: the prior to use.
        rows: every candidate that was measured, the plain prior first.
    """

    prior: Denoiser
    rows: tuple[Row, ...]

    @property
    def chosen(self) -> Row:
        """The row of `prior`."""
        return next(row for row in self.rows if row.note == "chosen")

    def as_dict(self) -> dict[str, object]:
        """Return plain values, for a record of how an image was made."""
        return {**_plain(self.chosen), "tried": [_plain(row) for row in self.rows]}


def fastest(
    prior: Denoiser,
    image_shape: Sequence[int],
    *,
    tolerance_db: float = 0.05,
    calls: int | None = None,
    derivatives: bool = False,
    budget: float = 20.0,
    rounds: int = 5,
    image: Tensor | None = None,
    levels: Sequence[float] = LEVELS,
    candidates: Mapping[str, Wrapper] | None = None,
    device: str | torch.device = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Measure the candidates and return the prior as the fastest of them calls it.

    Args:
        prior: loaded, in float32.
        image_shape: `(C, *spatial)` of the images to come.
        tolerance_db: loss of PSNR that is accepted, at the worst of the levels.
        calls: calls on one image that are to come; compiling is tried only if they pay for it, and
            not at all when this is None.
        derivatives: time a call with one vector-Jacobian product, as solvers need that take them.
        budget: seconds after half of which no further candidate, and after which no further round
            is begun; the first candidate and one round are measured in any case.
        rounds: at most.
        image: clean image `(1, C, *spatial)` to lose decibels on; by default a synthetic one.
        levels: noise levels in widths of the prior's range.
        candidates: name -> wrapper; by default those of `candidates_for`.
        device: where to measure.
        clock: returns seconds.

    Returns:
        The choice and the measurements behind it.

    Raises:
        ValueError: the prior does not take these images, or an impossible number.
    """
    shape = (1, *image_shape)
    if (refusal := prior.refuse(shape)) is not None:
        raise ValueError(refusal)
    if tolerance_db < 0 or rounds < 1 or not levels:
        raise ValueError(
            f"calibration needs tolerance_db >= 0, rounds >= 1 and noise levels, found "
            f"{tolerance_db}, {rounds} and {len(levels)}; correct these."
        )
    began = clock()
    prior = prior.to(device)
    low, high = prior.card.value_range
    clean = (leaves(shape, low, high) if image is None else image).to(device)
    trial = _Trial(clean, [(high - low) * s for s in levels], derivatives, clock)
    known = {PLAIN: prior}
    losses, notes = {PLAIN: 0.0}, {PLAIN: ""}
    count, seconds = trial.best_threads(prior)
    with use_threads(count):
        plain = trial.errors(prior)
    if candidates is None:
        candidates = candidates_for(
            prior,
            pays=calls is not None and calls * seconds * SAVED > COMPILING,
            derivatives=derivatives,
            one_thread=count < torch.get_num_threads(),
        )
    for name, wrap in candidates.items():
        if len(notes) > 1 and clock() - began > budget / 2:
            notes[name] = "not tried: out of time"
            continue
        try:
            known[name] = wrap(prior)
            errors = trial.errors(known[name])
            trial.time(known[name])  # a first call is slow, a first derivative too
            losses[name] = max(own - best for own, best in zip(errors, plain, strict=True))
        except (ValueError, RuntimeError, NotImplementedError) as error:
            known.pop(name, None)
            notes[name] = f"failed: {str(error).splitlines()[0]}"
            continue
        within = losses[name] <= tolerance_db
        notes[name] = "" if within else f"loses more than {tolerance_db:g} dB"
    times: dict[str, list[float]] = {name: [] for name in known}
    for turn in range(rounds):
        if turn and clock() - began > budget:
            break
        for name, one in known.items():
            times[name].append(trial.time(one))
    rows = [_row(name, times, losses, note) for name, note in notes.items()]
    best = _best([row for row in rows if not row.note])
    rows = tuple(row._replace(note="chosen") if row is best else row for row in rows)
    log.info(
        "network called as '%s': %.2f times as fast as plain, %.3f dB lost",
        best.name,
        best.ratio,
        best.loss_db,
    )
    return Choice(known[best.name], rows)


def candidates_for(
    prior: Denoiser, *, pays: bool, derivatives: bool = False, one_thread: bool = False
) -> dict[str, Wrapper]:
    """Name -> wrapper of what is worth trying; never what refuses derivatives or has a memory.

    Args:
        prior: as `fastest` takes it.
        pays: whether calls to come pay for compiling.
        derivatives: whether calls are followed by a derivative, which nothing compiled or confined
            to threads takes part in.
        one_thread: whether one thread was found faster than all.
    """
    words: list[tuple[str, ...]] = [("bfloat16",)]
    if pays and not derivatives and has_compiler():
        words += [("bfloat16", "compiled"), ("compiled",)]
    if not is_channels_last(prior):
        words = [("channels-last",), *(("channels-last", *more) for more in words)]
    if one_thread and not derivatives:
        words = [("one thread",), *((*more, "one thread") for more in words)]
    return {" + ".join(names): _composed(names) for names in words}


def _composed(names: Sequence[str]) -> Wrapper:
    def wrap(prior: Denoiser) -> Denoiser:
        for name in names:
            prior = _WORDS[name](prior)
        return prior

    return wrap


class _Trial:
    """One noisy image at every level, seen by every candidate alike."""

    def __init__(
        self, clean: Tensor, levels: list[float], derivatives: bool, clock: Callable[[], float]
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        self.clean, self.levels = clean, levels
        self.noisy = [clean + s * noise for s in levels]
        self.derivatives, self.clock = derivatives, clock

    def errors(self, prior: Denoiser) -> list[float]:
        """Mean squared error at every level, in dB."""
        found = []
        with torch.no_grad():
            for x, s in zip(self.noisy, self.levels, strict=True):
                square = (prior(x, s) - self.clean).double().square().mean()
                found.append(float(10 * square.clamp_min(1e-30).log10()))
        return found

    def best_threads(self, prior: Denoiser) -> tuple[int, float]:
        """Number of threads for what is not timed, all or one, and seconds of a call with it.

        On a machine that others use, all may be many times slower than one.
        """
        every = torch.get_num_threads()
        with use_threads(1):
            self.time(prior)
            alone = self.time(prior)
        if every == 1:
            return 1, alone
        together = self.time(prior)
        return (every, together) if together < alone else (1, alone)

    def time(self, prior: Denoiser) -> float:
        """Seconds of one call at the middle level."""
        middle = len(self.levels) // 2
        x, s = self.noisy[middle], self.levels[middle]
        _wait(x)
        began = self.clock()
        with torch.set_grad_enabled(self.derivatives):
            x = x.detach().requires_grad_(self.derivatives)
            denoised = prior(x, s)
            if denoised.requires_grad:
                torch.autograd.grad(denoised, x, self.clean)
        _wait(x)
        return self.clock() - began


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


def _row(
    name: str, times: Mapping[str, list[float]], losses: Mapping[str, float], note: str
) -> Row:
    if name not in times:
        return Row(name, float("nan"), float("nan"), float("nan"), note)
    pairs = zip(times[PLAIN], times[name], strict=True)
    ratio = statistics.median(plain / max(own, 1e-9) for plain, own in pairs)
    return Row(name, statistics.median(times[name]), ratio, losses[name], note)


def _best(rows: Sequence[Row]) -> Row:
    best = rows[0]
    for row in rows[1:]:
        if row.ratio > GAIN * best.ratio:
            best = row
    return best


def _plain(row: Row) -> dict[str, object]:
    """Values that JSON knows: what was not measured is None."""
    numbers = {key: getattr(row, key) for key in ("seconds", "ratio", "loss_db")}
    known = {key: None if value != value else round(value, 5) for key, value in numbers.items()}
    return {"name": row.name, **known, "note": row.note}
