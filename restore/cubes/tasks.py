"""What happened to a cube, as an operator: noise, missing entries, pixels too large, stripes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
from operators.mask import random_mask
from operators.noise import noise_model
from operators.stripes import Gains
from operators.validate import one_of
from restore.cubes import stripes

Task = Literal["denoise", "complete", "superres", "destripe"]
BOUNDARY = "symmetric"  # scenes do not wrap around


@dataclass(frozen=True)
class Measured:
    """A cube as its operator measured it.

    Attributes:
        y: `(1, C, H, W)`, zero where there is nothing.
        seen: where there is a value, boolean `(C, H, W)`.
        gains: of every entry, or None where they are one.
        factor: by how much pixels are too large.
        noise: least that is to be expected.
        note: what was found out.
    """

    y: Tensor
    seen: Tensor
    gains: Tensor | None = None
    factor: int = 1
    noise: float = 0.0
    note: str = ""

    def operator(self, noise: float) -> LinearPhysics:
        """The operator, with its noise."""
        _, bands, height, width = self.y.shape
        shape = bands, height * self.factor, width * self.factor
        if self.factor > 1:
            return operators.downsample(shape, factor=self.factor, boundary=BOUNDARY, noise=noise)
        if self.gains is not None:
            return Gains(torch.where(self.seen, self.gains, 0), noise_model=noise_model(noise))
        if not bool(self.seen.all()):
            return operators.mask(shape, mask=self.seen, noise=noise)
        return operators.denoise(shape, noise=noise)


def measured(
    u: Tensor, seen: Tensor, task: str, *, factor: int = 1, direction: str = "vertical"
) -> Measured:
    """Say how a cube was measured.

    Args:
        u: `(C, H, W)`, every band within about [0, 1].
        seen: where there is a value.
        task: see `Task`.
        factor: by how much a side is to grow, for "superres".
        direction: of stripes, "vertical" or "horizontal".

    Raises:
        ValueError: a task that the cube does not need, or that something stands against.
    """
    one_of("task", task, get_args(Task))
    y = torch.where(seen, u, 0)[None]
    holes = int((~seen).sum())
    if task == "complete" and not holes:
        raise ValueError(
            "no entry of the cube is missing (NaN, or what its file calls missing); give --mask "
            "with what is to be trusted, or use --task denoise."
        )
    if task == "superres":
        if holes:
            raise ValueError(
                f"{holes} entries of the cube are missing; fill them with --task complete first."
            )
        return Measured(y, seen, factor=factor)
    if task == "destripe":
        found = stripes.find(u, seen, direction)
        seen = seen & found.alive
        y = torch.where(seen, u - found.offsets, 0)[None]
        gains = found.gains.expand_as(u) if found.kind == "gains" else None
        return Measured(y, seen, gains, noise=found.left, note=found.sentence())
    return Measured(y, seen)


def trusted(
    shape: tuple[int, int, int], *, mask: Path | None, keep: float | None, seed: int
) -> Tensor | None:
    """Entries that the user trusts, boolean `(C, H, W)`; None where all are.

    Args:
        shape: of the cube.
        mask: picture or `.npy`, `(H, W)` or `(C, H, W)`, not zero where to trust.
        keep: fraction of entries to keep, at random, as a trial.
        seed: of the random places.

    Raises:
        ValueError: both, another size, or nothing kept.
    """
    if mask is not None and keep is not None:
        raise ValueError("--mask and --keep both say what is trusted; give one.")
    if keep is not None:
        return random_mask(shape[1:], keep, seed, shape[0])
    if mask is None:
        return None
    plane = _read_mask(mask)
    if tuple(plane.shape) not in (shape, shape[1:]):
        raise ValueError(
            f"the mask in '{mask}' has shape {tuple(plane.shape)}, expected {shape[1:]} or {shape}."
        )
    if not bool(plane.any()):
        raise ValueError(f"the mask in '{mask}' trusts nothing; it is not zero where to trust.")
    return plane.expand(shape)


def _read_mask(path: Path) -> Tensor:
    from operators.files import read_plane

    if not path.is_file():
        raise FileNotFoundError(f"'{path}' does not exist.")
    if path.suffix.lower() != ".npy":
        return torch.as_tensor(read_plane(path)) > 0
    try:
        array = np.load(path, allow_pickle=False)
        return torch.from_numpy(np.ascontiguousarray(array)) != 0
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"'{path}' holds no mask; save zeros and ones as .npy.") from error
