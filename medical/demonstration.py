"""A head seen by a CT scanner from few sides, reconstructed in three ways and compared.

The prior has seen no slice of the real head: it is the one that its training held out. Total
variation gets the weight that suits this very head best, which nobody knows in practice.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepinv.physics import LinearPhysics
from torch import Tensor, nn

from medical import geometry, phantoms, pictures, samples
from medical.reconstruct import Quality, Restored, Settings, reconstruct
from medical.reconstruct.measured import measured
from medical.reconstruct.outcome import in_units, scores
from medical.reconstruct.sampling import prior_given
from medical.reconstruct.scene import scene_of
from medical.reconstruct.tasks import Scene, task_named
from medical.volume import Volume
from restore.files import atomic
from restore.metrics import psnr
from restore.total_variation import sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

TASK = "ct-sparse"
STEPS = 30
SIDE = 128  # pixels of a slice
THICK = 2  # slices of the real head that become one
WEIGHTS = (3e-3, 1e-3)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole demonstration.

    Attributes:
        head: which, in words.
        restored: what DDS made of it.
        others: name -> what other methods made of it, and in how many seconds.
        quality: name -> against the head.
    """

    head: str
    restored: Restored
    others: dict[str, tuple[Volume, float]]
    quality: dict[str, Quality]

    @property
    def ok(self) -> bool:
        """Whether it did not diverge."""
        return self.restored.status != "diverged"

    @property
    def seconds(self) -> dict[str, float]:
        """Name -> wall time."""
        spent = {name: seconds for name, (_, seconds) in self.others.items()}
        return spent | {"DDS": self.restored.story["seconds"]}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        rows = {name: q.as_dict() for name, q in self.quality.items()}
        story = dict(self.restored.story)
        return {"head": self.head, "quality": rows, "seconds": self.seconds, "story": story}

    def table(self) -> "Table":
        """The numbers for a terminal."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        story = self.restored.story
        caption = f"noise {story['noise']['std']:g} {story['noise']['unit']}, prior "
        caption += f"{story['prior']['name']}, {story['samples']} samples, seed {story['seed']}"
        title = f"{self.head}, {story['measured']}: PSNR in dB / SSIM inside the head"
        table = Table(title=title, caption=caption, box=SIMPLE_HEAD)
        table.add_column("")
        for heading in ("axial", "coronal", "sagittal", "step error HU", "seconds"):
            table.add_column(heading, justify="right")
        for name, q in self.quality.items():
            planes = [f"{q.psnr[p]:.2f} / {q.ssim[p] or float('nan'):.3f}" for p in q.psnr]
            table.add_row(name, *planes, f"{q.step:.1f}", f"{self.seconds[name]:.1f}")
        return table

    def figure(self) -> "Figure":
        """Three planes of the head, of each method, and of the std."""
        assert self.restored.truth is not None
        volumes = {"the head": self.restored.truth}
        volumes |= {name: volume for name, (volume, _) in self.others.items()}
        count = self.restored.story["samples"]
        volumes[f"DDS, mean of {count}"] = self.restored.mean
        captions = {name: _caption(q) for name, q in self.quality.items()}
        captions[f"DDS, mean of {count}"] = captions["DDS"]
        return _drawn(volumes, self.restored.std, captions)


def head(slices: int) -> tuple[Volume, str]:
    """A head of small, thick slices: a real one where there is one, with its name."""
    real = samples.ct_head()
    if real is None:
        return phantoms.head((SIDE, SIDE, slices), spacing=(240 / SIDE, 240 / SIDE, 3.0)), "phantom"
    factors = (real.grid[0] // SIDE, real.grid[1] // SIDE, THICK)
    slices = min(slices, real.grid[2] // THICK)
    first = (real.grid[2] - slices * THICK) // 2
    cut = real.data[None, ..., first : first + slices * THICK]
    mean = nn.functional.avg_pool3d(cut, factors)[0]
    affine = real.affine.copy()
    affine[:3, 3] = geometry.place(affine, (0.0, 0.0, first))
    for axis, factor in enumerate(factors):
        affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
        affine[:3, axis] *= factor
    return replace(real, data=mean, affine=affine), "CT of a head"


def run(
    *,
    angles: int = 8,
    slices: int = 24,
    samples: int = 2,
    steps: int = STEPS,
    prior: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool | None = None,
) -> Report:
    """Simulate the scanner, reconstruct, and compare.

    Args:
        angles: views.
        slices: of the head.
        samples: their mean is scored.
        steps: of DDS.
        prior: see `reconstruct`.
        seed: of noise and samples.
        device: where to compute.
        progress: show a bar; None shows it on a terminal only.
    """
    volume, name = head(slices)
    settings = Settings(angles=angles)
    restored = reconstruct(
        volume,
        TASK,
        settings,
        prior=prior,
        options={"steps": steps},
        samples=samples,
        seed=seed,
        device=device,
        progress=progress,
    )
    scene = scene_of(volume, task_named(TASK), settings, prior_given(prior or "ct"), None, True)
    varied, seconds = _total_variation(volume, scene, seed)
    return Report(
        head=name,
        restored=restored,
        others={"back-projection": (restored.before, 0.0), "total variation": (varied, seconds)},
        quality={
            "back-projection": restored.quality["before"],
            "total variation": scores(volume, scene, varied=varied)["varied"],
            "DDS": restored.quality["restored"],
        },
    )


def _total_variation(volume: Volume, scene: Scene, seed: int) -> tuple[Volume, float]:
    """From the same measurement; seconds are those of one weight."""
    stack: Tensor = scene.map.forward(volume.stack(scene.plane).data)[None]
    found = measured(task_named(TASK), scene, stack, given=None, simulate=True, seed=seed)
    assert isinstance(found.operator, LinearPhysics)
    spacing = (scene.spacing[0] / scene.spacing[2], 1.0, 1.0)
    started = time.perf_counter()
    minima = sweep(found.y, found.operator, WEIGHTS, spacing=spacing, tol=1e-2, max_iter=200)
    best = max(minima, key=lambda minimum: float(psnr(minimum.x, stack, clip=False)))
    seconds = (time.perf_counter() - started) / len(WEIGHTS)
    return in_units(volume, scene, best.x[0]), seconds


def save(report: Report, path: Path) -> Path:
    """Write the picture as PNG, atomically, making its folder and replacing an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path, overwrite=True) as partial:
        report.figure().savefig(partial, dpi=150, facecolor="white")
    return path


def _caption(quality: Quality) -> str:
    return "\n" + " / ".join(f"{value:.1f}" for value in quality.psnr.values()) + " dB"


def _drawn(volumes: dict[str, Volume], std: Volume | None, captions: dict[str, str]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    truth = next(iter(volumes.values()))
    window = pictures.grey(truth)
    point = pictures.middle(truth, window)
    columns = [(name, volume, window) for name, volume in volumes.items()]
    if std is not None:
        columns.append(("std of the samples", std, pictures.positive(std)))
    heights = [1 / view.aspect for view in pictures.views(truth, point)]
    width, high = 2.3 * len(columns) + 0.6, 2.3 * sum(heights) + 1.2
    figure = Figure(figsize=(width, high))
    FigureCanvasAgg(figure)
    ratios = {"height_ratios": [*heights, 0.04]}
    grid: Any = figure.subplots(4, len(columns), squeeze=False, gridspec_kw=ratios)
    for c, (name, volume, scale) in enumerate(columns):
        for r, view in enumerate(pictures.views(volume, point)):
            _draw(grid[r, c], view, scale)
            if c == 0:
                grid[r, c].set_ylabel(f"{view.plane}\n{view.where}", fontsize=8)
        grid[0, c].set_title(name + captions.get(name, ""), fontsize=10)
        _bar(grid[3, c], grid[0, c], scale)
    figure.subplots_adjust(
        left=0.5 / width,
        right=1 - 0.1 / width,
        top=1 - 0.5 / high,
        bottom=0.3 / high,
        wspace=0.04,
        hspace=0.05,
    )
    return figure


def _draw(axes: Any, view: pictures.View, window: pictures.Window) -> None:
    rows, columns = view.pixels.shape
    axes.imshow(
        view.pixels,
        cmap=window.scale,
        vmin=window.low,
        vmax=window.high,
        aspect=columns / rows / view.aspect,
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _bar(axes: Any, above: Any, window: pictures.Window) -> None:
    """The scale of a column, below it."""
    (drawn,) = above.get_images()
    bar = axes.figure.colorbar(drawn, cax=axes, orientation="horizontal")
    bar.set_ticks([window.low, window.high])
    bar.set_ticklabels([f"{window.low:.0f}", f"{window.high:.0f} {window.units}"])
    bar.ax.tick_params(labelsize=8, width=0.5, length=2)
    (first, last) = bar.ax.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    bar.outline.set_linewidth(0.5)
