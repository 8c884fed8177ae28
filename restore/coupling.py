"""What ties the slices of a volume together when the prior knows only single slices.

The term `lambda |D x|_1` (or `lambda/2 |D x|^2`) on differences `D x` between neighbours, with
weight one on `|A x - y|^2 / 2`. Total variation goes by ADMM, in scaled form:

    x <- argmin_x |A x - y|^2 / 2 + rho/2 |D x - d + u|^2
    d <- soft(D x + u, lambda / rho)
    u <- u + D x - d

Both `d` and `u` follow from one volume, `v = D x + u` of the last update: `u = clip(v, +-lambda /
rho)` and `d = v - u`. Solvers carry `v` from one noise level to the next, which is what makes a
single ADMM step a level enough (Chung et al. 2023, DiffusionMBIR, arXiv:2211.10655).

`lambda = 0` does not switch the term off: `d` then stores differences of an earlier, noisier
iterate, and `rho |D x - d|^2` drags its noise along. `NoCoupling` switches it off.

Everything here is in place and allocates nothing of the size of a volume but `v`: a volume may be
an eighth of the memory.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

log = logging.getLogger("restore")

Level = float | Tensor  # one number, or one a volume `(N, 1, ..., 1)`
Boundary = Literal["neumann", "periodic"]
ZPrior = Literal["tv", "quadratic", "none"]

_STRONG = 0.5  # of |A^T A|: above, rho holds x to the differences of the noisier level before
_SLAB = 8  # slices of temporary memory


class Coupling(Protocol):
    """A term on volumes `x` `(N, C, D, H, W)` and the variables `v` that go with it."""

    def start(self, like: Tensor) -> list[Tensor]:
        """Make the variables at `d = u = 0`, for volumes like these."""
        ...

    def add_gram(self, x: Tensor, out: Tensor) -> None:
        """Add `rho D^T D x` to `out`, the term's share in the normal equations."""
        ...

    def add_pull(self, v: list[Tensor], out: Tensor) -> None:
        """Add `rho D^T (d - u)` to `out`, the term's share in their right-hand side."""
        ...

    def update(self, x: Tensor, v: list[Tensor]) -> None:
        """Bring `d` and `u` up to date with a new `x`."""
        ...


@dataclass(frozen=True)
class NoCoupling:
    """Independent slices: no term at all."""

    def start(self, like: Tensor) -> list[Tensor]:
        """See `Coupling`."""
        return []

    def add_gram(self, x: Tensor, out: Tensor) -> None:
        """See `Coupling`."""

    def add_pull(self, v: list[Tensor], out: Tensor) -> None:
        """See `Coupling`."""

    def update(self, x: Tensor, v: list[Tensor]) -> None:
        """See `Coupling`."""


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """`lam/2 |D x|^2`: a Gaussian prior on differences, without variables.

    Args:
        lam: lambda.
        axes: spatial axes along which neighbours are compared, 0 for D.
        spacing: distance of neighbours along each of these axes; differences are divided by it.
        boundary: "neumann" compares neighbours only; "periodic" also the last with the first.
    """

    lam: Level
    axes: tuple[int, ...] = (0,)
    spacing: tuple[float, ...] = (1.0,)
    boundary: Boundary = "neumann"

    def start(self, like: Tensor) -> list[Tensor]:
        """See `Coupling`."""
        return []

    def add_gram(self, x: Tensor, out: Tensor) -> None:
        """See `Coupling`."""
        _add_gram(self, self.lam, x, out)

    def add_pull(self, v: list[Tensor], out: Tensor) -> None:
        """See `Coupling`."""

    def update(self, x: Tensor, v: list[Tensor]) -> None:
        """See `Coupling`."""


@dataclass(frozen=True, kw_only=True)
class TotalVariation:
    """`lam |D x|_1`, anisotropic: one `v` for every axis.

    Args:
        lam: lambda.
        rho: penalty of ADMM; it changes the path, not where ADMM converges to.
        axes: spatial axes along which neighbours are compared, 0 for D.
        spacing: distance of neighbours along each of these axes; differences are divided by it.
        boundary: "neumann" compares neighbours only; "periodic" also the last with the first.
    """

    lam: Level
    rho: Level
    axes: tuple[int, ...] = (0,)
    spacing: tuple[float, ...] = (1.0,)
    boundary: Boundary = "neumann"

    def start(self, like: Tensor) -> list[Tensor]:
        """See `Coupling`."""
        return [torch.zeros_like(like) for _ in self.axes]

    def add_gram(self, x: Tensor, out: Tensor) -> None:
        """See `Coupling`."""
        _add_gram(self, self.rho, x, out)

    def add_pull(self, v: list[Tensor], out: Tensor) -> None:
        """See `Coupling`."""
        rho = _as(self.rho, out)
        for axis, h, w in zip(self.axes, self.spacing, v, strict=True):
            for (w_i, _), (out_i, out_j) in _pairs((w, out), axis, self.boundary):
                pull = (w_i - 2 * self.dual(w_i)).mul_(rho / h)  # rho (d - u) / h
                out_j.add_(pull)
                out_i.sub_(pull)

    def update(self, x: Tensor, v: list[Tensor]) -> None:
        """See `Coupling`."""
        for axis, h, w in zip(self.axes, self.spacing, v, strict=True):
            for (w_i, _), (x_i, x_j) in _pairs((w, x), axis, self.boundary):
                w_i.copy_(self.dual(w_i).add_(x_j, alpha=1 / h).sub_(x_i, alpha=1 / h))

    def dual(self, v: Tensor) -> Tensor:
        """`u` of `v`: the projection that is left of `v` after soft thresholding."""
        limit = _as(self.lam, v) / _as(self.rho, v)
        return v.clamp(-limit, limit)


def coupling(
    z_prior: ZPrior,
    gain: Level,
    *,
    rho_rel: float,
    lambda_rel: float,
    width: float,
    axes: tuple[int, ...] = (0,),
    spacing: tuple[float, ...] = (1.0,),
    boundary: Boundary = "neumann",
) -> Coupling:
    """Build the term from numbers without units.

    Args:
        z_prior: "tv", "quadratic", or "none" for no term.
        gain: `|A^T A|`, see `restore.gain.squared_norm`.
        rho_rel: rho over `|A^T A|`.
        lambda_rel: lambda over `|A^T A|`; of total variation also over the width of the image's
            range.
        width: of that range.
        axes: see `TotalVariation`.
        spacing: see `TotalVariation`.
        boundary: see `TotalVariation`.
    """
    if z_prior == "none":
        return NoCoupling()
    if z_prior == "quadratic":
        return Quadratic(lam=lambda_rel * gain, axes=axes, spacing=spacing, boundary=boundary)
    if rho_rel > _STRONG:
        log.warning(
            "rho is %g |A^T A|, more than %g: noisy differences of earlier levels are held on to; "
            "lower rho_rel.",
            rho_rel,
            _STRONG,
        )
    return TotalVariation(
        lam=lambda_rel * width * gain,
        rho=rho_rel * gain,
        axes=axes,
        spacing=spacing,
        boundary=boundary,
    )


def refusal(
    z_prior: str, boundary: str, rho_rel: float, lambda_rel: float, axes: tuple[int, ...]
) -> str | None:
    """Say in one sentence what is wrong with these numbers, or None."""
    if z_prior not in get_args(ZPrior):
        return f"unknown z_prior '{z_prior}'; choose {', '.join(get_args(ZPrior))}."
    if boundary not in get_args(Boundary):
        return f"unknown boundary '{boundary}'; choose {' or '.join(get_args(Boundary))}."
    if not (rho_rel > 0 and lambda_rel >= 0):
        return f"rho_rel > 0 and lambda_rel >= 0 are needed, found {rho_rel}, {lambda_rel}."
    if not axes or len(set(axes)) != len(axes) or not set(axes) <= {0, 1, 2}:
        return f"axes are {axes}, expected some of 0 (D), 1 (H) and 2 (W); correct them."
    return None


# -- differences ---------------------------------------------------------------------------------


def differences(x: Tensor, axis: int, boundary: Boundary = "neumann") -> Tensor:
    """`(D x)_i = x_{i+1} - x_i` along a spatial axis, shaped like `x`.

    The last is zero ("neumann") or that to the first ("periodic").
    """
    out = torch.zeros_like(x)
    for (out_i, _), (x_i, x_j) in _pairs((out, x), axis, boundary):
        out_i.add_(x_j).sub_(x_i)
    return out


def differences_adjoint(w: Tensor, axis: int, boundary: Boundary = "neumann") -> Tensor:
    """`(D^T w)_i = w_{i-1} - w_i`, the adjoint of `differences`."""
    out = torch.zeros_like(w)
    for (out_i, out_j), (w_i, _) in _pairs((out, w), axis, boundary):
        out_j.add_(w_i)
        out_i.sub_(w_i)
    return out


def _add_gram(term: Quadratic | TotalVariation, weight: Level, x: Tensor, out: Tensor) -> None:
    for axis, h in zip(term.axes, term.spacing, strict=True):
        c = _as(weight, x) / h**2
        for (x_i, x_j), (out_i, out_j) in _pairs((x, out), axis, term.boundary):
            out_j.addcmul_(x_j, c).addcmul_(x_i, c, value=-1)
            out_i.addcmul_(x_i, c).addcmul_(x_j, c, value=-1)


def _pairs(
    volumes: tuple[Tensor, Tensor], axis: int, boundary: Boundary
) -> Iterator[tuple[tuple[Tensor, Tensor], ...]]:
    """Views of neighbours `(x_i, x_{i+1})` along a spatial axis, of each volume, slab by slab."""
    dim, n = 2 + axis, volumes[0].shape[2 + axis]
    for i in range(0, n - 1, _SLAB):
        size = min(_SLAB, n - 1 - i)
        yield tuple((x.narrow(dim, i, size), x.narrow(dim, i + 1, size)) for x in volumes)
    if boundary == "periodic":
        yield tuple((x.narrow(dim, n - 1, 1), x.narrow(dim, 0, 1)) for x in volumes)


def _as(level: Level, like: Tensor) -> Tensor:
    return torch.as_tensor(level, dtype=like.dtype, device=like.device)
