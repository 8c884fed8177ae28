"""Tasks whose measurement is a stack of pictures: with noise, of thick slices, or with gaps."""

from typing import ClassVar

import torch
from deepinv.physics import Physics
from torch import Tensor

import operators
from medical.reconstruct.tasks import Scene, Task, image_size
from medical.refusal import Refusal


class Denoise(Task):
    """Noise only."""

    name: ClassVar[str] = "denoise"
    title: ClassVar[str] = "denoising"
    solver: ClassVar[str] = "posterior-mean"

    def operator(self, scene: Scene, y: Tensor | None = None, *, first: int = 0) -> Physics:
        """The identity."""
        return operators.denoise(scene.shape)


class SuperResolve(Task):
    """Thick slices into thin ones; the prior looks at planes across the slices."""

    name: ClassVar[str] = "superres"
    title: ClassVar[str] = "through-plane super-resolution"
    reads: ClassVar[frozenset[str]] = frozenset({"factor"})
    axis: ClassVar[int] = 1
    default: ClassVar[int] = 4

    def refined(self, scene: Scene) -> int:
        """The factor."""
        return scene.settings.factor or self.default

    def operator(self, scene: Scene, y: Tensor | None = None, *, first: int = 0) -> Physics:
        """A thick slice is the mean of thin ones."""
        c, d, h, w = scene.shape
        factor = self.refined(scene)
        return operators.thick((c, d * factor, h, w), factor=factor)

    def taken(self, operator: Physics, stack: Tensor) -> Tensor:
        """All of it."""
        return stack

    def before(self, operator: Physics, y: Tensor) -> Tensor:
        """Thick slices repeated."""
        factor = image_size(operator)[1] // y.shape[2]
        return y.repeat_interleave(factor, 2)

    def words(self, scene: Scene) -> str:
        """Factor and thickness."""
        thick, factor = scene.spacing[0], self.refined(scene)
        return (
            f"{self.title}, {factor} slices of {thick / factor:.3g} mm from one of {thick:.3g} mm"
        )


class Inpaint(Task):
    """Slices that are missing; the prior looks at planes across the slices."""

    name: ClassVar[str] = "inpaint"
    title: ClassVar[str] = "filling in missing slices"
    reads: ClassVar[frozenset[str]] = frozenset({"missing"})
    axis: ClassVar[int] = 1
    # a term between planes would outweigh the prior where nothing was measured
    solver: ClassVar[str] = "moment-ladder"

    def refuse(self, scene: Scene) -> None:
        """See `Task`; also nothing or everything missing."""
        super().refuse(scene)
        count = scene.shape[1]
        if not scene.missing:
            raise Refusal(
                "E_NOTHING_MISSING",
                f"all {count} {scene.plane} slices are there, expected some that are missing; name "
                "them with --missing, for example --missing 10-14.",
            )
        if scene.missing[-1] >= count:
            raise Refusal(
                "E_SETTING",
                f"slice {scene.missing[-1]} is said to be missing of {count} {scene.plane} slices; "
                f"they are numbered from 0 to {count - 1}.",
            )
        if len(scene.missing) == count:
            raise Refusal("E_SETTING", "every slice is said to be missing; keep some.")

    def operator(self, scene: Scene, y: Tensor | None = None, *, first: int = 0) -> Physics:
        """Zero where a slice is missing."""
        return operators.mask(scene.shape, slices=scene.missing)

    def before(self, operator: Physics, y: Tensor) -> Tensor:
        """Linear interpolation between the slices that are there."""
        seen = operator.get_buffer("mask")[0, 0, :, 0, 0] > 0
        return interpolated(y, seen)

    def words(self, scene: Scene) -> str:
        """How many of how many."""
        return f"{self.title}, {len(scene.missing)} of {scene.shape[1]}"


def interpolated(y: Tensor, seen: Tensor) -> Tensor:
    """Fill slices `(B, C, D, H, W)` that are not seen from their nearest neighbours that are."""
    there = seen.nonzero().flatten().tolist()
    filled = y.clone()
    for k in (~seen).nonzero().flatten().tolist():
        below = max((n for n in there if n < k), default=there[0])
        above = min((n for n in there if n > k), default=there[-1])
        share = (k - below) / (above - below) if above > below else 0.0
        filled[:, :, k] = torch.lerp(y[:, :, below], y[:, :, above], share)
    return filled
