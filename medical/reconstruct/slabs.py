"""A volume a few slices at a time, for solvers that know nothing between slices.

Every task of ours measures along the prior's slices one by one, so that a solver of flat images
restores slices independently of each other; then slabs of them need the memory of slabs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deepinv.physics import Physics
from torch import Tensor

from medical.reconstruct.ledger import Drawn, Ledger
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
    std: bool = False,
) -> Drawn:
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
        std: whether the result is to tell one; slabs that were finished without are done again.

    Returns:
        The sample, of which nothing is to be used behind a slab that diverged.
    """
    told: list[Mapping[str, Any]] = []
    whole, dim = scene.shape[1 + task.axis], 1 + task.axis
    x, spread, known = None, None, True
    for k, (first, slab) in enumerate(slabs(task, scene)):
        kept = ledger.part(index, k)
        if kept is None or (std and kept.std is None):
            some = task.cut(y, first, slab.shape[1 + task.axis])
            operator = task.operator(slab, some if given else None, first=first).to(y.device)
            set_noise(operator, noise)
            result = solve(some, operator, seed + k * _APART)
            kept = drawn_of(result)
            ledger.keep_part(index, k, kept)
        told.append(kept.facts)
        x = _put(x, kept.x, first, whole, dim)
        known = known and kept.std is not None
        if kept.std is not None:
            spread = _put(spread, kept.std, first, whole, dim)
        if kept.facts["status"] == "diverged":
            break
    assert x is not None
    return Drawn(x, together(told), spread if known else None)


def _put(out: Tensor | None, part: Tensor, first: int, whole: int, dim: int) -> Tensor:
    """Write a part where it belongs; putting a list of them together would take them twice."""
    if out is None:
        shape = list(part.shape)
        shape[dim] = whole
        out = part.new_empty(shape)
    out.narrow(dim, first, part.shape[dim]).copy_(part)
    return out


def drawn_of(result: Result) -> Drawn:
    """The first sample of a result."""
    spread = None if result.spread is None else result.spread[0].cpu()
    return Drawn(result.samples[0, 0].cpu(), facts_of(result), spread)


def facts_of(result: Result) -> dict[str, Any]:
    """What is told of a result, plain values; of equal samples as of one."""
    drawn = len(result.samples)
    return {
        "status": result.status,
        "remedy": result.remedy,
        "misfit": float(result.misfit[0]),
        "forwards": result.cost.forwards * drawn,
        "vjps": result.cost.vjps * drawn,
        "seconds": result.cost.seconds,
    }


def together(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of a sample from those of its slabs."""
    order = ("ok", "inconsistent with data", "diverged")
    worst = max(told, key=lambda facts: order.index(facts["status"]))
    mean = {
        name: sum(facts[name] for facts in told) / len(told)
        for name in ("misfit", "forwards", "vjps")
    }
    return {**worst, **mean, "seconds": sum(facts["seconds"] for facts in told)}
