"""Samples of a volume one at a time, each on disk before the next is begun."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from deepinv.models import Denoiser as DeepinvDenoiser
from deepinv.physics import Physics
from torch import Tensor
from tqdm.auto import tqdm

import operators
import priors
from medical.reconstruct.ledger import Ledger
from medical.reconstruct.measured import Measured
from medical.reconstruct.slabs import by_slabs, drawn_of
from medical.reconstruct.tasks import Scene, Task, image_size
from medical.refusal import Refusal
from priors import Denoiser
from restore.result import Result
from restore.run import solver_named
from restore.solver import Solver
from restore.volumes import VolumeSolver

_APART = (
    15_485_863  # between the seeds of two samples: a prime, larger than seeds that people choose
)


class Counting(Denoiser):
    """A prior of slices that tells a bar how many it has denoised."""

    def __init__(self, prior: Denoiser, bar: tqdm) -> None:
        super().__init__(prior.card)
        self.prior, self.bar = prior, bar

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """See `Denoiser.forward`."""
        done = self.prior(x, sigma, **kwargs)
        self.bar.update(len(x))
        return done

    def refuse(self, shape: tuple[int, ...]) -> str | None:
        """See `Denoiser.refuse`."""
        return self.prior.refuse(shape)


def prior_for(scene_units: str, modality: str, task: str) -> str:
    """Name of the shipped prior that knows such scans."""
    if scene_units == "HU":
        return "ct"
    return "mr" if modality == "MR" or task == "mri" else "natural-gray"


def prior_given(prior: str | Path | DeepinvDenoiser) -> Denoiser:
    """A prior by name, from a file, or anybody's denoiser.

    Raises:
        ValueError, FileNotFoundError: there is none of that name.
    """
    if isinstance(prior, str | Path):
        return priors.load(prior)
    return prior if isinstance(prior, Denoiser) else priors.from_deepinv(prior)


def solver_for(
    solver: str | Solver | None, task: Task, scene: Scene, options: Mapping[str, Any]
) -> Solver:
    """A solver that cuts and couples slices as the task wants it.

    Args:
        solver: a name, or a solver, which is taken as it is but for the options; None is the
            task's, with its own options.
        task: whose axis it cuts along.
        scene: whose voxels may be longer than wide.
        options: fields of the solver that the user sets.

    Raises:
        Refusal: E_SOLVER: one that is trained on pairs, or lacks an option.
    """
    if solver is None:
        solver, options = task.solver, {**task.options, **options}
    method, network = solver_named(solver)
    if network is not None:
        raise Refusal(
            "E_SOLVER", f"solver '{solver}' was trained on pairs of images; choose dds for volumes."
        )
    known = {field.name for field in fields(method)}
    if lacking := sorted(options.keys() - known):
        raise Refusal(
            "E_SOLVER",
            f"solver '{method.name}' has no {' or '.join(lacking)}; its options are "
            f"{', '.join(sorted(known))}.",
        )
    ours: dict[str, Any] = {}
    if isinstance(solver, str) and {"axis", "spacing"} <= known:
        apart = list(scene.spacing)
        apart[0] /= task.refined(scene)
        ours = {"axis": task.axis, "spacing": apart[task.axis] / apart[2]}
    return replace(method, **{**ours, **options})


def draw(
    method: Solver,
    task: Task,
    scene: Scene,
    found: Measured,
    prior: Denoiser,
    *,
    samples: int,
    seed: int,
    device: str,
    ledger: Ledger,
    progress: bool | None,
) -> list[Mapping[str, Any]]:
    """Draw what the ledger lacks.

    Args:
        method: the solver.
        task: of the measurement.
        scene: of the scan.
        found: the measurement.
        prior: of slices.
        samples: number wanted.
        seed: of all of them.
        device: where to compute.
        ledger: where samples go.
        progress: show a bar of slices denoised; None shows it on a terminal only.

    Returns:
        What is known of each sample; they end early with one that diverged.
    """
    shape = (1, *image_size(found.operator))
    y, operator, prior = found.y.to(device), found.operator.to(device), prior.to(device)
    coupled = isinstance(method, VolumeSolver)
    axis = method.axis if isinstance(method, VolumeSolver) else task.axis
    slices = shape[2 + axis] * (shape[1] if prior.card.channels == 1 else 1)
    level = float(operators.noise_sigma(operator))
    told: list[Mapping[str, Any]] = []
    hidden = None if progress is None else not progress
    # where all samples are the same, one does, and tells its std to who asks for several
    several = method.repeats and samples > 1
    samples = 1 if method.repeats else samples
    with tqdm(total=samples * method.length * slices, unit="slice", disable=hidden) as bar:
        counting = prior if method.repeats else Counting(prior, bar)
        lifted = priors.lift(counting, shape, axis=axis)

        def one(index: int) -> Mapping[str, Any]:
            """In a function of its own, so that nothing of a sample outlives it."""
            solve = partial(_solve, method, lifted, ledger.checkpoint(index), 1 + several)
            own = seed + index * _APART
            if coupled:
                drawn = drawn_of(solve(y, operator, own))
            else:
                cut = partial(by_slabs, solve, task, scene, y, noise=level, given=found.given)
                drawn = cut(index=index, seed=own, ledger=ledger, std=several)
            if drawn.facts["status"] != "diverged":
                ledger.keep(index, drawn)
            return drawn.facts

        for i in range(samples):
            bar.set_description(f"sample {i + 1} of {samples}")
            known = ledger.facts(i)
            if known is None or (several and not known["std"]):
                known = one(i)
            told.append(known)
            bar.update((i + 1) * method.length * slices - bar.n)
            if told[-1]["status"] == "diverged":
                break
    return told


def _solve(
    method: Solver,
    prior: Denoiser,
    checkpoint: Path,
    samples: int,
    y: Tensor,
    operator: Physics,
    seed: int,
) -> Result:
    return method(
        y, operator, prior, samples=samples, seed=seed, progress=False, checkpoint=checkpoint
    )
