"""`restore samplers` and `restore sample`: what a prior believes in, drawn in few network calls."""

from pathlib import Path
from typing import Annotated

import typer


def samplers(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on standard output.")] = False,
) -> None:
    """List the samplers: order, calls a step, paper."""
    from restore.console import show_rows
    from restore.samplers import available

    rows = [
        {
            "sampler": name,
            "order": sampler.order,
            "calls of 10 steps": _calls(sampler),
            "draws noise": "yes" if sampler.random else "no",
            "keeps history": "yes" if sampler.memory else "no",
            "paper": sampler.paper,
        }
        for name, sampler in available().items()
    ]
    show_rows(rows, as_json)


def sample(
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG to write: a sheet of the images.")],
    prior: Annotated[str, typer.Option(help="Name (see `restore priors`) or file.")] = "natural",
    student: Annotated[
        str | None, typer.Option(help="Draw with a few-step student instead, 1 to 4 calls.")
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Number of images.")] = 8,
    size: Annotated[int, typer.Option(min=8, help="Side of the images, pixels.")] = 64,
    sampler: Annotated[str | None, typer.Option(help="See `restore samplers`.")] = None,
    calls: Annotated[
        int | None,
        typer.Option(min=1, help="Network calls an image, at most: 30, of a student 4."),
    ] = None,
    grid: Annotated[
        str,
        typer.Option(help="edm, lambda, time, quadratic, level; or a file of `restore search`."),
    ] = "edm",
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no words.")] = False,
) -> None:
    """Draw images from a prior, nothing measured.

    What comes out is what the prior believes images are like: the honest test of a generative
    prior, and of a sampler at few calls. OUT shows the images side by side, clipped to [0, 1].
    """
    from restore.console import say
    from restore.sheet import draw_sheet

    drawn = draw_sheet(
        out,
        prior=prior,
        student=student,
        count=count,
        size=size,
        sampler=sampler,
        calls=calls,
        grid=grid,
        seed=seed,
        device=device,
        overwrite=overwrite,
        progress=False if quiet else None,
    )
    if not quiet:
        say(
            f"{count} images of {size}x{size} in {drawn.calls} network calls each, "
            f"{drawn.seconds:.1f} s. Wrote {out}."
        )


def _calls(sampler: object) -> str:
    from restore.samplers.sampler import Sampler

    assert isinstance(sampler, Sampler)
    try:
        return str(sampler.calls(10))
    except ValueError:  # it decides by itself
        return "adaptive"
