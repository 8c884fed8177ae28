"""What the operator doctor measures: one number for each property, zero when it holds exactly."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from deepinv.physics import LinearPhysics, Physics
from deepinv.utils import TensorList
from torch import Tensor

from .validate import seeded

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
        return torch.randn(y.shape, generator=self.generator, dtype=torch.float64).to(y)


class Probe(NamedTuple):
    """A property.

    Attributes:
        name: its name.
        measure: `(physics, draw) -> number`.
        limit: largest number that passes, given the rounding of the precision; None for any.
        note: what the number is.
    """

    name: str
    measure: Callable[[Any, Draw], float]
    limit: Callable[[float], float | None]
    note: str


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


def precision(physics: Physics, draw: Draw) -> float:
    """1 when a measurement has not the precision of the image or is not finite."""
    y = parts(physics.A(draw.image()))
    kept = all(p.real.dtype == draw.dtype and p.isfinite().all() for p in y)
    return 0.0 if kept else 1.0


def determinism(physics: Physics, draw: Draw) -> float:
    """`|A x - A x|` of two calls."""
    x = draw.image()
    y = physics.A(x)
    return relative(norm(y - physics.A(x)), norm(y))


def input_change(physics: Physics, draw: Draw) -> float:
    """How far `A`, and `A_adjoint` where there is one, change what they are given."""
    x = draw.image()
    before = x.clone()
    y = physics.A(x)
    change = norm(x - before)
    if isinstance(physics, LinearPhysics):
        v = draw.like(y)
        kept = [part.clone() for part in parts(v)]
        physics.A_adjoint(v)
        change += sum(norm(p - k) for p, k in zip(parts(v), kept, strict=True))
    return change


def batch(physics: Physics, draw: Draw) -> float:
    """Measurements of one image alone and in a batch of three."""
    x = draw.image(3)
    pairs = zip(parts(physics.A(x)), parts(physics.A(x[1:2])), strict=True)
    return max(relative(norm(together[1:2] - alone), norm(alone)) for together, alone in pairs)


def linearity(physics: Physics, draw: Draw) -> float:
    """`|A(a x + b z) - a A x - b A z|`."""
    x, z = draw.image(), draw.image()
    y, w = physics.A(x) * 1.7, physics.A(z) * -0.6
    return relative(norm(physics.A(1.7 * x - 0.6 * z) - y - w), norm(y) + norm(w))


def adjoint(physics: LinearPhysics, draw: Draw) -> float:
    """`|<A u, v> - <u, A^T v>| / (|A u| |v|)`, the worst of three pairs."""
    worst = 0.0
    for _ in range(3):
        u = draw.image() - 0.5
        y = physics.A(u)
        v = draw.like(y)
        gap = abs(inner(y, v) - inner(u, physics.A_adjoint(v)))
        worst = max(worst, relative(gap, norm(y) * norm(v)))
    return worst


def largest_singular_value(physics: LinearPhysics, draw: Draw) -> float:
    """Twenty power iterations, from below."""
    x, size = draw.image(1), 1.0
    for _ in range(20):
        size = norm(x)
        x = physics.A_adjoint(physics.A(x / size if size > 0 else x))
    return norm(x) ** 0.5


def pseudo_inverse(physics: LinearPhysics, draw: Draw) -> float:
    """`|A A_dagger A x - A x|`."""
    y = physics.A(draw.image())
    return relative(norm(physics.A(physics.A_dagger(y)) - y), norm(y))


def linear_gradient(physics: LinearPhysics, draw: Draw) -> float:
    """Back-propagation through `A` against `A_adjoint`."""
    x = draw.image()
    v = draw.like(physics.A(x))
    expected = physics.A_adjoint(v)
    return relative(norm(_vjp(physics, x, v) - expected), norm(expected))


def gradient(physics: Physics, draw: Draw) -> float:
    """Back-propagation through `A` against central differences, relative."""
    x, step = draw.image(), draw.image() - 0.5
    h = 1e-6 if draw.dtype == torch.float64 else 1e-3
    slope = (physics.A(x + h * step) - physics.A(x - h * step)) / (2 * h)
    gap = abs(inner(slope, slope) - inner(_vjp(physics, x, slope), step))
    return relative(gap, inner(slope, slope))


def _vjp(physics: Physics, x: Tensor, v: Measurement) -> Tensor:
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (vjp,) = torch.autograd.grad(parts(physics.A(leaf)), [leaf], grad_outputs=parts(v))
    return vjp


ANY: list[Probe] = [
    Probe("precision kept", precision, lambda r: 0.0, "0 when A keeps the dtype and is finite"),
    Probe("determinism", determinism, lambda r: r, "two calls of A"),
    Probe("input unchanged", input_change, lambda r: 0.0, "change of the tensors given"),
    Probe("batch independence", batch, lambda r: 10 * r, "one image alone and in a batch"),
]
LINEAR: list[Probe] = [
    Probe("linearity", linearity, lambda r: 10 * r, "A(ax + bz) against a Ax + b Az"),
    Probe("adjoint", adjoint, lambda r: r, "<Au, v> against <u, A'v>, over |Au| |v|"),
    Probe("gradient", linear_gradient, lambda r: 10 * r, "autograd against A_adjoint"),
    # iterative pseudo-inverses stop early
    Probe("pseudo-inverse", pseudo_inverse, lambda r: 1e-2, "A A_dagger A x against A x"),
    Probe("norm", largest_singular_value, lambda r: None, "largest singular value, from below"),
]
NONLINEAR: list[Probe] = [
    Probe("gradient", gradient, lambda r: 1e4 * r, "autograd against central differences"),
]
