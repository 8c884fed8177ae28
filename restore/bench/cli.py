"""`restore bench`: the numbers of the README, measured again."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from operators.words import nearest
from restore.extensions import Benches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.table import Table

    from restore.bench.denoising import Row as DenoisingRow
    from restore.bench.faster import Row as FasterRow
    from restore.bench.photos import Row as PhotoRow
    from restore.bench.posterior import Row as PosteriorRow
    from restore.bench.samplers import Row as SamplerRow
    from restore.bench.trained import Row as TrainedRow

app = typer.Typer(
    cls=Benches,
    help="Measure operators, priors and solvers.",
    rich_markup_mode=None,
    add_completion=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Numbers as JSON on standard output.")]


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def denoising(
    prior: Annotated[str, typer.Option(help="Name or safetensors file.")] = "natural-gray",
    as_json: AsJson = False,
) -> None:
    """Priors against BM3D and others, on photographs."""
    import priors
    from restore.bench import denoising as bench
    from restore.console import print_json, show

    model = priors.load(prior)
    images = bench.photographs(model.card.channels or 1)
    rows = list(bench.run(model, images))
    if as_json:
        print_json([row.as_dict() for row in rows])
    else:
        show(denoising_table(rows))


@app.command()
def posterior(
    solver: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; by default all.")
    ] = None,
    prior: Annotated[
        list[str] | None, typer.Option(help="Exact prior; repeat for several.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=8, help="Samples a problem.")] = 64,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Measurements a task; 3, or 1 with --quick.")
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="Other libraries too, where installed.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small problems, defaults only: minutes.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("-o", "--picture", help="Draw error against cost.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Solvers against exact posteriors."""
    from restore.bench import posterior as bench
    from restore.bench.peers import available as installed
    from restore.console import print_json, show
    from restore.files import check_free
    from restore.solvers import available, for_images

    if picture is not None:
        check_free(picture, overwrite=True)
    chosen = _known("solver", solver, available() if solver else for_images())
    solvers = [available()[name]() for name in chosen]
    names = _known("prior", prior, bench.QUICK if quick and not prior else bench.FAMILIES)
    rows = list(
        bench.run(
            solvers,
            priors=names,
            peers=installed() if peers else [],
            grid=not quick,
            n=n,
            problems=problems or (1 if quick else 3),
        )
    )
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        show(posterior_table(rows))
        show(summary_table(bench.summary(rows)))
    if picture is not None:
        from restore.bench.figure import error_against_cost, save

        save(error_against_cost(bench.summary(rows)), picture)


@app.command()
def operators(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes, fewer turns.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch; 1 on a machine that is busy.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Operators beside deepinv's: adjoint, speed, memory."""
    from restore.bench import operators as bench
    from restore.bench import operators_tables as tables
    from restore.console import print_json, show

    results = bench.run(quick=quick, threads=threads)
    if as_json:
        print_json(results.as_dict())
    else:
        show(tables.show(results))
    if not results.ok:
        raise typer.Exit(1)


@app.command()
def photos(
    solver: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; by default all.")
    ] = None,
    prior: Annotated[str, typer.Option(help="Name or safetensors file.")] = "natural",
    samples: Annotated[int, typer.Option(min=1, help="Samples a photograph.")] = 9,
    size: Annotated[int, typer.Option(min=64, help="Side of the crops, pixels.")] = 128,
    images: Annotated[int, typer.Option(min=1, help="Number of photographs.")] = 3,
    calls: Annotated[
        int | None, typer.Option(min=4, help="Give every solver about so many network calls.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Solvers on held-out photographs, with a shipped prior."""
    import priors
    from restore.bench import photos as bench
    from restore.bench.denoising import photographs
    from restore.console import print_json, show
    from restore.solvers import available, for_images

    names = _known("solver", solver, available() if solver else for_images())
    solvers = [available()[name]() for name in names]
    if calls is not None:
        solvers = [bench.at_cost(one, calls) for one in solvers if bench.has_steps(one)]
    model = priors.load(prior)
    crops = dict(list(photographs(model.card.channels or 1, size=size).items())[:images])
    rows = list(bench.run(solvers, model, crops, samples=samples))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        show(photos_table(rows))


@app.command()
def cubes(
    solver: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; by default all of cubes.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="denoise, complete, superres; by default two.")
    ] = None,
    size: Annotated[int, typer.Option(min=16, max=90, help="Side of the crop, pixels.")] = 64,
    seeds: Annotated[int, typer.Option(min=1, help="Of each solver, or samples.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Solvers of cubes on a real hyperspectral scene (package tensorly)."""
    from restore.bench import cubes as bench
    from restore.console import show_rows
    from restore.solvers import available

    known = {name: kind for name, kind in available().items() if kind.restores == "cubes"}
    solvers = [known[name]() for name in _known("solver", solver, known)]
    tasks = _known("task", task, bench.TASKS) if task else ["denoise", "complete"]
    rows = list(bench.run(solvers, bench.indian_pines(size), tasks=tasks, seeds=seeds))
    show_rows([row.as_dict() if as_json else row.cells() for row in rows], as_json)


@app.command()
def samplers(
    calls: Annotated[
        list[int] | None, typer.Option(min=2, help="Network calls; repeat for several.")
    ] = None,
    sampler: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; by default all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Samplers at equal cost on a diffusion whose trajectories are known."""
    from restore.bench import samplers as bench
    from restore.console import print_json, show

    names = _known("sampler", sampler, bench.deterministic())
    rows = list(bench.run(names, calls or (5, 10, 20)))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        show(samplers_table(rows))


def samplers_table(rows: "Sequence[SamplerRow]") -> "Table":
    """Show every sampler's error against DDIM's, a column a budget, best first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    budgets = sorted({row.calls for row in rows})
    found = {(row.sampler, row.calls): row for row in rows}
    table = Table(
        title="rms error against the true trajectory, in brackets over DDIM's; best grid of each",
        box=SIMPLE_HEAD,
    )
    for head in ("sampler", *(f"{calls} calls" for calls in budgets), f"grid at {budgets[-1]}"):
        table.add_column(head, justify="left" if head in ("sampler",) else "right")
    names = list(dict.fromkeys(row.sampler for row in rows))
    for name in sorted(names, key=lambda name: _rms(found.get((name, budgets[-1])))):
        cells = []
        for calls in budgets:
            row = found.get((name, calls))
            cells.append("-" if row is None else f"{row.rms:.4f} ({row.against_ddim:.2f})")
        last = found.get((name, budgets[-1]))
        table.add_row(name, *cells, "-" if last is None else last.grid)
    return table


def _rms(row: "SamplerRow | None") -> float:
    return math.inf if row is None else row.rms


@app.command()
def students(
    student: Annotated[str, typer.Option(help="Name, or safetensors file.")] = (
        "natural-gray-student"
    ),
    count: Annotated[int, typer.Option(min=8, help="Images of every method.")] = 128,
    size: Annotated[int, typer.Option(min=16, help="Side of the images, pixels.")] = 32,
    as_json: AsJson = False,
) -> None:
    """A few-step student beside its teacher, from the same noise."""
    from restore import students as room
    from restore.bench import students as bench
    from restore.console import print_json, show

    rows = list(bench.run(room.load(student), count=count, size=size))
    if as_json:
        print_json([row.as_dict() for row in rows])
    else:
        show(bench.table(rows))


@app.command()
def faster(
    prior: Annotated[str, typer.Option(help="Name or safetensors file.")] = "natural",
    size: Annotated[int, typer.Option(min=64, help="Side of the image, pixels.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Calls of each.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch.")] = None,
    as_json: AsJson = False,
) -> None:
    """Cheaper calls of a prior: what they gain and what they cost."""
    import torch

    import priors
    from restore.bench import faster as bench
    from restore.console import print_json, show

    if threads is not None:
        torch.set_num_threads(threads)
    model = priors.load(prior)
    clean = bench.photograph(model.card.channels or 1, size)
    rows = list(bench.run(model, clean, rounds=rounds))
    if as_json:
        print_json([row.as_dict() for row in rows])
    else:
        show(faster_table(rows, f"{prior}, {size}x{size}; {bench.circumstances()}"))


def faster_table(rows: "Sequence[FasterRow]", title: str) -> "Table":
    """Show how much faster every way of calling is, and the PSNR that it loses."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("call")
    for head in ("s", "faster", "processor", "with a VJP", "dB lost at worst", "first s"):
        table.add_column(head, justify="right")
    for row in rows:
        cells = [_number(v, 2) for v in (row.ratio, row.processor, row.derivative)]
        lost = _number(max(row.losses), 3)
        table.add_row(row.name, _number(row.seconds, 3), *cells, lost, _number(row.first, 1))
    return table


@app.command()
def trained(
    task: Annotated[
        list[str] | None, typer.Option(help="x4, deblur; repeat for several; by default both.")
    ] = None,
    size: Annotated[int, typer.Option(min=64, help="Side of the crops, pixels.")] = 256,
    samples: Annotated[int, typer.Option(min=2, help="Samples a photograph.")] = 16,
    as_json: AsJson = False,
) -> None:
    """Restorers trained on pairs, on held-out photographs."""
    from restore.bench import trained as bench
    from restore.console import print_json, show

    names = _known("task", task, bench.NOISE)
    rows = list(bench.run(names, size=size, samples=samples))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        show(trained_table(rows, samples))


@app.command()
def sensing(
    ratio: Annotated[list[str] | None, typer.Option(help="0.1, for which a network ships.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="back-projection, TV, ddnm, idm; by default all.")
    ] = None,
    size: Annotated[int, typer.Option(min=64, help="Side of the crops, pixels.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Compressed sensing: IDM, DDNM and total variation, on held-out photographs."""
    from restore.bench import sensing as bench
    from restore.bench.denoising import photographs
    from restore.console import show_rows

    ratios = _known("ratio", ratio, bench.NETWORKS)
    methods = _known("method", method, bench.METHODS)
    rows = list(bench.run(ratios, photographs(1, size=size), methods=methods))
    show_rows([asdict(row) if as_json else row.cells() for row in rows], as_json)


@app.command()
def memory(
    steps: Annotated[
        list[int] | None, typer.Option(help="Repeat for several; by default 1 to 6.")
    ] = None,
    form: Annotated[str, typer.Option(help="ddim or oamp.")] = "ddim",
    as_json: AsJson = False,
) -> None:
    """What an unrolled network keeps for its gradient, with and without invertibility."""
    from operators.validate import one_of
    from restore.bench import memory as bench
    from restore.console import show_rows

    one_of("form", form, ("ddim", "oamp"))
    rows = list(bench.run(steps or (1, 2, 3, 4, 6), form=cast(Any, form)))
    show_rows([asdict(row) if as_json else row.cells() for row in rows], as_json)


def trained_table(rows: "Sequence[TrainedRow]", samples: int) -> "Table":
    """Show every restorer beside the images that it must beat."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"photographs: mean of {samples} samples, and a single sample", box=SIMPLE_HEAD
    )
    for head in ("task", "method"):
        table.add_column(head)
    for head in ("calls", "PSNR", "sample PSNR", "features", "texture", "std ratio"):
        table.add_column(head, justify="right")
    for row in rows:
        cells = [_number(v, 2) for v in (row.psnr, row.sample_psnr)]
        cells += [_number(row.features, 3), _number(row.texture, 2), _number(row.std_ratio, 2)]
        table.add_row(row.task, row.method, str(row.calls), *cells)
    return table


def photos_table(rows: "Sequence[PhotoRow]") -> "Table":
    """Show what each solver makes of the photographs."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title="photographs: the mean of the samples, and a single sample",
        caption="features: EfficientNet-Lite0 feature distance, smaller is better",
        box=SIMPLE_HEAD,
    )
    for head in ("task", "solver"):
        table.add_column(head)
    for head in (
        *("PSNR", "SSIM", "features", "sample PSNR", "sample features"),
        *("80 % covers", "fit", "calls", "s"),
    ):
        table.add_column(head, justify="right")
    for row in rows:
        cells = [_number(row.psnr, 2), _number(row.ssim, 3), _number(row.mean_features, 3)]
        cells += [_number(row.sample_psnr, 2), _number(row.features, 3)]
        cells += [_number(100 * row.covers, 0), _number(row.fit, 2), _number(row.calls, 0)]
        table.add_row(row.task, row.solver, *cells, _number(row.seconds, 1))
    return table


def denoising_table(rows: "Sequence[DenoisingRow]") -> "Table":
    """Show mean PSNR, and how far the prior is above each rival and the better Wiener filter."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    methods = list(rows[0].scores) if rows else []
    methods += [name for row in rows for name in row.scores if name not in methods]
    table = Table(
        title="mean PSNR in dB; in brackets how far the prior is above",
        caption="of the two Wiener filters only the better one has brackets",
        box=SIMPLE_HEAD,
    )
    for head in ("sigma", "n", *methods):
        table.add_column(head, justify="right")
    for row in rows:
        cells = [
            f"{row.psnr[m]:.2f}" + (f" ({row.gaps[m]:+.2f})" if m in row.gaps else "")
            if m in row.psnr
            else "-"
            for m in methods
        ]
        level = f"{row.sigma:g}" if row.sigma >= 0.3 else f"{row.sigma * 255:g}/255"
        table.add_row(level, str(len(row.images)), *cells)
    return table


def posterior_table(rows: "Sequence[PosteriorRow]") -> "Table":
    """Show how near the samples of every solver are to the posterior."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="error = hypot(bias in posterior stds, std ratio - 1)", box=SIMPLE_HEAD)
    for head in ("prior", "task", "solver", "setting"):
        table.add_column(head)
    for head in (
        *("error", "bias", "ratio", "std map", "W1", "modes", "50 %", "90 %", "fit"),
        *("forwards", "VJPs", "s"),
    ):
        table.add_column(head, justify="right")
    for row in rows:
        scores = (row.error, row.bias, row.ratio, row.std_map, row.wasserstein, row.modes)
        cells = [_number(v, 3) for v in scores]
        cells += [_number(100 * row.cover_50, 0), _number(100 * row.cover_90, 0)]
        cells += [_number(row.fit, 2), _number(row.forwards, 0), _number(row.vjps, 0)]
        name = f"{row.solver} (diverged)" if row.diverged else row.solver
        table.add_row(row.prior, row.task, name, row.setting, *cells, _number(row.seconds, 1))
    return table


def summary_table(rows: "Sequence[Mapping[str, Any]]") -> "Table":
    """Show every solver's worst and mean error over the tasks of a prior."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="over the tasks of a prior", box=SIMPLE_HEAD)
    for head in rows[0] if rows else ():
        table.add_column(head, justify="left" if head in ("prior", "solver") else "right")
    for row in rows:
        digits = {"calls": 0, "seconds": 1}
        table.add_row(
            *(
                _number(value, digits.get(key, 3)) if isinstance(value, float) else str(value)
                for key, value in row.items()
            )
        )
    return table


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _known(what: str, chosen: "Iterable[str] | None", known: "Iterable[str]") -> list[str]:
    """Return the chosen names, all when none is.

    Raises:
        ValueError: for an unknown one.
    """
    names, known = list(chosen or known), list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} '{name}'; {nearest(name, known)}")
    return names
