"""The square root of a covariance from a few products with it (Lanczos 1950)."""

from collections.abc import Callable

import torch
from torch import Tensor

from operators.linalg import dot


def lanczos_root(
    J: Callable[[Tensor], Tensor], z: Tensor, steps: int
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Approximate `J^(1/2) z` for every image from a few products with `J`.

    `steps` products span a Krylov space and give one vector more; the last diagonal entry of the
    tridiagonal matrix, which would cost another product, repeats the one before unless positivity
    asks for more. `|J^(1/2) z|^2 = z^T J z` holds exactly, so the total variance of the draw does.

    Args:
        J: a symmetric positive product on `(N, C, *spatial)`.
        z: white noise `(N, C, *spatial)`.
        steps: number of products.

    Returns:
        The root, and the pairs `(v, J v)` met on the way.
    """
    norm = dot(z, z).sqrt()
    v, v_old = z / norm, torch.zeros_like(z)
    beta = torch.zeros_like(norm)
    vectors, pairs, diagonal, off = [v], [], [], []
    for _ in range(steps):
        q = J(v)
        pairs.append((v, q))
        alpha = dot(v, q)
        r = q - alpha * v - beta * v_old
        for u in vectors:  # a few vectors in float32 lose orthogonality otherwise
            r = r - dot(u, r) * u
        beta = dot(r, r).sqrt()
        v_old, v = v, r / beta.clamp_min(torch.finfo(r.dtype).tiny)
        diagonal.append(alpha.flatten())
        off.append(beta.flatten())
        vectors.append(v)
    T = _tridiagonal(diagonal, off[:-1])
    last = torch.maximum(diagonal[-1].double(), off[-1].double() ** 2 * _corner_of_inverse(T))
    T = _tridiagonal([*diagonal, last], off)
    values, columns = torch.linalg.eigh(T)
    weights = columns @ (values.clamp_min(0).sqrt() * columns[:, 0])[..., None]
    shape = (-1, *[1] * (z.ndim - 1))
    parts = [weights[:, i, 0].to(z).reshape(shape) * u for i, u in enumerate(vectors)]
    return norm * torch.stack(parts).sum(0), pairs


def _tridiagonal(diagonal: list[Tensor], off: list[Tensor]) -> Tensor:
    """Symmetric tridiagonal matrices `(N, k, k)`, float64."""
    T = torch.diag_embed(torch.stack(diagonal, dim=1).double())
    if off:
        side = torch.stack(off, dim=1).double()
        T = T + torch.diag_embed(side, offset=1) + torch.diag_embed(side, offset=-1)
    return T


def _corner_of_inverse(T: Tensor) -> Tensor:
    """Last diagonal entry of `T^-1` on its positive part: the bound that keeps `T` positive."""
    values, columns = torch.linalg.eigh(T)
    positive = values > 1e-12 * values.abs().amax(dim=1, keepdim=True).clamp_min(1e-300)
    inverse = torch.where(positive, 1 / torch.where(positive, values, 1), 0)
    return (columns[:, -1] ** 2 * inverse).sum(1)
