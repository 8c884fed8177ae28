"""Is `A_adjoint` the adjoint of `A`? Measured at a dozen sizes and more, ours and deepinv's.

`|<Au, v> - <u, A'v>| / (|Au| |v|)` for batches of two, the worst of three draws: rounding alone
makes about 1e-8 of it in float32 and 1e-17 in float64.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, cast

import torch
from deepinv.physics import LinearPhysics
from tqdm.auto import tqdm

import operators
from operators.doctor.check import ROUNDING
from operators.doctor.probes import adjoint
from operators.doctor.vectors import Draw
from restore.bench import rivals

Shape = tuple[int, ...]

# without options, every operator that `parse` knows; these besides
VARIANTS = (
    "blur:boundary=valid,sigma=1",
    "blur:boundary=reflect,sigma=1",
    "blur:kernel=motion,length=9,angle=30",
    "mask:box=5x7",
    "mask:keep=0.3,bandwise=true",
    "downsample:factor=2,filter=bilinear",
    "downsample:factor=3,filter=gaussian,boundary=symmetric",
    "cassi:step=2",
    "cs:kind=dense",
    "cs:kind=block",
    "cs:kind=scrambled",
    "ct:geometry=fan",
    "ct:angles=40,span=100,spacing=0.7",
    "mri:coils=8",
    "mri:pattern=poisson",
    "slices:axis=1|mask:keep=0.3",
    "slices:axis=2|blur:sigma=0.5",
)
CHANNELS = (3, 1, 2, 8)
# odd, even, oblong; then multiples of 12, for operators that divide
PLANES = (
    *((32, 32), (31, 31), (24, 40), (23, 41), (64, 48), (17, 64), (35, 20), (32, 33), (45, 63)),
    *((48, 36), (57, 29), (60, 72), (40, 40), (24, 64), (72, 24), (96, 48), (84, 36), (36, 60)),
    *((36, 36), (48, 72), (24, 84), (108, 36), (60, 48), (36, 96)),
)
VOLUMES = (
    *((12, 12, 12), (17, 19, 21), (18, 20, 24), (11, 24, 13), (24, 12, 36), (13, 15, 9)),
    *((24, 24, 24), (16, 18, 20), (25, 14, 17), (12, 36, 24), (20, 13, 32), (19, 26, 23)),
)


@dataclass(frozen=True)
class Adjoint:
    """Worst mismatch of one operator.

    Attributes:
        operator: specification.
        sizes: how many were tried.
        worst: precision -> mismatch.
        at: precision -> image shape where it was found.
        theirs: worst mismatch of deepinv's operator in float32 over the flat sizes that it takes,
            None where there is none.
    """

    operator: str
    sizes: int
    worst: dict[str, float]
    at: dict[str, Shape]
    theirs: float | None = None

    @property
    def ok(self) -> bool:
        """Whether both precisions are within what rounding allows."""
        return all(self.worst[_word(t)] <= limit for t, limit in ROUNDING.items())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return asdict(self) | {"ok": self.ok}


def linear_specs() -> list[str]:
    """Every linear operator of the table with its defaults, and the variants."""
    specs = [*operators.available(), *VARIANTS]
    return [spec for spec in specs if next(accepted(spec, PLANES + VOLUMES), None) is not None]


def run(
    specs: Sequence[str] | None = None, *, sizes: int = 12, progress: bool | None = None
) -> Iterator[Adjoint]:
    """Measure operators.

    Args:
        specs: specifications, `linear_specs()` by default.
        sizes: how many flat images, and a quarter of that of volumes; only volumes for operators
            that take no flat images.
        progress: show a bar; None on a terminal only.

    Yields:
        One `Adjoint` an operator.
    """
    specs = linear_specs() if specs is None else specs
    hidden = None if progress is None else not progress
    for spec in tqdm(specs, desc="adjoints", disable=hidden, leave=False):
        cases = list(islice(accepted(spec, PLANES), sizes))
        cases += islice(accepted(spec, VOLUMES), sizes // 4 if cases else sizes)
        yield measure(spec, cases)


def measure(spec: str, cases: Sequence[tuple[Shape, LinearPhysics]]) -> Adjoint:
    """The worst mismatch over sizes, each with the operator that was built for it."""
    worst, at = {}, {}
    for dtype in ROUNDING:
        found = [(mismatch(physics, shape, dtype), shape) for shape, physics in cases]
        worst[_word(dtype)], at[_word(dtype)] = max(found)
    rival = rivals.RIVALS.get(spec)
    flat = [shape for shape, _ in cases if len(shape) == 3]
    theirs = [_or_none(rival, shape) for shape in flat] if rival else []
    known = [value for value in theirs if value is not None]
    return Adjoint(spec, len(cases), worst, at, max(known) if known else None)


def mismatch(physics: LinearPhysics, shape: Shape, dtype: torch.dtype) -> float:
    """Of one operator at one size, in one precision."""
    draw = Draw(shape, dtype, torch.device("cpu"), seed=0)
    return adjoint(cast(LinearPhysics, physics.to(dtype)), draw)


def accepted(spec: str, sizes: Sequence[Shape]) -> Iterator[tuple[Shape, LinearPhysics]]:
    """The sizes that an operator takes, with the first channels that it takes, and itself."""
    for size in sizes:
        for channels in CHANNELS:
            shape = (channels, *size)
            try:
                physics = operators.parse(spec, shape)
            except ValueError:
                continue
            if isinstance(physics, LinearPhysics):
                yield shape, physics
            break


def _or_none(rival: rivals.Build, shape: Shape) -> float | None:
    """Deepinv's mismatch; None at sizes that it does not take."""
    try:
        with rivals.hushed():
            return mismatch(rival(shape), shape, torch.float32)
    except ValueError:
        return None


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
