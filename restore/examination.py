"""`restore priors --diagnose`: a prior examined on photographs that it was not trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import priors
from operators.validate import whole
from priors import Denoiser
from priors.diagnostics import Diagnosis, Level, Spectrum, diagnose, shrinkage_spectrum
from priors.diagnostics.report import SIGMAS
from restore import diagnosis as pictures
from restore.bench.denoising import photographs
from restore.bench.figure import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group

_WHOLE = {1: 32, 3: 24}  # channels -> side of the part whose whole Jacobian is formed
_SPECTRA = 4  # noise levels in the picture of the spectrum
_BASES = 2  # photographs, and noise levels, in the picture of the basis


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A diagnosis and its pictures.

    Attributes:
        diagnosis: the numbers and what to conclude.
        figures: name -> picture.
    """

    diagnosis: Diagnosis
    figures: "Mapping[str, Figure]"

    def save(self, folder: Path) -> dict[str, Path]:
        """Write the pictures as PNG, each atomically, and return where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.diagnosis.prior
        return {
            what: save(figure, folder / f"{name}-{what}.png")
            for what, figure in self.figures.items()
        }


def examine(
    name: str,
    *,
    size: int = 64,
    sigmas: Sequence[float] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Examination:
    """Diagnose a prior on the photographs of the denoising bench.

    Args:
        name: of a prior that ships, or a safetensors file.
        size: side of the central part of each photograph, pixels, 16 to 256.
        sigmas: noise levels, 0.02 to 1 by default.
        seed: of noise and probes.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError: an unknown prior, a size or noise level out of range, or photographs missing.
        FileNotFoundError: a file that does not exist.
    """
    whole("--size", size, low=16, high=256, do="choose one in that range")
    levels = sorted(set(SIGMAS if sigmas is None else sigmas))
    if not levels or not all(0 < sigma < float("inf") for sigma in levels):
        raise ValueError(
            f"--sigma is {', '.join(f'{s:g}' for s in levels) or 'empty'}, expected noise levels "
            "above 0, in units of images between 0 and 1."
        )
    prior = priors.load(name)
    images = photographs(prior.card.channels or 1, size=size)
    chosen = _spread(levels, _SPECTRA)
    middle = _spread(levels[len(levels) // 3 :], _BASES)
    with tqdm(
        total=len(levels) + len(chosen) + _BASES * len(middle),
        disable=None if progress is None else not progress,
        leave=False,
    ) as bar:

        def watch(found: Iterator[Level]) -> Iterator[Level]:
            bar.set_description("levels")
            for level in found:
                bar.update()
                yield level

        report = diagnose(prior, torch.cat(list(images.values())), levels, seed, watch=watch)
        figures = {"levels": pictures.levels_figure(report)}
        # those with most to see
        images = dict(sorted(images.items(), key=lambda pair: -float(pair[1].std())))
        bar.set_description("spectrum")
        figures["spectrum"] = _spectrum(prior, images, chosen, seed, bar)
        bar.set_description("basis")
        figures["basis"] = _basis(prior, images, middle, seed, bar)
    return Examination(diagnosis=report, figures=figures)


def check_folder(folder: Path) -> None:
    """Refuse, before minutes are spent, a folder that cannot be made.

    Raises:
        FileExistsError: a file stands where it or a folder above it should be.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise FileExistsError(f"'{there}' is a file; name another folder for the pictures.")


def show(found: Diagnosis) -> "Group":
    """Lay out the numbers as a table and the conclusions below it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    table = Table(
        title=f"prior '{found.prior}' on {found.images} photographs",
        caption="error, std: rms in image units; told 1/2, 2: error if told so much of sigma; "
        "chi2: squared error over variance of a pixel; tr J: numbers kept",
        box=SIMPLE_HEAD,
    )
    heads = ("sigma", "error", "told 1/2", "told 2", "expected", "gap %", "chi2", "80 % holds")
    for head in (*heads, "asymmetry", "loops", "tr J", "error^2/sigma^2"):
        table.add_column(head, justify="right")
    for level in found.levels:
        size, pixels = level.dimension, level.calibration
        table.add_row(
            f"{level.sigma:g}",
            *(f"{value:.4f}" for value in (level.told.true, level.told.half, level.told.twice)),
            f"{level.expected:.4f}",
            f"{100 * level.gap:+.0f} ± {100 * level.gap_error:.0f}",
            f"{pixels.chi_square:.2f} ± {pixels.chi_square_error:.2f}",
            f"{100 * pixels.covers[0.8]:.0f}",
            f"{level.asymmetry:.2g}",
            f"{level.circulation:.2g}",
            f"{size.trace.mean:.0f} ± {size.trace.error:.0f}",
            f"{size.error.mean:.0f} ± {size.error.error:.0f}",
        )
    words = Table(box=None, show_header=False, padding=(0, 1))
    marks = {True: "ok", False: "[bold]but[/bold]", None: ""}
    for verdict in found.verdicts:
        words.add_row(marks[verdict.ok], verdict.about, verdict.sentence)
    return Group(table, words)


def _spectrum(
    prior: Denoiser, images: Mapping[str, Tensor], sigmas: Sequence[float], seed: int, bar: tqdm
) -> "Figure":
    """Draw the whole spectrum at the middle of the first photograph."""
    name, image = next(iter(images.items()))
    side = min(image.shape[-1], _WHOLE.get(image.shape[1], 16))
    edge = (image.shape[-1] - side) // 2
    clean = image[..., edge : edge + side, edge : edge + side]
    spectra = []
    for sigma in sigmas:
        noisy = _noisy(clean, sigma, seed)
        spectra.append(shrinkage_spectrum(prior, noisy, sigma, clean.numel()))
        bar.update()
    return pictures.spectrum_figure(spectra, clean, name)


def _basis(
    prior: Denoiser, images: Mapping[str, Tensor], sigmas: Sequence[float], seed: int, bar: tqdm
) -> "Figure":
    rows: dict[str, tuple[Tensor, Tensor, Spectrum]] = {}
    for name, clean in list(images.items())[:_BASES]:
        for sigma in sigmas:
            noisy = _noisy(clean, sigma, seed)
            with torch.no_grad():
                denoised = prior(noisy, sigma)
            found = shrinkage_spectrum(prior, noisy, sigma, max(pictures.SHOWN), seed)
            rows[f"{name}\nsigma {sigma:g}"] = clean, denoised, found
            bar.update()
    return pictures.basis_figure(rows)


def _noisy(clean: Tensor, sigma: float, seed: int) -> Tensor:
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return clean + sigma * noise


def _spread(values: Sequence[float], count: int) -> list[float]:
    """At most `count` of the values, from the first to the last."""
    picked = np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int)
    return [values[i] for i in picked]
