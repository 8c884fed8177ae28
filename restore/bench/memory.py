"""What an unrolled network keeps for its gradient, with and without each level of invertibility.

    everything         automatic differentiation
    steps              nothing of the sampler's steps; each is computed once more
    steps and blocks   nothing of the network's stages either

`kept` is held when the forward pass is done, `peak` the most at any time, what is computed once
more included. Both are bytes of tensors saved for the gradient, which do not depend on the machine;
weights, optimiser and the image itself are left out. Time is that of forward and backward pass over
that of "everything" with as many steps, in the same run.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import torch

import operators
from restore.bench.saved import saved_bytes
from restore.trained.normal import Normal
from restore.trained.training import SIZES
from restore.trained.unrolled import Form, Keep, Unrolled

_REPEATS = 3


@dataclass(frozen=True)
class Row:
    """One number of steps and one choice; see the module's docstring."""

    steps: int
    keep: str
    kept: int
    peak: int
    time: float

    def cells(self) -> dict[str, str]:
        """Return what the table shows."""
        return {
            "T": str(self.steps),
            "keep": self.keep,
            "kept, MB": f"{self.kept / 1e6:.1f}",
            "peak, MB": f"{self.peak / 1e6:.1f}",
            "time": f"{self.time:.2f}",
        }


def run(
    steps: Sequence[int] = (1, 2, 3, 4, 6),
    *,
    form: Form = "ddim",
    side: int = 64,
    batch: int = 4,
    size: str = "medium",
) -> Iterator[Row]:
    """Measure.

    Args:
        steps: T.
        form: of the steps.
        side: of the images, pixels.
        batch: images.
        size: of the network, a word of `restore.trained.training.SIZES`.
    """
    operator = operators.parse("cs:ratio=0.25,kind=scrambled", (1, side, side))
    x = torch.rand((batch, 1, side, side), generator=torch.Generator().manual_seed(0))
    normal = Normal(operator, operator.A(x), (1, side, side))
    for count in steps:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = Unrolled.of(1, *SIZES[size], count, form=form)
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        plain = 0.0
        for what in get_args(Keep):
            network.keep(what)
            saved = saved_bytes(lambda: (network(normal) - x).abs().mean(), weights)  # noqa: B023
            seconds = min(_seconds(network, normal, x) for _ in range(_REPEATS))
            plain = plain or seconds
            yield Row(count, what, saved.forward, saved.peak, seconds / plain)


def _seconds(network: Unrolled, normal: Normal, x: torch.Tensor) -> float:
    started = time.perf_counter()
    (network(normal) - x).abs().mean().backward()
    return time.perf_counter() - started
