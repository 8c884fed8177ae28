"""What commands say: words, tables and JSON. Imports nothing heavy."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import typer


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print a line of words."""
    typer.echo(text, err=to_stderr)


def print_json(value: Mapping[str, Any] | list[dict[str, Any]]) -> None:
    """Print as JSON, numbers that are not finite as null."""
    typer.echo(json.dumps(_finite(value), indent=2))


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(table: Any, *, to_stderr: bool = False) -> None:
    """Print a rich table, as wide as the terminal; a file or a pipe gets 140 columns."""
    from rich.console import Console

    console = Console(stderr=to_stderr)
    if not console.is_terminal:
        console.width = 140  # a file or a pipe: no reason to wrap
    console.print(table)


def show_rows(rows: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as JSON."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = list(rows)
    if as_json:
        print_json([dict(row) for row in rows])
        return
    table = Table(*(rows[0] if rows else ()), box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    show(table)
