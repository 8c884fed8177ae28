"""`restore cube`: hyperspectral cubes in, restored cubes out."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from restore.commands.options import (
    AsJson,
    Device,
    Output,
    Overwrite,
    Quiet,
    Seed,
    refuse_numbers,
)
from restore.console import print_json, say


class Task(StrEnum):
    """What is to be done."""

    denoise = "denoise"
    complete = "complete"
    superres = "superres"
    destripe = "destripe"


class Axis(StrEnum):
    """Where the bands lie."""

    first = "first"
    middle = "middle"
    last = "last"


class Direction(StrEnum):
    """How stripes run."""

    vertical = "vertical"
    horizontal = "horizontal"


def cube(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="GeoTIFF, ENVI (.hdr or its numbers), .mat, .npy.")
    ],
    out: Output,
    task: Annotated[Task, typer.Option(help="What is to be done.")],
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="S", help="Std, each band of IN scaled by its range; estimated if not told."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Spectra of the scene; found if not told.")
    ] = None,
    factor: Annotated[int, typer.Option(help="Finer pixels: how many a side for one.")] = 2,
    mask: Annotated[
        Path | None,
        typer.Option(help="Not zero where to trust: picture or .npy, one plane or all."),
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help="A trial: trust only this fraction, at random places.")
    ] = None,
    direction: Annotated[Direction, typer.Option(help="Of stripes.")] = Direction.vertical,
    solver: Annotated[
        str | None,
        typer.Option(help="fasthyde for noise alone, eigen for all else; or dds2m, vs2m."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of dds2m and vs2m.")] = None,
    samples: Annotated[int | None, typer.Option(help="Draws that are averaged.")] = None,
    seed: Seed = 0,
    preview: Annotated[
        Path | None, typer.Option(help="Write before and after in colours here.")
    ] = None,
    spectra: Annotated[Path | None, typer.Option(help="Draw spectra of four pixels here.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Clean cube to measure against.")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the array in a .mat of several.")] = None,
    bands_axis: Annotated[
        Axis | None, typer.Option(help="Of .mat and .npy that do not tell.")
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Fill missing entries, dead and noisy bands.")
    ] = False,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Restore a hyperspectral cube from itself.

    Eight bands or more: scenes from the air and from space, and any cube whose bands show one scene
    (echoes, energies, times). Values keep their units and type, bands their wavelengths, pixels
    their places on the map. A run that was killed goes on when it is called again. OUT.json records
    how OUT was made.

    dds2m and vs2m fit networks, at most 16 unless --rank says otherwise; each takes, of 145x145
    pixels, 3.6 minutes of one core and 75 MB beside 1.6 GB: an hour and 2.8 GB for all. What is
    ahead is told before it begins.
    """
    refuse_numbers(samples or 1, noise)
    if not quiet:
        logging.getLogger("restore").setLevel(logging.INFO)  # solvers tell what is ahead
    from restore.cubes.record import Options
    from restore.cubes.work import restore_file

    options = Options(
        task=task.value,
        noise=noise,
        rank=rank,
        factor=factor,
        mask=mask,
        keep=keep,
        direction=direction.value,
        solver=solver,
        steps=steps,
        samples=samples,
        seed=seed,
        fill=fill,
        key=key,
        bands_axis=None if bands_axis is None else bands_axis.value,
        device=device,
    )
    found = restore_file(
        source,
        out,
        options,
        preview=preview,
        spectra=spectra,
        truth=truth,
        overwrite=overwrite,
        progress=False if quiet else None,
    )
    if as_json:
        print_json(found.story)
    if found.result.status == "diverged":
        say(f"restore: diverged, nothing was written: {found.result.remedy}.", to_stderr=True)
        raise typer.Exit(1)
    if not quiet:
        lines = [repr(found.result), *(f"  note: {note}" for note in found.story["notes"])]
        for name, quality in found.story.get("quality", {}).items():
            lines.append(f"  {name}: {quality['psnr']:.2f} dB, SAM {quality['sam']:.2f} degrees")
        say("\n".join([*lines, f"Wrote {out}."]), to_stderr=as_json)
