"""Cheaper calls of the same network: wrappers from denoiser to denoiser, and a choice by measuring.

A wrapper leaves its prior as it is and returns one with the same card (and its own name in
`card.extra["faster"]`), in which only the network is called otherwise. They go together, innermost
first: `compiled(bfloat16(channels_last(prior)))`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from priors.denoiser import Denoiser
from priors.faster.bfloat16 import bfloat16
from priors.faster.calibrate import Choice, Row, fastest
from priors.faster.compiled import compiled
from priors.faster.deep_cache import deep_cache
from priors.faster.int8 import int8
from priors.faster.layout import channels_last
from priors.faster.threads import threads


@dataclass(frozen=True)
class Entry:
    """What a user must know of a wrapper.

    Attributes:
        wrap: the wrapper.
        speed: time of a plain call over this, about; the prior "natural" at 512 x 512 on an idle
            processor with 16-bit arithmetic ("channels-last": of a network that is not yet).
        error: what it changes.
        derivatives: whether solvers may take vector-Jacobian products through it.
        description: one sentence.
    """

    wrap: Callable[..., Denoiser]
    speed: str
    error: str
    derivatives: bool
    description: str


def available() -> dict[str, Entry]:
    """Name -> entry of every wrapper."""
    return {
        "channels-last": Entry(
            channels_last, "1.6", "rounding", True, "stores weights as vector units read them"
        ),
        "bfloat16": Entry(
            bfloat16, "2.0", "below 0.02 dB", True, "all but the first and last layer in 16 bits"
        ),
        "compiled": Entry(
            compiled, "1.1", "rounding", True, "torch.compile for one size; derivatives uncompiled"
        ),
        "deep-cache": Entry(
            deep_cache, "1.5", "0.2 dB a call", False, "keeps deep features every other call"
        ),
        "int8": Entry(int8, "1.4", "0.03 to 1 dB", False, "8-bit convolutions of oneDNN"),
        "threads": Entry(threads, "0.6", "rounding", True, "fewer threads, for a busy machine"),
    }


__all__ = [
    "Choice",
    "Entry",
    "Row",
    "available",
    "bfloat16",
    "channels_last",
    "compiled",
    "deep_cache",
    "fastest",
    "int8",
    "threads",
]
