"""Orthonormal bases in which covariances of images are diagonal."""

import math
from typing import Protocol

import torch
from torch import Tensor

from operators.transforms import hartley


class Basis(Protocol):
    """An orthonormal change of variables on images `(B, C, *spatial)`."""

    def analyse(self, x: Tensor, /) -> Tensor:
        """Return the coefficients `B^T x`."""
        ...

    def synthesise(self, c: Tensor, /) -> Tensor:
        """Return the image `B c`."""
        ...


class Hartley:
    """The real Fourier basis of periodic images; diagonalises stationary covariances."""

    def analyse(self, x: Tensor) -> Tensor:
        """Return `Re F x - Im F x`, which is its own inverse."""
        return hartley(x, range(2, x.ndim))

    synthesise = analyse


class Cosine:
    """The DCT-II basis: stationary statistics with mirrored borders, which suits photographs."""

    def analyse(self, x: Tensor) -> Tensor:
        """Transform along every spatial axis."""
        for axis in range(2, x.ndim):
            x = (x.movedim(axis, -1) @ _dct(x.shape[axis], x).T).movedim(-1, axis)
        return x

    def synthesise(self, c: Tensor) -> Tensor:
        """Transform back along every spatial axis."""
        for axis in range(2, c.ndim):
            c = (c.movedim(axis, -1) @ _dct(c.shape[axis], c)).movedim(-1, axis)
        return c


class Dense:
    """Any orthonormal basis, as the columns of a matrix `(n, n)`."""

    def __init__(self, columns: Tensor) -> None:
        self.columns = columns

    def analyse(self, x: Tensor) -> Tensor:
        """Multiply by the transposed matrix."""
        return (x.flatten(1) @ self.columns.to(x)).reshape(x.shape)

    def synthesise(self, c: Tensor) -> Tensor:
        """Multiply by the matrix."""
        return (c.flatten(1) @ self.columns.to(c).T).reshape(c.shape)


def _dct(size: int, like: Tensor) -> Tensor:
    """Orthonormal DCT-II matrix; rows are frequencies."""
    grid = torch.arange(size, dtype=torch.float64, device=like.device)
    matrix = torch.cos(math.pi / size * torch.outer(grid, grid + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.to(like.dtype)
