"""Separable operators: one small matrix along every spatial axis, `A x = L_1 x L_2^T`.

Their singular value decomposition is the Kronecker product of the small ones, so that inverses are
closed forms whatever the boundary. Resampling and blur matrices are banded: they are applied in
blocks of rows, each a product with the few columns it reads (for 512 pixels to 128, four times
faster than the dense product and more than twice as fast as a strided convolution).
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, linalg

from .svd import SVD, Decomposed

GATHER = 32  # multiplications that cost as much as copying one number (measured)


class Constant:
    """A tensor kept in double precision, in the precision and on the device of whoever asks."""

    def __init__(self, master: Tensor) -> None:
        self.master = master
        self._casts: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def __call__(self, like: Tensor) -> Tensor:
        """The tensor for computing with `like`; whole numbers stay whole, complex ones complex."""
        key = like.dtype, like.device
        if key not in self._casts:
            dtype = self.master.dtype
            if dtype.is_floating_point or dtype.is_complex:
                dtype = like.dtype.to_complex() if dtype.is_complex else like.dtype
            with torch.inference_mode(False):  # it may be differentiated through later
                self._casts[key] = self.master.to(like.device, dtype)
        return self._casts[key]


class Factors(NamedTuple):
    """Thin singular value decomposition of a small matrix, `U (m, r)`, `s (r,)`, `V (n, r)`."""

    U: "Along"
    s: Tensor
    V: "Along"


class Along:
    """A matrix that is applied along one axis of an image.

    Args:
        matrix: `(m, n)`, any real dtype; kept in float64.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.detach().to("cpu", torch.float64)
        index, values = _blocks(self.matrix)
        self._index = None if index is None else Constant(index)
        self._values = Constant(values)

    @cached_property
    def T(self) -> "Along":
        """The transpose."""
        return Along(self.matrix.T.contiguous())

    @cached_property
    def svd(self) -> Factors:
        """Its thin singular value decomposition, in float64."""
        U, s, Vt = linalg.svd(self.matrix, full_matrices=False)
        return Factors(Along(U), s, Along(Vt.T.contiguous()))

    def __call__(self, x: Tensor, axis: int) -> Tensor:
        """Apply along `axis < 0` of `x`, whose length must be `n`."""
        rows, columns = self.matrix.shape
        shape = (*x.shape[:axis], rows, *x.shape[x.ndim + axis + 1 :])
        x = x.reshape(-1, columns, math.prod(x.shape[x.ndim + axis + 1 :]))
        values = self._values(x)
        if x.shape[2] == 1:
            y = self._last(x[..., 0], values)
        elif self._index is None:
            y = values[0] @ x
        else:
            blocks = x.index_select(1, self._index(x)).unflatten(1, (len(values), -1))
            y = (values @ blocks).flatten(1, 2)[:, :rows]
        return y.reshape(shape)

    def _last(self, x: Tensor, values: Tensor) -> Tensor:
        """Apply to rows `(N, n)`."""
        if self._index is None:
            return x @ values[0].T
        blocks = x.index_select(1, self._index(x)).unflatten(1, (len(values), -1))
        y = torch.bmm(blocks.transpose(0, 1), values.mT)
        return y.transpose(0, 1).flatten(1)[:, : len(self.matrix)]


class Separable(Decomposed):
    """`A x = L_1 x L_2^T`: one matrix along every spatial axis, the same for every channel.

    The matrices are kept in float64 and follow the precision and device of the images.

    Args:
        matrices: one `(m, n)` for every spatial axis; axes that share an `Along` share its
            decomposition.
        **options: of deepinv's `LinearPhysics`, such as `noise_model`.
    """

    unit: Tensor

    def __init__(self, matrices: Sequence[Along], **options: Any) -> None:
        super().__init__(**options)
        self.along = tuple(matrices)
        self.register_buffer("unit", torch.ones(()), persistent=False)  # moves with the operator

    def A(self, x: Tensor) -> Tensor:
        """Apply: `(B, C, n_1, n_2, ...)` to `(B, C, m_1, m_2, ...)`."""
        refuse_other_size(x, "images", [a.matrix.shape[1] for a in self.along])
        return _along_axes(self.along, x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoint: `(B, C, m_1, m_2, ...)` to `(B, C, n_1, n_2, ...)`."""
        refuse_other_size(y, "measurements", [a.matrix.shape[0] for a in self.along])
        return _along_axes([a.T for a in self.along], y, last_first=True)

    def svd(self) -> SVD:
        """Kronecker product of the small decompositions; coordinates `(B, C, r_1, r_2, ...)`."""
        factors = [a.svd for a in self.along]
        s = factors[0].s
        for factor in factors[1:]:
            s = s[..., None] * factor.s
        return SVD(
            s=s.to(self.unit),
            Vt=lambda x: _along_axes([f.V.T for f in factors], x),
            V=lambda c: _along_axes([f.V for f in factors], c, last_first=True),
            U=lambda c: _along_axes([f.U for f in factors], c, last_first=True),
            Ut=lambda y: _along_axes([f.U.T for f in factors], y),
        )


def refuse_other_size(x: Tensor, what: str, size: Sequence[int]) -> None:
    """Refuse images or measurements of another size than the operator's.

    Raises:
        ValueError: not `(B, C, *size)`.
    """
    if x.ndim != 2 + len(size) or tuple(x.shape[2:]) != tuple(size):
        raise ValueError(
            f"the {what} have shape {tuple(x.shape)}, expected (B, C, "
            f"{', '.join(map(str, size))}); build the operator for that size."
        )


def _along_axes(matrices: Sequence[Along], x: Tensor, *, last_first: bool = False) -> Tensor:
    """Apply one matrix along every spatial axis; the last axis is the slow one."""
    order = range(len(matrices))
    for i in reversed(order) if last_first else order:
        x = matrices[i](x, i - len(matrices))
    return x


def _blocks(matrix: Tensor) -> tuple[Tensor | None, Tensor]:
    """Cut a matrix into blocks of rows that read few columns, or leave it whole if that is cheaper.

    Returns:
        The columns `(blocks * w,)` that the blocks read, None for all, and the blocks `(blocks, b,
        w)`; rows beyond the matrix are zero.
    """
    rows, columns = matrix.shape
    best, cost = rows, rows * columns
    for b in (2**k for k in range(4, (rows - 1).bit_length())):  # smaller products are slow
        count, width = -(-rows // b), max(len(c) for c in _columns(matrix, b))
        if count * width * (b + GATHER) < cost:
            best, cost = b, count * width * (b + GATHER)
    if best == rows:
        return None, matrix[None]
    read = _columns(matrix, best)
    width = max(map(len, read))
    # a block that reads fewer columns reads its first one again, times zero
    index = torch.zeros(len(read), width, dtype=torch.long)
    values = matrix.new_zeros(len(read), best, width)
    for i, columns_read in enumerate(read):
        block = matrix[i * best : (i + 1) * best, columns_read]
        index[i] = columns_read[:1] if len(columns_read) else 0
        index[i, : len(columns_read)] = columns_read
        values[i, : len(block), : len(columns_read)] = block
    return index.flatten(), values


def _columns(matrix: Tensor, b: int) -> list[Tensor]:
    """Columns that each block of `b` rows reads."""
    return [(block != 0).any(0).nonzero()[:, 0] for block in matrix.split(b)]
