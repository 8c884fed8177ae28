"""Solvers with a shipped prior on held-out photographs.

Every solver sees the same measurements of the same crops, none of which any shipped prior was
trained on. What a user wants differs: the mean of the samples has the best PSNR, a single sample
looks right (small feature distance), and the intervals should cover what they say.

    PSNR, SSIM   of the mean of the samples, dB
    sample       PSNR of one sample: below the mean's by up to 3 dB for a perfect posterior
    features     `perceptual.feature_distance` of one sample
    covers       share of pixels inside the samples' 80 % intervals

Solvers are compared at their own constants, and at equal cost (`at_cost`).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from deepinv.physics import Physics
from torch import Tensor
from tqdm.auto import tqdm

import operators
from priors import Denoiser, Gaussian
from restore.bench.perceptual import feature_distance
from restore.calibration import coverage
from restore.metrics import psnr, ssim
from restore.result import Result
from restore.solver import Solver

LEVEL = 0.8

# task -> (operator specification, noise std)
TASKS: dict[str, tuple[str, float]] = {
    "blur": ("blur:sigma=2", 0.02),
    "mask 80 %": ("mask:keep=0.2", 0.02),
    "x4": ("downsample:factor=4", 0.01),
    "CS 25 %": ("cs:ratio=0.25", 0.02),
}


@dataclass(frozen=True)
class Row:
    """One solver on one task, averaged over photographs; see the module's docstring.

    Attributes:
        task, solver: what was run.
        psnr, ssim: of the mean of the samples.
        sample_psnr: of a single sample.
        features: feature distance of a single sample.
        mean_features: feature distance of the mean.
        covers: share of pixels inside the 80 % intervals.
        fit: data misfit of the samples.
        calls: network calls a sample.
        seconds: a photograph, all samples.
        images: number of photographs.
        samples: samples a photograph.
    """

    task: str
    solver: str
    psnr: float
    ssim: float
    sample_psnr: float
    features: float
    mean_features: float
    covers: float
    fit: float
    calls: float
    seconds: float
    images: int
    samples: int


def run(
    solvers: Sequence[Solver],
    prior: Denoiser,
    images: Mapping[str, Tensor],
    *,
    tasks: Mapping[str, tuple[str, float]] = TASKS,
    samples: int = 9,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Run every solver that can on every task.

    Args:
        solvers: ours.
        prior: of the photographs' channels.
        images: name -> clean image `(1, C, H, W)` in [0, 1].
        tasks: name -> operator specification and noise std.
        samples: a photograph; 9 is the least that an 80 % interval needs.
        progress: show a bar; None shows it on a terminal only.

    Yields:
        One `Row` a task and solver.
    """
    with tqdm(
        total=len(tasks) * len(solvers) * len(images),
        disable=None if progress is None else not progress,
        leave=False,
    ) as bar:
        for task, (spec, sigma) in tasks.items():
            measured = [_measure(x, spec, sigma, seed) for seed, x in enumerate(images.values())]
            for solver in solvers:
                bar.set_description(f"{task}: {solver.name}")
                if solver.lacks(measured[0][0]) is not None:
                    bar.update(len(images))
                    continue
                found = []
                for seed, (x, (operator, y)) in enumerate(
                    zip(images.values(), measured, strict=True)
                ):
                    result = solver(y, operator, prior, samples=samples, seed=seed, progress=False)
                    found.append(_scores(result, x))
                    bar.update()
                means = {key: sum(f[key] for f in found) / len(found) for key in found[0]}
                yield Row(task, solver.name, **means, images=len(images), samples=samples)


def _measure(x: Tensor, spec: str, sigma: float, seed: int) -> tuple[Physics, Tensor]:
    operator = operators.parse(spec, tuple(x.shape[1:]), noise=sigma)
    return operator, operators.measure(operator, x, seed=seed)


def _scores(result: Result, x: Tensor) -> dict[str, float]:
    single = result.samples[0]
    return {
        "psnr": float(psnr(result.mean, x)),
        "ssim": float(ssim(result.mean, x)),
        "sample_psnr": float(psnr(single, x)),
        "features": float(feature_distance(single, x)),
        "mean_features": float(feature_distance(result.mean, x)),
        "covers": float(coverage(result, x, LEVEL)) if len(result.samples) > 1 else float("nan"),
        "fit": float(result.misfit),
        "calls": result.cost.calls,
        "seconds": result.cost.seconds,
    }


def at_cost(solver: Solver, calls: int) -> Solver:
    """The solver with as many steps as cost a sample about `calls` network calls.

    What a step costs is measured on a tiny Gaussian problem, not taken from the papers.

    Raises:
        ValueError: it has no number of steps.
    """
    name = next((f.name for f in dataclasses.fields(solver) if f.name in _STEPS), None)
    if name is None:
        raise ValueError(f"solver '{solver.name}' has no number of steps; leave it out.")
    few, more = (_cost(dataclasses.replace(solver, **{name: n})) for n in _PROBES)
    slope = (more - few) / (_PROBES[1] - _PROBES[0])
    count = _PROBES[0] + (calls - few) / slope
    return dataclasses.replace(solver, **{name: max(2, round(count))})


_STEPS, _PROBES = ("steps", "levels"), (8, 16)


def has_steps(solver: Solver) -> bool:
    """Whether `at_cost` can change what the solver costs."""
    return any(f.name in _STEPS for f in dataclasses.fields(solver))


def _cost(solver: Solver) -> float:
    """Network calls of one sample of a small inpainting problem."""
    prior = Gaussian.power_law((1, 8, 8))
    operator = operators.mask((1, 8, 8), keep=0.5, noise=0.1)
    y = torch.full((1, 1, 8, 8), 0.5)
    return solver(operator.A(y), operator, prior, progress=False).cost.calls
