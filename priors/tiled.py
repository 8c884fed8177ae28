"""Denoise large images tile by tile, in memory that does not grow with the image.

Neighbouring tiles share `overlap` pixels and the shared strip is cut along its middle: every output
pixel comes from the one tile in which it lies farthest from an edge that is not the image's own.
A cut and not a blend, because a blend mixes in pixels near a tile's edge, which lack context. The
cut is exact for every denoiser that looks no farther than `overlap // 2` pixels, needs no weights,
and gives the gradient of a pixel to one tile. For a denoiser that looks farther, the step at a cut
decays with the overlap: widen it if seams show.

MONAI's `sliding_window_inference` blends with weights that do not vanish at tile edges (so it is
not exact) and hides from its predictor which image a window is of (so no noise level per image).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from priors.denoiser import Denoiser, per_image


class Tiled(Denoiser):
    """A prior for images of any size, made from one that suits tiles.

    An axis shorter than the tile is taken whole. The last tile of an axis is moved back to end at
    the border, so all tiles have one shape.

    Attributes:
        prior: the denoiser of the tiles.
        tile: tile side in pixels, or one per spatial axis.
        overlap: pixels that neighbouring tiles share, less than the tile.
        batch: tiles per call of the prior (each with all images of the batch).
        recompute: under autograd, keep only tile inputs and run each tile again in the backward
            pass, so that gradients too need the memory of `batch` tiles. PyTorch cannot combine
            this with `torch.func.vjp`, `grad` or `jacrev`: set it to False for these.

    Raises:
        ValueError: for an impossible tile, overlap or batch, or a prior that knows one image size
            only.
    """

    def __init__(
        self,
        prior: Denoiser,
        tile: int | Sequence[int] = 256,
        overlap: int = 32,
        *,
        batch: int = 1,
        recompute: bool = True,
    ) -> None:
        sides = (tile,) if isinstance(tile, int) else tuple(tile)
        if not 0 <= overlap < min(sides) or batch < 1:
            raise ValueError(
                f"tiles need 0 <= overlap < tile and batch >= 1, found tile={tile}, "
                f"overlap={overlap}, batch={batch}; correct these."
            )
        if prior.card.image_shape is not None:
            raise ValueError(
                f"prior '{prior.card.name}' knows images of shape {prior.card.image_shape} only "
                "and cannot be tiled; choose a prior for any size."
            )
        extra = {**prior.card.extra, "tile": tile, "overlap": overlap}
        # neither the posterior mean nor the symmetry of its Jacobian survives a cut
        super().__init__(replace(prior.card, exact=False, extra=extra))
        self.prior, self.sides, self.overlap = prior, sides, overlap
        self.batch, self.recompute = batch, recompute

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise; see `Denoiser.forward`.

        Raises:
            ValueError: if the number of tile sides is not that of the spatial axes.
        """
        tiles = self._tiles(x.shape[2:])
        if len(tiles) == 1:
            return self.prior(x, sigma)
        level = per_image(sigma, x).flatten().expand(len(x))
        out = torch.empty_like(x)
        for first in range(0, len(tiles), self.batch):
            group = tiles[first : first + self.batch]
            patches = torch.cat([x[t.read] for t in group])
            denoised = self._denoise(patches, level.repeat(len(group)))
            for t, patch in zip(group, denoised.split(len(x)), strict=True):
                out[t.write] = patch[t.keep]
        return out

    def refuse(self, shape: tuple[int, ...]) -> str | None:
        """Say in one sentence why images of `shape` do not suit this prior."""
        sides = self._sides(len(shape) - 2)
        tile = tuple(min(n, side) for n, side in zip(shape[2:], sides, strict=True))
        return super().refuse(shape) or self.prior.refuse((*shape[:2], *tile))

    def _denoise(self, patches: Tensor, level: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled() and patches.requires_grad:
            return checkpoint(
                self.prior, patches, level, use_reentrant=False, preserve_rng_state=False
            )
        return self.prior(patches, level)

    def _tiles(self, shape: Sequence[int]) -> list["_Tile"]:
        sides = self._sides(len(shape))
        axes = [_spans(n, side, self.overlap) for n, side in zip(shape, sides, strict=True)]
        return [_Tile.of(spans) for spans in product(*axes)]

    def _sides(self, spatial_dims: int) -> tuple[int, ...]:
        sides = self.sides * spatial_dims if len(self.sides) == 1 else self.sides
        if len(sides) != spatial_dims:
            raise ValueError(
                f"tile has {len(sides)} sides {sides} but the image {spatial_dims} spatial axes; "
                "give one side for all axes or one for each."
            )
        return sides


@dataclass(frozen=True)
class _Tile:
    """Indices of one tile: what to read, which part of the result to keep, where to write it."""

    read: tuple[slice, ...]
    keep: tuple[slice, ...]
    write: tuple[slice, ...]

    @classmethod
    def of(cls, spans: Sequence[tuple[int, int, int, int]]) -> "_Tile":
        every = (slice(None), slice(None))
        return cls(
            read=(*every, *(slice(start, stop) for start, stop, _, _ in spans)),
            keep=(*every, *(slice(low - start, high - start) for start, _, low, high in spans)),
            write=(*every, *(slice(low, high) for _, _, low, high in spans)),
        )


def _spans(n: int, side: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Tiles `(start, stop)` of an axis of `n` pixels, each with the part `(low, high)` it owns."""
    if n <= side:
        return [(0, n, 0, n)]
    starts = [*range(0, n - side, side - overlap), n - side]
    cuts = [0, *((left + side + right) // 2 for left, right in pairwise(starts)), n]
    owned = pairwise(cuts)
    return [(s, s + side, low, high) for s, (low, high) in zip(starts, owned, strict=True)]
