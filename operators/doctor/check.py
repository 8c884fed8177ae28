"""The operator doctor: is this physics what the solvers take it for?

Most wrong reconstructions begin with an operator whose adjoint is not its adjoint, at one size or
in one precision. `check` measures, with numbers, on the size at hand; `sweep` on many.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics, Physics

from ..linalg import ConvergenceWarning
from ..svd import has_svd
from ..validate import image_size
from .probes import ANY, DECOMPOSED, FIRST, LINEAR, NONLINEAR, Probe, copied
from .vectors import Draw

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
        warning: that an iterative inverse stopped before its tolerance, or nothing.
    """

    name: str
    precision: str
    value: float | None
    limit: float | None
    ok: bool
    note: str
    warning: str = ""

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.1e}"
        limit = "reported" if self.limit is None else f"<= {self.limit:.0e}"
        verdict = "pass" if self.ok else "FAIL"
        note = f"{self.note}; {self.warning}" if self.warning else self.note
        return f"{verdict}  {self.name:<19}{self.precision}  {value:>8}  {limit:<9}{note}"


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        operator: name of the physics class.
        image_shape: `(C, H, W)` or `(C, D, H, W)` that it was checked on.
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

    Every operator is asked whether it keeps the precision, the device and its input, repeats
    itself, and treats the images of a batch alone. Linear operators are asked for linearity, the
    adjoint (relative to `|A u| |v|`), the gradient, the pseudo-inverse, the proximal map and the
    norm, and for the singular value decomposition where they have one; nonlinear ones for the
    gradient. A clone is examined, the operator itself is not touched.

    What the pseudo-inverse is held to is the operator's attribute `dagger_tolerance`, 1e-2 without
    one; None, for an approximate inverse such as filtered back-projection, is only reported. So is
    the gradient of a nonlinear operator whose attribute `surrogate` says what stands in for it.

    Args:
        physics: any deepinv physics.
        image_shape: `(C, H, W)` of one image, or `(C, D, H, W)` of one volume.
        seed: of the random images.

    Returns:
        A `Report`: `report.ok`, `report.rows`, and `str(report)` for reading.

    Raises:
        ValueError: a bad shape.
    """
    shape = image_size(image_shape, dims=(2, 3))
    device = next((b.device for b in physics.buffers()), torch.device("cpu"))
    rows: list[Row] = []
    with torch.no_grad():
        for dtype, rounding in ROUNDING.items():
            clone = copied(physics).to(dtype)
            draw = Draw(shape, dtype, device, seed)
            rows.append(_row(clone, FIRST, draw, rounding))
            if rows[-1].ok:
                rows.extend(_row(clone, probe, draw, rounding) for probe in _probes(physics))
    return Report(type(physics).__name__, shape, tuple(rows))


def _probes(physics: Physics) -> list[Probe]:
    if isinstance(physics, LinearPhysics):
        return ANY + LINEAR + (DECOMPOSED if has_svd(physics) else [])
    if surrogate := getattr(physics, "surrogate", ""):
        return ANY + [probe._replace(note=f"surrogate: {surrogate}") for probe in NONLINEAR]
    return ANY + NONLINEAR


def _row(physics: Physics, probe: Probe, draw: Draw, rounding: float) -> Row:
    word, limit = str(draw.dtype).removeprefix("torch."), None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            limit = probe.limit(physics, rounding)
            value = probe.measure(physics, draw)
    except Exception as error:  # the user's operator may raise anything
        lines = str(error).strip().splitlines() or [""]
        return Row(probe.name, word, None, limit, False, f"{type(error).__name__}: {lines[0]}")
    late = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    ok = math.isfinite(value) and (limit is None or value <= limit)
    return Row(probe.name, word, value, limit, ok, probe.note, late[0] if late else "")
