"""The bench as one picture: error against cost, a panel a prior."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OURS, _THEIRS, _FLOOR = "#0b5fa5", "#b5651d", "#666666"
_BEST = " (best of grid)"
_TOP = 3.0  # errors above stand at the edge, with an arrow


def error_against_cost(summary: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw the worst error over the tasks of a prior against network calls a sample.

    Args:
        summary: as `restore.bench.posterior.summary` gives it.

    Returns:
        A matplotlib figure: ours blue, other libraries brown (hollow at their defaults, filled at
        the best of their grid), the exact sampler's error, which is chance, a dashed line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["prior"] for row in summary))
    figure = Figure(figsize=(6.0 * len(names), 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, len(names), squeeze=False, sharey=True)
    for axes, name in zip(panels[0], names, strict=True):
        _panel(axes, name, [row for row in summary if row["prior"] == name])
    panels[0][0].set_ylabel("worst error over tasks, in posterior stds", fontsize=10)
    return figure


def save(figure: "Figure", path: Path) -> Path:
    """Write the figure, atomically, replacing an older one."""
    from restore.files import atomic

    with atomic(path, overwrite=True) as partial:
        figure.savefig(partial, dpi=130, facecolor="white")
    return path


def _panel(axes: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    floor = next((row["worst error"] for row in rows if row["calls"] == 0), None)
    if floor is not None:
        axes.axhline(max(floor, 0.004), color=_FLOOR, linestyle="--", linewidth=1)
        axes.text(
            0.99, max(floor, 0.004), "exact sampler: chance", color=_FLOOR, fontsize=8,
            ha="right", va="bottom", transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    labels = []
    tuned = {row["solver"].removesuffix(_BEST) for row in rows if row["solver"].endswith(_BEST)}
    for row in rows:
        if row["calls"] == 0:
            continue
        ours = not row["solver"].startswith(("deepinv", "azula"))
        colour = _OURS if ours else _THEIRS
        height = min(row["worst error"], _TOP)
        above = row["worst error"] > _TOP
        axes.plot(
            row["calls"],
            height,
            marker="^" if above else "o",
            markersize=7,
            color=colour,
            markerfacecolor=colour if ours or row["solver"].endswith(_BEST) else "white",
        )
        if ours or row["solver"].endswith(_BEST) or row["solver"] not in tuned:
            labels.append((row["calls"], height, row["solver"].removesuffix(_BEST)))
    axes.set(xscale="log", yscale="log", ylim=(0.004, 1.25 * _TOP))
    axes.set_title(name, fontsize=11)
    axes.set_xlabel("network calls a sample (forwards + VJPs)", fontsize=10)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.25)
    _name(axes, labels)


def _name(axes: Any, labels: Sequence[tuple[float, float, str]]) -> None:
    """Write names beside points, from the top down, each below the one before where crowded."""
    taken: list[tuple[float, float]] = []
    for x, y, text in sorted(labels, key=lambda label: -label[1]):
        column, row = math.log10(x), math.log10(y)
        while any(abs(column - c) < 0.5 and abs(row - r) < 0.075 for c, r in taken):
            row -= 0.03
        taken.append((column, row))
        theirs = text.startswith(("deepinv", "azula"))
        axes.annotate(
            text,
            (x, y),
            xytext=(x * 1.25, 10**row),
            fontsize=7.5,
            color=_THEIRS if theirs else _OURS,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6, "shrinkA": 0},
        )
