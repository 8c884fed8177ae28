"""What is asked of a restoration of a cube, and what is recorded of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from restore.cubes import scale
from restore.cubes.cube import Cube
from restore.cubes.examine import Findings
from restore.metrics import band_psnr, spectral_angle
from restore.result import Result


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may say; see `restore cube`."""

    task: str
    noise: float | None = None
    rank: int | None = None
    factor: int = 2
    mask: Path | None = None
    keep: float | None = None
    direction: str = "vertical"
    solver: str | None = None
    steps: int | None = None
    samples: int | None = None
    seed: int = 0
    fill: bool = False
    key: str | None = None
    bands_axis: str | None = None
    device: str | None = None


def story(
    options: Options, result: Result, findings: Findings, sigma: float, notes: list[str]
) -> dict[str, Any]:
    """What stands beside the restored cube."""
    return {
        "kind": "restored cube",
        "task": options.task,
        "noise": sigma,
        "noise told": options.noise is not None,
        "bands from 1": {
            "missing": [b + 1 for b in findings.missing],
            "dead": [b + 1 for b in findings.dead],
            "noisy": [b + 1 for b in findings.noisy],
        },
        "notes": notes,
        "samples": len(result.samples),
        "status": result.status,
        "remedy": result.remedy,
        "misfit": result.misfit.tolist(),
        "seconds": result.cost.seconds,
        "solver notes": dict(result.notes),
        "provenance": dict(result.provenance),
    }


def quality(before: Cube, after: Cube, truth: Cube, good: torch.Tensor) -> dict[str, Any]:
    """Against the truth, every band of it scaled to [0, 1]; missing entries count as its mean."""
    units = scale.of_ranges(truth)
    x = units.to_unit(truth.data)[good][None]
    small = before.data
    if before.shape != truth.shape:
        size, whole = truth.shape[1:], torch.where(before.seen, small, 0)
        small = torch.nn.functional.interpolate(whole[None], size=size, mode="bicubic")[0]
    found: dict[str, Any] = {}
    for name, data in (("before", small), ("after", after.data)):
        u = units.to_unit(data)[good]
        u = torch.where(torch.isfinite(u), u, x[0].mean((1, 2))[:, None, None])[None]
        psnr = band_psnr(u, x, clip=False)[0]
        found[name] = {
            "psnr": float(psnr.mean()),
            "sam": float(spectral_angle(u, x)),
            "band psnr": [round(float(p), 3) for p in psnr],
        }
    return found
