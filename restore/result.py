"""What a solver found, how sure it is, what it cost and how to get it again."""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import torch
from deepinv.physics import Physics
from torch import Tensor

from priors import Denoiser

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from restore.calibration import Calibration

Status = Literal["ok", "diverged", "inconsistent with data"]

_INCONSISTENT = 2.0  # residual power, in noise powers, above which a sample does not explain y
_FEW = 3.3  # of few measurements: standard scores above which chance does not explain it either


@dataclass(frozen=True)
class Cost:
    """What a restoration cost.

    Attributes:
        forwards: denoiser calls a sample.
        vjps: vector-Jacobian products through the denoiser a sample.
        seconds: wall time in all.
        peak_memory: bytes; on the CPU the largest resident size of the whole process so far.
    """

    forwards: float
    vjps: float
    seconds: float
    peak_memory: int

    @property
    def calls(self) -> float:
        """Network calls a sample: forwards and vector-Jacobian products."""
        return self.forwards + self.vjps


@dataclass(frozen=True)
class Result:
    """Samples of the clean image given the measurement, and what is known about them.

    Attributes:
        samples: `(S, B, C, *spatial)`, never clipped.
        misfit: `(B,)`, `|A x - y|^2 / (m sigma_y^2)` averaged over samples; near 1 when consistent
            with the data, below 1 when noise was fitted. Noise below 1/255 counts as 1/255; noise
            that is not Gaussian counts with the variance that its model expects.
        status: "ok", "diverged" or "inconsistent with data".
        remedy: what to change when the status is not ok, else empty.
        cost: see `Cost`.
        provenance: versions, seed, solver constants, operator, prior and hash of its weights.
        notes: what the solver itself reports of its run, by name; a list has one entry an image.
        spread: the posterior's std `(B, C, *spatial)` of a solver that knows it without samples.
    """

    samples: Tensor
    misfit: Tensor
    status: Status
    remedy: str
    cost: Cost
    provenance: Mapping[str, object] = field(default_factory=dict)
    notes: Mapping[str, object] = field(default_factory=dict)
    spread: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """Mean of the samples `(B, C, *spatial)`."""
        return self.samples.mean(0)

    @property
    def std(self) -> Tensor:
        """Standard deviation `(B, C, *spatial)`: `spread`, or that over samples, zero of one."""
        if self.spread is not None:
            return self.spread
        if len(self.samples) == 1:
            return torch.zeros_like(self.samples[0])
        return self.samples.std(0)

    def interval(
        self, level: float = 0.9, *, calibration: "Calibration | None" = None
    ) -> tuple[Tensor, Tensor]:
        """Return the central interval that holds `level` of the samples, pixel by pixel.

        Where `spread` is known it is that of a normal distribution about the mean.

        Args:
            level: in (0, 1).
            calibration: stretches the interval so that it covers what it promises; see
                `restore.calibration`. Its own level must be the one asked for.

        Returns:
            Lower and upper bounds `(B, C, *spatial)`.

        Raises:
            ValueError: for a level outside (0, 1), fewer samples than the level can tell apart, or
                a calibration for something else.
        """
        if calibration is not None:
            if calibration.level != level:
                raise ValueError(
                    f"the calibration is for {calibration.level:.0%} intervals, not {level:.0%}; "
                    f"ask for level={calibration.level}."
                )
            return calibration.interval(self)
        if self.spread is not None:
            return self._normal_interval(self.spread, level)
        needed = samples_for(level)
        if len(self.samples) < needed:
            raise ValueError(
                f"a {level:.0%} interval needs at least {needed} samples, found "
                f"{len(self.samples)}; solve with samples={needed} or lower the level."
            )
        tail = (1 - level) / 2
        ordered = self.samples.sort(0).values
        return order_statistic(ordered, tail), order_statistic(ordered, 1 - tail)

    def _normal_interval(self, spread: Tensor, level: float) -> tuple[Tensor, Tensor]:
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, found {level}.")
        half = NormalDist().inv_cdf((1 + level) / 2) * spread
        return self.mean - half, self.mean + half

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write everything to one safetensors file, atomically.

        Raises:
            FileExistsError: when the file exists and `overwrite` is not set.
        """
        from operators.files import write_tensors

        path = Path(path)
        if path.exists() and not overwrite:
            raise FileExistsError(f"'{path}' exists; choose another name or allow overwriting.")
        about = {
            "status": self.status,
            "remedy": self.remedy,
            "cost": asdict(self.cost),
            "provenance": self.provenance,
            "notes": self.notes,
        }
        tensors = {"samples": self.samples, "misfit": self.misfit}
        if self.spread is not None:
            tensors["spread"] = self.spread
        write_tensors(path, tensors, {"restore-result": json.dumps(about)})
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it is not a result.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"no result at '{path}'.")
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["restore-result"])
                samples, misfit = file.get_tensor("samples"), file.get_tensor("misfit")
                spread = file.get_tensor("spread") if "spread" in file.keys() else None
        except (SafetensorError, KeyError):
            raise ValueError(f"'{path.name}' is not a result that Result.save wrote.") from None
        return cls(
            samples=samples,
            misfit=misfit,
            status=about["status"],
            remedy=about["remedy"],
            cost=Cost(**about["cost"]),
            provenance=about["provenance"],
            notes=about.get("notes", {}),
            spread=spread,
        )

    def plot(self, *, measurement: Tensor | None = None, truth: Tensor | None = None) -> "Figure":
        """Draw the first image: measurement, mean, standard deviation, truth where given.

        Args:
            measurement: `(B, C, H, W)`, when it is an image.
            truth: `(B, C, H, W)`.

        Returns:
            A matplotlib figure, neither shown nor saved.
        """
        from restore.plot import plot_result

        return plot_result(self, measurement=measurement, truth=truth)

    def __repr__(self) -> str:
        s, b, *image = self.samples.shape
        fit = ", ".join(f"{m:.2f}" for m in self.misfit.tolist()[:4])
        more = "" if b <= 4 else ", ..."
        lines = [
            f"Result: {self.status}, {s} sample{'s' * (s != 1)} of {b} image{'s' * (b != 1)} "
            f"{tuple(image)} by {self.provenance.get('solver', {}).get('solver', '?')}",  # type: ignore[union-attr]
            f"  data misfit {fit}{more} (1 = consistent), mean std {float(self.std.mean()):.4f}",
            f"  {self.cost.forwards:.0f} forwards + {self.cost.vjps:.0f} VJPs a sample, "
            f"{self.cost.seconds:.1f} s, {self.cost.peak_memory / 2**20:.0f} MiB",
        ]
        lines += [f"  {name}: {_brief(value)}" for name, value in self.notes.items()]
        return "\n".join(lines + ([f"  remedy: {self.remedy}"] if self.remedy else []))


def _brief(value: object) -> str:
    """Show a note; of a list its first entries."""
    if not isinstance(value, list):
        return str(value)
    shown = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value[:4])
    return shown + (", ..." if len(value) > 4 else "")


def samples_for(level: float) -> int:
    """Fewest samples whose extremes are as far apart as a central interval of this level.

    Raises:
        ValueError: for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}.")
    return math.ceil(2 / (1 - level) - 1e-9) - 1


def order_statistic(ordered: Tensor, q: float) -> Tensor:
    """The q-quantile of sorted samples `(S, ...)` at which they are exchangeable with the truth.

    The k-th of S samples has the probability `k / (S + 1)` that one more draw lies below it; ranks
    between two samples are interpolated. numpy's default would make intervals too narrow.
    """
    rank = min(max(q * (len(ordered) + 1) - 1, 0.0), len(ordered) - 1.0)
    low = math.floor(rank + 1e-9)
    return torch.lerp(ordered[low], ordered[min(low + 1, len(ordered) - 1)], rank - low)


def judge(
    misfit: Tensor, diverged_at: int | None, remedy: str, measurements: Tensor | None = None
) -> tuple[Status, str]:
    """Turn numbers into a status and what to do about it.

    Args:
        misfit: `(B,)`, see `Result.misfit`.
        diverged_at: the step at which the solver gave up, or None.
        remedy: the solver's advice.
        measurements: how many there are of every image `(B,)`; a misfit of a few is chance.
    """
    if diverged_at is not None or not bool(torch.isfinite(misfit).all() | misfit.isnan().all()):
        return "diverged", f"stopped at step {diverged_at}; {remedy}"
    if bool((misfit > _tolerated(misfit, measurements)).any()):
        worst = float(misfit.max())
        return "inconsistent with data", (
            f"the residual has {worst:.1f} times the power of the noise: give the true noise "
            f"level, check the operator, or {remedy}"
        )
    return "ok", ""


def _tolerated(misfit: Tensor, measurements: Tensor | None) -> Tensor:
    """Largest misfit of a sound sample; of m measurements a chi-square (Wilson, Hilferty 1931)."""
    limit = torch.full_like(misfit, _INCONSISTENT)
    if measurements is None:
        return limit
    spread = 2 / (9 * measurements.to(misfit).clamp_min(1))
    return torch.maximum(limit, (1 - spread + _FEW * spread.sqrt()) ** 3)


def provenance(solver: object, prior: Denoiser, operator: Physics, seed: int) -> dict[str, object]:
    """Return everything needed to run it again, as plain values."""
    import deepinv

    from restore import __version__

    assert is_dataclass(solver)
    assert not isinstance(solver, type)
    return {
        "restore": __version__,
        "torch": torch.__version__,
        "deepinv": deepinv.__version__,
        "python": platform.python_version(),
        "seed": seed,
        "solver": {"solver": getattr(solver, "name", "?"), **asdict(solver)},
        "prior": {"name": prior.card.name, "sha256": prior.card.sha256},
        "operator": getattr(operator, "spec", type(operator).__name__),
    }
