"""`restore image`, `degrade` and `calibrate`: damaged files in, restored files out."""

from pathlib import Path
from typing import Annotated

import typer

from restore.commands.options import (
    AsJson,
    Device,
    Noise,
    Operator,
    Output,
    Overwrite,
    Prior,
    Quiet,
    Samples,
    Seed,
    Solver,
    read_shape,
    refuse_numbers,
)
from restore.console import print_json, say


def image(
    source: Annotated[Path, typer.Argument(metavar="IN", help="PNG, JPEG, TIFF, or .npz.")],
    out: Output,
    operator: Annotated[
        str | None, typer.Option(metavar="SPEC", help="What damaged it: see `restore operators`.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Std of its noise where black is 0 and white is 1: 25 levels of 255 are 0.098.",
        ),
    ] = None,
    solver: Solver = None,
    prior: Prior = None,
    samples: Samples = 8,
    seed: Seed = 0,
    std: Annotated[
        Path | None, typer.Option(help="Write the pixelwise std of the samples here.")
    ] = None,
    low: Annotated[
        Path | None, typer.Option(help="Write the lower bound of every pixel here, with --high.")
    ] = None,
    high: Annotated[Path | None, typer.Option(help="Write the upper bound here.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Bounds that keep their promise: see `restore calibrate`.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="CxHxW", help="Size of the clean image, if not told.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples computed together.")] = None,
    boundary: Annotated[
        Path | None, typer.Option(help="Start of a trained restorer: see `restore boundary`.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Find the fastest way to call the prior.")
    ] = False,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Restore a damaged image file.

    A file made by `restore degrade` carries its operator and noise; for any other give --operator
    and --noise. The result has the bit depth of the input. Transparency is kept as it is, resized
    bicubically if the operator changes the size. --std in a .tif holds the values themselves; in
    a .png white is the largest, which is told beside it. OUT.json records how OUT was made.
    """
    refuse_numbers(samples, noise, batch_size)
    size = None if shape is None else read_shape(shape)
    if (low is None) != (high is None):
        raise ValueError("--low and --high are the two ends of one interval; give both.")
    from restore.filework import restore_file

    result, story = restore_file(
        source,
        out,
        operator=operator,
        noise=noise,
        prior=prior,
        solver=solver,
        samples=samples,
        seed=seed,
        std=std,
        interval=None if low is None or high is None else (low, high),
        calibration=calibration,
        image_shape=size,
        batch_size=batch_size,
        boundary=boundary,
        fast=fast,
        device=device,
        overwrite=overwrite,
        progress=False if quiet else None,
    )
    if as_json:
        print_json(story)
    if result.status == "diverged":
        say(f"restore: diverged, nothing was written: {result.remedy}.", to_stderr=True)
        raise typer.Exit(1)
    if not quiet:
        say(f"{result}\nWrote {out}{f' and {std}' if std else ''}.", to_stderr=as_json)


def degrade(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A clean PNG, JPEG or TIFF.")],
    out: Output,
    operator: Operator,
    noise: Noise = 0.0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Damage a clean image on purpose.

    Blur it, hide pixels, make it small, add noise.

    PNG, JPEG and 8- or 16-bit TIFF clip to [0, 1] and round, as a camera does; .npz keeps the
    measurement exactly and holds any kind. OUT.json records operator and noise.
    """
    refuse_numbers(1, noise)
    from restore.filework import degrade_file

    degrade_file(source, out, operator, noise=noise, seed=seed, overwrite=overwrite)
    if not quiet:
        say(f"Wrote {out}; `restore image {out} -o ...` knows how it was made.", to_stderr=True)


def calibrate(
    sources: Annotated[list[Path], typer.Argument(metavar="IN...", help="Clean files, folders.")],
    out: Output,
    operator: Operator,
    noise: Noise,
    level: Annotated[float, typer.Option(help="Share of pixels to cover.")] = 0.8,
    crop: Annotated[int | None, typer.Option(help="Use the middle of so many pixels.")] = None,
    solver: Solver = None,
    prior: Prior = None,
    samples: Samples = 9,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Measure how far intervals can be trusted.

    Damages clean images, restores them, and stretches the samples' intervals until they cover
    --level of the pixels on average over new images of the same kind (conformal risk control). Use
    the result with `restore image --calibration OUT --low ... --high ...`.
    """
    refuse_numbers(samples, noise)
    from restore.filework import calibrate_files

    fitted = calibrate_files(
        sources,
        out,
        operator,
        noise=noise,
        level=level,
        crop=crop,
        prior=prior,
        solver=solver,
        samples=samples,
        seed=seed,
        device=device,
        overwrite=overwrite,
        progress=False if quiet else None,
    )
    if not quiet:
        say(f"{fitted}.\nWrote {out}.", to_stderr=True)
