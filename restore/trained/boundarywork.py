"""What `restore boundary` does: weights and a folder of images in; a start, judged, out."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from priors.patches import Patches
from restore import trained
from restore.files import check_free
from restore.filework import usable_device
from restore.trained.boundary import Row, compare, search
from restore.trained.pair_prior import PairPrior
from restore.trained.pairs import Batch, Pairs
from restore.trained.ranking import Ranking
from restore.trained.restorer import Restorer
from restore.trained.trainwork import read_scenes

log = logging.getLogger("restore")

_DETERMINISTIC = "adams-2"  # sampler, where a solver has a choice of them


@dataclass(frozen=True)
class Report:
    """What a search found, and how it does on other images.

    Attributes:
        ranking: of the candidates, on the images of the search.
        rows: starts compared on other images.
    """

    ranking: Ranking
    rows: Sequence[Row]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        ranking = self.ranking
        return {
            "metric": ranking.metric,
            "seeds": list(ranking.order),
            "score": ranking.score,
            "left_out": ranking.left_out,
            "typical": ranking.typical,
            "gain": list(ranking.gain),
            "doubt": ranking.doubt,
            "held_out": [asdict(row) for row in self.rows],
        }

    def table(self) -> Table:
        """One line for every start, judged on images that did not choose."""
        table = Table(box=SIMPLE_HEAD, padding=0)
        for head in ("start", self.ranking.metric, "over seeds", "PSNR", "below random"):
            table.add_column(head, justify="left" if head == "start" else "right")
        for row in self.rows:
            seeds = "" if row.over_seeds != row.over_seeds else f"{row.over_seeds:.2g}"
            gain = f"{row.gain:+.2g} +- {row.error:.1g}"
            table.add_row(row.start, f"{row.score:.4g}", seeds, f"{row.psnr:.2f}", gain)
        return table


def search_files(
    weights: str,
    sources: Sequence[Path],
    out: Path,
    *,
    candidates: int = 64,
    pairs: int = 8,
    metric: str = "gradient",
    steps: int | None = None,
    size: int | None = None,
    seed: int = 0,
    halving: bool = False,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Report:
    """Search a start for weights on half of the pictures, judge it on the other half.

    Args:
        weights: a name of `restore.trained.available()` or a file of `restore train`.
        sources: clean pictures and folders of them, two at least.
        out: safetensors file.
        candidates: random starts that are tried.
        pairs: crops that choose, and as many others that judge.
        metric: a word of `restore.trained.ranking.METRICS`.
        steps: of the solver; its own by default.
        size: side of the crops, that of the training by default.
        seed: of candidates and crops.
        halving: drop three candidates in four after 2, 4, 8, ... crops.
        device: by default "cuda" where there is one.
        overwrite: replace an existing file.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError, OSError: one sentence on what does not fit and what to do.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"'{out.name}' must end in .safetensors, the only format of starts here.")
    check_free(out, overwrite=overwrite)
    solver, prior = trained.load(weights)
    if not isinstance(solver, Restorer):
        raise ValueError(f"'{weights}' starts from no noise; search for that of a diffusion.")
    solver, place = _deterministic(solver, steps), usable_device(device)
    prior = prior.to(place)
    scenes = read_scenes(sources, size or prior.trained.patch)
    if len(scenes) < 2:
        raise ValueError("a search needs two pictures, one of them to judge by, found 1; add one.")
    side = size or prior.trained.patch
    chosen_by, judged_by = (
        _crops(prior, scenes[half::2], side, pairs, seed + half, place) for half in (0, 1)
    )
    boundary, ranking = search(
        solver,
        prior,
        chosen_by,
        candidates=candidates,
        seed=seed,
        metric=metric,
        halving=halving,
        progress=progress,
    )
    rows = compare(solver, prior, judged_by, boundary, metric=metric, seed=seed + candidates)
    boundary = replace(
        boundary, about={**boundary.about, "held_out": [_plain(row) for row in rows]}
    )
    boundary.save(out)
    if ranking.doubt is not None:
        log.warning("%s", ranking.doubt)
    return Report(ranking, rows)


def _deterministic(solver: Restorer, steps: int | None) -> Restorer:
    """The solver with another number of steps, and without fresh noise where that is a choice."""
    known = {field.name for field in fields(solver)}
    if steps is not None:
        if "steps" not in known:
            raise ValueError(f"solver '{solver.name}' has no option steps; leave --steps out.")
        solver = replace(solver, **{"steps": steps})
    if not solver.walker.random:
        return solver
    for name, value in (("eta", 0.0), ("sampler", _DETERMINISTIC)):
        if name in known:
            log.warning(
                "%s draws noise on its way; the start is for %s=%s.", solver.name, name, value
            )
            return replace(solver, **{name: value})
    return solver


def _crops(
    prior: PairPrior, scenes: Sequence[Tensor], side: int, count: int, seed: int, device: str
) -> Batch:
    plain = Patches(scenes, size=side, batch=count).plain_batch
    about = prior.trained
    pairs = Pairs(plain, about.operator, about.noise)
    x_0, y_0 = pairs(torch.Generator().manual_seed(seed))
    return Batch(x_0.to(device), y_0.to(device))


def _plain(row: Row) -> dict[str, Any]:
    """As JSON has it, which knows no NaN."""
    return {k: None if v != v else v for k, v in asdict(row).items()}
