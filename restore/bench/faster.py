"""What cheaper calls of a network gain and what they cost.

Every wrapper of `priors.faster`, and those that go together, against the plain float32 prior on one
photograph. Rounds call all of them in turn, so that other load meets all alike; ratios are medians
over rounds. Of threads that wait at barriers the wall time says more, of a busy machine the
processor time. A wrapper that keeps features is called twice a round, first at a higher level.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from priors import Denoiser
from priors.faster import bfloat16, channels_last, compiled, deep_cache, int8, threads
from priors.faster.calibrate import LEVELS
from priors.faster.compiled import has_compiler
from priors.faster.int8 import has_int8

Wrapper = Callable[[Denoiser], Denoiser]

PLAIN = "plain float32"
_BEFORE = 1.25  # level of the call before, over the level


@dataclass(frozen=True)
class Row:
    """One way to call the network.

    Attributes:
        name: of the wrapper or wrappers.
        first: seconds of the first call.
        seconds: a call, median.
        ratio: wall time of a plain call over this one's.
        processor: the same for processor time, summed over threads.
        derivative: the same for the wall time of a call with one vector-Jacobian product; NaN where
            it is refused.
        losses: dB of PSNR below plain, one a noise level.
    """

    name: str
    first: float
    seconds: float
    ratio: float
    processor: float
    derivative: float
    losses: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return asdict(self)


def wrappers() -> dict[str, Wrapper]:
    """Name -> everything that this machine can run."""
    found: dict[str, Wrapper] = {
        PLAIN: lambda prior: prior,
        "channels-last": channels_last,
        "bfloat16 throughout": lambda prior: bfloat16(prior, edges=False),
        "bfloat16": bfloat16,
        "deep-cache": deep_cache,
        "bfloat16 + deep-cache": lambda prior: deep_cache(bfloat16(prior)),
    }
    if has_int8():
        found["int8"] = int8
    if torch.get_num_threads() > 1:
        found["one thread"] = lambda prior: threads(prior, 1)
        found["bfloat16 + one thread"] = lambda prior: threads(bfloat16(prior), 1)
    if has_compiler():
        found["compiled"] = compiled
        found["bfloat16 + compiled"] = lambda prior: compiled(bfloat16(prior))
    return found


def photograph(channels: int, size: int) -> Tensor:
    """scikit-image's astronaut `(1, C, size, size)` in [0, 1], continued by reflection above 512.

    Raises:
        ValueError: not 1 or 3 channels, or a size above 1023.
    """
    from skimage import data

    if channels not in (1, 3) or not 8 <= size <= 1023:
        raise ValueError(
            f"the photograph has 1 or 3 channels and 8 to 1023 pixels a side, asked for {channels} "
            f"and {size}; take others."
        )
    x = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    x = x if channels == 3 else x.mean(1, keepdim=True)
    more = max(0, size - 512)
    return F.pad(x, (0, more, 0, more), mode="reflect")[..., :size, :size].contiguous()


def run(
    prior: Denoiser,
    clean: Tensor,
    *,
    rounds: int = 10,
    levels: tuple[float, ...] = LEVELS,
    known: dict[str, Wrapper] | None = None,
) -> Iterator[Row]:
    """Measure.

    Args:
        prior: plain, in float32.
        clean: image `(1, C, H, W)` in the prior's range.
        rounds: calls of each.
        levels: noise levels of the losses, in widths of the prior's range; the middle one is timed.
        known: name -> wrapper, the plain one first; by default `wrappers()`.

    Yields:
        One `Row` a wrapper, when all have been measured.

    Raises:
        ValueError: the prior does not take this image.
    """
    if (refusal := prior.refuse(tuple(clean.shape))) is not None:
        raise ValueError(refusal)
    width = prior.card.value_range[1] - prior.card.value_range[0]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
    s = levels[len(levels) // 2] * width
    x = clean + s * noise
    wraps = wrappers() if known is None else known
    calls = {name: wrap(prior) for name, wrap in wraps.items()}
    first = {name: _timed(lambda one=one: _two(one, x, s))[0] for name, one in calls.items()}
    errors = {
        name: [_error(one, clean, noise, level * width) for level in levels]
        for name, one in calls.items()
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    slopes: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, one in calls.items():
            used = _timed(lambda one=one: _two(one, x, s))
            slope = _with_derivative(one, x, s)
            if turn:  # the first derivative is slow
                spent[name].append(used)
                slopes[name].append(slope)
    plain = next(iter(calls))
    for name in calls:
        yield Row(
            name=name,
            first=first[name],
            seconds=statistics.median(wall for wall, _ in spent[name]) / 2,
            ratio=_ratio([w for w, _ in spent[plain]], [w for w, _ in spent[name]]),
            processor=_ratio([p for _, p in spent[plain]], [p for _, p in spent[name]]),
            derivative=_ratio(slopes[plain], slopes[name]),
            losses=tuple(a - b for a, b in zip(errors[name], errors[plain], strict=True)),
        )


def circumstances() -> str:
    """Return what the numbers depend on beside the network."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    waiting = os.environ.get("OMP_WAIT_POLICY", "default")
    return (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, wait policy {waiting}, "
        f"load average {load:.1f} on {os.cpu_count()} cores"
    )


def _two(prior: Denoiser, x: Tensor, s: float) -> Tensor:
    """Two calls: where features are kept, one that makes them and one that uses them."""
    with torch.no_grad():
        prior(x, _BEFORE * s)
        return prior(x, s)


def _error(prior: Denoiser, clean: Tensor, noise: Tensor, s: float) -> float:
    """Mean squared error of a second call, in dB."""
    with torch.no_grad():
        prior(clean + _BEFORE * s * noise, _BEFORE * s)
        square = (prior(clean + s * noise, s) - clean).double().square().mean()
    return float(10 * square.clamp_min(1e-30).log10())


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def _with_derivative(prior: Denoiser, x: Tensor, s: float) -> float:
    x = x.detach().requires_grad_()
    began = time.perf_counter()
    try:
        denoised = prior(x, s)
    except ValueError:  # refused
        return float("nan")
    torch.autograd.grad(denoised, x, x.detach())
    return time.perf_counter() - began


def _ratio(plain: list[float], own: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(plain, own, strict=True))
