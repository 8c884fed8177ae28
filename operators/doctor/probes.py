"""What the operator doctor measures: one number for each property, zero when it holds exactly."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from ..svd import Decomposed, svd
from .vectors import Draw, Measurement, inner, norm, parts, relative


class Probe(NamedTuple):
    """A property.

    Attributes:
        name: its name.
        measure: `(physics, draw) -> number`.
        limit: `(physics, rounding of the precision) -> largest number that passes`, None for any.
        note: what the number is.
    """

    name: str
    measure: Callable[[Any, Draw], float]
    limit: Callable[[Any, float], float | None]
    note: str


def copied(physics: Physics) -> Physics:
    """A copy; deepinv's `clone` walks through all it can reach and takes half a second."""
    try:
        return copy.deepcopy(physics)
    except (TypeError, RuntimeError):  # an older torch cannot copy generators
        return physics.clone()


def measuring(physics: Physics, draw: Draw) -> float:
    """1 when a measurement is not finite."""
    return float(not all(p.isfinite().all() for p in parts(physics.A(draw.image()))))


def precision(physics: Physics, draw: Draw) -> float:
    """1 when a measurement has not the precision of the image."""
    return float(any(p.real.dtype != draw.dtype for p in parts(physics.A(draw.image()))))


def device(physics: Physics, draw: Draw) -> float:
    """1 when its tensors lie on several devices, or some stay behind when it moves."""
    state = [*physics.parameters(), *physics.buffers(), *parts(physics.A(draw.image()))]
    if any(tensor.device != draw.device for tensor in state):
        return 1.0
    # without a second device, tensors without values tell as well what stays behind
    second = torch.device(
        "cuda" if draw.device.type == "cpu" and torch.cuda.is_available() else "meta"
    )
    try:
        y = parts(copied(physics).to(second).A(draw.image().to(second)))
    except Exception as error:  # values may be needed, or an operation unknown to the device
        return float("same device" in str(error) or "expected device" in str(error))
    return float(any(part.device.type != second.type for part in y))


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


def optimality(physics: LinearPhysics, draw: Draw) -> float:
    """`|gamma A^T (A x - y) + x - z|` at `x = prox_l2(z, y, gamma)`, over `|gamma A^T y + z|`."""
    gamma, z, y = 3.0, draw.image(), physics.A(draw.image())
    x = physics.prox_l2(z, y, gamma)
    gradient = gamma * physics.A_adjoint(physics.A(x) - y) + x - z
    return relative(norm(gradient), norm(gamma * physics.A_adjoint(y) + z))


def orthonormal_images(physics: LinearPhysics, draw: Draw) -> float:
    """`|V^T V c - c|`."""
    form = svd(physics)
    c = draw.like(form.Vt(draw.image()))
    return relative(norm(form.Vt(form.V(c)) - c), norm(c))


def orthonormal_measurements(physics: LinearPhysics, draw: Draw) -> float:
    """`|U^T U c - c|` for coordinates with `s > 0`."""
    form = svd(physics)
    c = draw.like(form.Vt(draw.image()))
    seen = form.s > 0
    c = torch.where(seen, c, 0)
    return relative(norm(torch.where(seen, form.Ut(form.U(c)), 0) - c), norm(c))


def decomposition(physics: LinearPhysics, draw: Draw) -> float:
    """`|U s V^T x - A x|`, infinite for a negative singular value."""
    form, x = svd(physics), draw.image()
    y = physics.A(x)
    if bool((form.s < 0).any()):
        return float("inf")
    return relative(norm(form.U(form.s * form.Vt(x)) - y), norm(y))


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
    y, after, before = (physics.A(x + shift * step) for shift in (0, h, -h))
    slope = (after - before) / (2 * h)
    v = draw.like(slope)
    v = slope + v * (norm(slope) / norm(v))  # also where the slope is zero
    for part, left, right in zip(parts(v), parts(y - before), parts(after - y), strict=True):
        part[(right - left).abs() > 0.01 * (left.abs() + right.abs())] = 0  # a kink
    gap = abs(inner(slope, v) - inner(_vjp(physics, x, v), step))
    return relative(gap, norm(slope) * norm(v))


def _vjp(physics: Physics, x: Tensor, v: Measurement) -> Tensor:
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (vjp,) = torch.autograd.grad(parts(physics.A(leaf)), [leaf], grad_outputs=parts(v))
    return vjp


def _inverse_limit(physics: LinearPhysics, rounding: float) -> float | None:
    """What the operator declares; far less where a decomposition inverts every singular value."""
    declared = getattr(physics, "dagger_tolerance", 1e-2)
    if not isinstance(physics, Decomposed) or declared != Decomposed.dagger_tolerance:
        return declared
    if rounding > 1e-9:
        return declared
    s = physics.svd().s
    cut = (s > 0) & (s <= physics.cutoff * s.max())
    return declared if bool(cut.any()) else 1e-9


# a step may cross the kink of a clip at a few pixels of very many
_KINK = 1e-5


def _gradient_limit(physics: Physics, rounding: float) -> float | None:
    """A declared stand-in for the gradient is not the gradient."""
    return None if getattr(physics, "surrogate", "") else max(1e4 * rounding, _KINK)


def _prox_limit(physics: LinearPhysics, rounding: float) -> float:
    """Exact for a decomposition; the conjugate gradients of deepinv stop early."""
    if isinstance(physics, Decomposed):
        return 100 * rounding
    return 1e-4 if hasattr(physics, "dagger_tolerance") else 1e-2


# the rest is not asked where this fails
FIRST = Probe("measures", measuring, lambda p, r: 0.0, "0 when A returns finite numbers")
ANY: list[Probe] = [
    Probe("precision kept", precision, lambda p, r: 0.0, "0 when A keeps the dtype"),
    Probe("device", device, lambda p, r: 0.0, "0 when all tensors move together"),
    Probe("determinism", determinism, lambda p, r: r, "two calls of A"),
    Probe("input unchanged", input_change, lambda p, r: 0.0, "change of the tensors given"),
    Probe("batch independence", batch, lambda p, r: 10 * r, "one image alone and in a batch"),
]
LINEAR: list[Probe] = [
    Probe("linearity", linearity, lambda p, r: 10 * r, "A(ax + bz) against a Ax + b Az"),
    Probe("adjoint", adjoint, lambda p, r: r, "<Au, v> against <u, A'v>, over |Au| |v|"),
    Probe("gradient", linear_gradient, lambda p, r: 10 * r, "autograd against A_adjoint"),
    Probe("pseudo-inverse", pseudo_inverse, _inverse_limit, "A A_dagger A x against A x"),
    Probe("prox", optimality, _prox_limit, "gradient of what prox_l2 minimises"),
    Probe("norm", largest_singular_value, lambda p, r: None, "largest singular value, from below"),
]
DECOMPOSED: list[Probe] = [
    Probe("svd: A", decomposition, lambda p, r: 10 * r, "U s V'x against Ax"),
    Probe("svd: V", orthonormal_images, lambda p, r: 10 * r, "V'V c against c"),
    Probe("svd: U", orthonormal_measurements, lambda p, r: 10 * r, "U'U c against c where s > 0"),
]
NONLINEAR: list[Probe] = [
    Probe("gradient", gradient, _gradient_limit, "autograd against central differences"),
]
