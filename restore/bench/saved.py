"""Bytes that automatic differentiation keeps for the gradient."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Saved:
    """What was kept.

    Attributes:
        forward: bytes held when the forward pass was done.
        peak: most bytes held at any time, recomputation in the backward pass included.
    """

    forward: int = 0
    peak: int = 0


class _Held:
    """One tensor, held until the graph lets it go."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_bytes(forward: Callable[[], Tensor], kept: set[int] | None = None) -> Saved:
    """Run `forward` and its gradient, and count.

    Args:
        forward: returns one number to differentiate.
        kept: addresses of storages that live anyway, as weights do; not counted.

    Returns:
        The bytes; a storage that is saved twice counts once.
    """
    found, held, bytes_now = Saved(), dict[int, int](), 0

    def let_go(where: int, size: int) -> None:
        nonlocal bytes_now
        held[where] -= 1
        if not held[where]:
            bytes_now -= size

    def pack(tensor: Tensor) -> Any:
        nonlocal bytes_now
        storage = tensor.untyped_storage()
        where, size = storage.data_ptr(), storage.nbytes()
        box = _Held(tensor)
        if kept is None or where not in kept:
            held[where] = held.get(where, 0) + 1
            bytes_now += size * (held[where] == 1)
            found.peak = max(found.peak, bytes_now)
            weakref.finalize(box, let_go, where, size)
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        value = forward()
        found.forward = bytes_now
        value.backward()
    return found
