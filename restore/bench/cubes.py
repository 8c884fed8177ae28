"""Solvers of cubes on a real hyperspectral scene, beside classical methods.

Indian Pines (AVIRIS, 1992; Baumgardner, Biehl, Landgrebe), as the tensorly package carries it: 32
of its 200 bands, a crop of its 145x145 pixels, every band scaled to [0, 1]. It holds noise of its
own, some 0.5 % of the range; PSNR above 35 dB means little.

    PSNR     mean over bands, dB, of the last estimate
    oracle   the best PSNR of any step, which only who knows the truth can choose
    SAM      mean angle between true and restored spectra, degrees

Classical methods are at their best settings by the truth (`restore.bench.cube_rivals`); solvers get
no such help. A seed of one that fits a network is a result; one that draws from a posterior is
judged by the mean of its samples, as it is used.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

import operators
import restore
from restore.bench.cube_rivals import best_of_each
from restore.metrics import band_psnr, spectral_angle
from restore.solver import Solver, Step

# task -> (operator specification, noise std)
TASKS: dict[str, tuple[str, float]] = {
    "denoise": ("denoise", 0.1),
    "complete": ("mask:keep=0.3,bandwise=true", 0.1),
    "superres": ("downsample:factor=2,boundary=symmetric", 0.1),
}

_BANDS = slice(3, 163, 5)
_CORNER = 54, 6


@dataclass(frozen=True)
class Row:
    """One method on one task; see the module's docstring.

    Attributes:
        task, method: what was run.
        psnr, spread: mean over seeds, and standard deviation (0 for methods without chance).
        oracle: mean over seeds.
        sam: mean over seeds.
        seconds: one cube.
        seeds: how many.
    """

    task: str
    method: str
    psnr: float
    spread: float
    oracle: float
    sam: float
    seconds: float
    seeds: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return asdict(self)

    def cells(self) -> dict[str, str]:
        """Return what the table shows."""
        return {
            "task": self.task,
            "method": self.method,
            "PSNR": f"{self.psnr:.2f}" + (f" +- {self.spread:.2f}" if self.spread else ""),
            "oracle": f"{self.oracle:.2f}",
            "SAM": f"{self.sam:.2f}",
            "s": f"{self.seconds:.1f}",
        }


def indian_pines(side: int = 64) -> Tensor:
    """A crop of the scene, `(1, 32, side, side)` in [0, 1].

    Raises:
        ModuleNotFoundError: tensorly is not installed.
    """
    from tensorly.datasets import load_indian_pines

    scene = torch.as_tensor(load_indian_pines().tensor).float()
    top, left = _CORNER
    cube = scene[top : top + side, left : left + side, _BANDS].permute(2, 0, 1)
    low, high = cube.amin((1, 2), keepdim=True), cube.amax((1, 2), keepdim=True)
    return ((cube - low) / (high - low))[None]


def run(
    solvers: Sequence[Solver],
    truth: Tensor,
    *,
    tasks: Sequence[str] = ("denoise", "complete"),
    prior: str = "natural-gray",
    seeds: int = 3,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Measure a cube and restore it by everything.

    Args:
        solvers: those that cannot do a task are left out of it.
        truth: clean cube `(1, C, H, W)` in [0, 1].
        tasks: names of `TASKS`.
        prior: of grey images, for solvers that need one.
        seeds: of each solver, or samples.
        progress: show a bar; None shows it on a terminal only.

    Yields:
        One `Row` a task and method.
    """
    for task in tasks:
        spec, sigma = TASKS[task]
        operator = operators.parse(spec, tuple(truth.shape[1:]), noise=sigma)
        y = operators.measure(operator, truth, seed=0)
        assert isinstance(operator, LinearPhysics)
        yield _row(task, "measurement", operator.A_dagger(y), truth, 0.0)
        started = time.perf_counter()
        for name, cube in best_of_each(y, operator, truth):
            yield _row(task, name, cube, truth, time.perf_counter() - started)
            started = time.perf_counter()
        for solver in solvers:
            if solver.lacks(operator) is None:
                yield _solved(task, solver, y, operator, truth, prior, seeds, progress)


def _row(task: str, method: str, cube: Tensor, truth: Tensor, seconds: float) -> Row:
    psnr = float(band_psnr(cube, truth, clip=False).mean())
    return Row(task, method, psnr, 0.0, psnr, float(spectral_angle(cube, truth)), seconds, 1)


def _solved(
    task: str,
    solver: Solver,
    y: Tensor,
    operator: Physics,
    truth: Tensor,
    prior: str,
    seeds: int,
    progress: bool | None,
) -> Row:
    best = torch.full((seeds,), -torch.inf, dtype=torch.float64)

    def watch(step: Step) -> None:
        torch.maximum(best, band_psnr(step.x, truth, clip=False).mean(1), out=best)

    # all seeds at once, so that `watch` sees every one
    result = restore.solve(
        *(y, operator, prior, solver),
        samples=seeds,
        callback=watch if solver.prior_free else None,
        batch_size=seeds,
        progress=progress,
    )
    cubes = result.samples[:, 0] if solver.prior_free else result.mean
    psnr = band_psnr(cubes, truth, clip=False).mean(1)
    return Row(
        task,
        f"{solver.name}, rank {result.notes['rank']}",
        float(psnr.mean()),
        float(psnr.std()) if len(psnr) > 1 else 0.0,
        float((best if solver.prior_free else psnr).mean()),
        float(spectral_angle(cubes, truth).mean()),
        result.cost.seconds / seeds,
        seeds,
    )
