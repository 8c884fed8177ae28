"""`restore search`: noise levels, or a whole solver, for a prior and a few network calls."""

from pathlib import Path
from typing import Annotated

import typer


def search(
    out: Annotated[Path, typer.Option("-o", "--out", help="JSON file to write.")],
    calls: Annotated[int, typer.Option(min=2, help="Network calls an image, at most.")],
    prior: Annotated[str, typer.Option(help="Name (see `restore priors`) or file.")] = "natural",
    what: Annotated[
        str, typer.Option(help="grid: the levels of --sampler; solver: the rule of each step too.")
    ] = "grid",
    sampler: Annotated[str, typer.Option(help="Of a grid; see `restore samplers`.")] = "adams-2",
    size: Annotated[int, typer.Option(min=8, help="Side of the images, pixels.")] = 64,
    starts: Annotated[
        int, typer.Option(min=1, help="Images to search on; as many others check the result.")
    ] = 8,
    high: Annotated[
        float | None, typer.Option(help="Noise of the start; by default 40 widths of the range.")
    ] = None,
    low: Annotated[
        float | None, typer.Option(help="Lowest noise; by default a hundredth of the width.")
    ] = None,
    reference: Annotated[
        int, typer.Option(min=4, help="Calls of the long run that the error is measured from.")
    ] = 100,
    population: Annotated[int, typer.Option(min=5, help="Candidates at a time.")] = 30,
    generations: Annotated[int, typer.Option(min=1, help="Times so many are tried.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no words.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The file on standard output too.")
    ] = False,
) -> None:
    """Search the best sampler for a prior and few calls.

    Tries grids and solvers on a few starts, measures how far the images are from those of a long
    run, and checks the best on other starts. Use the result with `restore sample --grid OUT`.
    """
    import priors
    from restore.console import print_json, say
    from restore.files import check_free
    from restore.filework import usable_device
    from restore.search.tune import tune

    check_free(out, overwrite=overwrite)
    model = priors.load(prior).to(usable_device(device))
    found = tune(
        model,
        (model.card.channels or 1, size, size),
        calls=calls,
        what=what,
        sampler=sampler,
        high=high,
        low=low,
        starts=starts,
        reference=reference,
        population=population,
        generations=generations,
        seed=seed,
        progress=False if quiet else None,
    )
    found.save(out, overwrite=overwrite)
    if as_json:
        print_json(found.as_dict())
    if not quiet:
        say(f"{found}\nWrote {out}.", to_stderr=as_json)
