"""How much an operator amplifies: steps along `A^T (A x - y)` are stable only relative to it."""

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from operators.linalg import dot
from restore.problem import Problem


def squared_norm(problem: Problem, iterations: int = 30) -> Tensor:
    """`|A|^2` of every image's operator by the power method, from below.

    Args:
        problem: any; 1 is returned for an operator that is not linear, or sees nothing.
        iterations: applications of `A^T A`, from one start for all images.

    Returns:
        `(N, 1, ..., 1)`.
    """
    one = (1, *problem.shape[1:])
    draw = torch.rand(one, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = (draw + 0.5).to(problem.y).expand(problem.shape)
    gain = dot(v, v) / dot(v, v)
    if not isinstance(problem.operator, LinearPhysics):
        return gain
    for _ in range(iterations):
        v = v / dot(v, v).sqrt().clamp_min(torch.finfo(v.dtype).tiny)
        Kv = problem.A_adjoint(problem.A(v))
        gain, v = dot(v, Kv), Kv
    return torch.where(gain > 0, gain, 1)
