"""How much an operator amplifies: steps along `A^T (A x - y)` are stable only relative to it."""

from functools import partial

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from operators.linalg import dot
from restore.problem import Problem, fill


def squared_norm(problem: Problem, iterations: int = 30) -> Tensor:
    """`|A|^2` of every image's operator by the power method, from below.

    Args:
        problem: any; 1 is returned for an operator that is not linear, or sees nothing.
        iterations: applications of `A^T A`, from one start for all images.

    Returns:
        `(N, 1, ..., 1)`.
    """
    shape, repeats = (problem.images, *problem.shape[1:]), len(problem.streams)
    v = problem.y.new_empty(shape)
    fill(v[0], partial(torch.rand, generator=torch.Generator().manual_seed(0)))
    v[1:] = v[:1]
    v.add_(0.5)
    gain = torch.ones_like(dot(v, v))
    if isinstance(problem.operator, LinearPhysics):
        for _ in range(iterations):
            v.div_(dot(v, v).sqrt().clamp_min(torch.finfo(v.dtype).tiny))
            Kv = problem.gram(v)
            gain, v = dot(v, Kv), Kv
    return torch.where(gain > 0, gain, 1).repeat(repeats, *[1] * (v.ndim - 1))
