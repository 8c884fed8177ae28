"""The tables of `restore bench operators`."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from restore.bench.adjoints import Adjoint
from restore.bench.operators import Cassi, Matrix, Pair, Results


def show(results: Results) -> Group:
    """Everything, one table below the other."""
    return Group(
        adjoint_table(results.adjoints),
        pair_table(results.pairs, results.threads),
        matrix_lines(results.matrix),
        cassi_table(results.cassi),
    )


def adjoint_table(rows: Sequence[Adjoint]) -> Table:
    """Worst mismatch of every operator."""
    table = _table("Adjoint mismatch |<Au, v> - <u, A'v>| / (|Au| |v|), the worst of all sizes")
    table.add_column("operator")
    for head in ("sizes", "float32", "float64", "deepinv float32"):
        table.add_column(head, justify="right")
    table.add_column("1e-6, 1e-12")
    for row in rows:
        ours = [f"{row.worst[word]:.0e}" for word in ("float32", "float64")]
        theirs = "-" if row.theirs is None else f"{row.theirs:.0e}"
        table.add_row(row.operator, str(row.sizes), *ours, theirs, _verdict(row.ok))
    return table


def pair_table(rows: Sequence[Pair], threads: int) -> Table:
    """Time of `A` and `A_adjoint`, and memory."""
    turns = min((row.turns for row in rows), default=0)
    table = _table(
        f"A and A_adjoint after build, {threads} thread{'s' if threads > 1 else ''}, medians of "
        f"{turns} turns and more; bytes of what the operators keep"
    )
    table.add_column("task")
    table.add_column("image")
    for head in ("ours", "deepinv", "faster", "goal", "", "ours", "deepinv"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            row.task,
            "x".join(map(str, row.shape)),
            _milliseconds(row.ours),
            "-" if row.theirs is None else _milliseconds(row.theirs),
            "-" if row.ratio is None else f"{row.ratio:.1f}x",
            "-" if row.goal is None else f"{row.goal:g}x",
            Text() if row.goal is None else _verdict(row.ok),
            _bytes(row.ours_bytes),
            "-" if row.theirs_bytes is None else _bytes(row.theirs_bytes),
        )
    return table


def matrix_lines(row: Matrix) -> Text:
    """CT beside its matrix."""
    return Text(
        f"CT: the pair takes {_milliseconds(row.pair)}, to read its plain matrix of "
        f"{_bytes(row.nbytes)} once {_milliseconds(row.read)}: {row.pair / row.read:.2f} times.\n"
        f"CT: {row.build:.2f} s to build, {row.hit:.2f} s from the cache.\n"
    )


def cassi_table(rows: Sequence[Cassi]) -> Table:
    """The adjoint that is wrong at even sizes."""
    table = _table("Coded aperture (CASSI), adjoint mismatch in float32")
    table.add_column("cube", min_width=36)
    for head in ("ours", "deepinv"):
        table.add_column(head, justify="right")
    for row in rows:
        size = "x".join(map(str, row.shape))
        table.add_row(size, f"{row.ours:.0e}", f"{row.theirs:.0e}")
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _verdict(ok: bool) -> Text:
    return Text("pass", "green") if ok else Text("FAIL", "bold red")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def _bytes(count: int) -> str:
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.3g} {units[0]}"
