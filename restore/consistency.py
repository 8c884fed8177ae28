"""Bring whole volumes nearer to their measurements by a few conjugate gradient steps, in place.

    (A^T A + w + rho D^T D) x = A^T y + w x_0 + rho D^T (d - u)

from `x_0`, with the term of `restore.coupling` on differences between slices. Stopped early, as the
methods that use it do, what the measurement does not see stays nearly where the prior left it. All
inner products are over a whole volume: one step size a slice would not be conjugate gradients.
"""

import torch
from torch import Tensor

from operators.linalg import dot
from restore.coupling import Coupling
from restore.problem import Problem


def approach(
    problem: Problem,
    term: Coupling,
    x: Tensor,
    v: list[Tensor],
    *,
    iterations: int,
    weight: float | Tensor = 0.0,
    tol: float = 1e-6,
) -> None:
    """Move `x` towards the solution, in place; `v` stays as it is.

    The right-hand side is never formed: at the start `x = x_0` and `w` drops out of the residual.

    Args:
        problem: a linear problem.
        term: between slices.
        x: images `(N, C, *spatial)`, contiguous.
        v: variables of the term.
        iterations: M, applications of `A^T A`.
        weight: w of the start, one number or `(N, 1, ..., 1)`.
        tol: an image stops when its residual has fallen to this share of the first.
    """
    w = torch.as_tensor(weight, dtype=x.dtype, device=x.device)
    r = _own(problem.A_adjoint(problem.y - problem.A(x)), x)
    p = torch.zeros_like(r)  # D^T D x is subtracted by way of it
    term.add_gram(x, p)
    r.sub_(p)
    term.add_pull(v, r)
    p.copy_(r)
    power = dot(r, r)
    goal = tol**2 * power
    for i in range(iterations):
        q = _own(problem.gram(p), p)
        q.addcmul_(p, w)
        term.add_gram(p, q)
        step = _ratio(power, dot(p, q), power > goal)
        x.addcmul_(p, step)
        r.addcmul_(q, step, value=-1)
        del q
        before, power = power, dot(r, r)
        if i + 1 == iterations or not bool((power > goal).any()):
            return
        p.mul_(_ratio(power, before, power > goal)).add_(r)


def _own(fresh: Tensor, source: Tensor) -> Tensor:
    """A contiguous tensor that may be written to, though operators may return what they got."""
    shared = fresh.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
    return fresh.clone() if shared else fresh.contiguous()


def _ratio(a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    """`a / b` of images still at work; others take no step."""
    return torch.where(where & (b > 0), a / torch.where(b > 0, b, 1), 0)
