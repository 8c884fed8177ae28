"""Draw images from a prior, with nothing measured: what does it believe in?"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from priors import Denoiser, Gaussian
from priors.schedules import EDM, Schedule
from restore.problem import stream
from restore.samplers import grid as grids
from restore.samplers import named, terminal
from restore.samplers.adaptive import Adaptive
from restore.samplers.grid import Grid
from restore.samplers.sampler import Path, Sampler

DEFAULT_SAMPLER, DEFAULT_GRID, DEFAULT_CALLS = "dpm++-2m", "edm", 30
HIGH, LOW = 40.0, 0.01  # noise levels of the ends, in widths of the prior's range


@dataclass(frozen=True)
class Drawn:
    """Images drawn from a prior.

    Attributes:
        samples: `(count, C, *spatial)` in the prior's units.
        calls: network calls an image.
        seconds: of the whole call.
    """

    samples: Tensor
    calls: int
    seconds: float


def draw(
    prior: Denoiser,
    count: int,
    image_shape: tuple[int, ...],
    *,
    sampler: str | Sampler = DEFAULT_SAMPLER,
    calls: int = DEFAULT_CALLS,
    grid: str | Grid = DEFAULT_GRID,
    schedule: Schedule | None = None,
    seed: int = 0,
    progress: bool | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Drawn:
    """Draw images.

    Args:
        prior: the denoiser.
        count: number of images.
        image_shape: `(C, *spatial)`.
        sampler: a name of `restore.samplers.available()` or a sampler.
        calls: network calls an image, at most; a sampler of unknown cost ignores it.
        grid: a name of `restore.samplers.grid.GRIDS` or a grid of its own, which sets the calls.
        schedule: variables in which the sampler walks; noise levels themselves by default.
        seed: any integer; image i of a seed is the same whatever `count`.
        progress: show a bar; None shows it on a terminal only.
        callback: called with the number of points passed and `x` after every step.

    Returns:
        See `Drawn`.

    Raises:
        ValueError: a shape that does not suit the prior, an unknown name, too few calls.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1 image.")
    if (reason := prior.refuse((1, *image_shape))) is not None:
        raise ValueError(reason)
    chosen = named(sampler) if isinstance(sampler, str) else sampler
    walk = grid if isinstance(grid, Grid) else _grid(prior, chosen, calls, grid, schedule)
    streams, dtype = [stream(int(seed), i) for i in range(count)], torch.float32
    if prior.card.exact:
        dtype = torch.float64

    def noise(like: Tensor) -> Tensor:
        draws = [torch.randn(like.shape[1:], generator=g, dtype=torch.float64) for g in streams]
        return torch.stack(draws).to(like)

    like = torch.zeros((count, *image_shape), dtype=dtype, device=_device(prior))
    x = terminal.start(_moments(prior, image_shape), walk[0], noise(like))
    path, started = Path(prior, walk, noise), time.perf_counter()
    with (
        torch.no_grad(),
        tqdm(
            total=walk.steps, desc="draw", disable=None if progress is None else not progress
        ) as bar,
    ):
        for i, step in enumerate(chosen.steps(path, x)):
            x = step
            bar.update()
            if callback is not None:
                callback(i + 1, x)
        x = path.D(x, walk[-1])
    seconds, calls = time.perf_counter() - started, path.calls
    if isinstance(chosen, Adaptive):  # it walks image by image
        calls = round((calls - 1) / count) + 1
    return Drawn(x, calls, seconds)


def _moments(prior: Denoiser, image_shape: tuple[int, ...]) -> Gaussian:
    """Mean and covariance of the prior's images; of its range where it does not know them."""
    try:
        return terminal.moments(prior, image_shape)
    except ValueError:
        low, high = prior.card.value_range
        return terminal.white(image_shape, (low + high) / 2, (high - low) / 4)


def _device(prior: Denoiser) -> torch.device:
    tensors = itertools.chain(prior.parameters(), prior.buffers())
    return next((t.device for t in tensors), torch.device("cpu"))


def _grid(
    prior: Denoiser, sampler: Sampler, calls: int, name: str, schedule: Schedule | None
) -> Grid:
    """Grid of a name over the noise levels that a drawing needs and the prior knows."""
    low, high = prior.card.value_range
    width = high - low
    known_low, known_high = prior.card.sigma_range
    ends = min(HIGH * width, known_high), max(LOW * width, known_low)
    try:
        steps = sampler.steps_within(calls)
    except ValueError:
        if not isinstance(sampler, Adaptive):
            raise
        steps = 1  # it finds its own way between the ends
    return grids.build(name, schedule or EDM(), steps, *ends)
