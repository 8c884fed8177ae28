"""Reconstructions of a volume from few views, in three planes.

    FBP                 filtered back-projection (the pseudo-inverse of another operator than CT)
    SIRT                iterations chosen on the truth
    total variation     of the whole volume, isotropic, converged; weight chosen on the truth
    dds, slices alone   DDS without a term between slices
    dds                 DDS
    diffusion-mbir      DiffusionMBIR

What is chosen on the truth is an upper bound of what the method gives in practice; the diffusion
solvers get no such help. Scores are those of `restore.bench.planes`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from deepinv.physics import LinearPhysics
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

import operators
from operators.ct import ComputedTomography
from operators.slices import Slices
from operators.tomography.fbp import coverage
from operators.validate import one_of
from priors import Denoiser
from restore.bench.planes import PLANES, Scores, body, score
from restore.sirt import sirt
from restore.solvers.dds import DDS
from restore.solvers.diffusion_mbir import DiffusionMBIR, is_ct
from restore.total_variation import WEIGHTS, sweep
from restore.volumes import VolumeSolver

ITERATIONS = (10, 20, 50, 100, 200)  # of SIRT

METHODS = ("FBP", "SIRT", "total variation", "dds, slices alone", "dds", "diffusion-mbir")


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        method: a word of `METHODS`.
        setting: what was chosen, and how.
        scores: see `restore.bench.planes`.
        seconds: of wall time, all settings that were tried included.
        calls: network calls, each of all slices.
    """

    method: str
    setting: str
    scores: Scores
    seconds: float
    calls: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Scan:
    """A measured volume.

    Attributes:
        truth: `(1, 1, D, H, W)` in [0, 1].
        operator: slice by slice along D.
        y: the measurement.
        spacing: distance of slices over the side of a pixel.
        mask: voxels `(D, H, W)` that are scored.
    """

    truth: Tensor
    operator: LinearPhysics
    y: Tensor
    spacing: float

    mask: Tensor

    @property
    def ct(self) -> bool:
        """Whether rays were measured."""
        return is_ct(self.operator)

    @property
    def limited(self) -> bool:
        """Whether the rays leave out an arc of directions."""
        each = self.operator.operators if isinstance(self.operator, Slices) else [self.operator]
        seen = [o.geometry for o in each if isinstance(o, ComputedTomography)]
        return any(coverage(geometry).span < geometry.period for geometry in seen)

    def quality(self, x: Tensor) -> float:
        """By what a setting is chosen: the mean PSNR of the planes."""
        return sum(score(x, self.truth, self.mask).psnr) / 3


def measure(
    truth: Tensor,
    spec: str,
    *,
    noise: float,
    spacing: float = 1.0,
    mask: Tensor | None = None,
    seed: int = 0,
) -> Scan:
    """Measure every slice of a volume.

    Args:
        truth: `(1, 1, D, H, W)` in [0, 1].
        spec: operator of a slice, for instance "ct:angles=8" or "ct:angles=90,span=90".
        noise: Gaussian std, in units of the measurement.
        spacing: distance of slices over the side of a pixel.
        mask: voxels `(D, H, W)` that are scored, the body by default.
        seed: of the noise.

    Raises:
        ValueError: another shape, values outside [0, 1], or an operator that is not linear.
    """
    if truth.ndim != 5 or truth.shape[:2] != (1, 1):
        raise ValueError(f"the volume has shape {tuple(truth.shape)}, expected (1, 1, D, H, W).")
    low, high = truth.aminmax()
    if low < 0 or high > 1:
        raise ValueError(
            f"values run from {float(low):g} to {float(high):g}, expected [0, 1]; rescale them."
        )
    operator = operators.slices(tuple(truth.shape[1:]), operator=spec, noise=noise).to(truth.dtype)
    if not isinstance(operator, LinearPhysics):
        raise ValueError(f"operator '{spec}' is not linear, which these methods need; use another.")
    y = operators.measure(operator, truth, seed=seed)
    return Scan(truth, operator, y, spacing, body(truth) if mask is None else mask)


def run(
    scan: Scan,
    prior: Denoiser,
    *,
    methods: Sequence[str] | None = None,
    dds: DDS | None = None,
    mbir: DiffusionMBIR | None = None,
    weights: Sequence[float] = WEIGHTS,
    tol: float = 1e-3,
    seed: int = 0,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Reconstruct by every method.

    Args:
        scan: the measured volume.
        prior: of slices.
        methods: words of `METHODS`, all by default.
        dds: with other constants than its own, or those of `DDS.limited_angle` where an arc of
            directions is missing; the spacing is the scan's.
        mbir: likewise.
        weights: tried by total variation.
        tol: gap to which total variation is run.
        seed: of the solvers.
        progress: show bars; None shows them on a terminal only.

    Yields:
        One `Row` a method.
    """
    ours = dds or (DDS.limited_angle() if scan.limited else DDS())
    first = replace(ours, spacing=scan.spacing)
    second = replace(mbir or DiffusionMBIR(), spacing=scan.spacing)
    alone = replace(first, z_prior="none")
    named: dict[str, Callable[[], tuple[Tensor, str, float]]] = {
        "FBP": lambda: (scan.operator.A_dagger(scan.y), _inverse_name(scan), 0.0),
        "SIRT": lambda: _sirt(scan),
        "total variation": lambda: _total_variation(scan, weights, tol),
        "dds, slices alone": lambda: _solve(scan, alone, prior, seed, progress),
        "dds": lambda: _solve(scan, first, prior, seed, progress),
        "diffusion-mbir": lambda: _solve(scan, second, prior, seed, progress),
    }
    for method in methods or METHODS:
        one_of("method", method, METHODS)
        if method == "SIRT" and not scan.ct:
            continue
        started = time.perf_counter()
        x, setting, calls = named[method]()
        seconds = time.perf_counter() - started
        yield Row(method, setting, score(x, scan.truth, scan.mask), seconds, calls)


def _inverse_name(scan: Scan) -> str:
    return "filtered back-projection" if scan.ct else "pseudo-inverse"


def _sirt(scan: Scan) -> tuple[Tensor, str, float]:
    found = enumerate(sirt(scan.y, scan.operator, ITERATIONS[-1]), start=1)
    tried = ((k, x) for k, x in found if k in ITERATIONS)
    k, x = max(tried, key=lambda entry: scan.quality(entry[1]))
    return x, f"{k} iterations, chosen on the truth", 0.0


def _total_variation(scan: Scan, weights: Sequence[float], tol: float) -> tuple[Tensor, str, float]:
    spacing = (scan.spacing, 1.0, 1.0)
    tried = sweep(scan.y, scan.operator, weights, spacing=spacing, tol=tol)
    found = max(tried, key=lambda minimum: scan.quality(minimum.x))
    setting = f"weight {found.weight:g}, chosen on the truth; gap {found.gap:.0e}"
    return found.x, setting, 0.0


def _solve(
    scan: Scan, solver: VolumeSolver, prior: Denoiser, seed: int, progress: bool | None
) -> tuple[Tensor, str, float]:
    result = solver(scan.y, scan.operator, prior, seed=seed, progress=progress)
    term = "no term" if solver.z_prior == "none" else f"{solver.z_prior} {solver.lambda_rel:g}"
    inner = f" of {solver.cg_steps}" if isinstance(solver, DDS) else ""
    return result.samples[0], f"{solver.length} steps{inner}, {term}", result.cost.calls


def table(rows: Sequence[Row], title: str = "volumes") -> Table:
    """Lay rows out."""
    table = Table(
        title=title,
        caption="PSNR in dB; jump: rms error of differences between slices; rough: their size over "
        "the truth's",
        box=SIMPLE_HEAD,
    )
    for head in ("method", "setting"):
        table.add_column(head)
    heads = [f"{measure} {plane[:3]}." for measure in ("PSNR", "SSIM") for plane in PLANES]
    for head in (*heads, "jump", "rough", "s", "calls"):
        table.add_column(head, justify="right")
    for row in rows:
        found = row.scores
        cells = [f"{v:.2f}" for v in found.psnr]
        cells += ["-" if math.isnan(v) else f"{v:.3f}" for v in found.ssim]
        cells += [f"{found.jump:.4f}", f"{found.roughness:.2f}"]
        table.add_row(row.method, row.setting, *cells, f"{row.seconds:.1f}", f"{row.calls:.0f}")
    return table
