"""Weights of exponential integrators: the integrals of polynomials under `e^lam` or `e^-lam`.

phi_1(z) = (e^z - 1) / z,   phi_{k+1}(z) = (phi_k(z) - 1/k!) / z,
j! phi_{j+1}(-h) = int_0^1 e^{-(1-u) h} u^j du
"""

import math
from collections.abc import Sequence

import torch

_SERIES = 1.0  # below, the recursion loses digits to cancellation


def phi(k: int, z: float) -> float:
    """Return `phi_k(z)`, k >= 1, to rounding error at any `z`."""
    if abs(z) < _SERIES:
        return sum(z**i / math.factorial(i + k) for i in range(18))
    value = math.expm1(z) / z
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def adams_weights(nodes: Sequence[float], h: float, *, form: float = -1.0) -> list[float]:
    """Weights `w_j` with `sum_j w_j p(nodes_j) = int_0^1 e^{form (1-u) h} p(u h) du`.

    Exact for every polynomial `p` of lower degree than there are nodes. One step is then, with the
    denoised images or the noises at the nodes,

        data form, -1:    x' = (sigma' / sigma) x + alpha' h sum_j w_j D_j
        noise form, +1:   x' = (alpha' / alpha) x - sigma' h sum_j w_j eps_j

    Args:
        nodes: distinct places in `lam` relative to the start of the step; 0 is the start itself,
            earlier evaluations are negative.
        h: length of the step in `lam`.
        form: -1 or +1.
    """
    u = torch.tensor(nodes, dtype=torch.float64) / h
    powers = torch.stack([u**j for j in range(len(nodes))])
    moments = [math.factorial(j) * phi(j + 1, form * h) for j in range(len(nodes))]
    return torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()
