"""Line integrals of images along the rays of a scanner, and their exact adjoint."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..validate import one_of, whole
from .astra import astra_matrix
from .cache import remember
from .geometry import Geometry
from .symmetry import Orbits, orbits
from .system_matrix import Stored, Streamed, build, needed

FORMAT = 1  # of what is cached; to be raised with every change of the matrix
COLUMNS = 32  # most right-hand sides at a time; more leave the processor's cache
BUDGET = 2**30  # bytes
WORTH = 2**23  # bytes; smaller matrices are built in the time that a file takes

Backend = Literal["joseph", "astra"]
Map = Callable[[Tensor], Tensor]


class Projector(nn.Module):
    """Line integrals, value times length, through one row of the matrix for every orbit of rays.

    Args:
        geometry: of the scanner.
        matrix: rows for the representatives of the orbits.
        found: the orbits.
        cached: whether what took long is to be kept on disk.
    """

    images: Tensor
    back: Tensor
    slot: Tensor

    def __init__(
        self, geometry: Geometry, matrix: Stored | Streamed, found: Orbits, cached: bool = False
    ) -> None:
        super().__init__()
        self.geometry, self.matrix, self.cached = geometry, matrix, cached
        self.order, self.rows = found.order, len(found.rays)
        for name in ("images", "back", "slot"):
            self.register_buffer(name, getattr(found, name), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Project images `(B, C, H, W)` to `(B, C, detectors, views)`."""
        self.check(x, "images", self.geometry.size)
        return _Linear.apply(x, self._project, self._back_project)

    def adjoint(self, y: Tensor) -> Tensor:
        """Exact adjoint of `forward`: `(B, C, detectors, views)` to `(B, C, H, W)`."""
        self.check(y, "measurements", self.detector)
        return _Linear.apply(y, self._back_project, self._project)

    @property
    def detector(self) -> tuple[int, int]:
        """Number of bins and of views."""
        return self.geometry.detectors, len(self.geometry.angles)

    def check(self, x: Tensor, what: str, size: tuple[int, int]) -> None:
        """Refuse images or measurements of another size or precision."""
        dtype = next((b.dtype for b in self.buffers() if b.is_floating_point()), x.dtype)
        if x.ndim != 4 or x.shape[2:] != size:
            raise ValueError(
                f"the {what} have shape {tuple(x.shape)}, expected (B, C, {size[0]}, {size[1]}); "
                "build the operator for that size."
            )
        if x.dtype != dtype:
            raise ValueError(
                f"the {what} are {x.dtype} but the operator is {dtype}; move one with .to(dtype)."
            )

    def _project(self, x: Tensor) -> Tensor:
        def some(columns: Tensor) -> Tensor:
            moved = take_rows(columns, self.images).reshape(len(columns), -1)
            every = self.matrix.product(moved).reshape(self.rows * self.order, -1)
            return take_rows(every, self.slot)

        return self._by_columns(some, x, self.detector)

    def _back_project(self, y: Tensor) -> Tensor:
        def some(columns: Tensor) -> Tensor:
            every = columns.new_zeros(self.rows * self.order, columns.shape[1])
            every = every.index_copy_(0, self.slot, columns).reshape(self.rows, -1)
            moved = self.matrix.transposed(every).reshape(-1, columns.shape[1])
            return take_rows(moved, self.back).reshape(-1, self.order, columns.shape[1]).sum(1)

        return self._by_columns(some, y, self.geometry.size)

    def _by_columns(self, apply: Map, x: Tensor, shape: tuple[int, int]) -> Tensor:
        """Apply to images as columns, a bounded number at a time, and reshape the result."""
        columns = x.flatten(0, 1).flatten(1).T.split(max(1, COLUMNS // self.order), 1)
        out = torch.cat([apply(some.contiguous()) for some in columns], 1)
        return out.T.reshape(*x.shape[:2], *shape)


class _Linear(torch.autograd.Function):
    """A linear map whose derivative is its adjoint, and the adjoint's the map itself."""

    @staticmethod
    def forward(x: Tensor, apply: Map, adjoint: Map) -> Tensor:
        return apply(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, Map], output: Tensor) -> None:
        _, ctx.map, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Linear.apply(gradients[0], ctx.adjoint, ctx.map), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Linear.apply(tangents[0], ctx.map, ctx.adjoint)


def projector(
    geometry: Geometry,
    *,
    backend: Backend = "joseph",
    memory_budget: int = BUDGET,
    cache: bool = True,
    symmetric: bool = True,
) -> Projector:
    """The projector of a scanner; its matrix is stored if it fits.

    Args:
        geometry: of the scanner.
        backend: "joseph" (this package), or "astra" for the weights of the ASTRA toolbox.
        memory_budget: bytes that the stored matrices may take; above, rows are computed on the way.
        cache: whether to keep matrices on disk, unless they are small.
        symmetric: False stores every ray.

    Raises:
        ValueError: an ASTRA matrix above the budget, or no ASTRA.
    """
    ours = one_of("backend", backend, ("joseph", "astra")) == "joseph"
    budget = whole("memory_budget", memory_budget, low=0, do="give bytes")
    found = orbits(geometry, symmetric=symmetric and ours)
    need = needed(geometry, found.rays)
    cached = cache and need >= WORTH
    if need > budget or need >= 2**35:  # 2^31 entries are more than an int32 counts
        if not ours:
            raise ValueError(
                f"the ASTRA matrix needs about {need} bytes, more than memory_budget={budget}; "
                "raise memory_budget, or leave backend out."
            )
        return Projector(geometry, Streamed(geometry, found.rays), found, cached)
    make = (lambda: build(geometry, found.rays)) if ours else (lambda: astra_matrix(geometry))
    about = f"{FORMAT} {backend} symmetric={symmetric} {geometry!r}"
    return Projector(geometry, Stored(remember(about, make, enabled=cached)), found, cached)


def largest_singular_value(apply: Map, adjoint: Map, x: Tensor) -> float:
    """Norm of an operator without negative weights, by power iteration from a positive image.

    The leading image of such an operator is positive (Perron and Frobenius), so that no random
    start is needed. The quotient converges twice as fast as the image.

    Args:
        apply: the operator.
        adjoint: its adjoint.
        x: a positive image `(1, 1, H, W)`.
    """
    before, value = 0.0, float("inf")
    for _ in range(100):
        x = x / x.norm()
        y = apply(x)
        before, value = value, float(y.double().norm())
        if abs(value - before) <= 1e-6 * value:
            break
        x = adjoint(y)
    return value


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """`x[index]`, five times faster than that for a single column."""
    if x.shape[1] == 1:
        return x[:, 0].index_select(0, index)[:, None]
    return x.index_select(0, index)
