"""A volume a few slices at a time, for solvers that know nothing between slices.

Every task of ours measures along the prior's slices one by one, so that a solver of flat images
restores slices independently of each other; then slabs of them need the memory of slabs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from deepinv.physics import Physics
from torch import Tensor

from medical.reconstruct.ledger import Ledger
from medical.reconstruct.measured import set_noise
from medical.reconstruct.tasks import Scene, Task
from restore.result import Result

SLAB = 8
_APART = 32_452_843  # between the seeds of slabs: a prime

Solve = Callable[[Tensor, Physics, int], Result]


def slabs(task: Task, scene: Scene) -> Iterator[tuple[int, Scene]]:
    """First slice of each slab, and the slab as a scan of its own."""
    whole = scene.shape[1 + task.axis]
    for first in range(0, whole, SLAB):
        shape = list(scene.shape)
        shape[1 + task.axis] = min(SLAB, whole - first)
        yield first, replace(scene, shape=tuple(shape))  # pyright: ignore[reportArgumentType]


def by_slabs(
    solve: Solve,
    task: Task,
    scene: Scene,
    y: Tensor,
    *,
    noise: float,
    given: bool,
    index: int,
    seed: int,
    ledger: Ledger,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Draw one sample, slab by slab; finished slabs survive a kill.

    Args:
        solve: measurement, operator and seed to a result of one sample.
        task: whose operator is built for each slab.
        scene: of the scan.
        y: its measurement.
        noise: std in the prior's range.
        given: whether the measurement is from a file, which may tell the operator more.
        index: of the sample.
        seed: of the sample.
        ledger: where finished slabs go.

    Returns:
        The sample `(C, D, H, W)`, and the facts of each slab; they end early with one that
        diverged.
    """
    parts: list[Tensor] = []
    told: list[dict[str, Any]] = []
    for k, (first, slab) in enumerate(slabs(task, scene)):
        if (kept := ledger.part(index, k)) is None:
            some = task.cut(y, first, slab.shape[1 + task.axis])
            operator = task.operator(slab, some if given else None, first=first).to(y.device)
            set_noise(operator, noise)
            result = solve(some, operator, seed + k * _APART)
            kept = result.samples[0, 0].cpu(), facts_of(result)
            ledger.keep_part(index, k, *kept)
        parts.append(kept[0])
        told.append(kept[1])
        if told[-1]["status"] == "diverged":
            break
    return torch.cat(parts, 1 + task.axis), told


def facts_of(result: Result) -> dict[str, Any]:
    """What is told of a result, plain values."""
    return {
        "status": result.status,
        "remedy": result.remedy,
        "misfit": float(result.misfit[0]),
        "forwards": result.cost.forwards,
        "vjps": result.cost.vjps,
        "seconds": result.cost.seconds,
    }


def together(told: list[dict[str, Any]]) -> dict[str, Any]:
    """The facts of a sample from those of its slabs."""
    order = ("ok", "inconsistent with data", "diverged")
    worst = max(told, key=lambda facts: order.index(facts["status"]))
    mean = {
        name: sum(facts[name] for facts in told) / len(told)
        for name in ("misfit", "forwards", "vjps")
    }
    return worst | mean | {"seconds": sum(facts["seconds"] for facts in told)}
