"""Pictures for people: images in a fixed grey window, uncertainty on a scale of its own.

Figures are made without pyplot, so nothing is shown, kept open or changed for the caller; save one
with `figure.savefig`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from restore.metrics import SSIM_WINDOW, psnr, ssim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from restore.result import Result

TRUTH, STD = "truth", "posterior std"
STD_UNIT = "std, in image units [0,1]"
_TEXT = {"fontfamily": "sans-serif", "color": "#222222"}


def panel(
    columns: Mapping[str, Sequence[Tensor | None]],
    *,
    rows: Sequence[str] = (),
    captions: Mapping[str, Sequence[str]] | None = None,
    width: float = 2.3,
) -> "Figure":
    """Draw rows of images under common headings.

    The column "truth" is what the others are scored against (PSNR, SSIM under each image of its
    size); the column "posterior std" is drawn in colour with a bar. All else is shown as it would
    be displayed: black at 0, white at 1.

    Args:
        columns: heading -> one image a row, `(C, H, W)` or `(1, C, H, W)` with C = 1 (grey),
            2 (complex: the magnitude is shown) or 3; None leaves a gap.
        rows: what each row is.
        captions: heading -> one more line under each image of the column.
        width: of one image, inches.

    Returns:
        A matplotlib figure, neither shown nor saved.

    Raises:
        ValueError: columns of unequal length, or something that is no image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"the columns have {sorted(lengths)} images; expected as many in each.")
    count = lengths.pop()
    figure = Figure(figsize=(width * len(columns) + 0.8, (width + 0.45) * count + 0.25))
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(count, len(columns), squeeze=False)
    for c, (heading, column) in enumerate(columns.items()):
        for r, image in enumerate(column):
            axes = grid[r, c]
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if r == 0:
                axes.set_title(heading, fontsize=10, **_TEXT)
            if c == 0 and rows:
                axes.set_ylabel(rows[r], fontsize=10, **_TEXT)
            if image is None:
                continue
            lines = [
                _score(image, columns, heading, r),
                (captions or {}).get(heading, [""] * count)[r],
            ]
            axes.set_xlabel("\n".join(filter(None, lines)), fontsize=8, **_TEXT)
            _draw_std(axes, image) if heading == STD else _draw_image(axes, image)
    figure.subplots_adjust(
        left=0.3 / figure.get_figwidth(),
        right=1 - 0.65 / figure.get_figwidth(),
        top=1 - 0.3 / figure.get_figheight(),
        bottom=0.45 / figure.get_figheight(),
        wspace=0.04,
        hspace=0.24,
    )
    return figure


def plot_result(
    result: "Result", *, measurement: Tensor | None = None, truth: Tensor | None = None
) -> "Figure":
    """Draw the first image of a result; see `Result.plot`.

    Raises:
        ValueError: a result that is not made of images `(S, B, C, H, W)`.
    """
    if result.samples.ndim != 5:
        raise ValueError(
            f"only images can be drawn, found samples of shape {tuple(result.samples.shape)}; "
            "take a slice of the volume first."
        )
    columns: dict[str, Sequence[Tensor | None]] = {}
    if truth is not None:
        columns[TRUTH] = [truth[0]]
    if measurement is not None and measurement.ndim == 4:
        columns["measurement"] = [measurement[0]]
    count = len(result.samples)
    columns["sample" if count == 1 else f"mean of {count} samples"] = [result.mean[0]]
    if count > 1:
        columns[STD] = [result.std[0]]
    return panel(columns)


def _score(
    image: Tensor, columns: Mapping[str, Sequence[Tensor | None]], heading: str, row: int
) -> str:
    truth = columns[TRUTH][row] if TRUTH in columns else None
    if truth is None or heading in (TRUTH, STD):
        return ""
    x, truth = _batched(image), _batched(truth)
    if x.shape != truth.shape:
        return f"{x.shape[-2]} x {x.shape[-1]} pixels"
    similar = f", SSIM {ssim(x, truth).item():.3f}" if min(x.shape[2:]) >= SSIM_WINDOW else ""
    return f"{psnr(x, truth).item():.2f} dB{similar}"


def _draw_image(axes: Any, image: Tensor) -> None:
    x = _batched(image)[0].detach().cpu().double()
    if x.shape[0] == 2:
        x = x.square().sum(0, keepdim=True).sqrt()
    shown = x.clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _draw_std(axes: Any, std: Tensor) -> None:
    """Root mean square over channels; the brightest colour stands for the highest 0.5 percent."""
    power = _batched(std)[0].detach().cpu().double().square().mean(0)
    shown = power.sqrt().numpy()
    top = max(float(np.quantile(shown, 0.995)), 1e-3)
    drawn = axes.imshow(shown, cmap="magma", vmin=0, vmax=top, interpolation="nearest")
    bar = axes.figure.colorbar(drawn, cax=axes.inset_axes((1.03, 0, 0.05, 1)), extend="max")
    bar.set_label(STD_UNIT, fontsize=7, **_TEXT)
    bar.ax.tick_params(labelsize=7, width=0.5, length=2)
    bar.outline.set_linewidth(0.5)


def _batched(image: Tensor) -> Tensor:
    x = image if image.ndim == 4 else torch.as_tensor(image)[None]
    if x.ndim != 4 or x.shape[0] != 1 or x.shape[1] not in (1, 2, 3):
        raise ValueError(
            f"cannot draw a tensor of shape {tuple(image.shape)}; expected (C, H, W), C = 1 to 3."
        )
    return x
