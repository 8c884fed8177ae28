"""Groups of pixels, each measured through the same small matrix with orthonormal rows.

Block compressed sensing (Gan, *Block compressed sensing of natural images*, 2007) groups the pixels
of a tile; the scrambled form of Chen et al. (*Invertible Diffusion Models for Compressed Sensing*,
2025) those that a random permutation brings together.

Where the size of the groups does not divide the image, all groups are made a little smaller, by at
most one pixel a side different from each other. The smaller ones are the larger ones padded with
zeros; their matrix is the nearest one with orthonormal rows to the columns that remain, so that
`A A^T = I` at every size.
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from .separable import Constant
from .svd import SVD, Decomposed


class OrthonormalRows(Decomposed):
    """Mixin for `A A^T = I`: all singular values are one, the adjoint is the pseudo-inverse."""

    def svd(self) -> SVD:
        """`U = I`, `s = 1`, `V^T = A`."""
        return SVD(torch.ones(()), self.A, self.A_adjoint, lambda c: c, lambda y: y)


class Groups(NamedTuple):
    """The groups of one size.

    Attributes:
        numbers: their places `(G,)` in the measurement.
        pixels: flat numbers `(G, N)` of their pixels.
        columns: which `(N,)` columns of the matrix of the largest groups they use.
    """

    numbers: Tensor
    pixels: Tensor
    columns: Tensor


class GroupSensing(OrthonormalRows, LinearPhysics):
    """`y_g = Phi x_g` for every group `x_g` of pixels, all with the same number of measurements.

    Args:
        shape: `(C, *spatial)` of one image.
        groups: those of every size; together they hold every pixel once.
        phi: `(q, N)` with orthonormal rows, float64, for the largest groups.
        **kwargs: for deepinv's `LinearPhysics`.
    """

    def __init__(
        self, shape: tuple[int, ...], groups: Sequence[Groups], phi: Tensor, **kwargs: Any
    ) -> None:
        super().__init__(img_size=shape, **kwargs)
        self.img_size = shape
        self._pixels = [Constant(g.pixels) for g in groups]
        self._numbers = [Constant(g.numbers) for g in groups]
        self._phi = [Constant(orthonormal_rows(phi[:, g.columns])) for g in groups]
        self._order = Constant(torch.cat([g.numbers for g in groups]).argsort())
        self._back = Constant(torch.cat([g.pixels.flatten() for g in groups]).argsort())

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Sense: `(B, C, *spatial)` to `(B, C, groups, q)`."""
        if x.shape[2:] != self.img_size[1:]:
            raise ValueError(
                f"the images have shape {tuple(x.shape)}, expected (B, C, "
                f"{', '.join(map(str, self.img_size[1:]))}); build the operator for that size."
            )
        flat, sizes = x.flatten(2), zip(self._pixels, self._phi, strict=True)
        y = torch.cat([flat[..., pixels(x)] @ phi(x).T for pixels, phi in sizes], 2)
        return y.index_select(2, self._order(x))

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, C, groups, q)` to `(B, C, *spatial)`."""
        sizes = zip(self._numbers, self._phi, strict=True)
        parts = [(y.index_select(2, g(y)) @ phi(y)).flatten(2) for g, phi in sizes]
        return torch.cat(parts, 2).index_select(2, self._back(y)).unflatten(2, self.img_size[1:])


def tiles(spatial: Sequence[int], side: int) -> list[Groups]:
    """Adjoining blocks of at most `side` pixels a side, numbered in reading order."""
    pixels = torch.arange(math.prod(spatial)).reshape(*spatial)
    cuts = [_cuts(length, side) for length in spatial]
    longest = [len(c[0]) for c in cuts]
    columns = torch.arange(math.prod(longest)).reshape(longest)
    found: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for number, block in enumerate(itertools.product(*cuts)):
        tile = pixels[tuple(slice(c.start, c.stop) for c in block)]
        found.setdefault(tuple(tile.shape), []).append((number, tile.flatten()))
    return [
        Groups(
            torch.tensor([number for number, _ in same]),
            torch.stack([tile for _, tile in same]),
            columns[tuple(slice(n) for n in shape)].flatten(),
        )
        for shape, same in sorted(found.items(), reverse=True)
    ]


def chunks(order: Tensor, size: int) -> list[Groups]:
    """Groups of at most `size` pixels, in the order `(n,)` of their flat numbers."""
    found: dict[int, list[tuple[int, Tensor]]] = {}
    for number, cut in enumerate(_cuts(len(order), size)):
        found.setdefault(len(cut), []).append((number, order[cut.start : cut.stop]))
    return [
        Groups(
            torch.tensor([number for number, _ in same]),
            torch.stack([group for _, group in same]),
            torch.arange(length),
        )
        for length, same in sorted(found.items(), reverse=True)
    ]


def orthonormal_rows(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows, `U V^T` of `U diag(s) V^T`."""
    U, _, Vt = torch.linalg.svd(matrix, full_matrices=False)
    return U @ Vt


def _cuts(length: int, side: int) -> list[range]:
    """As few pieces as `side` allows, as equal as can be, the longer ones first."""
    count = -(-length // side)
    ends = [length // count * i + min(i, length % count) for i in range(count + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(ends)]
