"""The picture of `medical.echo_demonstration`."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medical.echo_demonstration import Method, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 200.0  # ms, of the map's scale
_OFF = 40.0  # ms, of the error's
_INCH = 1.5  # width of a panel
_HEAD = 0.05  # signal of the first echo where there is something


def drawn(report: Report) -> "Figure":
    """Columns: truth and methods; rows: a late echo, T2, its error; a scale for every row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    truth, columns = report.truth, 1 + len(report.methods)
    height, width = truth.signal.shape[2:]
    wide, tall = _INCH * columns + 1.0, 3 * _INCH * height / width + 0.7
    figure = Figure(figsize=(wide, tall))
    FigureCanvasAgg(figure)
    ratios = {"width_ratios": [1.0] * columns + [0.06]}
    grid: Any = figure.subplots(3, columns + 1, squeeze=False, gridspec_kw=ratios)
    echo = int((truth.times - 0.75 * truth.times[-1]).abs().argmin())
    bright = 1.2 * float(truth.signal[0, echo][truth.brain].max())
    rows = (
        (f"signal at TE {truth.times[echo]:.0f} ms", ("gray", 0.0, bright, "of the brightest")),
        ("T2", ("viridis", 0.0, _LONGEST, "ms")),
        ("error of T2, brain", ("RdBu_r", -_OFF, _OFF, "ms")),
    )
    for c, method in enumerate((None, *report.methods)):
        for axes, image, (_, scale) in zip(
            grid[:, c], _images(report, method, echo), rows, strict=True
        ):
            _draw(axes, image, scale)
        grid[0, c].set_title(_title(method), fontsize=8)
    for axes, bar, (name, scale) in zip(grid[:, 0], grid[:, -1], rows, strict=True):
        axes.set_ylabel(name, fontsize=8)
        _bar(bar, axes, scale[3])
    figure.subplots_adjust(
        left=0.3 / wide,
        right=1 - 0.6 / wide,
        top=1 - 0.62 / tall,
        bottom=0.06 / tall,
        wspace=0.04,
        hspace=0.06,
    )
    return figure


def _images(report: Report, method: Method | None, echo: int) -> tuple[Tensor, Tensor, Tensor]:
    truth = report.truth
    signal, T2 = (truth.signal, truth.T2) if method is None else (method.signal, method.T2)
    head = truth.signal[0, 0] > _HEAD
    nothing = torch.tensor(torch.nan)
    off = torch.where(truth.brain, T2 - truth.T2, nothing)
    return signal[0, echo], torch.where(head, T2, nothing), off


def _title(method: Method | None) -> str:
    if method is None:
        return "truth"
    median, rms = method.error
    return f"{method.name}\n{method.psnr:.1f} dB\nT2: {median:.1f} ms, rms {rms:.1f}"


def _draw(axes: Any, image: Tensor, scale: tuple[str, float, float, str]) -> None:
    colours, low, high, _ = scale
    axes.imshow(image.numpy(), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.set(xticks=[], yticks=[], facecolor="0.85" if low < 0 else "black")
    axes.spines[:].set_visible(False)


def _bar(axes: Any, beside: Any, unit: str) -> None:
    """The scale of a row, at its end."""
    (shown,) = beside.get_images()
    bar = axes.figure.colorbar(shown, cax=axes)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7, width=0.5, length=2)
    bar.outline.set_linewidth(0.5)
