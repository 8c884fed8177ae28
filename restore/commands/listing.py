"""`restore priors`, `solvers` and `operators`: what there is, and what a prior knows of itself."""

from pathlib import Path
from typing import Annotated

import typer

from restore.commands.options import AsJson, Quiet, Seed
from restore.console import print_json, say, show, show_rows


def priors(
    diagnose: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Examine one on photographs it was not trained on."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --diagnose: folder of its pictures.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="With --diagnose: side of the photographs, pixels.")
    ] = None,
    sigma: Annotated[
        list[float] | None, typer.Option(help="With --diagnose: noise level; repeat for several.")
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """List the priors: what images look like.

    With --diagnose NAME, what one knows about itself: whether its errors are those that it
    expects, whether it is the gradient of a density, what it keeps and what it takes for noise.
    """
    if diagnose is not None:
        from restore.examination import check_folder, examine
        from restore.examination import show as table

        folder = out or Path("restore-diagnosis")
        check_folder(folder)
        found = examine(
            diagnose,
            size=64 if size is None else size,
            sigmas=sigma or None,
            seed=seed,
            progress=False if quiet else None,
        )
        paths = {what: path.as_posix() for what, path in found.save(folder).items()}
        if as_json:
            print_json(found.diagnosis.as_dict() | {"pictures": paths})
        elif not quiet:
            show(table(found.diagnosis))
        if not quiet:
            say(f"Pictures: {', '.join(paths.values())}", to_stderr=as_json)
        return
    if out is not None or size is not None or sigma:
        raise ValueError("--out, --size and --sigma go with --diagnose; name a prior to examine.")
    import priors as room

    rows = [
        {
            "prior": name,
            "channels": card.channels,
            "sigma": f"{card.sigma_range[0]:g} to {card.sigma_range[1]:g}",
            "licence": card.licence,
            "what it is": card.description,
        }
        for name, card in room.available().items()
    ]
    show_rows(rows, as_json)


def solvers(as_json: AsJson = False) -> None:
    """List the solvers: what for, needs, noise, cost, kind of spread."""
    from restore import trained
    from restore.solvers import available

    rows = [
        {
            "solver": name,
            "for": kind.restores,
            "needs": ", ".join(kind.requires) or "any operator",
            "noise": ", ".join(kind.likelihoods),
            "cost of a sample": kind.cost,
            "its spread is": kind.posterior,
            "paper": kind.paper,
        }
        for name, kind in available().items()
    ]
    for name in trained.available():
        solver, network = trained.load(name)
        low, high = network.trained.noise
        rows.append(
            {
                "solver": name,
                "for": solver.restores,
                "needs": network.trained.operator,
                "noise": f"gaussian, {low:g} to {high:g}",
                "cost of a sample": f"{solver.length} forwards",
                "its spread is": solver.posterior,
                "paper": solver.paper,
            }
        )
    show_rows(rows, as_json)


def operators(as_json: AsJson = False) -> None:
    """List the operators: what the instrument did."""
    import operators as room

    rows = [
        {
            "operator": name,
            "what it does": line,
            "options": ", ".join(
                f"{key}={'...' if value is None else value}"
                for key, value in options.items()
                if key != "noise"  # --noise says it
            ),
        }
        for name, (line, options) in room.available().items()
    ]
    show_rows(rows, as_json)
