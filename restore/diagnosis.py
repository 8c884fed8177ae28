"""A prior's diagnosis as pictures: its errors, its shrinkage spectrum, the basis it chooses.

Noise levels run from dark to light in one colour scale. Lengths of errors are in the units of the
images, [0, 1] for photographs.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from priors.diagnostics import Diagnosis, Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _BROWN, _GREY, _GREEN = "#0b5fa5", "#b5651d", "#666666", "#3a7d44"
_NOISE = "noise std sigma, in image units"
SHOWN = (1, 2, 3, 5, 8, 13, 21, 32)
"""Which eigenvectors the basis picture shows, counted from the largest eigenvalue."""


def levels_figure(diagnosis: Diagnosis) -> "Figure":
    """Draw error, calibration and dimension against the noise level.

    Args:
        diagnosis: of at least one noise level.

    Returns:
        A matplotlib figure of four panels, neither shown nor saved.
    """
    figure = _figure(11.0, 8.4)
    axes: Any = figure.subplots(2, 2)
    channels, *sides = diagnosis.image_shape
    pixels = " x ".join(map(str, sides))
    figure.suptitle(
        f"prior '{diagnosis.prior}' on {diagnosis.images} photographs of {pixels} pixels, "
        f"{channels} channel{'s' if channels > 1 else ''}",
        fontsize=12,
    )
    _draw_errors(axes[0, 0], diagnosis)
    _draw_reliability(axes[0, 1], diagnosis)
    _draw_coverage(axes[1, 0], diagnosis)
    _draw_dimension(axes[1, 1], diagnosis)
    return figure


def spectrum_figure(spectra: Sequence[Spectrum], clean: Tensor, name: str) -> "Figure":
    """Draw shrinkage factors, and how the clean image falls off in the same basis.

    A factor above 1 is no error in itself: between two explanations, an edge here or there, the
    variance `sigma^2 lambda` of the clean image is larger than that of the noise.

    Args:
        spectra: of one image at several noise levels, rising.
        clean: that image without noise, `(1, C, *spatial)`.
        name: what it shows.

    Returns:
        A matplotlib figure of two panels.
    """
    figure = _figure(11.0, 4.4)
    left, right = figure.subplots(1, 2)
    size = " x ".join(map(str, clean.shape[2:]))
    for spectrum, colour in zip(spectra, _colours(len(spectra)), strict=True):
        k = np.arange(1, len(spectrum.values) + 1)
        label = f"sigma {spectrum.sigma:g}: trace {float(spectrum.values.sum()):.3g}"
        left.plot(k, spectrum.values.numpy(), color=colour, linewidth=1.6, label=label)
        energy = spectrum.coefficients(clean).square().numpy()
        at, power = _smooth(k, energy)
        right.plot(at, np.sqrt(power), color=colour, linewidth=1.4)
        right.axhline(spectrum.sigma, color=colour, linestyle=":", linewidth=1)
    for level in (0, 1):
        left.axhline(level, color=_GREY, linestyle="--", linewidth=0.8)
    left.set_ylabel("eigenvalue of (J + J^T) / 2", fontsize=10)
    left.set_title(
        f"{name}, {size} pixels: 1 kept, 0 taken for noise, above 1 undecided", fontsize=10
    )
    left.legend(fontsize=8, frameon=False)
    right.set(yscale="log")
    right.set_ylabel("|<e_k, clean image>|, in image units", fontsize=10)
    right.set_title("the clean image in this basis; dotted: the noise", fontsize=10)
    for axes in (left, right):
        axes.set(xscale="log")
        axes.set_xlabel("rank k of the eigenvector", fontsize=10)
        _tidy(axes)
    return figure


def basis_figure(rows: Mapping[str, tuple[Tensor, Tensor, Spectrum]]) -> "Figure":
    """Draw clean, noisy and denoised images beside eigenvectors of the Jacobian there.

    Args:
        rows: what a row shows -> clean image, denoised image and spectrum at the noisy one.

    Returns:
        A matplotlib figure; a grey eigenvector is red where positive and blue where negative, one
        in colour is shown about mid-grey, each scaled to its own largest entry.
    """
    ranks = [k for k in SHOWN if all(k <= len(row[2].values) for row in rows.values())]
    columns = 3 + len(ranks)
    figure = _figure(1.28 * columns + 0.5, 1.5 * len(rows) + 0.45)
    grid: Any = figure.subplots(len(rows), columns, squeeze=False)
    for r, (heading, (clean, denoised, spectrum)) in enumerate(rows.items()):
        pictures = {"clean": clean, "noisy": spectrum.noisy, "denoised": denoised}
        for axes, (title, image) in zip(grid[r], pictures.items(), strict=False):
            _draw_image(axes, image)
            if r == 0:
                axes.set_title(title, fontsize=9)
        grid[r, 0].set_ylabel(heading, fontsize=9)
        for axes, k in zip(grid[r, 3:], ranks, strict=True):
            _draw_vector(axes, spectrum.vectors[k - 1])
            axes.set_xlabel(f"{float(spectrum.values[k - 1]):.3f}", fontsize=8)
            if r == 0:
                axes.set_title(f"e{k}", fontsize=9)
    figure.suptitle(
        "eigenvectors of the denoiser's Jacobian at the noisy image; below each its eigenvalue",
        fontsize=10,
    )
    return figure


def _draw_errors(axes: Any, diagnosis: Diagnosis) -> None:
    sigma = [level.sigma for level in diagnosis.levels]
    axes.plot(sigma, sigma, color=_GREY, linestyle="--", linewidth=1, label="noise")
    made = [level.told.true for level in diagnosis.levels]
    axes.plot(sigma, made, "o-", color=_BLUE, label="error made")
    expected = [level.expected for level in diagnosis.levels]
    axes.plot(sigma, expected, "s--", color=_BROWN, markerfacecolor="white", label="error expected")
    axes.set(xscale="log", yscale="log")
    axes.set_ylabel("rms error, in image units", fontsize=10)
    axes.set_title("errors: expected is sigma sqrt(tr J / n)", fontsize=10)
    _plain(axes.yaxis)
    _against_noise(axes, sigma)


def _draw_reliability(axes: Any, diagnosis: Diagnosis) -> None:
    levels = diagnosis.levels
    top, bottom = 0.0, float("inf")
    for level, colour in zip(levels, _colours(len(levels)), strict=True):
        pairs = np.array([p for p in level.calibration.reliability if p[0] > 0 and p[1] > 0])
        if pairs.size:
            axes.plot(*pairs.T, "o-", color=colour, markersize=3.5, label=f"sigma {level.sigma:g}")
            top, bottom = max(top, pairs.max()), min(bottom, pairs.min())
    axes.set(xscale="log", yscale="log")
    if top > 0:
        span = np.array([bottom / 1.2, top * 1.2])
        axes.plot(span, span, color=_GREY, linestyle="--", linewidth=1)
        axes.text(1.3 * span[0], span[0], "exact", fontsize=8, color=_GREY, va="bottom")
    axes.set_xlabel("predicted std of a pixel, in image units", fontsize=10)
    axes.set_ylabel("rms error of these pixels", fontsize=10)
    axes.set_title("pixels in ten groups, by predicted std", fontsize=10)
    _plain(axes.xaxis)
    _plain(axes.yaxis)
    axes.legend(fontsize=8, frameon=False)
    _tidy(axes)


def _draw_coverage(axes: Any, diagnosis: Diagnosis) -> None:
    sigma = [level.sigma for level in diagnosis.levels]
    nominal = list(diagnosis.levels[0].calibration.covers)
    for p, colour in zip(nominal, (_GREEN, _BROWN, _BLUE), strict=True):
        share = [100 * level.calibration.covers[p] for level in diagnosis.levels]
        axes.plot(sigma, share, "o-", color=colour, label=f"interval of {p:.0%}")
        axes.axhline(100 * p, color=colour, linestyle="--", linewidth=0.8)
    axes.set(xscale="log", ylim=(0, 103))
    axes.set_ylabel("pixels inside, %", fontsize=10)
    axes.set_title("coverage of Gaussian intervals; dashed: nominal", fontsize=10)
    _against_noise(axes, sigma)


def _draw_dimension(axes: Any, diagnosis: Diagnosis) -> None:
    styles = {
        "trace": ("o-", _BLUE, "tr J"),
        "error": ("s--", _BROWN, "squared error / sigma^2"),
        "residual": ("^:", _GREEN, "from what is removed"),
        "slope": ("x-.", _GREY, "slope of log density"),
    }
    sigma = [level.sigma for level in diagnosis.levels]
    for key, (style, colour, label) in styles.items():
        found = [getattr(level.dimension, key) for level in diagnosis.levels]
        mean = np.array([value.mean for value in found])
        error = np.nan_to_num([value.error for value in found])
        axes.errorbar(
            sigma, mean, error, fmt=style, color=colour, markersize=5, linewidth=1.2, label=label
        )
    axes.set(xscale="log", yscale="symlog")
    axes.axhline(diagnosis.levels[0].dimension.size, color=_GREY, linestyle="--", linewidth=1)
    axes.text(
        0.99, diagnosis.levels[0].dimension.size, "entries of an image", color=_GREY, fontsize=8,
        ha="right", va="bottom", transform=axes.get_yaxis_transform(),
    )  # fmt: skip
    axes.set_ylabel("dimension of an image", fontsize=10)
    axes.set_title("numbers kept; bars: standard error over images", fontsize=10)
    _against_noise(axes, sigma)


def _draw_image(axes: Any, image: Tensor) -> None:
    shown = image[0].detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _bare(axes)


def _draw_vector(axes: Any, vector: Tensor) -> None:
    top = float(vector.abs().max()) or 1.0
    shown = (vector / top).permute(1, 2, 0).numpy()
    if len(vector) == 3:
        axes.imshow(0.5 + shown / 2, interpolation="nearest")
    else:
        axes.imshow(shown[..., 0], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    _bare(axes)


def _smooth(k: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the energy over ranks, in bins that grow with the rank."""
    edges = np.unique(np.geomspace(1, len(k) + 1, 40).round().astype(int))
    parts = [slice(a - 1, b - 1) for a, b in pairwise(edges)]
    return np.array([k[p].mean() for p in parts]), np.array([energy[p].mean() for p in parts])


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 0.88, count)))


def _against_noise(axes: Any, sigma: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xlabel(_NOISE, fontsize=10)
    axes.set_xticks(sigma, [f"{s:g}" for s in sigma])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(fontsize=8, frameon=False)
    _tidy(axes)


def _plain(axis: Any) -> None:
    """Write 0.02 rather than 2 x 10^-2 on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _tidy(axes: Any) -> None:
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _bare(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
