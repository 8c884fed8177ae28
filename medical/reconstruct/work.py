"""A scan restored: measured, solved slice by slice, and brought back to its grid and units."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.models import Denoiser as DeepinvDenoiser
from torch import Tensor

from medical.geometry import Plane
from medical.reconstruct import ledger as ledgers
from medical.reconstruct.measured import Measured, measured
from medical.reconstruct.outcome import Restored, in_units, scores, std_in_units
from medical.reconstruct.sampling import draw, prior_for, prior_given, solver_for
from medical.reconstruct.scene import scene_of
from medical.reconstruct.settings import Settings
from medical.reconstruct.tasks import Scene, Task, image_size, task_named
from medical.refusal import Refusal
from medical.volume import Volume
from priors import Denoiser
from restore.solver import Solver

_WORST = ("ok", "inconsistent with data", "diverged")


def reconstruct(
    volume: Volume,
    task: str,
    settings: Settings | None = None,
    *,
    measurement: Tensor | None = None,
    simulate: bool | None = None,
    prior: str | Path | DeepinvDenoiser | None = None,
    solver: str | Solver | None = None,
    options: Mapping[str, Any] | None = None,
    plane: Plane | None = None,
    samples: int = 1,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
    fresh: bool = False,
    progress: bool | None = None,
) -> Restored:
    """Restore a scan.

    Args:
        volume: the scan.
        task: a name of `medical.reconstruct.tasks()`.
        settings: how it was measured.
        measurement: `(1, slices, ...)`, in the units of the task, instead of a simulated one; the
            scan then gives grid and units only.
        simulate: measure the scan itself and compare; by default where the task needs a
            measurement that the scan is not, and none is given.
        prior: of slices; by default the shipped one for such scans.
        solver: a name of `restore.solvers.available()`, or a solver; by default the task's.
        options: fields of the solver, for example `{"steps": 20}`.
        plane: of the slices; by default the task's, or that of square pixels.
        samples: their mean is the result. Of a solver whose samples are all the same one is drawn,
            and several ask it for the std.
        seed: of samples and of simulated noise.
        device: where to compute.
        out: the output that the result is for: samples are kept in `OUT.unfinished` until
            `ledger.settle(out)`, so that a run that is killed can go on. None keeps nothing.
        fresh: discard what is left of an earlier run for `out`.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        Refusal, ValueError: one sentence on what does not fit and what to do.
    """
    chosen, said = task_named(task), settings or Settings()
    said.refuse_others(task, chosen.reads)
    simulated = _simulated(chosen, measurement, simulate)
    if samples < 1:
        raise Refusal("E_SETTING", f"samples are {samples}, expected at least 1.")
    known = prior_given(prior or prior_for(volume.units, volume.modality, task))
    scene = scene_of(volume, chosen, said, known, plane, simulated)
    chosen.refuse(scene)
    method = solver_for(solver, chosen, scene, options or {})
    stack = scene.map.forward(volume.stack(scene.plane).data)[None]
    found = measured(chosen, scene, stack, given=measurement, simulate=simulated, seed=seed)
    del stack  # truth and measurement together are more than a solver should find in memory
    request = _request(volume, chosen, said, scene, found, known, method, seed)
    shape = image_size(found.operator)
    with ledgers.opened(out, request, fresh=fresh) as ledger:
        told = draw(
            method,
            chosen,
            scene,
            found,
            known,
            samples=samples,
            seed=seed,
            device=device,
            ledger=ledger,
            progress=progress,
        )
        done = sum(facts["status"] != "diverged" for facts in told)
        mean, std = ledgers.moments(ledger, done) if done else (torch.zeros(shape), None)
    before = in_units(volume, scene, chosen.before(found.operator, found.y.to(device))[0].cpu())
    restored = in_units(volume, scene, mean)
    quality = scores(volume, scene, before=before, restored=restored) if simulated else {}
    worst = max(told, key=lambda facts: _WORST.index(facts["status"]))
    plain = {name: q.as_dict() for name, q in quality.items()}
    return Restored(
        mean=restored,
        std=None if std is None else std_in_units(volume, scene, std, mean),
        before=before,
        truth=volume if simulated else None,
        quality=quality,
        status=worst["status"],
        remedy=worst["remedy"],
        story=request
        | _story(told, found, scene, chosen, known)
        | {"status": worst["status"], "remedy": worst["remedy"], "quality": plain},
        notes=(*volume.notes, *found.notes),
        plane=scene.plane,
    )


def _simulated(task: Task, measurement: Tensor | None, simulate: bool | None) -> bool:
    """Whether the scan is the truth from which a measurement is made."""
    simulated = (not task.of_image and measurement is None) if simulate is None else simulate
    if simulated and measurement is not None:
        raise Refusal("E_SETTING", "a measurement is given and simulated; leave one out.")
    if measurement is not None and task.of_image:
        raise Refusal(
            "E_SETTING",
            f"for task '{task.name}' the scan itself is the measurement; leave --measurements out.",
        )
    if not (simulated or task.of_image or measurement is not None):
        raise Refusal("E_SETTING", f"task '{task.name}' needs a measurement; give or simulate one.")
    return simulated


def _request(
    volume: Volume,
    task: Task,
    settings: Settings,
    scene: Scene,
    found: Measured,
    prior: Denoiser,
    method: Solver,
    seed: int,
) -> dict[str, Any]:
    """Everything that a sample depends on, plain values."""
    from restore import __version__

    said = {k: v for k, v in asdict(settings).items() if v not in (None, False, ())}
    return {
        "scan": _digest(volume.data, np.ascontiguousarray(volume.affine).tobytes()),
        "measurement": _digest(found.y),
        "task": task.name,
        "settings": said,
        "plane": scene.plane,
        "prior": {"name": prior.card.name, "sha256": prior.card.sha256},
        "solver": {"name": method.name, **asdict(method)},
        "seed": seed,
        "versions": {"restore": __version__, "torch": torch.__version__},
    }


def _story(
    told: Sequence[Mapping[str, Any]], found: Measured, scene: Scene, task: Task, prior: Denoiser
) -> dict[str, Any]:
    """What else there is to tell, plain values."""
    return {
        "kind": "restoration of a volume",
        "measured": task.words(scene),
        "missing": list(scene.missing),
        "noise": {"std": found.noise, "unit": task.noise_unit or scene.units},
        "intensity": scene.map.name,
        "trained on": prior.card.training_data,
        "samples": len(told),
        "misfit": [facts["misfit"] for facts in told],
        "forwards": told[-1]["forwards"],
        "vjps": told[-1]["vjps"],
        "seconds": sum(facts["seconds"] for facts in told),
        "notes": list(found.notes),
        "disclaimer": "research use, not for diagnosis",
    }


def _digest(data: Tensor, more: bytes = b"") -> str:
    """Of all numbers, some at a time."""
    digest = hashlib.sha256(more + repr(tuple(data.shape)).encode())
    for part in data.flatten(0, 1):
        digest.update(np.ascontiguousarray(part.numpy(force=True)).tobytes())
    return digest.hexdigest()
