"""Convolutions in 8-bit integers, by oneDNN's kernels for x86 processors.

Weights are rounded once, symmetrically, with one scale an output channel (which also quarters their
memory); the features before every call, with the smallest and largest of this very call as range:

    w = s_w q_w,   q_w in {-127, ..., 127}          x = s_x (q_x - z),   q_x in {0, ..., 255}

The first and last convolution stay in float32. On the prior "natural" (2.3 M weights, one core with
8-bit and 16-bit dot products) a 3x3 convolution alone is 3.8 times faster than in float32 and 1.9
times faster than in bfloat16. Finding the range and rounding the features eat that: a whole call is
1.3 times faster than in float32 and slower than in bfloat16, at 0.02 to 0.1 dB for sigma from 0.01
to 0.8 and ten times that below. It is for processors with 8-bit but without 16-bit arithmetic.

Rounding has no derivative, and none is given.
"""

import math

import torch
from torch import Tensor, nn

from priors.denoiser import Denoiser
from priors.faster.inside import EDGES, on_network, swap

_ONEDNN = ("qconv_prepack", "qconv_pointwise")


def int8(prior: Denoiser) -> Denoiser:
    """Run the network's two-dimensional convolutions in 8-bit integers.

    Args:
        prior: left as it is; on the CPU.

    Raises:
        ValueError: a build of torch without these kernels; later, when called, a derivative asked
            for.
    """
    if not has_int8():
        raise ValueError(
            "this torch has no 8-bit convolutions of oneDNN, which need an x86 processor; take "
            "bfloat16 or leave the network as it is."
        )
    return on_network(prior, "int8", lambda network: swap(network, _quantised))


def has_int8() -> bool:
    """Whether this torch holds oneDNN's 8-bit convolutions."""
    return all(hasattr(torch.ops.onednn, name) for name in _ONEDNN)


class _Int8Conv(nn.Module):
    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        scale = (weight.abs().amax((1, 2, 3)) / 127).clamp_min(1e-12)
        rounded = (weight / scale[:, None, None, None]).round().to(torch.int8)
        self.where = (list(layer.stride), _padding(layer), list(layer.dilation), layer.groups)
        self.scale, self.zeros = scale, torch.zeros(len(scale), dtype=torch.int32)
        self.bias = None if layer.bias is None else layer.bias.detach().float()
        self.packed = torch.ops.onednn.qconv_prepack(rounded, scale, 1.0, 0, *self.where, None)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError(
                "a network in 8-bit integers has no derivative; take a solver that uses none "
                "(without VJPs in `restore solvers`) or leave int8 out."
            )
        x = x.float().contiguous(memory_format=torch.channels_last)
        low, high = (float(v) for v in torch.aminmax(x.permute(0, 2, 3, 1).reshape(-1)))
        low, high = min(low, 0.0), max(high, 0.0)  # zero, which pads, must be a step
        step = max((high - low) / 255, 1e-30)
        # what is not a number stays so, by the step
        zero = round(-low / step) if math.isfinite(step) else 0
        # truncation after half a step more is rounding; one pass and a conversion
        steps = torch.add(x.new_tensor(zero + 0.5), x, alpha=1 / step).clamp_(0, 255)
        return torch.ops.onednn.qconv_pointwise(
            steps.to(torch.uint8),
            step,
            zero,
            self.packed,
            self.scale,
            self.zeros,
            self.bias,
            *self.where,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )


def _quantised(name: str, layer: nn.Module) -> nn.Module | None:
    if name in EDGES:
        return layer
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros":
        return None
    return None if isinstance(layer.padding, str) else _Int8Conv(layer)


def _padding(layer: nn.Conv2d) -> list[int]:
    assert not isinstance(layer.padding, str)
    return list(layer.padding)
