"""`restore demo`: one real photograph, damaged in three ways and restored.

The photograph is one of scikit-image's, on which no shipped prior was trained. Every damage is
restored with one prior and one solver, untuned, and set against the best classical method of
scikit-image at the setting that suits this very image best (`restore.baselines`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import operators
import restore
from restore import baselines
from restore.metrics import psnr, ssim
from restore.solvers import DEFAULT

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from restore.result import Result


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of damage.

    Attributes:
        title: in words.
        operator: as `operators.parse` reads it.
        noise: Gaussian std in units of a [0, 1] image.
    """

    title: str
    operator: str
    noise: float


TASKS = (
    Task(title="blurred and noisy", operator="blur:sigma=2", noise=0.02),
    Task(title="one pixel in five, noisy", operator="mask:keep=0.2", noise=0.02),
    Task(title="four times too small", operator="downsample:factor=4", noise=0.01),
)
# name -> top and left of a crop with detail at every scale
CROPS = {"astronaut": (0, 130), "coffee": (60, 170), "chelsea": (20, 110)}


@dataclass(frozen=True)
class Score:
    """PSNR in dB and SSIM against the truth, both of the image clipped to [0, 1]."""

    psnr: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one task.

    Attributes:
        task: the damage.
        before: the measurement (enlarged by repetition when it is smaller than the image).
        classical: the best classical method at its best setting.
        method: its name.
        restored: the mean of the samples.
        seconds: wall time of the restoration.
        calls: network calls a sample, forwards and vector-Jacobian products.
        images: truth, measurement, classical, mean, std, `(1, C, H, W)` each.
        result: all that the solver returned.
    """

    task: Task
    before: Score
    classical: Score
    method: str
    restored: Score
    seconds: float
    calls: float
    images: dict[str, Tensor]
    result: "Result"

    @property
    def gain(self) -> float:
        """DB above the best classical method."""
        return self.restored.psnr - self.classical.psnr


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole demonstration: numbers for table, `--json` and README, images for the panel.

    Attributes:
        photograph: which, and its size.
        settings: prior, solver, samples and seed.
        outcomes: one a task.
    """

    photograph: str
    settings: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether no task diverged."""
        return all(o.result.status != "diverged" for o in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the images, as plain values."""
        rows = [
            asdict(o.task)
            | {key: asdict(getattr(o, key)) for key in ("before", "classical", "restored")}
            | {"method": o.method, "gain": o.gain, "seconds": o.seconds, "calls": o.calls}
            | {"status": o.result.status, "misfit": o.result.misfit.tolist()}
            for o in self.outcomes
        ]
        return {"photograph": self.photograph, "settings": self.settings, "tasks": rows}

    def table(self) -> "Table":
        """Return the numbers for a terminal."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        said = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        table = Table(title=f"{self.photograph}: PSNR in dB / SSIM", caption=said, box=SIMPLE_HEAD)
        table.add_column("task")
        heads = ("before", "best classical", "restored", "gain dB", "seconds", "calls")
        for head in heads:
            table.add_column(head, justify="right")
        for o in self.outcomes:
            cells = [f"{s.psnr:.2f} / {s.ssim:.3f}" for s in (o.before, o.classical, o.restored)]
            numbers = [f"{o.gain:+.2f}", f"{o.seconds:.1f}", f"{o.calls:.0f}"]
            trouble = "" if o.result.status == "ok" else f" ({o.result.status})"
            table.add_row(o.task.title + trouble, *cells, *numbers)
        return table

    def figure(self) -> "Figure":
        """Draw one row a task: truth, measurement, best classical, mean, std."""
        from restore.plot import panel

        headings = self.outcomes[0].images
        return panel(
            {heading: [o.images[heading] for o in self.outcomes] for heading in headings},
            rows=[o.task.title for o in self.outcomes],
            captions={"best classical": [o.method for o in self.outcomes]},
        )


def photograph(name: str = "astronaut", size: int = 192) -> Tensor:
    """A square part of one of scikit-image's photographs, `(1, 3, size, size)` in [0, 1].

    Raises:
        ValueError: unknown name, or a size that is no multiple of 8 up to 256.
    """
    from skimage import data

    if name not in CROPS:
        raise ValueError(f"photograph '{name}' is unknown; choose from {', '.join(CROPS)}.")
    if size % 8 or not 64 <= size <= 256:
        raise ValueError(f"size is {size}, expected a multiple of 8 from 64 to 256.")
    top, left = CROPS[name]
    pixels = torch.from_numpy(getattr(data, name)()[top : top + size, left : left + size].copy())
    return pixels.permute(2, 0, 1)[None] / 255


def run(
    *,
    name: str = "astronaut",
    size: int = 192,
    prior: Any = "natural",
    solver: Any = DEFAULT,
    samples: int = 8,
    seed: int = 0,
    device: str = "cpu",
    tasks: Sequence[Task] = TASKS,
    progress: bool | None = None,
) -> Report:
    """Damage the photograph, restore it, and compare.

    Args:
        name: "astronaut", "coffee" or "chelsea".
        size: side of the square part used, pixels.
        prior: see `restore.solve`.
        solver: see `restore.solve`.
        samples: number of samples; their mean is scored.
        seed: of the measurement noise and of the samples.
        device: where to compute.
        tasks: kinds of damage.
        progress: show a bar; None shows it on a terminal only.
    """
    truth = photograph(name, size).to(device)
    outcomes = []
    for task in tasks:
        operator = operators.parse(task.operator, truth.shape[1:], noise=task.noise)
        y = operators.measure(operator, truth.cpu(), seed=seed).to(device)
        result = restore.solve(
            y, operator, prior, solver, samples=samples, seed=seed, progress=progress
        )
        outcomes.append(_outcome(task, truth, y, baselines.best(y, operator, truth), result))
    settings = {
        "prior": prior if isinstance(prior, str) else type(prior).__name__,
        "solver": solver if isinstance(solver, str) else solver.name,
        "samples": samples,
        "seed": seed,
    }
    return Report(
        photograph=f"{name}, {size} x {size}", settings=settings, outcomes=tuple(outcomes)
    )


def check_panel(path: Path) -> None:
    """Refuse, before minutes are spent, a file that `save_panel` could not write.

    Raises:
        FileExistsError: it is a folder, or a file stands where its folder should be.
        ValueError: its suffix is not `.png`.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"'{path}' is no name for a PNG; end it with .png.")
    above = next(folder for folder in path.parents if folder.exists())
    if path.is_dir() or not above.is_dir():
        taken = f"'{path}' is a folder" if path.is_dir() else f"'{above}' is no folder"
        raise FileExistsError(f"{taken}; name another file for the picture.")


def save_panel(report: Report, path: Path) -> Path:
    """Write the figure as PNG, atomically, making its folder and replacing an older panel."""
    from restore.files import atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path, overwrite=True) as partial:
        report.figure().savefig(partial, dpi=150, facecolor="white")
    return path


def _outcome(
    task: Task, truth: Tensor, y: Tensor, classical: baselines.Baseline, result: "Result"
) -> Outcome:
    factor = truth.shape[-1] // y.shape[-1]
    shown = y.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    mean = result.mean
    return Outcome(
        task=task,
        before=_score(shown, truth),
        classical=_score(classical.image, truth),
        method=classical.name,
        restored=_score(mean, truth),
        seconds=result.cost.seconds,
        calls=result.cost.calls,
        images={
            "truth": truth,
            "measurement": y,
            "best classical": classical.image,
            "restored (mean)": mean,
            "posterior std": result.std,
        },
        result=result,
    )


def _score(x: Tensor, truth: Tensor) -> Score:
    return Score(psnr(x, truth).item(), ssim(x, truth).item())
