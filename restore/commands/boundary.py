"""`restore boundary`: one start for all images, found once for weights and a solver."""

from pathlib import Path
from typing import Annotated

import typer


def boundary(
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="Name of a trained restorer, or its file.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Start to write, .safetensors.")],
    images: Annotated[
        list[Path], typer.Option(help="Folder of clean pictures, or files; half of them judge.")
    ],
    candidates: Annotated[
        int, typer.Option(min=1, help="Random starts to try; 512 is thorough.")
    ] = 64,
    pairs: Annotated[int, typer.Option(min=2, help="Crops that choose, and as many judge.")] = 8,
    metric: Annotated[
        str, typer.Option(help="gradient, features, ssim or mse (which prefers blur).")
    ] = "gradient",
    steps: Annotated[
        int | None, typer.Option(min=2, help="Of the solver; the start is for these alone.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, max=128, help="Side of the crops; that of the training.")
    ] = None,
    halving: Annotated[
        bool, typer.Option("--halving", help="Drop three candidates in four as crops go by.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same start.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no words.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Numbers as JSON on standard output.")
    ] = False,
) -> None:
    """Find a start that is good for every image.

    A deterministic restorer turns its start into its result. Of many random starts the best on some
    crops is kept, and judged on crops of other pictures beside random starts, zero, scaled noise, a
    mean of samples and a regression. Use it from Python with `ResShift(eta=0, boundary="OUT")`.
    """
    from restore.console import print_json, say, show
    from restore.trained.boundarywork import search_files

    report = search_files(
        weights,
        images,
        out,
        candidates=candidates,
        pairs=pairs,
        metric=metric,
        steps=steps,
        size=size,
        seed=seed,
        halving=halving,
        device=device,
        overwrite=overwrite,
        progress=False if quiet else None,
    )
    if as_json:
        print_json(report.as_dict())
    if not quiet:
        show(report.table(), to_stderr=as_json)
        say(f"Seed {report.ranking.best} of {candidates}. Wrote {out}.", to_stderr=as_json)
