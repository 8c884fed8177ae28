"""`restore demo volume`: a head seen by a CT scanner from eight sides."""

from pathlib import Path
from typing import Annotated

import typer

from restore.commands.options import AsJson, Device, Prior, Quiet, Seed
from restore.console import print_json, say, show


def demo(
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path(
        "restore-demo/volume.png"
    ),
    angles: Annotated[int, typer.Option(min=1, help="Views of the scanner.")] = 8,
    slices: Annotated[int, typer.Option(min=2, help="Slices of the head.")] = 24,
    samples: Annotated[int, typer.Option(min=2, help="Their mean is the result.")] = 2,
    steps: Annotated[int, typer.Option(min=2, help="Of DDS.")] = 30,
    prior: Prior = None,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Reconstruct a head from few views, and compare.

    A real CT head where Debian's package invesalius-examples is installed, otherwise a phantom.
    Filtered back-projection, total variation at its best weight, and DDS with the shipped prior of
    CT slices. Research use, not for diagnosis.
    """
    from medical import demonstration
    from restore.demo import check_panel
    from restore.filework import usable_device

    check_panel(out)
    report = demonstration.run(
        angles=angles,
        slices=slices,
        samples=samples,
        steps=steps,
        prior=prior,
        seed=seed,
        device=usable_device(device),
        progress=False if quiet else None,
    )
    path = demonstration.save(report, out)
    if as_json:
        print_json(report.as_dict() | {"panel": path.as_posix()})
    if not quiet:
        show(report.table(), to_stderr=as_json)
        say(f"Picture: {path}", to_stderr=as_json)
    if not report.ok:
        raise typer.Exit(1)
