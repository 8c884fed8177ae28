"""A scan as a task sees it: which slices, how far apart, what is missing, in which range."""

import math
from dataclasses import replace
from typing import get_args

from medical import intensity
from medical.geometry import Plane
from medical.reconstruct.settings import Settings
from medical.reconstruct.tasks import Scene, Task
from medical.refusal import Refusal
from medical.volume import Volume
from priors import Denoiser


def scene_of(
    volume: Volume,
    task: Task,
    settings: Settings,
    prior: Denoiser,
    plane: Plane | None,
    simulated: bool,
) -> Scene:
    """Look at a scan.

    Args:
        volume: the scan.
        task: what is asked.
        settings: what the user said.
        prior: whose range it goes to.
        plane: of the slices; None chooses.
        simulated: whether the scan is what a measurement is simulated from; thick slices are then
            made of its own.

    Raises:
        Refusal: E_TOO_FEW_SLICES, E_SETTING; what an intensity map refuses.
    """
    chosen = plane or task.plane or _plane(volume, task)
    stack = volume.stack(chosen)
    if stack.data.shape[1] < 2:
        raise Refusal(
            "E_TOO_FEW_SLICES",
            f"the scan has {stack.data.shape[1]} {chosen} slice, expected at least 2; use "
            "`restore image` for a single picture.",
        )
    scene = Scene(
        shape=tuple(stack.data.shape),  # pyright: ignore[reportArgumentType]
        spacing=tuple(float(s) for s in stack.spacing),  # pyright: ignore[reportArgumentType]
        units=volume.units,
        modality=volume.modality,
        plane=chosen,
        missing=settings.missing or (_empty(stack) if task.name == "inpaint" else ()),
        map=intensity.for_volume(volume, prior.card),
        settings=settings,
    )
    return _coarser(scene, task.refined(scene)) if simulated else scene


def _plane(volume: Volume, task: Task) -> Plane:
    """That of missing slices, or the one with the squarest pixels: scanners make square ones."""
    planes: tuple[Plane, ...] = get_args(Plane)
    inpaint = task.name == "inpaint"
    gaps: list[Plane] = [p for p in planes if inpaint and _empty(volume.stack(p))]
    if gaps:
        return gaps[0]
    oblong: dict[Plane, float] = {}
    for plane in planes:
        _, rows, columns = volume.stack(plane).spacing
        oblong[plane] = round(abs(math.log(rows / columns)), 2)
    return min(oblong, key=oblong.__getitem__)  # in doubt axial


def _empty(stack: Volume) -> tuple[int, ...]:
    """Slices in which nothing was measured."""
    if stack.valid is None:
        return ()
    return tuple((~stack.valid.flatten(1).any(1)).nonzero().flatten().tolist())


def _coarser(scene: Scene, factor: int) -> Scene:
    """The scan that thick slices of this one would make."""
    c, d, h, w = scene.shape
    if d % factor:
        raise Refusal(
            "E_SETTING",
            f"{d} {scene.plane} slices do not make thick ones of {factor}; crop the scan to "
            f"{d - d % factor}, or choose another --factor.",
        )
    thick = (scene.spacing[0] * factor, *scene.spacing[1:])
    return replace(scene, shape=(c, d // factor, h, w), spacing=thick)
