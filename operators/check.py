"""The operator doctor: is this physics what the solvers take it for?

Most wrong reconstructions begin with an operator whose adjoint is not its adjoint, at one size or
in one precision. `check` measures, with numbers, on the size at hand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics, Physics

from .probes import ANY, LINEAR, NONLINEAR, Draw, Probe
from .validate import image_size

# what may be lost to rounding, with room for sums over many pixels
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-12}


@dataclass(frozen=True)
class Row:
    """One measured property.

    Attributes:
        name: what was measured.
        precision: "float32" or "float64".
        value: the number, or None when the operator raised an error.
        limit: the largest value that passes, or None when any finite number does.
        ok: whether it passes.
        note: what the number is, or the error.
    """

    name: str
    precision: str
    value: float | None
    limit: float | None
    ok: bool
    note: str

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.1e}"
        limit = "" if self.limit is None else f"<= {self.limit:.0e}"
        verdict = "pass" if self.ok else "FAIL"
        return f"{verdict}  {self.name:<19}{self.precision}  {value:>8}  {limit:<9}{self.note}"


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        operator: name of the physics class.
        image_shape: `(C, H, W)` that it was checked on.
        rows: the measurements.
    """

    operator: str
    image_shape: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether every row passes."""
        return all(row.ok for row in self.rows)

    def __str__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        failed = sum(not row.ok for row in self.rows)
        verdict = f"{failed} of {len(self.rows)} fail" if failed else "all pass"
        return "\n".join([f"{self.operator} on {size}: {verdict}", *map(str, self.rows)])


def check(physics: Physics, image_shape: Sequence[int], *, seed: int = 0) -> Report:
    """Examine an operator, ours or your own, in float32 and float64.

    Linear operators are asked for linearity, the adjoint (relative to `|A u| |v|`), the norm, the
    pseudo-inverse and the gradient; nonlinear ones for what applies to them. A clone is examined,
    the operator itself is not touched.

    Args:
        physics: any deepinv physics.
        image_shape: `(C, H, W)` of one image; try odd, even and oblong sizes.
        seed: of the random images.

    Returns:
        A `Report`: `report.ok`, `report.rows`, and `str(report)` for reading.

    Raises:
        ValueError: a bad shape.
    """
    shape = image_size(image_shape)
    probes = ANY + (LINEAR if isinstance(physics, LinearPhysics) else NONLINEAR)
    device = next((b.device for b in physics.buffers()), torch.device("cpu"))
    rows: list[Row] = []
    with torch.no_grad():
        for dtype, rounding in ROUNDING.items():
            clone = physics.clone().to(dtype)
            draw = Draw(shape, dtype, device, seed)
            rows.extend(_row(clone, probe, draw, rounding) for probe in probes)
    return Report(type(physics).__name__, shape, tuple(rows))


def _row(physics: Physics, probe: Probe, draw: Draw, rounding: float) -> Row:
    word, limit = str(draw.dtype).removeprefix("torch."), probe.limit(rounding)
    try:
        value = probe.measure(physics, draw)
    except Exception as error:  # the user's operator may raise anything
        lines = str(error).strip().splitlines() or [""]
        return Row(probe.name, word, None, limit, False, f"{type(error).__name__}: {lines[0]}")
    ok = math.isfinite(value) and (limit is None or value <= limit)
    return Row(probe.name, word, value, limit, ok, probe.note)
