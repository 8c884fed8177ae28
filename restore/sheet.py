"""A sheet of images drawn from a prior, as one picture, and how it was made beside it."""

import json
import time
from pathlib import Path

import torch
from torch import Tensor

import priors
from operators.words import nearest
from priors import Card
from restore import __version__, draw, images, students
from restore.draw import Drawn
from restore.files import atomic, check_free
from restore.filework import story_path, usable_device
from restore.samplers import grid as grids
from restore.samplers.grid import Grid
from restore.samplers.sampler import Sampler

_GAP = 2  # pixels of white between images
_JUMPS = 4  # of a student


def draw_sheet(
    out: Path,
    *,
    prior: str,
    student: str | None,
    count: int,
    size: int,
    sampler: str | None,
    calls: int | None,
    grid: str,
    seed: int,
    device: str | None,
    overwrite: bool,
    progress: bool | None,
) -> Drawn:
    """Draw images and write them side by side; see `restore sample`.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: what does not fit, in one sentence.
    """
    images.check_output(out, source=None, overwrite=overwrite)
    check_free(story_path(out), overwrite=overwrite)
    place = usable_device(device)
    if student is not None:
        drawn = _jumps(student, count, size, calls or _JUMPS, seed, place)
        about = {"student": student}
    else:
        model = priors.load(prior).to(place)
        walker, walk = _walk(sampler, grid, model.card)
        shape = (model.card.channels or 1, size, size)
        drawn = draw.draw(
            model,
            count,
            shape,
            sampler=walker,
            calls=calls or draw.DEFAULT_CALLS,
            grid=walk,
            seed=seed,
            progress=progress,
        )
        about = {"prior": prior, "sha256": model.card.sha256, "sampler": sampler, "grid": grid}
    images.write(out, arrange(drawn.samples), overwrite=overwrite)
    story = about | {
        "restore": __version__,
        "torch": torch.__version__,
        "count": count,
        "size": size,
        "calls": drawn.calls,
        "seed": seed,
        "clipped": float(((drawn.samples < 0) | (drawn.samples > 1)).float().mean()),
    }
    with atomic(story_path(out), overwrite=True) as partial:
        partial.write_text(json.dumps(story, indent=2) + "\n", encoding="utf-8")
    return drawn


def arrange(samples: Tensor) -> Tensor:
    """Place images `(N, C, H, W)` on one white sheet `(1, C, H', W')`, about as wide as high."""
    from torchvision.utils import make_grid

    across = max(1, round(len(samples) ** 0.5 + 0.3))
    sheet = make_grid(samples.clamp(0, 1).cpu().float(), nrow=across, padding=_GAP, pad_value=1.0)
    return sheet[None, : samples.shape[1]]


def _jumps(name: str, count: int, size: int, calls: int, seed: int, device: str) -> Drawn:
    student = students.load(name).to(device)
    started = time.perf_counter()
    shape = (student.card.channels or 1, size, size)
    samples = student.draw(count, shape, calls=calls, seed=seed)
    return Drawn(samples, calls, time.perf_counter() - started)


def _walk(sampler: str | None, grid: str, card: Card) -> tuple[str | Sampler, str | Grid]:
    """Return sampler and grid: names, or what a file of `restore search` says."""
    if not grid.endswith(".json"):
        if grid not in grids.GRIDS:
            raise ValueError(f"unknown grid '{grid}'; {nearest(grid, list(grids.GRIDS))}")
        return sampler or draw.DEFAULT_SAMPLER, grid
    from restore.search import stored

    return stored.load(Path(grid), sampler, card)
