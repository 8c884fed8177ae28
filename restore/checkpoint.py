"""A run that was killed goes on where it was, to the same result bit by bit.

What is kept is small: samples that are finished, and of the chunk at work the loop's own tensors
(`Problem.state`), the random streams and the number of steps done. A solver that keeps no state
starts its chunk again. The file appears whole or not at all, says which request it belongs to, and
goes away when the run ends.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restore.files import check_free
from restore.problem import Count, Problem
from restore.request import Request, fingerprint

EVERY = 60.0  # seconds between two writes

_MARK = "restore-checkpoint"


@dataclass
class Run:
    """Where a run stands.

    Attributes:
        samples: those of finished chunks, `(finished, B, C, *spatial)`, and room for the others.
        finished: how many.
        done: steps of the chunk at work.
        estimate: its last, `(N, C, *spatial)`.
        state: its `Problem.state`.
        streams: states of its random streams.
        count: network calls so far.
        notes: see `Problem.notes`.
        seconds: that processes before this one spent.
    """

    samples: Tensor | None = None
    finished: int = 0
    done: int = 0
    estimate: Tensor | None = None
    state: dict[str, list[Tensor]] = field(default_factory=dict)
    streams: list[Tensor] = field(default_factory=list)
    count: Count = field(default_factory=Count)
    notes: dict[str, object] = field(default_factory=dict)
    seconds: float = 0.0

    def keep(self, samples: Tensor, total: int) -> None:
        """Add the samples `(s, B, C, *spatial)` of a finished chunk, of `total` samples in all."""
        if self.samples is None and len(samples) == total:
            self.samples = samples  # no copy of the only chunk
        else:
            if self.samples is None:
                self.samples = samples.new_empty(total, *samples.shape[1:])
            self.samples[self.finished : self.finished + len(samples)] = samples
        self.finished += len(samples)
        self.done, self.estimate, self.state, self.streams = 0, None, {}, []

    def resume(self, problem: Problem) -> None:
        """Set the chunk's problem to where it was, if it had begun."""
        if self.done:
            problem.state, problem.done = self.state, self.done
            for generator, state in zip(problem.streams, self.streams, strict=True):
                generator.set_state(state)


class Checkpoint:
    """The file of one request.

    Args:
        path: where.
        request: whose.

    Raises:
        FileNotFoundError: the folder does not exist.
        FileExistsError: the path is a folder.
    """

    def __init__(self, path: str | Path, request: Request) -> None:
        self.path = Path(path)
        check_free(self.path, overwrite=True)
        self.request, self.device = fingerprint(request), request.y.device
        self.written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self.written >= EVERY

    def load(self) -> Run:
        """Read where the request stands; a fresh run when there is no file.

        Raises:
            ValueError: the file is something else, or belongs to another request.
        """
        if not self.path.exists():
            return Run()
        try:
            with safe_open(self.path, framework="pt", device=str(self.device)) as file:
                about = json.loads((file.metadata() or {})[_MARK])
                self._refuse_other(about["request"])
                # copied: in the file they lie at any address, and sums depend on its alignment
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        except (SafetensorError, KeyError):
            raise ValueError(
                f"'{self.path.name}' is not a checkpoint of a run; name another file."
            ) from None
        return _unpacked(tensors, about)

    def save(self, run: Run, seconds: float, problem: Problem | None = None) -> None:
        """Write where the request stands.

        Args:
            run: what is finished.
            seconds: that this process has spent.
            problem: the chunk at work, or None between two chunks.
        """
        tensors = {} if run.samples is None else {"samples": run.samples[: run.finished]}
        state, streams = ({}, []) if problem is None else (problem.state, problem.streams)
        if problem is not None and run.estimate is not None:
            tensors["estimate"] = run.estimate
        for name, several in state.items():
            tensors |= {f"state.{name}.{i}": t for i, t in enumerate(several)}
        tensors |= {f"stream.{i}": g.get_state() for i, g in enumerate(streams)}
        about = {
            "request": self.request,
            "finished": run.finished,
            "total": None if run.samples is None else len(run.samples),
            "done": run.done,
            "state": {name: len(several) for name, several in state.items()},
            "streams": len(streams),
            "count": asdict(run.count),
            "notes": run.notes,
            "seconds": run.seconds + seconds,
        }
        partial = self._partial
        save_file(_plain(tensors), partial, {_MARK: json.dumps(about)})
        os.replace(partial, self.path)
        self.written = time.monotonic()

    def remove(self) -> None:
        """Delete the file: its request is done."""
        self.path.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)  # of a process that was killed while it wrote

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}.partial")

    def _refuse_other(self, other: Mapping[str, str]) -> None:
        if differs := [name for name, value in self.request.items() if other.get(name) != value]:
            raise ValueError(
                f"checkpoint '{self.path.name}' belongs to another request (different "
                f"{', '.join(differs)}); delete it, or name another file."
            )


def _unpacked(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Run:
    samples = tensors.get("samples")
    if samples is not None:  # make room for the others
        room = samples.new_empty(about["total"], *samples.shape[1:])
        room[: len(samples)] = samples
        samples = room
    sizes: Mapping[str, int] = about["state"]
    return Run(
        samples=samples,
        finished=about["finished"],
        done=about["done"],
        estimate=tensors.get("estimate"),
        state={name: [tensors[f"state.{name}.{i}"] for i in range(n)] for name, n in sizes.items()},
        streams=[tensors[f"stream.{i}"].cpu() for i in range(about["streams"])],
        count=Count(**about["count"]),
        notes=about["notes"],
        seconds=about["seconds"],
    )


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a file wants them, on the processor; copied only where two of them share memory."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        where = here.untyped_storage().data_ptr()
        plain[name] = here.clone() if where in seen else here
        seen.add(where)
    return plain
