"""Pictures of a cube: three bands as colours, and spectra of a few pixels before and after."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from restore.cubes.cube import Cube

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RGB = (640.0, 550.0, 460.0)  # nanometres
_NEAR = 60.0  # beyond, a band is no longer of that colour
_CUT = 0.02  # share of the darkest and of the brightest values that colours give up
_PIXELS = 4


def colour_bands(cube: Cube, lost: tuple[int, ...] = ()) -> tuple[int, int, int]:
    """Bands nearest to red, green and blue; three spread ones where none are."""
    good = [i for i in range(len(cube.data)) if i not in lost]
    if cube.wavelengths is not None:
        away = [[abs(cube.wavelengths[i] - nm) for i in good] for nm in _RGB]
        if all(min(row) <= _NEAR for row in away):
            red, green, blue = (good[row.index(min(row))] for row in away)
            return red, green, blue
    red, green, blue = (good[int(share * (len(good) - 1))] for share in (0.8, 0.5, 0.2))
    return red, green, blue


def preview(before: Cube, after: Cube, lost: tuple[int, ...] = ()) -> Tensor:
    """Before and after side by side in the same colours, `(1, 3, H, 2 W + 4)` in [0, 1]."""
    bands = list(colour_bands(after, lost))
    small = torch.where(before.seen, before.data, 0)[bands][None]
    size = after.shape[1:]
    if size != before.shape[1:]:
        small = torch.nn.functional.interpolate(small, size=size, mode="nearest")
    pair = [small[0], torch.where(after.seen, after.data, 0)[bands]]
    flat = after.data[bands].flatten(1)
    flat = torch.where(torch.isfinite(flat), flat, flat.nanmedian(1, keepdim=True).values)
    count = flat.shape[1]
    low = flat.kthvalue(1 + int(_CUT * (count - 1)), dim=1).values[:, None, None]
    high = flat.kthvalue(1 + int((1 - _CUT) * (count - 1)), dim=1).values[:, None, None]
    shown = [((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1) for x in pair]
    gap = torch.ones(3, size[0], 4)
    return torch.cat([shown[0], gap, shown[1]], 2)[None]


def spectra(before: Cube, after: Cube, truth: Cube | None = None) -> "Figure":
    """Spectra of a few pixels spread over the scene, before and after."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(2, 2, sharex=True)
    at = after.wavelengths or range(1, len(after.data) + 1)
    order = sorted(range(len(at)), key=lambda i: at[i])
    height, width = after.shape[1:]
    factor = height // before.shape[1]
    shares = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
    for axes, (down, right) in zip(panels.flat, shares[:_PIXELS], strict=True):
        row, column = int(down * height), int(right * width)
        lines = [("before", before.data[:, row // factor, column // factor], "#b0b0b0")]
        if truth is not None:
            lines.append(("truth", truth.data[:, row, column], "#222222"))
        lines.append(("after", after.data[:, row, column], "#c03020"))
        for name, values, colour in lines:
            axes.plot(
                [at[i] for i in order],
                values[order],
                label=name,
                color=colour,
                linewidth=1,
                marker=".",
            )
        axes.set_title(f"row {row + 1}, column {column + 1}", fontsize=9)
        axes.tick_params(labelsize=8)
    panels[0, 0].legend(fontsize=8, frameon=False)
    for axes in panels[1]:
        axes.set_xlabel("band" if after.wavelengths is None else "wavelength, nm", fontsize=9)
    return figure
