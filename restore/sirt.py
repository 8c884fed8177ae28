"""SIRT, the simultaneous iterative reconstruction technique, a classical rival in tomography.

Gilbert, *Iterative methods for the three-dimensional reconstruction of an object from projections*,
1972; in the form of Gregor and Benson, 2008:

    x <- x + C A^T R (y - A x),   R = 1 / A 1,   C = 1 / A^T 1

Every ray hands its misfit back to the voxels that it crossed, in proportion. Few iterations are
smooth, many fit the noise: the number is the regularisation.
"""

from collections.abc import Iterator

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor


def sirt(y: Tensor, operator: LinearPhysics, iterations: int) -> Iterator[Tensor]:
    """Reconstruct, from zero.

    Args:
        y: measurements `(B, ...)`.
        operator: of weights that are not negative, as lengths of rays.
        iterations: how many.

    Yields:
        The images `(B, C, *spatial)` after every iteration.

    Raises:
        ValueError: an operator with negative weights.
    """
    x = torch.zeros_like(operator.A_adjoint(y))
    rays, voxels = operator.A(torch.ones_like(x)), operator.A_adjoint(torch.ones_like(y))
    if bool((rays < 0).any()) or bool((voxels < 0).any()):
        raise ValueError(
            "the operator has negative weights, expected lengths of rays; use least squares, "
            "operator.A_dagger."
        )
    R, C = _inverse(rays), _inverse(voxels)
    for _ in range(iterations):
        x = x + C * operator.A_adjoint(R * (y - operator.A(x)))
        yield x


def _inverse(sums: Tensor) -> Tensor:
    """`1 / sums`, and 0 where nothing meets, but for rounding."""
    met = sums > 1e-6 * sums.max()
    return torch.where(met, 1 / torch.where(met, sums, 1), 0)
