"""Compressed sensing: fewer numbers than pixels, each a random mixture of many of them."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from deepinv.physics import LinearPhysics, StructuredRandom
from torch import Tensor

from .groups import Groups, GroupSensing, OrthonormalRows, chunks, orthonormal_rows, tiles
from .noise import noise_model
from .separable import Constant
from .svd import SVD, Decomposed
from .validate import image_size, number, one_of, seeded, whole

Kind = Literal["structured", "block", "scrambled", "dense"]

_BLOCK = {2: 32, 3: 10}  # about a thousand pixels in the plane and in space


class StructuredSensing(OrthonormalRows, StructuredRandom):
    """`A = R F D_2 F D_1` of each channel, read as one long row of pixels.

    `D_i` are random signs, `F` the orthonormal sine transform, `R` keeps `m` of the `n` numbers.
    Two layers, because with one `R` keeps a band of frequencies, and the columns of nearby pixels
    are all but parallel. `n log n` work, no matrix.
    """

    def __init__(self, shape: tuple[int, ...], m: int, seed: int, **kwargs: Any) -> None:
        super().__init__(
            img_size=(shape[0], 1, math.prod(shape[1:])),
            output_size=(shape[0], 1, m),
            n_layers=2,
            rng=seeded(seed),
            **kwargs,
        )
        self.image_shape = shape

    def A(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Sense: `(B, C, *spatial)` to `(B, C, m)`."""
        return super().A(x.flatten(2).unsqueeze(2)).squeeze(2)

    def A_adjoint(self, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, C, m)` to `(B, C, *spatial)`."""
        return super().A_adjoint(y.unsqueeze(2)).reshape(-1, *self.image_shape)


class DenseSensing(Decomposed, LinearPhysics):
    """`y = M x` of each channel, with one Gaussian matrix `M (m, n)`, entries `N(0, 1/m)`."""

    matrix: Tensor

    def __init__(self, shape: tuple[int, ...], m: int, seed: int, **kwargs: Any) -> None:
        super().__init__(img_size=shape, **kwargs)
        self.img_size = shape
        n = math.prod(shape[1:])
        self.register_buffer("matrix", torch.randn(m, n, generator=seeded(seed)) / math.sqrt(m))

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Sense: `(B, C, *spatial)` to `(B, C, m)`."""
        return x.flatten(2) @ self.matrix.T

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, C, m)` to `(B, C, *spatial)`."""
        return (y @ self.matrix).unflatten(2, self.img_size[1:])

    def svd(self) -> SVD:
        """Of the matrix; the first call computes it, `m^2 n` work in float64, and keeps it."""
        U, s, Vt = self._factors
        return SVD(
            s=s(self.matrix),
            Vt=lambda x: x.flatten(2) @ Vt(x).T,
            V=lambda c: (c @ Vt(c)).unflatten(2, self.img_size[1:]),
            U=lambda c: c @ U(c).T,
            Ut=lambda y: y @ U(y),
        )

    @cached_property
    def _factors(self) -> list[Constant]:
        parts = torch.linalg.svd(self.matrix.double().cpu(), full_matrices=False)
        return [Constant(part) for part in parts]


def compressed_sensing(
    image_shape: Sequence[int],
    *,
    ratio: float = 0.25,
    kind: Kind = "structured",
    block: int | None = None,
    seed: int = 0,
    memory_budget: int = 512 * 2**20,
    noise: float = 0.0,
) -> LinearPhysics:
    """Compressed sensing of every channel: about `ratio n` random mixtures of its `n` pixels.

    Args:
        image_shape: `(C, H, W)` of one clean image, or `(C, D, H, W)` of one volume.
        ratio: measurements per pixel `m / n`.
        kind: "structured" (sine transforms and random signs, every pixel in every number), "block"
            (squares of `block` pixels a side, all through one matrix, as block cameras do),
            "scrambled" (groups of as many pixels from all over the image, brought together by a
            random permutation) or "dense" (a Gaussian matrix, for small images). All but the last
            have `A A^T = I`.
        block: side of a block; groups have at most `block^2` pixels and `ceil(ratio block^2)`
            measurements each. 32 in images and 10 in volumes when None.
        seed: of the random mixtures.
        memory_budget: bytes that the matrices, and the decomposition of a dense one, may take.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, C, *spatial)` to `(B, C, m)` for "structured" and "dense", to
        `(B, C, groups, q)` for "block", in reading order, and "scrambled".

    Raises:
        ValueError: bad ratio, unknown kind, more measurements than pixels in a group, or matrices
            above the budget.
    """
    shape = image_size(image_shape, dims=(2, 3))
    ratio = number("ratio", ratio, above=0, high=1, do="give measurements per pixel")
    one_of("kind", kind, get_args(Kind))
    budget = whole("memory_budget", memory_budget, low=0, do="give bytes")
    side = _side(block, kind, len(shape) - 1)
    n, model = math.prod(shape[1:]), noise_model(noise)
    m = max(1, round(ratio * n))
    if kind == "structured":
        return StructuredSensing(shape, m, seed, noise_model=model)
    if kind == "dense":
        _refuse_size(16 * m * n, f"the dense {m}x{n} matrix with its decomposition", budget)
        return DenseSensing(shape, m, seed, noise_model=model)
    generator = seeded(seed)
    if kind == "block":
        groups = tiles(shape[1:], side)
    else:
        groups = chunks(torch.randperm(n, generator=generator), side ** (len(shape) - 1))
    q, size = _measurements(ratio, groups), groups[0].pixels.shape[1]
    need = 16 * q * sum(g.pixels.shape[1] for g in groups) + 24 * n
    _refuse_size(need, f"kind={kind} with its {q}x{size} matrix", budget)
    phi = orthonormal_rows(torch.randn(q, size, generator=generator, dtype=torch.float64))
    return GroupSensing(shape, groups, phi, noise_model=model)


def _side(block: int | None, kind: str, dims: int) -> int:
    if block is None:
        return _BLOCK[dims]
    if kind not in ("block", "scrambled"):
        raise ValueError(f"block is {block} but kind={kind} has no blocks; drop block.")
    return whole("block", block, low=1, do="give the side of a block in pixels")


def _measurements(ratio: float, groups: Sequence[Groups]) -> int:
    """Measurements of every group: those of the largest, rounded up."""
    largest, smallest = groups[0].pixels.shape[1], min(g.pixels.shape[1] for g in groups)
    q = math.ceil(ratio * largest - 1e-9)  # 0.7 * 10 is 7.000000000000001
    if q > smallest:
        raise ValueError(
            f"ratio={ratio:g} asks for {q} measurements of every group but the smallest has "
            f"{smallest} pixels; lower it to {math.floor(1000 * smallest / largest) / 1000}, or "
            "choose a block that divides the image."
        )
    return q


def _refuse_size(need: int, what: str, budget: int) -> None:
    if need > budget:
        raise ValueError(
            f"{what} needs {need} bytes, more than memory_budget={budget}; use kind=structured, "
            "a smaller ratio or a smaller image."
        )
