"""A number of processor threads for the network alone.

Threads meet at a barrier after every layer and, with GNU OpenMP's default, wait there spinning.
That is best where cores are idle. Where other processes want them, the thread that waits burns its
turn while the one it waits for gets none: with 12 busy processes on two cores, a call of 0.02
seconds of work in two threads was measured at 0.5 processor seconds and 4 seconds of wall time,
against 0.2 in one thread. The shorter the layers the worse, so that bfloat16 suffers most.

One thread has no barrier. `OMP_WAIT_POLICY=passive`, set in the environment before torch is
imported, makes threads sleep at barriers and cures it at the root (0.17 seconds in two threads).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from priors.denoiser import Denoiser
from priors.faster.inside import on_network


def threads(prior: Denoiser, count: int) -> Denoiser:
    """Run the network's forward pass on `count` processor threads, everything else on all.

    A backward pass is not affected.

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"threads is {count}, expected at least 1; leave it out for all.")
    return on_network(prior, f"threads-{count}", lambda network: _Threads(network, count))


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Compute on `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Threads(nn.Module):
    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with use_threads(self.count):
            return self.network(*args, **kwargs)
