"""`restore demo volume`, a head in a CT scanner; `restore demo echoes`, one at many echo times."""

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


def echoes(
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path(
        "restore-demo/echoes.png"
    ),
    count: Annotated[int, typer.Option("--echoes", min=8, max=64, help="Of the scan.")] = 16,
    noise: Annotated[float, typer.Option(min=1e-3, help="Std, of the brightest signal.")] = 0.05,
    steps: Annotated[int, typer.Option(min=1, help="Of the fitted networks.")] = 500,
    prior: Annotated[str, typer.Option(help="Of grey images.")] = "natural-gray",
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Restore a multi-echo MRI from itself, and compare.

    A slice of a phantom of a head at many echo times under noise, to the solvers of cubes what a
    hyperspectral scene is: truncated decomposition at its best rank, eigen-images with a grey
    prior, and networks fitted to the scan. Echoes are scored, and the map of T2 that is fitted to
    them. Research use, not for diagnosis.
    """
    from medical import echo_demonstration
    from restore.demo import check_panel
    from restore.filework import usable_device

    check_panel(out)
    report = echo_demonstration.run(
        echoes=count,
        noise=noise,
        steps=steps,
        prior=prior,
        seed=seed,
        device=usable_device(device),
        progress=False if quiet else None,
    )
    path = echo_demonstration.save(report, out)
    if as_json:
        print_json(report.as_dict() | {"panel": path.as_posix()})
    if not quiet:
        show(report.table(), to_stderr=as_json)
        say(f"Picture: {path}", to_stderr=as_json)
    if not report.ok:
        raise typer.Exit(1)
