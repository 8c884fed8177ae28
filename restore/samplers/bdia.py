"""BDIA: a sampler that can be run backwards, exactly.

Zhang, Lewis, Kleijn, *Exact Diffusion Inversion via Bi-directional Integration Approximation*,
ECCV 2024, arXiv:2307.10829 (BDIA-DDIM). With `T(x, a -> b)` a DDIM step by the noise `eps_n` that
is expected in `x_n`,

    x_{n+1} = gamma x_{n-1} - gamma T(x_n, n -> n-1) + T(x_n, n -> n+1),

which names `x_{n-1}` as plainly as `x_{n+1}`. The first step is DDIM's.

    symbol    name here    meaning
    gamma     gamma        how much of the last step is integrated again, from its far end
    -         lattice      spacing of a lattice on which additions are exact

**Order.** The leading error is `(1 - gamma) / (1 + gamma)` of DDIM's; gamma = 1 has order 2.
In `dy/ds = kappa y` with even steps of level it is stable up to
`z = |kappa| (s_n - s_{n+1}) = 2 (1 - gamma) / (1 + gamma)`: for gamma = 1 never, though its
parasitic root grows slowly. The paper takes gamma = 1 with some 40 steps and 0.5 with 10.

**Inversion.** Two neighbouring images fix the walk, so that it is inverted from a pair. Each step
back divides by gamma, and rounding grows as `gamma^-N`: inversions that would lose it all are
refused. An image alone is given the neighbour of one DDIM step back; then image -> pair -> image is
exact, though the pair is not the latent of the exact flow. What the chosen neighbour misses by
grows as `gamma^-N` too, so that latents fit to be edited need gamma near 1. At gamma = 1 with a
`lattice`, decoding repeats every bit. The denoiser must answer alike each time it is asked:
inference mode, one batch size.

Cost: one call a step, either way, and one more to see that the denoiser repeats itself.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.samplers.grid import Grid, Point
from restore.samplers.sampler import Denoise, Path, Sampler, transfer

Pair = tuple[Tensor, Tensor]
"""`x` at two neighbouring points of a grid, the less noisy first."""

TOLERANCE = 1e-3  # relative loss at which an inversion is refused


@dataclass(frozen=True, kw_only=True)
class BDIA(Sampler):
    """BDIA-DDIM; see the module's docstring.

    Args:
        gamma: in [0, 1]; 0 is DDIM, which has no inverse.
        lattice: round every move to a multiple of this power of two; needs gamma = 1. With
            float32, 2^-16 holds values up to 256.
    """

    name: ClassVar[str] = "bdia"
    paper: ClassVar[str] = "Zhang, Lewis & Kleijn 2024, BDIA"
    memory: ClassVar[bool] = True

    gamma: float = 1.0
    lattice: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"bdia needs 0 <= gamma <= 1, found {self.gamma}; choose within.")
        if self.lattice is None:
            return
        if self.gamma != 1 or not self.lattice > 0 or math.frexp(self.lattice)[0] != 0.5:
            raise ValueError(
                f"a lattice needs gamma = 1 and a power of two, found gamma={self.gamma} and "
                f"lattice={self.lattice}; try gamma=1, lattice=2**-16."
            )

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of convergence."""
        return "2" if self.gamma == 1 else "1"

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Take a DDIM step, then integrate each last step once more while taking the next."""
        first, second = path.grid[0], path.grid[1]
        x = self._rounded(x)
        after = self._rounded(transfer(x, first, second, path.eps(x, first)))
        yield after
        for _, later in self._forth(path, (after, x)):
            yield later

    def encode(self, denoise: Denoise, image: Tensor, grid: Grid) -> Pair:
        """Carry clean images `(N, C, *spatial)` up to `x` at points 1 and 0 of the grid.

        Raises:
            ValueError: see `invert`.
        """
        last, before = grid[-1], grid[-2]
        path, x = Path(denoise, grid), self._rounded(last.alpha * image)
        neighbour = self._rounded(transfer(x, last, before, path.eps(x, last)))
        return self.invert(denoise, (x, neighbour), grid)

    def decode(self, denoise: Denoise, pair: Pair, grid: Grid) -> Tensor:
        """Carry `x` at points 1 and 0 down to the clean images that `encode` had."""
        return self.walk(denoise, pair, grid)[0] / grid[-1].alpha

    def walk(self, denoise: Denoise, pair: Pair, grid: Grid) -> Pair:
        """Carry `x` at points 1 and 0 down to points N and N - 1."""
        for x, after in self._forth(Path(denoise, grid), pair):
            pair = after, x
        return pair

    def invert(self, denoise: Denoise, pair: Pair, grid: Grid) -> Pair:
        """Carry `x` at points N and N - 1 up to points 1 and 0.

        Raises:
            ValueError: rounding would grow beyond measure, or the denoiser does not repeat itself.
        """
        after, x = pair
        self._guard(grid.steps, x.dtype)
        path = Path(denoise, grid)
        if not torch.equal(path.D(x, grid[-2]), path.D(x, grid[-2])):
            raise ValueError(
                "inversion needs a denoiser that repeats itself, found two answers to one "
                "question; put it in eval mode and allow deterministic algorithms only."
            )
        for n in range(grid.steps - 1, 0, -1):
            move = self._move(path, x, grid[n - 1], grid[n], grid[n + 1])
            after, x = x, self._held((after - move) / self.gamma)
        return after, x

    def stability_limit(self) -> float:
        """Largest stable `z` of even steps."""
        return 2 * (1 - self.gamma) / (1 + self.gamma)

    def _forth(self, path: Path, pair: Pair) -> Iterator[Pair]:
        """From points 1 and 0 on: yield `x` at every two neighbouring points, the noisier first."""
        (x, before), points = pair, path.grid.points
        for a, b, c in zip(points, points[1:], points[2:], strict=False):
            after = self._held(self.gamma * before + self._move(path, x, a, b, c))
            yield x, after
            before, x = x, after

    def _move(self, path: Path, x: Tensor, before: Point, at: Point, after: Point) -> Tensor:
        eps = path.eps(x, at)
        back = transfer(x, at, before, eps) if self.gamma else 0
        return self._rounded(transfer(x, at, after, eps) - self.gamma * back)

    def _rounded(self, x: Tensor) -> Tensor:
        return x if self.lattice is None else self._held((x / self.lattice).round() * self.lattice)

    def _held(self, x: Tensor) -> Tensor:
        """Return `x`, or refuse it where the lattice is finer than its digits."""
        if self.lattice is None:
            return x
        room, largest = self.lattice / torch.finfo(x.dtype).eps, float(x.abs().max())
        if not largest <= room:
            raise ValueError(
                f"a lattice of {self.lattice:g} holds values to {room:g} in {x.dtype}, found "
                f"{largest:.3g}; choose a coarser lattice or float64."
            )
        return x

    def _guard(self, steps: int, dtype: torch.dtype) -> None:
        room = TOLERANCE / torch.finfo(dtype).eps
        if self.gamma == 0:
            raise ValueError("bdia with gamma = 0 is DDIM and has no inverse; raise gamma.")
        if self.gamma**-steps > room:
            longest = math.floor(math.log(room) / -math.log(self.gamma))
            raise ValueError(
                f"inverting {steps} steps with gamma={self.gamma:g} multiplies rounding by "
                f"{self.gamma**-steps:.1e}; in {dtype} take at most {longest} steps or gamma of at "
                f"least {math.ceil(room ** (-1 / steps) * 1e4) / 1e4:g}."
            )
