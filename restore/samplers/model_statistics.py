"""What DPM-Solver-v3 must know of a model: how its noise depends on image and time, on average.

Zheng, Lu, Chen, Zhu, *DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model
Statistics*, NeurIPS 2023, arXiv:2310.13268, section 3.1. For each `lam`, elementwise,

    l = E[diag(sigma d eps / dx)]       f = (sigma eps - l x) / alpha
    s = Cov(f, f') / Var(f)             b = E[f'] - s E[f]

with `f' = df / dlam` along trajectories: `l` removes from the noise what is linear in the image,
`s` and `b` predict how the rest changes. In `y = x / alpha`, of noise `u = e^-lam`, they do not
depend on the schedule:

    sigma eps / alpha = y - D(y, u),    l = 1 - E[diag(dD / dy)],    f = (1 - l) y - D

`Statistics` are tables of a model (`estimate_statistics.estimate`), `GaussianStatistics` the closed
form for Gaussian data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from operators.files import write_tensors
from restore.files import check_free

Coefficients = tuple[Tensor, Tensor, Tensor]
"""`l`, `s` and `b`, each `(Q, *one)` with `one` broadcasting to an image `(C, *spatial)`."""


class ModelStatistics(Protocol):
    """Coefficients as functions of `lam`."""

    def at(self, lam: Tensor) -> Coefficients:
        """Return `l`, `s` and `b` at `lam` `(Q,)`, float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class GaussianStatistics:
    """Closed form for data `N(m, diag(c^2))`.

    Such data have `f = -l m` without variation: `b` follows from any `s`, here `-(1 - l)`, with
    which `g` is the output of a preconditioned network (`gaussian_adams`).

    Args:
        mean: m of every element `(C, *spatial)`, or one number.
        std: c likewise.
    """

    mean: float | Tensor
    std: float | Tensor

    def at(self, lam: Tensor) -> Coefficients:
        """See `ModelStatistics`."""
        mean, std = (
            torch.as_tensor(t, dtype=torch.float64, device="cpu") for t in (self.mean, self.std)
        )
        mean, std = torch.broadcast_tensors(mean, std)
        noise = torch.exp(-2 * lam).reshape(-1, *[1] * std.ndim)
        l = noise / (std**2 + noise)  # noqa: E741 -- the paper's symbol
        return l, l - 1, l * (1 - l) * mean


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Tables of a model; between their levels, cubics through four neighbours.

    Args:
        lam: half log-SNR of each level `(M,)`, rising, M >= 4.
        l: `(M, *one)`.
        s: `(M, *one)`.
        b: `(M, *one)`, in units of the images.

    Raises:
        ValueError: tables that do not match.
    """

    lam: Tensor
    l: Tensor  # noqa: E741
    s: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        shapes = {tuple(t.shape) for t in (self.l, self.s, self.b)}
        rising = self.lam.ndim == 1 and len(self.lam) > 3 and bool((self.lam.diff() > 0).all())
        if not rising or len(shapes) > 1 or len(self.l) != len(self.lam):
            raise ValueError(
                "statistics need four or more rising lam and tables l, s, b of one shape with a "
                f"row for each, found lam {tuple(self.lam.shape)} and tables {sorted(shapes)}."
            )

    def at(self, lam: Tensor) -> Coefficients:
        """See `ModelStatistics`.

        Raises:
            ValueError: outside the table.
        """
        low, high = float(self.lam[0]), float(self.lam[-1])
        if float(lam.min()) < low - 1e-9 or float(lam.max()) > high + 1e-9:
            raise ValueError(
                f"these statistics cover lam {low:.4g} to {high:.4g}, found {float(lam.min()):.4g} "
                f"to {float(lam.max()):.4g}; estimate them on a wider table."
            )
        first = (torch.searchsorted(self.lam, lam) - 2).clamp(0, len(self.lam) - 4)
        rows = first[:, None] + torch.arange(4)
        nodes = self.lam[rows]
        weights = torch.ones_like(nodes)
        for j in range(4):
            others = [m for m in range(4) if m != j]
            apart = nodes[:, j, None] - nodes[:, others]
            weights[:, j] = ((lam[:, None] - nodes[:, others]) / apart).prod(1)

        def between(values: Tensor) -> Tensor:
            return torch.einsum("qj,qj...->q...", weights, values[rows])

        return between(self.l), between(self.s), between(self.b)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; refuses one that exists."""
        check_free(path)
        tables = {"lam": self.lam, "l": self.l, "s": self.s, "b": self.b}
        write_tensors(Path(path), tables, {"kind": "model statistics"})

    @classmethod
    def load(cls, path: str | Path) -> "Statistics":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file without the four tables.
        """
        try:
            tables = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"'{path}' is not a safetensors file; write it again.") from error
        if set(tables) != {"lam", "l", "s", "b"}:
            raise ValueError(
                f"'{path}' holds {', '.join(sorted(tables))}, expected lam, l, s and b; give a "
                "file that Statistics.save wrote."
            )
        return cls(**tables)
