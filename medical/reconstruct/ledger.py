"""What survives a kill: a folder of finished samples, and the state of the one at work.

The folder stands beside the output, `OUT.unfinished`, until the output is whole. It belongs to one
request: the same voxels, task, settings, prior, solver and seed. The same request goes on where it
was stopped and gives the same bits; a request for more samples draws only those; any other is
refused until somebody says that the old work may go.
"""

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medical.refusal import Refusal
from operators.files import write_tensors
from restore.files import atomic

_REQUEST, _WRITING = "request.json", "writing.json"
_STORY, _STD = "restore-sample", "std"


class Drawn(NamedTuple):
    """A sample of a stack, or of some of its slices.

    Attributes:
        x: `(C, D, H, W)`.
        facts: what is known of it, plain values; of one that is kept "std" says whether its std is.
        std: of the posterior, where the solver knows it without samples.
    """

    x: Tensor
    facts: Mapping[str, Any]
    std: Tensor | None = None


class Ledger:
    """Samples of one request, in a folder.

    Args:
        folder: exists, and is nobody else's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sample(self, index: int) -> Path:
        """File of a finished sample."""
        return self.folder / f"sample-{index:04d}.safetensors"

    def std(self, index: int) -> Path:
        """File of its std, where the solver knew it."""
        return self.folder / f"std-{index:04d}.safetensors"

    def checkpoint(self, index: int) -> Path:
        """File of the solver's state while it is at work on a sample."""
        return self.folder / f"checkpoint-{index:04d}.safetensors"

    def keep(self, index: int, drawn: Drawn) -> None:
        """Write a finished sample; its checkpoint and parts are not needed any more."""
        if drawn.std is not None:  # by itself and first: two volumes at once are two too many
            write_tensors(self.std(index), {_STD: drawn.std})
        write_tensors(self.sample(index), {"x": drawn.x}, _story(drawn))
        self.checkpoint(index).unlink(missing_ok=True)
        for part in self.folder.glob(f"part-{index:04d}-*.safetensors"):
            part.unlink()

    def keep_part(self, index: int, part: int, drawn: Drawn) -> None:
        """Write a finished part of a sample."""
        tensors = {"x": drawn.x} if drawn.std is None else {"x": drawn.x, _STD: drawn.std}
        write_tensors(self._part(index, part), tensors, _story(drawn))

    def part(self, index: int, part: int) -> Drawn | None:
        """A finished part of a sample."""
        facts = _facts(self._part(index, part))
        if facts is None:
            return None
        with safe_open(self._part(index, part), framework="pt") as file:
            std = file.get_tensor(_STD) if facts.get(_STD) else None
            return Drawn(file.get_tensor("x"), facts, std)

    def _part(self, index: int, part: int) -> Path:
        return self.folder / f"part-{index:04d}-{part:04d}.safetensors"

    def facts(self, index: int) -> dict[str, Any] | None:
        """What is known of a finished sample; None when it is not finished, or damaged."""
        return _facts(self.sample(index))


def _story(drawn: Drawn) -> dict[str, str]:
    return {_STORY: json.dumps({**drawn.facts, _STD: drawn.std is not None})}


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[_STORY])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError):
        return None


def unfinished(out: Path) -> Path:
    """The folder of an output's samples."""
    return out.parent / f"{out.name}.unfinished"


@contextlib.contextmanager
def opened(
    out: Path | None, request: Mapping[str, Any], *, fresh: bool = False
) -> Iterator[Ledger]:
    """Open the ledger of an output, or start one; the caller closes it with `settle`.

    Args:
        out: the output; None for a folder that nobody needs afterwards.
        request: everything that the samples depend on, plain values.
        fresh: discard what another request, or this one, left.

    Raises:
        Refusal: E_UNFINISHED, the folder holds another request; E_BUSY, another process is at
            work in it.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Ledger(Path(folder))
        return
    folder = unfinished(out)
    folder.mkdir(exist_ok=True)
    with _locked(folder):
        _claim(folder, json.loads(json.dumps(request)), fresh)
        yield Ledger(folder)


def begin_writing(out: Path, outputs: Iterable[Path]) -> None:
    """Note that outputs are about to be written, so that a run after a kill may replace them."""
    text = json.dumps([str(path.resolve()) for path in outputs])
    with atomic(unfinished(out) / _WRITING, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")


def half_written(out: Path) -> set[Path]:
    """Outputs that a killed run had begun to write."""
    try:
        return set(map(Path, json.loads((unfinished(out) / _WRITING).read_text(encoding="utf-8"))))
    except (OSError, json.JSONDecodeError):
        return set()


def settle(out: Path) -> None:
    """Remove the ledger of an output that is whole, last what says that the output is ours."""
    folder = unfinished(out)
    for file in sorted(folder.glob("*"), key=lambda file: file.name == _WRITING):
        file.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it when the process dies, however it dies."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refusal(
                "E_BUSY", "another process is at work on the same output; wait, or name another."
            ) from error
        yield


def _claim(folder: Path, request: dict[str, Any], fresh: bool) -> None:
    path = folder / _REQUEST
    if fresh:
        for file in folder.iterdir():
            if file.name != "lock":
                file.unlink()
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        before = None
    if before is not None and before != request:
        changed = sorted(
            k for k in before.keys() | request.keys() if before.get(k) != request.get(k)
        )
        raise Refusal(
            "E_UNFINISHED",
            f"unfinished work on this output was asked for with another {', '.join(changed)}; ask "
            "again as then, or discard it with --fresh.",
        )
    if before is None:
        for file in folder.glob("*.safetensors"):
            file.unlink()
        with atomic(path, overwrite=True) as partial:
            partial.write_text(json.dumps(request, indent=1), encoding="utf-8")


def moments(ledger: Ledger, count: int, *, slab: int = 8) -> tuple[Tensor, Tensor | None]:
    """Mean and std of the finished samples `(C, D, H, W)`, some slices at a time.

    The std is None for a single sample, unless its solver knew it.
    """
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(safe_open(ledger.sample(i), framework="pt")) for i in range(count)
        ]
        parts = [file.get_slice("x") for file in files]
        shape = parts[0].get_shape()
        mean = torch.empty(shape)
        std = torch.empty(shape) if count > 1 else None
        for first in range(0, shape[1], slab):
            here = slice(first, first + slab)
            some = torch.stack([part[:, here] for part in parts]).double()
            mean[:, here] = some.mean(0)
            if std is not None:
                std[:, here] = some.std(0)
    facts = ledger.facts(0) or {}
    if count == 1 and facts.get(_STD):
        with safe_open(ledger.std(0), framework="pt") as file:
            std = file.get_tensor(_STD)
    return mean, std
