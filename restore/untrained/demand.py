"""What fitting networks to a cube takes, told before it begins.

    time     three times the operations of a forward pass: it, and two of its size for gradients
    memory   what a forward pass keeps for gradients, and of every weight its value, its gradient
             and Adam's two moments

Counted on tensors without values. Measured beside it, on 145x145 pixels and 200 bands, one core:

    networks    counted, a step    measured        counted    measured
           6         0.92 s         0.86 s          2.0 GB      2.0 GB
          24         3.7 s          3.3 s           3.4 GB      3.5 GB
         100        15 s           23 s             9.0 GB      9.1 GB
"""

import copy
import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

log = logging.getLogger("restore")

_SPEED = 80e9  # operations a second, of one core of a processor of 2024
_BASE = 1.6e9  # bytes: libraries, their work space, copies of a large cube
_TOLD = 60.0  # seconds: of what takes less nothing is said


@dataclass(frozen=True)
class Demand:
    """What one step of Adam takes.

    Attributes:
        operations: multiplications and additions.
        memory: bytes.
    """

    operations: float
    memory: float

    def seconds(self, steps: int) -> float:
        """Of one core."""
        return steps * self.operations / _SPEED

    def sentence(self, steps: int) -> str:
        """What so many steps take, in words."""
        minutes, memory = self.seconds(steps) / 60, (_BASE + self.memory) / 1e9
        time = f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"
        return f"{steps} steps, about {time} of one core and {memory:.1f} GB"


def tell(solver: str, nets: nn.ModuleList, ranks: int, steps: int) -> None:
    """Log what is ahead, unless it is less than a minute.

    Args:
        solver: its name.
        nets: networks that draw without input.
        ranks: of all of them together.
        steps: that are left.
    """
    on_processor = next(nets.parameters()).device.type == "cpu"
    if not (on_processor and log.isEnabledFor(logging.INFO)):
        return
    ahead = demand(nets)
    if ahead.seconds(steps) >= _TOLD:
        log.info("%s: %d networks, %s.", solver, ranks, ahead.sentence(steps))


def demand(nets: nn.ModuleList) -> Demand:
    """Count one step of networks that draw without input."""
    from torch.utils.flop_counter import FlopCounterMode

    ghosts = copy.deepcopy(nets).to("meta")
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept[id(x)] = x
        return x

    counter = FlopCounterMode(display=False)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), counter:
        drawn = [net() for net in ghosts]
    del drawn
    weights = {id(p): p for p in ghosts.parameters()}
    maps = sum(x.nbytes for name, x in kept.items() if name not in weights)
    return Demand(
        operations=3.0 * counter.get_total_flops(),
        memory=float(maps + sum(4 * p.nbytes for p in weights.values())),
    )
