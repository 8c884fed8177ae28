"""How `restore check` shows what it found: a line for every size, then what is wrong, and why."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from operators import Row, Sweep, Trial

# heading -> properties, the worst of which it shows
COLUMNS = {
    "linear": ("linearity",),
    "adjoint": ("adjoint",),
    "gradient": ("gradient",),
    "inverse": ("pseudo-inverse",),
    "prox": ("prox",),
    "svd": ("svd: A", "svd: V", "svd: U"),
    "norm": ("norm",),
    "manners": (
        "measures",
        "precision kept",
        "device",
        "determinism",
        "input unchanged",
        "batch independence",
    ),
}
CAPTION = """\
Relative errors, the worse of float32 and float64; in brackets what is reported but not judged.
Manners: measures, keeps precision, device and input, repeats itself, couples no images."""


def as_dict(target: str, sweep: Sweep) -> dict[str, Any]:
    """Plain values for `--json`."""
    return {
        "operator": target,
        "ok": sweep.ok,
        "sizes": [
            {
                "image_shape": list(trial.image_shape),
                "ok": trial.ok,
                "refusal": trial.refusal,
                "error": trial.error,
                "rows": [asdict(row) for row in trial.report.rows] if trial.report else [],
            }
            for trial in sweep.trials
        ],
    }


def show(target: str, sweep: Sweep, *, verbose: bool = False) -> RenderableType:
    """What `restore check` prints.

    Args:
        target: what the user asked for.
        sweep: what was found.
        verbose: every number of every size; always so when only one size was examined.
    """
    tried = [trial for trial in sweep.trials if trial.report]
    parts: list[RenderableType] = []
    notes = [*_warned(tried), *_left_out(sweep.trials)]
    if verbose or len(tried) == 1:
        parts += [_numbers(trial) for trial in tried]
    if len(tried) > 1:
        parts += [_overview(tried), Text(CAPTION, "dim"), Text()]
        notes = [*_problems(tried), *_reported(tried), *notes]
    return Group(*parts, *notes, *([Text()] if notes else []), _summary(target, sweep))


def _overview(trials: Sequence[Trial]) -> Table:
    """One line for every size."""
    names = {row.name for trial in trials for row in _rows(trial)}
    heads = [head for head, members in COLUMNS.items() if names & set(members)]
    table = Table(box=SIMPLE_HEAD, padding=0)  # fits 80 columns
    table.add_column("size")
    for head in heads:
        table.add_column(head, justify="right")
    table.add_column("")
    for trial in trials:
        cells = [
            _cell(head, [r for r in _rows(trial) if r.name in COLUMNS[head]]) for head in heads
        ]
        table.add_row(_size(trial), *cells, _verdict(trial.ok))
    return table


def _cell(head: str, rows: Sequence[Row]) -> Text:
    """The worst number; what fails has an exclamation mark, for screens without colour."""
    if not rows:
        return Text("-", "dim")
    wrong = [row for row in rows if not row.ok]
    worst = max(rows, key=_share)
    if head == "manners":
        return Text("bad!", "bold red") if wrong else Text("good")
    if worst.value is None:
        return Text("error!", "bold red")
    number = f"{worst.value:.3g}" if head == "norm" else f"{worst.value:.0e}"
    if wrong:
        return Text(f"{number}!", "bold red")
    return Text(number) if head == "norm" or worst.limit else Text(f"({number})", "dim")


def _share(row: Row) -> float:
    """How much of what is allowed was used."""
    if row.value is None or not math.isfinite(row.value):
        return math.inf
    return row.value / row.limit if row.limit else row.value * 1e12


def _numbers(trial: Trial) -> Table:
    """Every number of one size, the two precisions side by side."""
    table = Table(title=_title(trial), title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.add_column("property", no_wrap=True)
    for head in ("float32", "float64", "allowed"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("what the number is", style="dim")
    rows = _rows(trial)
    for name in dict.fromkeys(row.name for row in rows):
        pair = [row for row in rows if row.name == name]
        allowed = " / ".join(dict.fromkeys(_allowed(row) for row in pair))
        cells = [*map(_value, pair), *[Text()] * (2 - len(pair)), allowed]
        ok = all(row.ok for row in pair)
        note = next((row.note for row in pair if not row.ok), pair[0].note)
        table.add_row(name, *cells, _verdict(ok), note)
    return table


def _value(row: Row) -> Text:
    number = "error" if row.value is None else f"{row.value:.1e}"
    return Text(number) if row.ok else Text(f"{number}!", "bold red")


def _allowed(row: Row) -> str:
    return "any" if row.limit is None else f"{row.limit:.0e}" if row.limit else "0"


def _problems(trials: Sequence[Trial]) -> Iterator[Text]:
    """For every property that fails: where, how badly, and what the number is."""
    kinds: dict[str, list[tuple[Trial, Row]]] = {}
    for trial in trials:
        for row in _rows(trial):
            if not row.ok:  # properties that meet the same error are told together
                kind = row.name if row.value is not None else _kind(row.note)
                kinds.setdefault(kind, []).append((trial, row))
    for found in kinds.values():
        trial, row = max(found, key=lambda pair: _share(pair[1]))
        names = ", ".join(dict.fromkeys(r.name for _, r in found))
        sizes = len({t.image_shape for t, _ in found})
        where = f"at {sizes} of {len(trials)} sizes, worst at {_size(trial)} in {row.precision}"
        value = f"{row.value:.1e}, allowed {_allowed(row)}: " if row.value is not None else ""
        yield Text.assemble(("FAIL ", "bold red"), (names, "bold"), f" {where}: {value}{row.note}")


def _reported(trials: Sequence[Trial]) -> Iterator[Text]:
    """What the numbers in brackets are."""
    rows = [row for trial in trials for row in _rows(trial) if row.ok and row.limit is None]
    for name, note in dict.fromkeys((row.name, row.note) for row in rows if row.name != "norm"):
        yield Text(f"reported {name}: {note}")


def _warned(trials: Sequence[Trial]) -> Iterator[Text]:
    """Iterative inverses that stopped before their tolerance."""
    late = [(trial, row) for trial in trials for row in _rows(trial) if row.warning]
    for name in dict.fromkeys(row.name for _, row in late):
        found = [(trial, row) for trial, row in late if row.name == name]
        trial, row = found[0]
        sizes = len({t.image_shape for t, _ in found})
        where = f"at {sizes} of {len(trials)} sizes, for example at {_size(trial)}"
        yield Text(f"warning {name} {where}: {row.warning}", "yellow")


def _left_out(trials: Sequence[Trial]) -> Iterator[Text]:
    """Sizes that were refused or crashed, those with the same sentence together."""
    for word, style in (("refusal", "dim"), ("error", "bold red")):
        kinds: dict[str, list[Trial]] = {}
        for trial in trials:
            if sentence := getattr(trial, word):
                kinds.setdefault(_kind(sentence), []).append(trial)
        for group in kinds.values():
            label = "refused " if word == "refusal" else "FAIL "
            first = getattr(group[0], word)
            yield Text.assemble((label, style), _names(group), ": ", first)


def _kind(sentence: str) -> str:
    """A sentence whatever its numbers."""
    return re.sub(r"\d+", "", sentence)


def _names(group: Sequence[Trial]) -> str:
    sizes = [_size(trial) for trial in group]
    return ", ".join(sizes) if len(sizes) <= 3 else f"{sizes[0]} and {len(sizes) - 1} more"


def _summary(target: str, sweep: Sweep) -> Text:
    tried = [trial for trial in sweep.trials if not trial.refusal]
    failed = sum(not trial.ok for trial in tried)
    if len(tried) == 1:
        story = "fails." if failed else "all good."
    else:
        story = (
            f"{failed} of {len(tried)} sizes fail." if failed else f"{len(tried)} sizes, all good."
        )
    return Text(f"{target}: {story}", "bold red" if failed else "bold green")


def _title(trial: Trial) -> str:
    name = trial.report.operator if trial.report else ""
    return f"{name} on {_size(trial)}"


def _verdict(ok: bool) -> Text:
    return Text("pass", "green") if ok else Text("FAIL", "bold red")


def _rows(trial: Trial) -> tuple[Row, ...]:
    return trial.report.rows if trial.report else ()


def _size(trial: Trial) -> str:
    return "x".join(map(str, trial.image_shape))
