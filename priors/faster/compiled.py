"""A network compiled for one image size: `torch.compile` with frozen weights.

Layers are fused with the activations and additions that follow, and the weights reordered and, in
bfloat16, rounded once instead of in every call. Noise levels are a tensor, so one graph serves all;
another image size, dtype or memory layout would need another, so the layout is made uniform first.

Frozen weights have no backward pass. When a derivative is asked for, the network itself is called:
derivatives are right and nothing is gained there. Changes of the weights after the first call are
not seen.
"""

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from priors.denoiser import Denoiser
from priors.faster.inside import on_network


def compiled(prior: Denoiser, *, backend: str | Callable[..., Any] = "inductor") -> Denoiser:
    """Compile the network at its first call, which takes seconds.

    Args:
        prior: left as it is; weights are shared. Put bfloat16 inside: `compiled(bfloat16(prior))`.
        backend: of `torch.compile`.

    Raises:
        ValueError: no C++ compiler, or the network keeps features between calls.
    """
    if backend == "inductor" and not has_compiler():
        raise ValueError(
            "torch.compile needs a C++ compiler and none was found; install g++ or clang, name one "
            "in the environment variable CXX, or leave the network uncompiled."
        )
    if "deep-cache" in (prior.card.extra.get("faster") or ()):  # type: ignore[operator]
        raise ValueError(
            "a network that keeps features between calls cannot be compiled; choose one of the two."
        )
    return on_network(prior, "compiled", lambda network: _Compiled(network, backend))


def has_compiler() -> bool:
    """Whether a C++ compiler is installed."""
    named = os.environ.get("CXX")
    return any(shutil.which(word) for word in (named, "g++", "clang++", "cl") if word)


class _Compiled(nn.Module):
    def __init__(self, network: nn.Module, backend: str | Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        options: Any = {"freezing": True} if backend == "inductor" else None
        self.fast = torch.compile(network, backend=backend, dynamic=False, options=options)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self._derives(x):
            return self.network(x, *args, **kwargs)
        with torch.no_grad():
            return self.fast(x.contiguous(), *args, **kwargs)

    def _derives(self, x: Tensor) -> bool:
        """Whether a derivative will be asked for, in reverse or in forward mode."""
        if is_functorch_wrapped_tensor(x):
            return True
        needed = x.requires_grad or any(p.requires_grad for p in self.network.parameters())
        return torch.is_grad_enabled() and needed
