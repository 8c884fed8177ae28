"""A head at sixteen echo times, one slice under noise, restored from itself.

Echoes are to a scan what bands are to a hyperspectral cube: many images of one scene, in which few
decays are mixed. Solvers of cubes are compared by the echoes, and by the map of T2 that is fitted
to what they leave; truncated decomposition has the rank that the truth likes best.

DDS2M's published validation is remote sensing and natural scenes. Here its networks are small and
its steps few, to be quick.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

import operators
import restore
from medical.echoes import Scan, relaxation, scan
from restore.bench.cube_rivals import truncated
from restore.files import atomic
from restore.metrics import band_psnr, spectral_angle
from restore.solver import Solver
from restore.solvers.dds2m import DDS2M
from restore.solvers.eigen import Eigen
from restore.solvers.fasthyde import FastHyDe
from restore.solvers.vs2m import FitVS2M

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

PIXEL = 1.75  # mm
NOISE = 0.05
STEPS = 500  # of the networks
_SMALL: dict[str, Any] = {"map_channels": (8, 16, 32), "hidden": (64, 128)}
_DRAWS = 4  # of eigen-images


@dataclass(frozen=True, kw_only=True)
class Method:
    """What one method made of the scan.

    Attributes:
        name: with its settings.
        signal: `(1, C, H, W)`.
        T2: `(H, W)` ms.
        psnr: mean over echoes, dB.
        sam: mean angle between true and restored decays, degrees.
        error: median of the error of T2 in the brain, ms, and its root mean square.
        seconds: spent.
    """

    name: str
    signal: Tensor
    T2: Tensor
    psnr: float
    sam: float
    error: tuple[float, float]
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        median, rms = self.error
        numbers = {"psnr": self.psnr, "sam": self.sam, "seconds": self.seconds}
        return {"method": self.name, "T2 median error ms": median, "T2 rms error ms": rms} | numbers


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole demonstration: the scan, its noise, and the methods, the measurement first."""

    truth: Scan
    noise: float
    methods: tuple[Method, ...]
    ok: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        times = self.truth.times.tolist()
        rows = [method.as_dict() for method in self.methods]
        return {"echo times ms": times, "noise": self.noise, "methods": rows}

    def table(self) -> "Table":
        """The numbers for a terminal."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        _, echoes, height, width = self.truth.signal.shape
        table = Table(
            title=f"slice of a head, {height}x{width}, {echoes} echoes, noise {self.noise:g}",
            caption="T2 errors in the brain",
            box=SIMPLE_HEAD,
        )
        table.add_column("")
        for heading in ("PSNR dB", "angle", "T2 median ms", "T2 rms ms", "seconds"):
            table.add_column(heading, justify="right")
        for m in self.methods:
            numbers = [m.psnr, m.sam, *m.error, m.seconds]
            table.add_row(m.name, f"{numbers[0]:.2f}", *(f"{n:.1f}" for n in numbers[1:]))
        return table

    def figure(self) -> "Figure":
        """A late echo, the map of T2 and its error, of the truth and of every method."""
        from medical.echo_figure import drawn

        return drawn(self)


def run(
    *,
    echoes: int = 16,
    noise: float = NOISE,
    steps: int = STEPS,
    prior: str = "natural-gray",
    seed: int = 0,
    device: str = "cpu",
    progress: bool | None = None,
) -> Report:
    """Make the scan, add noise, restore, and compare.

    Args:
        echoes: C, at least 8.
        noise: std, of the brightest signal.
        steps: of Adam.
        prior: of grey images, for the eigen-images.
        seed: of noise, networks and draws.
        device: where to compute.
        progress: show a bar; None shows it on a terminal only.
    """
    truth = scan(echoes=echoes, pixel=PIXEL)
    operator = operators.denoise(tuple(truth.signal.shape[1:]), noise=noise)
    y = operators.measure(operator, truth.signal, seed=seed)
    best = max(truncated(y), key=lambda found: float(band_psnr(found[1], truth.signal).mean()))
    methods = [_judged("measured", y, truth), _judged(best[0], best[1], truth)]
    solvers: tuple[tuple[Solver, int], ...] = (
        (FastHyDe(), 1),
        (Eigen(), _DRAWS),
        (FitVS2M(steps=steps, **_SMALL), 1),
        (DDS2M(steps=2 * steps, **_SMALL), 1),
    )
    sound = True
    for solver, samples in solvers:
        result = restore.solve(
            *(y.to(device), operator, prior, solver),
            samples=samples,
            seed=seed,
            progress=progress,
        )
        sound &= result.status != "diverged"
        name = solver.name if samples == 1 else f"{solver.name}, mean of {samples}"
        name += f", rank {result.notes['rank'][0]}"  # type: ignore[index]
        methods.append(_judged(name, result.mean.cpu(), truth, result.cost.seconds))
    return Report(truth=truth, noise=noise, methods=tuple(methods), ok=sound)


def _judged(name: str, signal: Tensor, truth: Scan, seconds: float = 0.0) -> Method:
    T2 = relaxation(signal, truth.times)
    off = (T2 - truth.T2)[truth.brain].abs()
    return Method(
        name=name,
        signal=signal,
        T2=T2,
        psnr=float(band_psnr(signal, truth.signal, clip=False).mean()),
        sam=float(spectral_angle(_inside(signal, truth), _inside(truth.signal, truth))),
        error=(float(off.median()), float(off.square().mean().sqrt())),
        seconds=seconds,
    )


def _inside(signal: Tensor, truth: Scan) -> Tensor:
    """The decays of the brain, as a cube of one row: air has no decay whose angle means a thing."""
    return signal[:, :, truth.brain][:, :, None]


def save(report: Report, path: Path) -> Path:
    """Write the picture as PNG, atomically, making its folder and replacing an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path, overwrite=True) as partial:
        report.figure().savefig(partial, dpi=150, facecolor="white")
    return path
