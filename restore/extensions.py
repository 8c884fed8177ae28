"""Commands of other packages, found by name and imported only when they are run.

A package adds `restore NAME` through the entry-point group `restore.commands`, `restore demo NAME`
through `restore.demos` and `restore bench NAME` through `restore.benches`. An entry point is a
function with typer annotations or a typer app:

    [project.entry-points."restore.commands"]
    scan = "medical.cli:scan"
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


class Extensible(TyperGroup):
    """A command group that entry points extend; our own commands win over theirs.

    Attributes:
        group: the entry-point group.
    """

    group: ClassVar[str]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of our own commands, or else the one of that name from another package."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        points = _points(self.group)
        return _load(points[cmd_name]) if cmd_name in points else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Help: ours with their first lines, then theirs by name alone, not imported."""
        super().format_commands(ctx, formatter)
        points = _points(self.group)
        theirs = [(name, f"by {p.module.partition('.')[0]}") for name, p in points.items()]
        if theirs := [row for row in sorted(theirs) if row[0] not in self.commands]:
            with formatter.section("From other packages"):
                formatter.write_dl(theirs)


class Commands(Extensible):
    """`restore NAME`."""

    group = "restore.commands"


class Demos(Extensible):
    """`restore demo NAME`."""

    group = "restore.demos"


class Benches(Extensible):
    """`restore bench NAME`."""

    group = "restore.benches"


def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _load(point: EntryPoint) -> Any:
    """Import a command.

    Raises:
        ValueError: it cannot be imported.
    """
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"command '{point.name}' of package '{point.module}' cannot be loaded ({error}); "
            "install that package again."
        ) from error
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(rich_markup_mode=None, add_completion=False)
        found.command(point.name)(function)
    command = typer.main.get_command(found)
    command.name = point.name
    return command
