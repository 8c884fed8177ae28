"""The command line. Nothing heavy is imported before a command needs it."""

import json
import logging
import math
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from restore import __version__
from restore.bench.cli import app as bench
from restore.commands.boundary import boundary
from restore.commands.drawing import sample, samplers
from restore.commands.likelihood import likelihood
from restore.commands.searching import search
from restore.commands.training import train
from restore.extensions import Commands, Demos

ROOMS = {"operators", "priors", "restore", "medical"}

app = typer.Typer(
    cls=Commands,
    help="Restore images from measurements y = A(x) + n with diffusion priors and checked spread.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
demos = typer.Typer(cls=Demos, rich_markup_mode=None, add_completion=False)
app.add_typer(demos, name="demo")
app.add_typer(bench, name="bench")

Operator = Annotated[str, typer.Option(metavar="SPEC", help="For example blur:sigma=2.")]
Noise = Annotated[
    float, typer.Option(metavar="S", help="Std of Gaussian noise where black is 0 and white is 1.")
]
Output = Annotated[Path, typer.Option("-o", "--out", help="File to write.")]
Solver = Annotated[str | None, typer.Option(help="See `restore solvers`.")]
Prior = Annotated[str | None, typer.Option(help="Name (see `restore priors`) or safetensors file.")]
Samples = Annotated[int, typer.Option(help="Posterior samples; their mean is the result.")]
Seed = Annotated[int, typer.Option(help="Same seed, same image.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default cuda where there is.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar, no words.")]
AsJson = Annotated[bool, typer.Option("--json", help="Numbers as JSON on standard output.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 1 a case failed; 2 a request that cannot be met, told in one line; 130 interrupted.
    Only an error of ours, not of the user's, shows a traceback.
    """
    logging.basicConfig(format="restore: %(message)s", level=logging.WARNING)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damaged files are told in one line
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(arguments, prog_name="restore", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):  # which of the two, or 130, is up to typer
        code = 130
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        _say(f"restore: {sentence}", to_stderr=True)
        return 2
    if code == 130:
        _say("restore: interrupted.", to_stderr=True)
    return code


@demos.callback(invoke_without_command=True)
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
    _refuse_numbers(samples, None)
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
        _print_json(report.as_dict() | {"panel": path.as_posix()})
    if not quiet:
        _show(report.table(), to_stderr=as_json)
        _say(f"Picture: {path}", to_stderr=as_json)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
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
    _refuse_numbers(samples, noise, batch_size)
    size = None if shape is None else _read_shape(shape)
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
        _print_json(story)
    if result.status == "diverged":
        _say(f"restore: diverged, nothing was written: {result.remedy}.", to_stderr=True)
        raise typer.Exit(1)
    if not quiet:
        _say(f"{result}\nWrote {out}{f' and {std}' if std else ''}.", to_stderr=as_json)


@app.command()
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
    _refuse_numbers(1, noise)
    from restore.filework import degrade_file

    degrade_file(source, out, operator, noise=noise, seed=seed, overwrite=overwrite)
    if not quiet:
        _say(f"Wrote {out}; `restore image {out} -o ...` knows how it was made.", to_stderr=True)


@app.command()
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
    _refuse_numbers(samples, noise)
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
        _say(f"{fitted}.\nWrote {out}.", to_stderr=True)


@app.command()
def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help="For example blur:sigma=2; or your own, file.py:function or module:function.",
        ),
    ],
    shape: Annotated[
        str | None,
        typer.Option(metavar="CxHxW", help="One size, or CxDxHxW; by default eleven."),
    ] = None,
    seed: Seed = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Every number.")] = False,
    as_json: AsJson = False,
) -> None:
    """Test an operator: adjoint, inverse, gradient, and more.

    At even, odd and oblong sizes and on volumes, in float32 and float64. Your own operator is a
    function that takes an image shape (C, H, W) or (C, D, H, W) and returns a deepinv physics; a
    ValueError from it means that it does not take that size.
    """
    import operators
    from restore import findings
    from restore.target import maker

    sizes = None if shape is None else [_read_shape(shape)]
    sweep = operators.sweep(maker(target), sizes, seed=seed)
    if sweep.refusal:
        raise ValueError(sweep.refusal)
    if as_json:
        _print_json(findings.as_dict(target, sweep))
    else:
        _show(findings.show(target, sweep, verbose=verbose))
    if not sweep.ok:
        raise typer.Exit(1)


@app.command()
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
        from restore.examination import check_folder, examine, show

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
            _print_json(found.diagnosis.as_dict() | {"pictures": paths})
        elif not quiet:
            _show(show(found.diagnosis))
        if not quiet:
            _say(f"Pictures: {', '.join(paths.values())}", to_stderr=as_json)
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
    _list(rows, as_json)


@app.command()
def solvers(as_json: AsJson = False) -> None:
    """List the solvers: needs, noise, cost, kind of spread."""
    from restore import trained
    from restore.solvers import available

    rows = [
        {
            "solver": name,
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
                "needs": network.trained.operator,
                "noise": f"gaussian, {low:g} to {high:g}",
                "cost of a sample": f"{solver.length} forwards",
                "its spread is": solver.posterior,
                "paper": solver.paper,
            }
        )
    _list(rows, as_json)


@app.command("operators")
def list_operators(as_json: AsJson = False) -> None:
    """List the operators: what the instrument did."""
    import operators

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
        for name, (line, options) in operators.available().items()
    ]
    _list(rows, as_json)


for _command in (samplers, sample, search, likelihood, train, boundary):
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        _say(f"restore {__version__}")
        raise typer.Exit


# --- refusals ------------------------------------------------------------------------------------


def _sentence(error: Exception) -> str | None:
    """What to tell the user, or None when the error is a defect of ours."""
    if hasattr(error, "format_message"):  # click's own, which typer keeps private
        message = error.format_message()  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        if context is None or message.endswith(("?", ")")):  # it names the nearest word
            return message
        return f"{message.rstrip('.')}; see `{context.command_path} --help`."
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.filename}': {error.strerror}." if error.filename else f"{error.strerror}."
    if isinstance(error, OSError):
        return " ".join(str(error).split())
    if (
        isinstance(error, MemoryError)
        or "out of memory" in str(error)
        or "t allocate" in str(error)
    ):
        return "not enough memory; lower --batch-size or use a smaller image."
    if isinstance(error, ValueError | TypeError) and _raised_by_us(error):
        return " ".join(str(error).split())
    return None


def _raised_by_us(error: Exception) -> bool:
    """Whether our code, or an extension's, refused; a library's ValueError is a defect of ours."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    room = frame.f_globals.get("__name__", "").partition(".")[0]
    groups = ("restore.commands", "restore.demos")
    guests = {p.module.partition(".")[0] for group in groups for p in entry_points(group=group)}
    return room in ROOMS | guests


def _refuse_numbers(samples: int, noise: float | None, batch_size: int | None = None) -> None:
    if samples < 1:
        raise ValueError(f"--samples is {samples}, expected at least 1.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"--batch-size is {batch_size}, expected at least 1.")
    if noise is not None and not (0 <= noise < math.inf):
        raise ValueError(
            f"--noise is {noise:g}, expected a std of at least 0 where black is 0 and white is 1 "
            "(divide a level out of 255 by 255)."
        )


def _read_shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if len(parts) not in (3, 4) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(
            f"--shape is '{text}', expected CxHxW, for example 3x256x256, or CxDxHxW of a volume."
        )
    return tuple(map(int, parts))


# --- words ---------------------------------------------------------------------------------------


def _say(text: str, *, to_stderr: bool = False) -> None:
    typer.echo(text, err=to_stderr)


def _print_json(value: Mapping[str, Any] | list[dict[str, Any]]) -> None:
    typer.echo(json.dumps(_finite(value), indent=2))


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(table: Any, *, to_stderr: bool = False) -> None:
    from rich.console import Console

    console = Console(stderr=to_stderr)
    if not console.is_terminal:
        console.width = 140  # a file or a pipe: no reason to wrap
    console.print(table)


def _list(rows: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as JSON."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = list(rows)
    if as_json:
        _print_json([dict(row) for row in rows])
        return
    table = Table(*(rows[0] if rows else ()), box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    _show(table)
