"""Linear solves for batches of images: every image its own problem, its own stopping time.

A batch is solved together, but no scalar is shared: an image stops when *it* has converged, and
its result does not depend on its neighbours (but for rounding, which an ill-conditioned system may
amplify up to the tolerance). deepinv's solvers stop a batch as one.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


_PIECE = 2**18  # numbers of an image that an inner product multiplies at a time


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of every image, shaped `(B, 1, ..., 1)` to scale images by it.

    Of large images piece by piece: no memory of their size, and no sum of too many numbers.
    """
    pieces = zip(a.flatten(1).split(_PIECE, 1), b.flatten(1).split(_PIECE, 1), strict=True)
    sums = [(x * y).sum(1) for x, y in pieces]
    value = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0, dtype=torch.float64).to(a.dtype)
    return value.reshape(-1, *[1] * (a.ndim - 1))


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, and 0 where `b` is 0: an image whose direction is zero takes no step."""
    return torch.where(b != 0, a / torch.where(b != 0, b, 1), 0)


def _scale(factor: Tensor, x: Tensor) -> Tensor:
    """Multiply every image by its factor; measurements and images may differ in dimensions."""
    return factor.reshape(-1, *[1] * (x.ndim - 1)) * x


class ConvergenceWarning(RuntimeWarning):
    """An iterative inverse stopped before it reached its tolerance."""


def conjugate_gradient(
    matvec: Map,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 100,
    warn: bool = False,
) -> Tensor:
    """Solve `K x = b` for symmetric positive definite `K` (Hestenes and Stiefel, 1952).

    Args:
        matvec: applies `K` to `(B, ...)`.
        b: right-hand sides `(B, ...)`.
        x0: start, zero by default.
        tol: an image stops when `|b - K x| <= tol |b|`.
        max_iter: most applications of `K` after the start; an image that has not converged by then
            is returned as it stands.
        warn: say so with a `ConvergenceWarning`.

    Returns:
        `x`, same shape as `b`.
    """
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b.clone() if x0 is None else b - matvec(x)
    p, rho, goal = r, dot(r, r), tol**2 * dot(b, b)
    for _ in range(max_iter):
        active = rho > goal
        if not bool(active.any()):
            break
        p = torch.where(active, p, 0)
        q = matvec(p)
        step = _ratio(rho, dot(p, q))
        x, r = x + step * p, r - step * q
        rho, previous = dot(r, r), rho
        p = r + _ratio(rho, previous) * p
    if warn and bool((late := rho > goal).any()):
        worst = (rho / dot(b, b))[late].sqrt().max()
        warnings.warn(
            f"{int(late.sum())} of {len(b)} images did not reach the tolerance {tol:g} in "
            f"{max_iter} iterations (worst residual {worst:.1e}); raise max_iter or tol.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return x


@dataclass(frozen=True)
class Solution:
    """What `conjugate_residual` found.

    Attributes:
        x: the solution `(B, ...)`.
        residual: `M^-1 (b - K x)`, what is left, preconditioned.
        images: the byproduct of `K x`, put together from those of the directions; None when no
            product was needed.
        iterations: applications of `K`.
    """

    x: Tensor
    residual: Tensor
    images: Tensor | None
    iterations: int


def conjugate_residual(
    matvec: Callable[[Tensor], tuple[Tensor, Tensor]],
    b: Tensor,
    *,
    precondition: Map | None = None,
    reference: Tensor | None = None,
    tol: float = 0.05,
    max_iter: int = 10,
    max_step: float = float("inf"),
) -> Solution:
    """Solve `K u = b` when `K` contains a network's Jacobian, which need not be symmetric.

    Generalised conjugate residuals (Eisenstat, Elman and Schultz, 1983) in the inner product of
    `M^-1`: the preconditioned residual never grows, whatever `K` is. Plain conjugate gradients
    assumes symmetry and was seen to blow up by 1e4 for a denoiser 0.03 dB from optimal. An image
    stops at convergence and at negative curvature, where the Jacobian is not that of any prior.

    Args:
        matvec: returns `(K p, image)`; `image` `(B, ...)` is any byproduct linear in `p`, here the
            vector-Jacobian product in image space, accumulated so that it need not be formed again.
        b: right-hand sides `(B, ...)`.
        precondition: applies `M^-1`, symmetric positive definite, the identity by default.
        reference: what the residual is compared with, `b` by default; after a warm start, where
            `b` is already a residual, the original right-hand side.
        tol: an image stops when its residual norm, in `M^-1`, is below `tol` of the reference's.
        max_iter: most applications of `K`.
        max_step: bound on a step's length; for an exact prior and a good `M` it lies near 1.

    Returns:
        The `Solution`; `K x` has come closer to `b` for every image, or not moved.
    """
    solve = precondition or (lambda v: v)
    u, r = torch.zeros_like(b), b
    z = solve(r)
    goal = tol**2 * (dot(r, z) if reference is None else dot(reference, solve(reference)))
    active = dot(r, z) > goal
    images: Tensor | None = None
    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    iterations = 0
    while iterations < max_iter and bool(active.any()):
        p = torch.where(active, z, 0)
        q, image = matvec(p)
        iterations += 1
        t = solve(q) if precondition else q
        for pk, qk, tk, ik in kept:
            back = _ratio(dot(q, tk), dot(qk, tk))
            p, q, t, image = p - back * pk, q - back * qk, t - back * tk, image - _scale(back, ik)
        step = _ratio(dot(r, t), dot(q, t)).clamp(0, max_step)
        u, r, z = u + step * p, r - step * q, z - step * t
        moved = _scale(step, image)
        images = moved if images is None else images + moved
        kept.append((p, q, t, image))
        active = active & (step > 0) & (dot(r, z) > goal)
    return Solution(u, z, images, iterations)


class Linear(Protocol):
    """The two methods of a linear operator that the solves below use; deepinv physics have them."""

    def A(self, x: Tensor, /) -> Tensor:
        """Measure images."""
        ...

    def A_adjoint(self, y: Tensor, /) -> Tensor:
        """Apply the adjoint."""
        ...


def proximal(
    operator: Linear, z: Tensor, y: Tensor, rho: Tensor | float, *, tol: float = 1e-6
) -> Tensor:
    """Return `argmin_x |A x - y|^2 + rho |x - z|^2`, one `rho > 0` for all or one per image.

    Args:
        operator: linear physics.
        z: images `(B, C, *spatial)`, also the start.
        y: measurements.
        rho: a number or `(B, 1, ..., 1)`.
        tol: relative residual of the normal equations.
    """
    return conjugate_gradient(
        lambda x: operator.A_adjoint(operator.A(x)) + rho * x,
        operator.A_adjoint(y) + rho * z,
        x0=z,
        tol=tol,
        max_iter=300,
    )
