"""`restore demo`: one photograph, damaged in three ways and restored."""

from pathlib import Path
from typing import Annotated

import typer

from restore.commands.options import (
    AsJson,
    Device,
    Prior,
    Quiet,
    Samples,
    Seed,
    Solver,
    refuse_numbers,
)
from restore.console import print_json, say, show


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path(
        "restore-demo/panel.png"
    ),
    photograph: Annotated[str, typer.Option(help="astronaut, coffee or chelsea.")] = "astronaut",
    size: Annotated[int, typer.Option(help="Side of the part used, pixels.")] = 192,
    solver: Solver = None,
    prior: Prior = None,
    samples: Samples = 8,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Damage a photograph in three ways, restore it, compare."""
    if context.invoked_subcommand is not None:
        return
    refuse_numbers(samples, None)
    from restore import demo as demonstration
    from restore.filework import usable_device
    from restore.solvers import DEFAULT

    demonstration.check_panel(out)
    report = demonstration.run(
        name=photograph,
        size=size,
        prior=prior or "natural",
        solver=solver or DEFAULT,
        samples=samples,
        seed=seed,
        device=usable_device(device),
        progress=False if quiet else None,
    )
    path = demonstration.save_panel(report, out)
    if as_json:
        print_json(report.as_dict() | {"panel": path.as_posix()})
    if not quiet:
        show(report.table(), to_stderr=as_json)
        say(f"Picture: {path}", to_stderr=as_json)
    if not report.ok:
        raise typer.Exit(1)
