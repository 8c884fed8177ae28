"""Operators, ours and deepinv's side by side in one run.

adjoints   mismatch of every linear operator; see `restore.bench.adjoints`
pairs      seconds of `A` and `A_adjoint` after the operator is built; ours and deepinv's take
turns, medians over the turns, and bytes of what they keep
matrix     of CT: the pair beside reading the plain matrix from memory once
cassi      coded-aperture imaging, whose adjoint in deepinv is wrong at even sizes
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FunctionType, MethodType
from typing import Any, NamedTuple, cast

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor
from tqdm.auto import tqdm

import operators
from operators.ct import ComputedTomography
from operators.tomography.system_matrix import needed
from restore.bench import adjoints, rivals
from restore.bench.adjoints import Adjoint, Shape, mismatch

PATIENCE = 2.0  # seconds
CT_SPEC, CT_SHAPE = "ct:angles=180", (1, 256, 256)
CASSI_SHAPES = ((8, 32, 32), (8, 64, 64), (8, 33, 32), (7, 32, 48), (8, 33, 33), (7, 33, 33))


class Task(NamedTuple):
    """What is timed: ours, deepinv's, and how many times faster ours should be."""

    name: str
    spec: str
    shape: Shape
    rival: rivals.Build | None = None
    goal: float | None = None


TASKS = (
    Task("CT, 180 views", CT_SPEC, CT_SHAPE, lambda s: rivals.tomography(s, 180), 10),
    Task("downsampling x4", "downsample:factor=4", (3, 512, 512), rivals.downsampling, 13),
    Task("MRI, 8 coils", "mri:acceleration=4,coils=8", (2, 320, 320), rivals.multicoil_mri, 1.5),
    Task("MRI, 1 coil", "mri:acceleration=4", (2, 320, 320), rivals.mri),
    Task("circular blur", "blur:sigma=2", (1, 512, 512), rivals.blur),
    Task("blur, 3-D", "blur:sigma=2", (1, 64, 96, 96), rivals.blur),
    Task("sensing, structured", "cs:ratio=0.25", (1, 256, 256)),
    Task("sensing, blocks", "cs:ratio=0.25,kind=block", (1, 256, 256)),
)


@dataclass(frozen=True)
class Pair:
    """One task.

    Attributes:
        task, operator, shape: what was run.
        ours, theirs: median seconds of `A` and `A_adjoint` together; None where deepinv has none.
        ratio: how many times faster ours is, the median over the turns.
        goal: the ratio to reach, None for none.
        ours_bytes, theirs_bytes: of the operators' tensors; of deepinv's dense sensing, which
            cannot be built here, what its matrix and pseudo-inverse would take.
        turns: how many were taken.
    """

    task: str
    operator: str
    shape: Shape
    ours: float
    theirs: float | None
    ratio: float | None
    goal: float | None
    ours_bytes: int
    theirs_bytes: int | None
    turns: int

    @property
    def ok(self) -> bool:
        """Whether the goal is reached."""
        return self.goal is None or (self.ratio is not None and self.ratio >= self.goal)


@dataclass(frozen=True)
class Matrix:
    """CT beside its plain matrix, float32 values and int32 columns in compressed rows.

    Attributes:
        nbytes: of the plain matrix.
        read: median seconds to sum an array of that many bytes.
        pair: median seconds of `A` and `A_adjoint`.
        build: seconds to build the operator.
        hit: seconds to build it when its matrix lies in the cache.
    """

    nbytes: int
    read: float
    pair: float
    build: float
    hit: float


@dataclass(frozen=True)
class Cassi:
    """Adjoint mismatch of coded-aperture imaging in float32."""

    shape: Shape
    ours: float
    theirs: float


@dataclass(frozen=True)
class Results:
    """Everything the bench measures."""

    adjoints: tuple[Adjoint, ...]
    pairs: tuple[Pair, ...]
    matrix: Matrix
    cassi: tuple[Cassi, ...]
    threads: int

    @property
    def ok(self) -> bool:
        """Whether every adjoint is exact; times depend on the machine and are not judged."""
        return all(row.ok for row in self.adjoints)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return asdict(self) | {
            "adjoints": [row.as_dict() for row in self.adjoints],
            "ok": self.ok,
        }


def run(
    *, quick: bool = False, threads: int | None = None, progress: bool | None = None
) -> Results:
    """Measure everything.

    Args:
        quick: four sizes instead of twelve, and at least three turns instead of eleven.
        threads: of torch, as many as it takes by itself when None. On a machine that does other
            work too, one thread gives times that can be repeated.
        progress: show bars; None on a terminal only.
    """
    turns, sizes = (3, 4) if quick else (11, 12)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return Results(
            adjoints=tuple(adjoints.run(sizes=sizes, progress=progress)),
            pairs=tuple(pairs(TASKS, turns=turns, progress=progress)),
            matrix=matrix(CT_SPEC, CT_SHAPE, turns=turns),
            cassi=tuple(cassi(CASSI_SHAPES)),
            threads=threads or before,
        )
    finally:
        torch.set_num_threads(before)


def pairs(
    tasks: Sequence[Task], *, turns: int = 11, progress: bool | None = None
) -> Iterator[Pair]:
    """Time `A` and `A_adjoint`, ours and deepinv's in turns."""
    hidden = None if progress is None else not progress
    for task in tqdm(tasks, desc="pairs", disable=hidden, leave=False):
        x = torch.rand(1, *task.shape, generator=torch.Generator().manual_seed(0))
        ours = cast(LinearPhysics, operators.parse(task.spec, task.shape))
        with rivals.hushed():
            theirs = task.rival(task.shape) if task.rival else None
            contest = [there_and_back(p, x) for p in (ours, theirs) if p is not None]
            times = in_turns(contest, turns)
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        yield Pair(
            task=task.name,
            operator=task.spec,
            shape=task.shape,
            ours=medians[0],
            theirs=medians[1] if theirs else None,
            ratio=statistics.median(b / a for a, b in times) if theirs else None,
            goal=task.goal,
            ours_bytes=nbytes(ours),
            theirs_bytes=nbytes(theirs) if theirs else _dense_bytes(task),
            turns=len(times),
        )


def matrix(spec: str, shape: Shape, *, turns: int = 11) -> Matrix:
    """Compare CT with reading its plain matrix once; time how long it takes to build."""
    build, physics = seconds(lambda: operators.parse(f"{spec},cache=false", shape))
    with _empty_cache():
        operators.parse(spec, shape)
        hit, _ = seconds(lambda: operators.parse(spec, shape))
    scanner = cast(ComputedTomography, physics).geometry
    rays = torch.arange(scanner.detectors * len(scanner.angles))
    plain = needed(scanner, rays) // 2  # which counts the transposed matrix too
    memory = torch.ones(plain // 4)
    contest = [there_and_back(physics, torch.rand(1, *shape)), memory.sum]
    pair, read = (statistics.median(t) for t in zip(*in_turns(contest, turns), strict=True))
    return Matrix(nbytes=plain, read=read, pair=pair, build=build, hit=hit)


def cassi(shapes: Sequence[Shape]) -> Iterator[Cassi]:
    """Coded-aperture imaging at even and odd sizes."""
    for shape in shapes:
        ours = cast(LinearPhysics, operators.parse("cassi", shape))
        with rivals.hushed():
            theirs = mismatch(rivals.cassi(shape), shape, torch.float32)
        yield Cassi(shape, mismatch(ours, shape, torch.float32), theirs)


def there_and_back(physics: Physics, x: Tensor) -> Callable[[], object]:
    """`A` and `A_adjoint`."""
    linear = cast(LinearPhysics, physics)
    return lambda: linear.A_adjoint(linear.A(x))


def in_turns(contest: Sequence[Callable[[], object]], turns: int) -> list[tuple[float, ...]]:
    """Seconds of every contestant in every turn, after one turn that does not count.

    Those that are quick take more turns, up to ten times as many, as long as `PATIENCE` lasts.
    """
    first = sum(seconds(run)[0] for run in contest)
    turns = max(turns, min(10 * turns, round(PATIENCE / max(first, 1e-6))))
    return [tuple(seconds(run)[0] for run in contest) for _ in range(turns)]


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """How long it takes, and what it returns."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def nbytes(physics: Physics) -> int:
    """Of all tensors that an operator keeps, wherever it keeps them, each storage once."""
    storages, seen, waiting = {}, set(), [vars(physics)]
    while waiting:
        item: Any = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple | set):
            waiting += item
        elif hasattr(item, "__dict__") and not isinstance(item, type | FunctionType | MethodType):
            waiting.append(vars(item))
    return sum(storages.values())


def _dense_bytes(task: Task) -> int | None:
    """What deepinv's dense sensing would take: the matrix and its pseudo-inverse in float32."""
    if not task.spec.startswith("cs:ratio="):
        return None
    n = math.prod(task.shape)
    m = round(float(task.spec.removeprefix("cs:ratio=").split(",")[0]) * n)
    return 2 * 4 * m * n


@contextmanager
def _empty_cache() -> Iterator[None]:
    """A cache folder of its own, gone afterwards."""
    kept = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if kept is not None:
                os.environ["XDG_CACHE_HOME"] = kept
