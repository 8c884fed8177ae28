"""Total variation, the classical reconstruction without training, run until it has converged.

    min_x P(x),  P(x) = |A x - y|^2 / 2 + lambda |G x|,   G x the differences along every axis

by ADMM (Boyd et al., *Distributed optimization and statistical learning via ADMM*, 2011), with `z`
for `G x` and the scaled dual `u`, both in one `v = G x + u` as in `restore.coupling`: `u` is the
projection of `v` onto `|u| <= lambda / rho`, and `z = v - u`. The penalty rho is balanced by the
relative residuals (Wohlberg, 2017, arXiv:1704.06209), ever more rarely.

How far `x` is from the minimum is known for any linear operator. With the dual `p = rho u`, hence
`|p| <= lambda`, convexity gives for every other image x'

    P(x') >= P(x) - slack + <e, x' - x>,
    slack = lambda |G x| - <p, G x> >= 0,   e = A^T (A x - y) + G^T p,

and both vanish at the minimum alone. Reported is `(slack + |e| |x|) / P(x)`: a bound on the
relative error of the minimum whenever the minimiser is no further than `|x|` away.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from operators.linalg import conjugate_gradient
from operators.tomography.projector import largest_singular_value
from operators.validate import one_of
from restore.coupling import differences, differences_adjoint

log = logging.getLogger("restore")

Kind = Literal["isotropic", "anisotropic"]

WEIGHTS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
_RELAX = 1.8  # over-relaxation of ADMM
_INNER = 50  # conjugate gradient steps an iteration, at most


@dataclass(frozen=True)
class Minimum:
    """What `total_variation` found.

    Attributes:
        x: image `(1, C, *spatial)`.
        p: dual `(axes, 1, C, *spatial)`; both together start another run.
        weight: of the term, relative.
        objective: `P(x)`.
        gap: see the module's docstring.
        iterations: of ADMM.
        rho_rel: its last penalty, relative.
    """

    x: Tensor
    p: Tensor = field(repr=False)
    weight: float
    objective: float
    gap: float
    iterations: int
    rho_rel: float


@dataclass(frozen=True)
class Gradient:
    """`G`, differences between neighbours along every axis over their distance; no wrap-around.

    Args:
        spacing: distance of neighbours along each spatial axis.
        kind: "isotropic" measures all axes of a pixel together, by the root of the sum of squares.
    """

    spacing: tuple[float, ...]
    kind: Kind

    def __call__(self, x: Tensor) -> Tensor:
        """`G x`, `(axes, B, C, *spatial)`."""
        return torch.stack([differences(x, a).div_(h) for a, h in enumerate(self.spacing)])

    def adjoint(self, p: Tensor) -> Tensor:
        """`G^T p`."""
        return sum(
            (differences_adjoint(p[a], a).div_(h) for a, h in enumerate(self.spacing)),
            start=torch.zeros_like(p[0]),
        )

    def norm(self, g: Tensor) -> float:
        """Sum over pixels."""
        return float((g.norm(dim=0) if self.kind == "isotropic" else g.abs()).double().sum())

    def project(self, v: Tensor, limit: float) -> Tensor:
        """Nearest to `v` of those whose `norm` in every pixel is dual to at most `limit`."""
        if self.kind == "anisotropic":
            return v.clamp(-limit, limit)
        size = v.norm(dim=0).clamp_min(torch.finfo(v.dtype).tiny)
        return v * (limit / size).clamp_max(1)


def total_variation(
    y: Tensor,
    operator: LinearPhysics,
    weight: float,
    *,
    kind: Kind = "isotropic",
    spacing: Sequence[float] | None = None,
    rho_rel: float | None = None,
    tol: float = 1e-3,
    max_iter: int = 1000,
    start: Minimum | None = None,
) -> Minimum:
    """Reconstruct with total variation along every axis.

    Args:
        y: one measurement `(1, ...)`.
        operator: any linear one.
        weight: lambda over `|A^T A|`, for images whose range has width 1.
        kind: "isotropic", or "anisotropic".
        spacing: distance of neighbours along each spatial axis, 1 by default.
        rho_rel: first penalty of ADMM over `|A^T A|`, that of `start` or 1 by default; changes the
            path, not the minimum.
        tol: gap at which to stop.
        max_iter: most iterations; what is found by then is returned, with a warning.
        start: from where, for instance the minimum for another weight.

    Raises:
        ValueError: several measurements, or numbers that cannot be.
    """
    like = operator.A_adjoint(y)
    distances = tuple(spacing or (1.0,) * (like.ndim - 2))
    if rho_rel is None:
        rho_rel = 1.0 if start is None else start.rho_rel
    _refuse(like, weight, distances, rho_rel, max_iter)
    one_of("kind", kind, get_args(Kind))
    G, gain = Gradient(distances, kind), _gain(operator, like)
    task = _Task(y, operator, G, weight, gain, like)
    rho, due, error = rho_rel * gain, 5, 1.0
    x = torch.zeros_like(like) if start is None else start.x.to(like)
    v = G(x) if start is None else G(x) + task.project(start.p.to(like), 1.0) / rho
    found = None
    for k in range(1, max_iter + 1):
        u = task.project(v, rho)
        z = v - u
        x = task.fit(x, z - u, rho, 0.1 * min(error, 1.0))
        Gx = G(x)
        v = _RELAX * Gx + (1 - _RELAX) * z + u
        u = task.project(v, rho)
        found, error = task.certify(x, Gx, u, rho, k)
        if found.gap <= tol:
            return found
        if k == due:
            due *= 2
            factor = _balance(Gx, v - u, z, u, rho, G)
            rho, v = rho * factor, v - u + u / factor
    assert found is not None
    log.warning(
        "total variation has not converged in %d iterations: gap %.1e, asked %.1e; raise max_iter.",
        max_iter,
        found.gap,
        tol,
    )
    return found


def sweep(
    y: Tensor,
    operator: LinearPhysics,
    weights: Sequence[float] = WEIGHTS,
    *,
    kind: Kind = "isotropic",
    spacing: Sequence[float] | None = None,
    tol: float = 1e-3,
    max_iter: int = 1000,
) -> Iterator[Minimum]:
    """Reconstruct with one weight after another, each from the minimum before.

    Args:
        y: see `total_variation`, as are the other options.
        operator: any linear one.
        weights: in the order in which they are run; falling ones start easily.
        kind: "isotropic", or "anisotropic".
        spacing: distance of neighbours along each spatial axis.
        tol: gap at which to stop.
        max_iter: most iterations a weight.

    Yields:
        One `Minimum` a weight.
    """
    start = None
    for weight in weights:
        start = total_variation(
            y, operator, weight, kind=kind, spacing=spacing, tol=tol, max_iter=max_iter, start=start
        )
        yield start


@dataclass(frozen=True)
class _Task:
    """`P`, with what does not change from one iteration to the next."""

    y: Tensor
    operator: LinearPhysics
    G: Gradient
    weight: float
    gain: float  # |A^T A|
    back: Tensor  # A^T y

    @property
    def lam(self) -> float:
        return self.weight * self.gain

    def project(self, v: Tensor, rho: float) -> Tensor:
        return self.G.project(v, self.lam / rho)

    def fit(self, x: Tensor, w: Tensor, rho: float, tol: float) -> Tensor:
        """`argmin |A x - y|^2 / 2 + rho/2 |G x - w|^2`, from `x` on."""
        return conjugate_gradient(
            lambda x: self.operator.A_adjoint(self.operator.A(x)) + rho * self.G.adjoint(self.G(x)),
            self.back + rho * self.G.adjoint(w),
            x0=x,
            tol=tol,
            max_iter=_INNER,
        )

    def certify(
        self, x: Tensor, Gx: Tensor, u: Tensor, rho: float, k: int
    ) -> tuple[Minimum, float]:
        """How good `x` is, and `|e|` over `|A^T y|`."""
        p, misfit = rho * u, self.operator.A(x) - self.y
        e = self.operator.A_adjoint(misfit) + self.G.adjoint(p)
        length = self.lam * self.G.norm(Gx)
        objective = float(misfit.double().square().sum()) / 2 + length
        slack = length - float((p.double() * Gx.double()).sum())
        gap = _over(slack + float(e.norm() * x.norm()), objective)
        found = Minimum(x, p, self.weight, objective, gap, k, rho / self.gain)
        return found, _over(e.norm(), self.back.norm())


def _balance(Gx: Tensor, z: Tensor, before: Tensor, u: Tensor, rho: float, G: Gradient) -> float:
    """By how much to raise rho so that both relative residuals become alike."""
    primal = _over((Gx - z).norm(), max(float(Gx.norm()), float(z.norm())))
    dual = _over(G.adjoint(z - before).norm(), G.adjoint(u).norm())
    return min(max(_over(primal, dual) ** 0.5, 0.1), 10.0)


def _gain(operator: LinearPhysics, like: Tensor) -> float:
    """`|A^T A|`."""
    draw = torch.rand(like.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positive = (draw + 0.5).to(like)
    return largest_singular_value(operator.A, operator.A_adjoint, positive) ** 2


def _over(a: float | Tensor, b: float | Tensor) -> float:
    return float(a) / max(float(b), 1e-300)


def _refuse(
    like: Tensor, weight: float, spacing: tuple[float, ...], rho_rel: float, max_iter: int
) -> None:
    if len(like) != 1:
        raise ValueError(f"found {len(like)} measurements, expected one; call it for each.")
    if not (weight > 0 and rho_rel > 0 and max_iter > 0):
        raise ValueError(
            "total variation needs weight > 0, rho_rel > 0 and max_iter > 0, found "
            f"{weight}, {rho_rel} and {max_iter}."
        )
    if len(spacing) != like.ndim - 2 or min(spacing) <= 0:
        raise ValueError(
            f"spacing is {spacing}, expected a number above 0 for each of {like.ndim - 2} axes."
        )
