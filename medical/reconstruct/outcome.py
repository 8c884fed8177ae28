"""What the samples of a stack say of the scan: on its grid, in its units, against the truth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from medical import geometry
from medical.geometry import Plane
from medical.reconstruct.quality import Quality, body_of, quality
from medical.reconstruct.tasks import Scene
from medical.volume import Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class Restored:
    """A restored scan, and what there is to know about it.

    Attributes:
        mean: of the samples, on the grid of the scan (finer along one axis after super-resolution)
            and in its units; of a complex measurement of a scan of magnitudes, the magnitude.
        std: of the samples, in the same units, or of the posterior where the solver knows it
            without; None for a single one.
        before: what there was without a prior, on the same grid: the scan, zero filling, filtered
            back-projection.
        truth: the scan, where the measurement was simulated from it.
        quality: "before" and "restored" against the truth; empty without one.
        status: "ok", "diverged" or "inconsistent with data".
        remedy: what to change when it is not ok.
        story: how it was made, plain values, nothing of the patient.
        notes: what was simulated, estimated or guessed, a sentence each.
        plane: of the slices.
    """

    mean: Volume
    std: Volume | None
    before: Volume
    truth: Volume | None
    quality: Mapping[str, Quality]
    status: str
    remedy: str
    story: Mapping[str, Any]
    notes: tuple[str, ...]
    plane: Plane


def in_units(volume: Volume, scene: Scene, u: Tensor) -> Volume:
    """Numbers in the prior's range `(C, D, H, W)` on the scan's grid.

    Complex numbers of a scan of magnitudes become magnitudes. Where nothing was measured the scan
    keeps what it had, unless that was to be filled in.
    """
    x = scene.map.inverse(u)
    if len(x) == 2 and len(volume.data) == 1:
        x = x.norm(dim=0, keepdim=True)
    return _masked(volume, scene, placed(volume, scene.plane, x))


def std_in_units(volume: Volume, scene: Scene, std: Tensor, mean: Tensor) -> Volume:
    """Standard deviations `(C, D, H, W)` likewise; of a magnitude to first order, along its phase.

    Args:
        volume: the scan.
        scene: of it.
        std: in the prior's range.
        mean: in the prior's range.
    """
    if len(std) == 2 and len(volume.data) == 1:
        power = mean.square().sum(0, keepdim=True).clamp_min(1e-12)
        std = ((mean * std).square().sum(0, keepdim=True) / power).sqrt()
    return placed(volume, scene.plane, scene.map.scale_std(std))


def placed(volume: Volume, plane: Plane, data: Tensor) -> Volume:
    """A stack `(C, D, H, W)` on the grid of the scan, or on one with thinner slices."""
    stack = volume.stack(plane)
    finer = data.shape[1] // stack.data.shape[1]
    if finer == 1:
        return volume.unstack(data, plane)
    valid = None if stack.valid is None else stack.valid.repeat_interleave(finer, 0)
    affine = geometry.refined(stack.affine, 0, finer)
    thin = replace(stack, data=data, valid=valid, affine=affine)
    return thin.reoriented(volume.orientation)


def _masked(volume: Volume, scene: Scene, x: Volume) -> Volume:
    if volume.valid is None or x.grid != volume.grid:
        return x
    stack = volume.valid if not scene.missing else _filled(volume, scene)
    data = torch.where(stack, x.data, volume.data)
    return replace(x, data=data, valid=None if bool(stack.all()) else stack)


def _filled(volume: Volume, scene: Scene) -> Tensor:
    """Voxels that were measured or asked for `(I, J, K)`."""
    assert volume.valid is not None
    stack = replace(volume, data=volume.valid[None].float()).stack(scene.plane).data.clone()
    stack[:, list(scene.missing)] = 1
    return volume.unstack(stack, scene.plane).data[0] > 0


def scores(volume: Volume, scene: Scene, **found: Volume) -> dict[str, Quality]:
    """Quality of volumes on the grid of the scan, in its body, or in slices that were missing."""
    truth = magnitude(volume)
    body = body_of(scene.map, truth.stack(scene.plane).data[0])
    if scene.missing:
        body[[k for k in range(len(body)) if k not in scene.missing]] = False
    inside = truth.unstack(body[None].float(), scene.plane).data[0] > 0
    width = 1 / scene.map.slope
    return {
        name: quality(magnitude(x), truth, width=width, plane=scene.plane, body=inside)
        for name, x in found.items()
    }


def magnitude(volume: Volume) -> Volume:
    """One channel: of real and imaginary part the magnitude."""
    if len(volume.data) == 1:
        return volume
    return volume.derive(volume.data.norm(dim=0, keepdim=True))
