"""From a damaged cube file to a restored one: what `restore cube` does, callable from Python.

Everything that can be refused is refused before anything is computed, and nothing is written unless
all of it can be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from deepinv.physics import Denoising, Physics
from torch import Tensor

import priors
import restore
from priors import Denoiser
from restore import images
from restore.cubes import files, pictures, record, scale
from restore.cubes.arrays import about
from restore.cubes.cube import FEWEST, Cube
from restore.cubes.examine import Findings, examine, fill_bands
from restore.cubes.record import Options
from restore.cubes.tasks import Measured, measured, trusted
from restore.files import check_free
from restore.filework import usable_device
from restore.measurements import story_path, write_story
from restore.result import Result
from restore.solver import Solver
from restore.untrained import estimates

SOLVERS = ("fasthyde", "eigen", "dds2m", "vs2m")
_DRAWS = 8  # of eigen-images, whose mean is the result
_TILE = 512  # of the prior, for scenes beyond a megapixel
_LEAST = 1e-3  # noise, of the range: no detector is better, and none at all has no posterior


@dataclass(frozen=True)
class Restored:
    """What came out.

    Attributes:
        before: the cube as it was read, untrusted entries missing.
        after: the restored cube.
        findings: what was wrong.
        result: of the solver, of the bands that hold something.
        story: the record.
    """

    before: Cube
    after: Cube
    findings: Findings
    result: Result
    story: Mapping[str, Any]


def restore_file(
    source: Path,
    out: Path,
    options: Options,
    *,
    preview: Path | None = None,
    spectra: Path | None = None,
    truth: Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Restored:
    """Restore the cube in a file; nothing is written when the solver diverged.

    A run that is killed goes on where it was, by a file beside `out` that goes away at the end.

    Args:
        source: GeoTIFF, ENVI, `.mat` or `.npy`.
        out: the same, or another of them.
        options: see `Options`.
        preview: PNG of before and after.
        spectra: PNG of spectra.
        truth: the clean cube, to be measured against.
        overwrite: replace existing outputs, though never `source`.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError, OSError: one sentence on what does not fit and what to do.
    """
    files.check_output(out, source=source, overwrite=overwrite)
    for picture in (preview, spectra):
        if picture is not None:
            images.check_output(picture, source=source, overwrite=overwrite)
    check_free(story_path(out), overwrite=overwrite)
    cube = files.read(source, key=options.key, bands_axis=options.bands_axis)
    clean = None
    if truth is not None:
        clean = files.read(truth, key=options.key, bands_axis=options.bands_axis)
    found = restore_cube(
        cube,
        options,
        truth=clean,
        checkpoint=out.with_name(f".{out.name}.checkpoint"),
        progress=progress,
    )
    if found.result.status != "diverged":
        files.write(out, found.after, overwrite=overwrite)
        story = {"input": source.name, **found.story, "cube": about(found.after)}
        write_story(out, story, overwrite=True)
        lost = found.findings.lost
        if preview is not None:
            sheet = pictures.preview(found.before, found.after, lost)
            images.write(preview, sheet, overwrite=overwrite)
        if spectra is not None:
            _draw(spectra, found, clean, overwrite)
    return found


def restore_cube(
    cube: Cube,
    options: Options,
    *,
    truth: Cube | None = None,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> Restored:
    """Restore a cube.

    Args:
        cube: any.
        options: see `Options`.
        truth: the clean cube, to be measured against.
        checkpoint: see `restore.solve`.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError: one sentence on what does not fit and what to do.
    """
    kept = trusted(cube.shape, mask=options.mask, keep=options.keep, seed=options.seed)
    if kept is not None:
        cube = replace(cube, data=torch.where(kept, cube.data, torch.nan))
    findings = examine(cube)
    good = torch.ones(len(cube.data), dtype=torch.bool)
    good[list(findings.lost)] = False
    if int(good.sum()) < FEWEST:
        raise ValueError(
            f"{int(good.sum())} of {len(good)} bands hold something of the scene, expected at "
            f"least {FEWEST}; check what the file says is missing."
        )
    if options.noise == 0:
        raise ValueError(
            "--noise is 0, expected more, as no detector is without; leave it out to have it "
            "estimated."
        )
    factor = options.factor if options.task == "superres" else 1
    if options.task == "superres" and factor < 2:
        raise ValueError(f"--factor is {factor}, expected at least 2.")
    if truth is not None and truth.shape != (len(good), *(factor * n for n in cube.shape[1:])):
        raise ValueError(
            f"the truth has shape {truth.shape}, which does not fit the cube's {cube.shape}; give "
            "the clean cube of the same scene."
        )
    units = _units(cube, good, options)
    u = units.to_unit(cube.data)[good]
    task = measured(u, cube.seen[good], options.task, factor=factor, direction=options.direction)
    sigma = _noise(task, options.noise)
    operator = task.operator(sigma)
    solver = _solver(options, operator)
    where = usable_device(options.device)
    result = restore.solve(
        task.y.to(where),
        operator,
        _prior(solver, operator),
        solver,
        samples=options.samples or (_DRAWS if solver.name == "eigen" else 1),
        seed=options.seed,
        progress=progress,
        checkpoint=checkpoint,
    )
    after = _assembled(cube, units.pick(good).to_own(result.mean[0].cpu()), findings, options)
    notes = [*cube.notes, *findings.sentences(), *([task.note] if task.note else [])]
    story = record.story(options, result, findings, sigma, notes)
    if truth is not None:
        story["quality"] = record.quality(cube, after, truth, good)
    return Restored(cube, after, findings, result, story)


def _units(cube: Cube, good: Tensor, options: Options) -> scale.Scale:
    """Where noise is told it is that of bands scaled by their ranges, else it is made even."""
    if options.task == "destripe":  # gains are those of values counted from 0
        ranges = scale.of_ranges(cube)
        return scale.Scale(torch.zeros_like(ranges.low), ranges.low.abs() + ranges.width)
    return scale.of_ranges(cube) if options.noise is not None else scale.of_noise(cube, good)


def _noise(task: Measured, told: float | None) -> float:
    if told is not None:
        return told
    y = task.y[0] if task.gains is None else task.y[0] / task.gains
    return max(estimates.noise_level(y, task.seen.to(y)), task.noise, _LEAST)


def _solver(options: Options, operator: Physics) -> Solver:
    from restore.solvers.dds2m import DDS2M
    from restore.solvers.eigen import Eigen
    from restore.solvers.fasthyde import FastHyDe
    from restore.solvers.vs2m import FitVS2M

    name = options.solver or ("fasthyde" if isinstance(operator, Denoising) else "eigen")
    known: dict[str, Any] = {s.name: s for s in (FastHyDe, Eigen, DDS2M, FitVS2M)}
    if name not in known:
        raise ValueError(f"--solver is '{name}', expected one of {', '.join(SOLVERS)}.")
    if options.steps is not None and name in ("fasthyde", "eigen"):
        raise ValueError(f"solver '{name}' has no number of steps; leave --steps out.")
    steps = {} if options.steps is None else {"steps": options.steps}
    return known[name](rank=options.rank, **steps)


def _prior(solver: Solver, operator: Physics) -> Denoiser | None:
    if solver.prior_free:
        return None
    size = tuple(getattr(operator, "img_size", None) or (0, 0))
    large = size[-1] * size[-2] > 2**20
    return priors.load("natural-gray", tile=_TILE if large else None)


def _assembled(cube: Cube, restored: Tensor, findings: Findings, options: Options) -> Cube:
    """All bands, in their own units; what was missing stays so unless it was to be filled."""
    bands, (height, width) = len(cube.data), restored.shape[1:]
    good = [i for i in range(bands) if i not in findings.lost]
    grown = (height, width) != cube.shape[1:]
    notes: list[str] = []
    if grown:
        data = torch.full((bands, height, width), torch.nan)
    else:
        data = cube.data.clone()
    data[good] = restored
    if not (grown or options.fill or options.task in ("complete", "destripe")):
        data = torch.where(cube.seen, data, torch.nan)
    if findings.lost and (options.fill or grown):
        fill_bands(data, findings.lost, cube.wavelengths)
        notes.append(f"{len(findings.lost)} bands filled from their neighbours in the spectrum.")
    if options.fill and findings.noisy:
        fill_bands(data, findings.noisy, cube.wavelengths)
        notes.append(f"{len(findings.noisy)} noisy bands filled likewise.")
    return cube.derive(data, *notes)


def _draw(path: Path, found: Restored, truth: Cube | None, overwrite: bool) -> None:
    from restore.files import atomic

    figure = pictures.spectra(found.before, found.after, truth)
    with atomic(path, overwrite=overwrite) as partial:
        figure.savefig(partial, dpi=150)
