"""Any sampler under a solver: guidance that enters through the denoiser, or moves the image.

A solver that knows `D_y(x, s) = E[x_0 | x_s = x, y]`, or something like it, has an ordinary
denoiser: `walk` drives it with every sampler of the table. A solver that moves the image between
two steps, which no multistep history survives, takes one `step` at a time of a sampler without
memory; `walk_moving` is the case of a plain displacement.

Walks go from the first of n times to the last and denoise there: n estimates, the last of them
clean. Times are noise levels unless a schedule says otherwise.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from priors.schedules import EDM, Schedule
from restore.samplers import available, named
from restore.samplers.adaptive import Adaptive
from restore.samplers.grid import Grid
from restore.samplers.sampler import Denoise, Noise, Path, Sampler
from restore.samplers.time_shift import TimeShift

Guide = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""State `y` and noise level `s` -> `D(y, s)`, and where the solver moves it."""


def suited(name: str, solver: str, *, moves: bool = False) -> Sampler:
    """Return the sampler of a name, if it can drive a solver.

    Args:
        name: a word of `restore.samplers.available`.
        solver: the solver's name, for the refusal.
        moves: whether the solver moves the image between two steps.

    Raises:
        ValueError: unknown name, a sampler that chooses its own steps, or one with memory where
            the image is moved; the sentence names one that can.
    """
    sampler = named(name)
    if (reason := _unfit(sampler, moves)) is not None:
        fit = (n for n, s in available().items() if _unfit(s, moves) is None and s.order == "2")
        raise ValueError(
            f"solver '{solver}' cannot use sampler '{name}', which {reason}; use "
            f"{next(fit, 'ddim')}."
        )
    return sampler


def _unfit(sampler: Sampler, moves: bool) -> str | None:
    if isinstance(sampler, Adaptive):
        return "chooses its steps image by image, in a number not known before"
    if isinstance(sampler, TimeShift):
        return "judges images by their variance, which the measurement changes as well"
    if moves and sampler.memory:
        return "remembers steps that no longer fit once the solver has moved the image"
    return None


def walk(
    sampler: Sampler,
    denoise: Denoise,
    x: Tensor,
    times: Sequence[float],
    noise: Noise,
    *,
    schedule: Schedule | None = None,
    clean: bool = True,
) -> Iterator[Tensor]:
    """Carry `x` along, guided through the denoiser.

    Args:
        sampler: see `suited`.
        denoise: `D_y(y, s)`.
        x: `(N, C, *spatial)` at the first time, `alpha x_0 + sigma eps`.
        times: n >= 1 times of falling noise.
        noise: of random samplers.
        schedule: of the times.
        clean: end with one more denoising; else with `x` at the last time.

    Yields:
        The latest `D_y` after every step, and the end: n estimates.
    """
    latest = x

    def watched(y: Tensor, s: float) -> Tensor:
        nonlocal latest
        latest = denoise(y, s)
        return latest

    schedule = schedule or EDM()
    if len(times) > 1:
        path = Path(watched, Grid(schedule, tuple(times)), noise)
        for state in sampler.steps(path, x):
            x = state
            yield latest
    yield _last(denoise, x, times[-1], schedule) if clean else x


def walk_moving(
    sampler: Sampler,
    guide: Guide,
    denoise: Denoise,
    x: Tensor,
    times: Sequence[float],
    noise: Noise,
    *,
    schedule: Schedule | None = None,
) -> Iterator[Tensor]:
    """Carry `x` along, moved after every step as far as its clean image was.

    Args:
        sampler: without memory, see `suited`.
        guide: gives `D` and its moved image `E` where a step starts; `x` at its end moves by
            `E - D`, as if the noise in it were not told.
        denoise: the prior, for what a step calls after its start.
        x: `(N, C, *spatial)` at the first time, `alpha x_0 + sigma eps`.
        times: n >= 1 times of falling noise.
        noise: of random samplers.
        schedule: of the times.

    Yields:
        `E` of every time: n estimates.
    """
    schedule = schedule or EDM()
    for start, end in pairwise(times):
        moved: list[Tensor] = []

        def guided(y: Tensor, s: float, moved: list[Tensor] = moved) -> Tensor:
            if moved:
                return denoise(y, s)
            D, E = guide(y, s)
            moved.append(E)
            return D

        x, D = step(sampler, guided, x, start, end, noise, schedule=schedule)
        x = x + (moved[0] - D)
        yield moved[0]
    yield _last(lambda y, s: guide(y, s)[1], x, times[-1], schedule)


def step(
    sampler: Sampler,
    denoise: Denoise,
    x: Tensor,
    start: float,
    end: float,
    noise: Noise,
    *,
    schedule: Schedule | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one step of a sampler without memory.

    Returns:
        `x` at time `end`, and `D` where the step started: a sampler's first call.
    """
    found: list[Tensor] = []

    def watched(y: Tensor, s: float) -> Tensor:
        D = denoise(y, s)
        if not found:
            found.append(D)
        return D

    (x,) = sampler.steps(Path(watched, Grid(schedule or EDM(), (start, end)), noise), x)
    return x, found[0]


def _last(denoise: Denoise, x: Tensor, time: float, schedule: Schedule) -> Tensor:
    return denoise(x / float(schedule.alpha(time)), float(schedule.level(time)))
