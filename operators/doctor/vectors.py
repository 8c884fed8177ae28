"""Images and measurements as vectors: random ones, inner products, norms."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from deepinv.utils import TensorList
from torch import Tensor

from ..validate import seeded

# a Tensor, or the TensorList of a stacked physics, which deepinv leaves untyped
Measurement: TypeAlias = Any


class Draw:
    """Random images and measurements of one precision from a private stream."""

    def __init__(
        self, image_shape: Sequence[int], dtype: torch.dtype, device: torch.device, seed: int
    ) -> None:
        self.shape, self.dtype, self.device = tuple(image_shape), dtype, device
        self.generator = seeded(seed)

    def image(self, batch: int = 2) -> Tensor:
        """Uniform in [0, 1], where nonlinear operators live too: `(B, C, H, W)`."""
        shape = (batch, *self.shape)
        return torch.rand(shape, generator=self.generator, dtype=self.dtype).to(self.device)

    def like(self, y: Measurement) -> Measurement:
        """Standard normal numbers in the shape of a measurement."""
        if isinstance(y, TensorList):
            return TensorList([self.like(part) for part in parts(y)])
        wide = torch.complex128 if y.is_complex() else torch.float64
        return torch.randn(y.shape, generator=self.generator, dtype=wide).to(y)


def parts(y: Measurement) -> list[Tensor]:
    """The tensors of a measurement, most often one."""
    return list(y.x) if isinstance(y, TensorList) else [y]


def inner(a: Measurement, b: Measurement) -> float:
    """Real inner product over everything, in float64."""
    return sum(_inner(p, q) for p, q in zip(parts(a), parts(b), strict=True))


def _inner(a: Tensor, b: Tensor) -> float:
    wide = torch.complex128 if a.is_complex() else torch.float64
    return (a.detach().to(wide).conj() * b.detach().to(wide)).sum().real.item()


def norm(a: Measurement) -> float:
    """Euclidean norm over everything."""
    return inner(a, a) ** 0.5


def relative(difference: float, scale: float) -> float:
    """`difference / scale`, 0 when both are 0."""
    return difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))
