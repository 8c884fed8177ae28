"""Two streams through a chain of networks that can be run backwards: gradients at constant memory.

Gomez, Ren, Urtasun, Grosse, *The Reversible Residual Network*, NeurIPS 2017, arXiv:1707.04585, with
the wiring of Chen et al., *Invertible Diffusion Models for Compressed Sensing*, TPAMI 2025:

    symbol     name here    meaning
    F_k        bodies       any network of one shape to the same shape
    x_1, x_2   -            the two streams
    v_k        mix          share of the second stream, in (0, 1), learned

    y_1 = (1 - v) F(x_1) + v x_2        x_1 = y_2
    y_2 = x_1                           x_2 = (y_1 - (1 - v) F(y_2)) / v

Automatic differentiation keeps what every F computed on the way. Here only the last two streams are
kept; going back, each F is fed its input once more, found by the inverse, and differentiated by
itself. With g_1, g_2 the gradients of y_1, y_2:

    dx_1 = J^T (1 - v) g_1 + g_2,   dx_2 = v g_1,   dv = <g_1, x_2 - F(x_1)>

Rounding grows in k bodies by v^(-k/2) where F is small and by v^(-k) where it is near the identity:
24 bodies lose every digit of single precision. Streams are therefore kept once every `anchor`
bodies, in single precision at least, whatever F computes in. F must do the same twice: no dropout,
no batch statistics. The second derivative is not available.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

_LOWEST = 5e-4  # of v and 1 - v: the inverse divides by v


class Reversible(nn.Module):
    """A chain of bodies on two streams; see the module's docstring.

    Args:
        bodies: `F(x, *context)`, from a tensor to one of the same shape.
        mix: v at the start.
        anchor: the streams are kept every so many bodies.
        shared: a network that all bodies use; they get it before the context.

    Attributes:
        everything: keep what automatic differentiation keeps, for comparison and where memory
            does not matter: one evaluation less of every body, the same gradient.

    Raises:
        ValueError: no bodies, `mix` outside (0.0005, 0.9995), or `anchor` below 1.
    """

    def __init__(
        self,
        bodies: Iterable[nn.Module],
        *,
        mix: float = 0.5,
        anchor: int = 6,
        shared: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        if not len(self.bodies) or anchor < 1 or not _LOWEST < mix < 1 - _LOWEST:
            raise ValueError(
                f"a reversible chain needs bodies, anchor >= 1 and {_LOWEST} < mix < "
                f"{1 - _LOWEST}, found {len(self.bodies)}, {anchor} and {mix}."
            )
        self.anchor, self.everything, self.shared = anchor, False, shared
        start = torch.logit(torch.tensor((mix - _LOWEST) / (1 - 2 * _LOWEST)))
        self.raw_mix = nn.Parameter(start.repeat(len(self.bodies)))

    @property
    def mix(self) -> Tensor:
        """All v, `(bodies,)`, each in (0.0005, 0.9995)."""
        return _LOWEST + (1 - 2 * _LOWEST) * self.raw_mix.sigmoid()

    def forward(self, x_1: Tensor, x_2: Tensor, *context: Any) -> tuple[Tensor, Tensor]:
        """Run forwards.

        Args:
            x_1: one stream.
            x_2: the other, of the same shape.
            *context: what every body gets besides; tensors among it receive gradients.

        Returns:
            The streams at the end.
        """
        v, context = self.mix, self._with_shared(context)
        if self.everything or not torch.is_grad_enabled():
            for k, body in enumerate(self.bodies):
                x_1, x_2 = forwards(body, v[k], x_1, x_2, context)
            return x_1, x_2
        x_1, x_2 = (x if x.dtype == torch.float64 else x.float() for x in (x_1, x_2))
        for first in range(0, len(self.bodies), self.anchor):
            part = slice(first, first + self.anchor)
            chain = _Chain(tuple(self.bodies[part]), self.shared, _Precision.here(x_1))
            streams = _Recomputed.apply(
                chain, x_1, x_2, v[part], len(context), *context, *chain.parameters
            )
            x_1, x_2 = cast(tuple[Tensor, Tensor], streams)
        return x_1, x_2

    def walk(self, x_1: Tensor, x_2: Tensor, *context: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Run forwards, giving the streams after every body."""
        context = self._with_shared(context)
        for k, body in enumerate(self.bodies):
            x_1, x_2 = forwards(body, self.mix[k], x_1, x_2, context)
            yield x_1, x_2

    @torch.no_grad()
    def inverse(self, y_1: Tensor, y_2: Tensor, *context: Any) -> tuple[Tensor, Tensor]:
        """Find the streams at the start from those at the end."""
        context = self._with_shared(context)
        for k in reversed(range(len(self.bodies))):
            v, x_1 = self.mix[k], y_2
            y_1, y_2 = x_1, backwards(self.bodies[k](x_1, *context), v, y_1)
        return y_1, y_2

    def _with_shared(self, context: tuple[Any, ...]) -> tuple[Any, ...]:
        return context if self.shared is None else (self.shared, *context)


def forwards(
    body: nn.Module, v: Tensor, x_1: Tensor, x_2: Tensor, context: Sequence[Any]
) -> tuple[Tensor, Tensor]:
    """Take one step."""
    return (1 - v) * body(x_1, *context).to(x_2.dtype) + v * x_2, x_1


def backwards(F: Tensor, v: Tensor, y_1: Tensor) -> Tensor:
    """Find `x_2` of a step."""
    return (y_1 - (1 - v) * F.to(y_1.dtype)) / v


@dataclass(frozen=True)
class _Precision:
    """The automatic precision under which the bodies ran, to run them again under it."""

    device: str
    on: bool
    dtype: torch.dtype

    @classmethod
    def here(cls, x: Tensor) -> "_Precision":
        kind = x.device.type
        return cls(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))

    def again(self) -> torch.autocast:
        return torch.autocast(self.device, self.dtype, enabled=self.on)


@dataclass(frozen=True)
class _Chain:
    """Bodies between two anchors."""

    bodies: tuple[nn.Module, ...]
    shared: nn.Module | None
    precision: _Precision

    @property
    def parameters(self) -> list[Tensor]:
        """Every parameter that learns, once."""
        modules = [*self.bodies, *([self.shared] if self.shared is not None else [])]
        found = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
        return list(found.values())


class _Recomputed(torch.autograd.Function):
    """A chain that keeps its last two streams and nothing else."""

    @staticmethod
    def forward(
        ctx: Any, chain: _Chain, x_1: Tensor, x_2: Tensor, v: Tensor, count: int, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        context = rest[:count]
        for k, body in enumerate(chain.bodies):
            x_1, x_2 = forwards(body, v[k], x_1, x_2, context)
        ctx.chain, ctx.parameters = chain, rest[count:]
        ctx.plain = [None if isinstance(c, Tensor) else c for c in context]
        ctx.save_for_backward(x_1, x_2, v, *(c for c in context if isinstance(c, Tensor)))
        # a stream that passes through unchanged would come out as the input itself
        return x_1, x_2 if len(chain.bodies) > 1 else x_2.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Any, ...]:
        y_1, y_2, v, *kept = ctx.saved_tensors
        it = iter(kept)
        context = [next(it) if c is None else c for c in ctx.plain]
        told = _Sums(ctx.needs_input_grad[5:], [*context, *ctx.parameters])
        g_1, g_2 = gradients
        g_v = torch.zeros_like(v)
        for k in reversed(range(len(v))):
            body = ctx.chain.bodies[k]
            x_1 = y_2
            F, pull = _evaluate(body, x_1, context, told, ctx.chain.precision)
            x_2 = backwards(F, v[k], y_1)
            g_v[k] = (g_1 * (x_2 - F.to(x_2.dtype))).sum()
            g_1, g_2 = pull((1 - v[k]) * g_1) + g_2, v[k] * g_1
            y_1, y_2 = x_1, x_2
        return None, g_1, g_2, g_v, None, *told.sums


class _Sums:
    """Gradients of a context and of parameters, summed over the bodies that use them."""

    def __init__(self, needed: Sequence[bool], inputs: Sequence[Any]) -> None:
        self.places = [i for i, need in enumerate(needed) if need]
        self.inputs = inputs
        self.sums: list[Tensor | None] = [None] * len(inputs)

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        for i, gradient in zip(self.places, gradients, strict=True):
            if gradient is not None:
                kept = self.sums[i]
                self.sums[i] = gradient if kept is None else kept + gradient


def _evaluate(
    body: nn.Module, x: Tensor, context: Sequence[Any], told: _Sums, precision: _Precision
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Evaluate `F(x)`; return it and what maps its gradient to that of `x`, adding up the rest."""
    inputs = list(told.inputs)
    for i in told.places:
        if i < len(context):
            inputs[i] = inputs[i].detach().requires_grad_()
    leaf = x.detach().requires_grad_()
    with torch.enable_grad(), precision.again():
        out = body(leaf, *inputs[: len(context)])

    def pull(gradient: Tensor) -> Tensor:
        wanted = [leaf, *(inputs[i] for i in told.places)]
        first, *others = torch.autograd.grad(out, wanted, gradient.to(out.dtype), allow_unused=True)
        told.add(others)
        return torch.zeros_like(leaf) if first is None else first

    return out.detach(), pull
