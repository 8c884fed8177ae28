"""Products with a Jacobian that is never formed, and the random vectors that probe it.

For `f: R^n -> R^n` per image, `J v` costs one forward-mode pass and `J^T v` one reverse-mode pass,
about two and three evaluations of `f`. Probes are drawn on the CPU, so that they repeat on any
device, and never from the global generator. What a few products tell:

    trace     mean of v^T J v over random signs v (Hutchinson 1990)
    diagonal  v * J^T v, one product a shift of a sparse lattice of signs (Tang & Saad 2012): exact
              where entries further apart than the lattice's stride do not act on each other
    dense     one product a row
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def jvp(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """Return `J v`, the directional derivative of `f` at `x` (forward mode).

    Args:
        f: maps a batch of images to images of any shape, each from its own image alone.
        x: `(B, ...)`.
        v: like `x`.

    Returns:
        Like `f(x)`, outside of any graph.
    """
    # fused attention has no forward-mode derivative
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        return torch.func.jvp(f, (x,), (v,))[1]


def vjp(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """Return `J^T v` (reverse mode); also inside `torch.no_grad`.

    Args:
        f: maps a batch of images to images of any shape, each from its own image alone.
        x: `(B, ...)`.
        v: like `f(x)`.

    Returns:
        Like `x`, outside of any graph.
    """
    return linearise(f, x)[1](v)


def linearise(
    f: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return `f(x)` and the product `v -> J^T v` there: one evaluation for many products.

    Args:
        f: maps a batch of images to images of any shape, each from its own image alone.
        x: `(B, ...)`.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)

    def product(v: Tensor) -> Tensor:
        if not value.requires_grad:  # a point mass does not depend on x
            return torch.zeros_like(x)
        return torch.autograd.grad(value, x, v, retain_graph=True)[0]

    return value.detach(), product


def dense(f: Callable[[Tensor], Tensor], x: Tensor, *, chunk: int = 64) -> Tensor:
    """Return the whole Jacobian `(n, n)` of one small image.

    Args:
        f: maps a batch of images to images of the same shape.
        x: `(1, ...)` with n entries.
        chunk: rows computed together, each on a copy of the image.

    Raises:
        ValueError: for several images.
    """
    if len(x) != 1:
        raise ValueError(f"a dense Jacobian is of one image, found {len(x)}; take them in turn.")
    n, chunk = x.numel(), min(chunk, x.numel())
    _, product = linearise(f, x.expand(chunk, *x.shape[1:]))
    rows = []
    for start in range(0, n, chunk):
        units = x.new_zeros(chunk, n)
        units[: n - start, start : start + chunk].fill_diagonal_(1)
        rows.append(product(units.reshape(chunk, *x.shape[1:])).flatten(1))
    return torch.cat(rows)[:n]


def traces(
    f: Callable[[Tensor], Tensor], x: Tensor, probes: int, generator: torch.Generator
) -> Tensor:
    """Draw `probes` unbiased estimates `v^T J v` of the trace, `(B, probes)`."""
    _, product = linearise(f, x)
    vectors = (signs(x, generator) for _ in range(probes))
    return torch.stack([(v * product(v)).flatten(1).sum(1) for v in vectors], 1)


def diagonal(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    generator: torch.Generator,
    *,
    stride: int | Sequence[int] = 6,
) -> Tensor:
    """Estimate the diagonal of the Jacobian, without bias.

    The variance of an entry is the sum of `J_ji^2` over the other pixels `j` of its lattice: those
    of the same channel a multiple of `stride` away. Exact when no side is longer than `stride`.

    Args:
        f: maps a batch of images to images of the same shape, each from its own image alone.
        x: `(B, C, *spatial)`.
        generator: of the signs.
        stride: of the lattices, pixels, one number or one a spatial axis; `C stride^d` products in
            all. 1 along an axis on which `f` keeps its slices apart is exact there.

    Returns:
        Like `x`.
    """
    _, product_of = linearise(f, x)
    found = torch.zeros_like(x)
    sides = x.shape[2:]
    strides = [stride] * len(sides) if isinstance(stride, int) else stride
    shifts = (range(min(n, side)) for n, side in zip(strides, sides, strict=True))
    for channel, *shift in product(range(x.shape[1]), *shifts):
        some = (slice(s, None, n) for s, n in zip(shift, strides, strict=True))
        lattice = (slice(None), channel, *some)
        v = torch.zeros_like(x)
        v[lattice] = signs(v[lattice], generator)
        found += v * product_of(v)
    return found


def generator_of(seed: int) -> torch.Generator:
    """Return a generator whose stream is not that of `torch.Generator().manual_seed(seed)`.

    Images drawn from the same seed must not equal the noise or the probes.
    """
    return torch.Generator().manual_seed(seed ^ 0x5EED_0F_D1A6)


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers in shape, type and place of `like`."""
    noise = torch.randn(like.shape, dtype=like.dtype, device=generator.device, generator=generator)
    return noise.to(like.device)


def signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw independent signs (Rademacher): Hutchinson's probes of least variance."""
    return normal(like, generator).sign()
