"""The command line: what is mounted where, and what becomes of an error.

Nothing heavy is imported before a command needs it.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Annotated

import typer

from restore import __version__
from restore.bench.cli import app as bench
from restore.commands.boundary import boundary
from restore.commands.checking import check
from restore.commands.cube import cube
from restore.commands.demonstration import demo
from restore.commands.drawing import sample, samplers
from restore.commands.files import calibrate, degrade, image
from restore.commands.likelihood import likelihood
from restore.commands.listing import operators, priors, solvers
from restore.commands.searching import search
from restore.commands.training import train
from restore.console import say
from restore.extensions import Commands, Demos

ROOMS = {"operators", "priors", "restore", "medical"}
COMMANDS = (
    *(image, cube, degrade, calibrate),
    *(check, operators, priors, solvers, samplers),
    *(sample, search, likelihood),
    *(train, boundary),
)

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
demos.callback(invoke_without_command=True)(demo)
for _command in COMMANDS:
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 1 a case failed; 2 a request that cannot be met, told in one line; 130 interrupted.
    Only an error of ours, not of the user's, shows a traceback.
    """
    # OpenMP threads that spin at barriers starve each other on a busy machine; torch reads it once
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
        say(f"restore: {sentence}", to_stderr=True)
        return 2
    if code == 130:
        say("restore: interrupted.", to_stderr=True)
    return code


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        say(f"restore {__version__}")
        raise typer.Exit


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
    groups = ("restore.commands", "restore.demos", "restore.benches")
    guests = {p.module.partition(".")[0] for group in groups for p in entry_points(group=group)}
    return room in ROOMS | guests
