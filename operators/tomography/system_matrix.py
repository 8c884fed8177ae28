"""The system matrix of a scanner: one row a ray, stored or computed on the way.

Stored, the matrix and its transpose both lie in compressed rows, so that both products run at the
speed of memory and the adjoint is exact. Above a budget of memory the same rows are computed a
portion at a time, at every product.
"""

import warnings

import torch
from torch import Tensor, nn

from .geometry import Geometry
from .joseph import assemble, chunks, entries

ENTRY = 16  # bytes: an int32 column and a float32 value, in the matrix and in its transpose


class Stored(nn.Module):
    """A sparse matrix and its transpose, both in compressed rows.

    Args:
        tensors: what `compressed` returns.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def product(self, x: Tensor) -> Tensor:
        """`A x` for columns `(pixels, K)`."""
        return self._matrix("", "_t") @ x

    def transposed(self, y: Tensor) -> Tensor:
        """`A^T y` for columns `(rows, K)`."""
        return self._matrix("_t", "") @ y

    def _matrix(self, this: str, other: str) -> Tensor:
        parts = [getattr(self, name + this) for name in ("start", "column", "weight")]
        size = (len(parts[0]) - 1, len(getattr(self, "start" + other)) - 1)
        with warnings.catch_warnings():  # torch calls its compressed rows a beta feature
            warnings.filterwarnings("ignore", "Sparse CSR")
            return torch.sparse_csr_tensor(*parts, size=size, check_invariants=False)


class Streamed(nn.Module):
    """The same matrix, never as a whole in memory.

    Args:
        geometry: of the scanner.
        rays: numbers of the rays that are its rows.
    """

    rays: Tensor

    def __init__(self, geometry: Geometry, rays: Tensor) -> None:
        super().__init__()
        self.geometry = geometry
        self.register_buffer("rays", rays, persistent=False)

    def product(self, x: Tensor) -> Tensor:
        """`A x` for columns `(pixels, K)`."""
        out = []
        for rays in chunks(self.geometry, self.rays, x.shape[1]):
            row, pixel, weight = self._entries(rays, x)
            y = x.new_zeros(len(rays), x.shape[1])
            out.append(y.index_add_(0, row, weight * x.index_select(0, pixel)))
        return torch.cat(out)

    def transposed(self, y: Tensor) -> Tensor:
        """`A^T y` for columns `(rows, K)`."""
        height, width = self.geometry.size
        x, done = y.new_zeros(height * width, y.shape[1]), 0
        for rays in chunks(self.geometry, self.rays, y.shape[1]):
            row, pixel, weight = self._entries(rays, y)
            x.index_add_(0, pixel, weight * y[done:].index_select(0, row))
            done += len(rays)
        return x

    def _entries(self, rays: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = assemble(self.geometry, rays)
        row = torch.arange(len(rays), device=rays.device).repeat_interleave(rows.length)
        return row, rows.pixel, rows.weight.to(like.dtype)[:, None]


def needed(geometry: Geometry, rays: Tensor) -> int:
    """Bytes that the stored matrices of these rays take, at most."""
    return ENTRY * sum(entries(geometry, some) for some in chunks(geometry, rays))


def build(geometry: Geometry, rays: Tensor) -> dict[str, Tensor]:
    """The matrix of these rays and its transpose, in compressed rows."""
    parts = [assemble(geometry, some) for some in chunks(geometry, rays)]
    start = torch.cat([torch.zeros(1, dtype=torch.int64), *(p.length for p in parts)]).cumsum(0)
    pixel, weight = (torch.cat([p[i] for p in parts]) for i in (1, 2))
    height, width = geometry.size
    return compressed(start, pixel, weight, height * width)


def compressed(start: Tensor, column: Tensor, weight: Tensor, width: int) -> dict[str, Tensor]:
    """A matrix in compressed rows together with its transpose: what `Stored` takes."""
    from scipy.sparse import csr_matrix

    start, column, weight = start.int(), column.int(), weight.float()
    shape = (len(start) - 1, width)
    t = csr_matrix((weight.numpy(), column.numpy(), start.numpy()), shape=shape).T.tocsr()
    names = ("start", "column", "weight", "start_t", "column_t", "weight_t")
    transposed = (torch.from_numpy(part) for part in (t.indptr, t.indices, t.data))
    return dict(zip(names, (start, column, weight, *transposed), strict=True))
