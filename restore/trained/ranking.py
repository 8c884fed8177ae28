"""Which starts are good: seeds of any solver, ranked by what comes out of them.

Seeds that are better than others for many images at once are called golden, their opposites
inferior. Whether there are any is a question of statistics: the best of K is good on the images it
was chosen by even if all are alike. Every ranking therefore carries the score that its choice would
have had on images left out of it, and the gap from best to median with its standard error.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from deepinv.physics import Physics
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from operators.validate import one_of
from priors import Denoiser
from restore import metrics
from restore.solver import Solver

Metric = Callable[..., Tensor]
"""`metric(x, truth)`, or `metric(x)` where no truth is known: `(B,)`, lower is better."""

_SCALES = 3  # of the gradients: 1, 2 and 4 pixels


def square_error(x: Tensor, truth: Tensor) -> Tensor:
    """Mean square error `(B,)`, float64. Of many starts it prefers those nearest to zero."""
    return (x - truth).double().square().flatten(1).mean(1)


def dissimilarity(x: Tensor, truth: Tensor) -> Tensor:
    """1 - SSIM `(B,)`, float64."""
    return 1 - metrics.ssim(x, truth)


def gradient_distance(x: Tensor, truth: Tensor) -> Tensor:
    """Mean difference of gradient magnitudes at three scales `(B,)`, float64: sharpness in place.

    It does not ask in which direction an edge runs, and needs no trained features.
    """
    x, truth = x.double(), truth.double()
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(_SCALES):
        total += (_slope(x) - _slope(truth)).abs().flatten(1).mean(1)
        x, truth = F.avg_pool2d(x, 2), F.avg_pool2d(truth, 2)
    return total / _SCALES


def _slope(x: Tensor) -> Tensor:
    down, right = x.diff(dim=-2)[..., :, :-1], x.diff(dim=-1)[..., :-1, :]
    return torch.sqrt(down.square() + right.square())


def feature_distance(x: Tensor, truth: Tensor) -> Tensor:
    """Distance of a classifier's features; see `restore.bench.perceptual`."""
    from restore.bench import perceptual

    return perceptual.feature_distance(x, truth)


METRICS: dict[str, Metric] = {
    "mse": square_error,
    "ssim": dissimilarity,
    "gradient": gradient_distance,
    "features": feature_distance,
}


def measure_of(metric: str | Metric) -> tuple[str, Metric]:
    """Name and function of a metric given as either.

    Raises:
        ValueError: unknown name.
    """
    if isinstance(metric, str):
        return metric, METRICS[one_of("metric", metric, list(METRICS))]
    return getattr(metric, "__name__", "custom"), metric


@dataclass(frozen=True)
class Ranking:
    """What K candidates scored on R images, lower being better.

    Attributes:
        seeds: of the candidates.
        scores: `(K, R)` float64; NaN where a candidate had been dropped already.
        metric: what was measured.
    """

    seeds: tuple[int, ...]
    scores: Tensor
    metric: str

    @property
    def means(self) -> Tensor:
        """Mean score of every candidate `(K,)`, over the images it was tried on."""
        return self.scores.nanmean(1)

    @property
    def order(self) -> tuple[int, ...]:
        """Seeds from best to worst, those that were dropped early last."""
        tried = (~self.scores.isnan()).sum(1).tolist()
        means = self.means.tolist()
        places = sorted(range(len(means)), key=lambda k: (-tried[k], means[k]))
        return tuple(self.seeds[k] for k in places)

    @property
    def best(self) -> int:
        """The golden seed."""
        return self.order[0]

    @property
    def score(self) -> float:
        """Mean score of the golden seed, on the images that chose it: too good to be true."""
        return float(self._full.mean(1).min())

    @property
    def left_out(self) -> float:
        """Score of the choice on images that did not choose: leave one out, choose, score it."""
        return float(self._left_out.mean())

    @property
    def typical(self) -> float:
        """Mean score of all candidates that saw all images: what a start costs by chance."""
        return float(self._full.mean())

    @property
    def gain(self) -> tuple[float, float]:
        """What choosing gains on images left out, and its standard error over images."""
        return _mean_and_error(self._full.mean(0) - self._left_out)

    @property
    def gap(self) -> tuple[float, float]:
        """Distance from the best to the median candidate, and its standard error over images."""
        full = self._full
        places = full.mean(1).argsort()
        return _mean_and_error(full[places[(len(full) - 1) // 2]] - full[places[0]])

    @property
    def spread(self) -> Tensor:
        """Standard deviation over images of every candidate's score `(K,)`."""
        return torch.stack([row[~row.isnan()].std() for row in self.scores])

    @property
    def doubt(self) -> str | None:
        """One sentence if the choice may be chance: a gap below two standard errors."""
        gap, error = self.gap
        if len(self._full) > 1 and self.scores.shape[1] > 1 and gap >= 2 * error and gap > 0:
            return None
        return (
            f"the best of {len(self.seeds)} starts is only {gap:.3g} +- {error:.1g} better than "
            f"the median on {self.scores.shape[1]} images, which may be chance; give more images."
        )

    @property
    def _full(self) -> Tensor:
        return self.scores[~self.scores.isnan().any(1)]

    @property
    def _left_out(self) -> Tensor:
        """Scores `(R,)`, of every image that of the candidate which is best on the others."""
        full = self._full
        others = full.sum(1, keepdim=True) - full
        return full.gather(0, others.argmin(0, keepdim=True))[0]


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return float(values.mean()), error


def rank_seeds(
    solver: Solver,
    y: Tensor,
    operator: Physics,
    prior: Denoiser,
    metric: str | Metric,
    *,
    seeds: Sequence[int] = range(64),
    truth: Tensor | None = None,
    progress: bool | None = None,
) -> Ranking:
    """Rank the seeds of any solver on the measurements of some images.

    A seed is the same noise for every image, whatever is restored beside it. For a solver that
    draws noise on its way all of that is ranked together.

    Args:
        solver: any; its first sample is scored.
        y: measurements `(R, ...)`.
        operator: what measured.
        prior: of the solver.
        metric: a word of `METRICS`, or a function; see `Metric`.
        seeds: the candidates.
        truth: clean images `(R, C, *spatial)`; without them the metric sees the restored alone.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError: unknown metric, one that needs the truth, or what the solver refuses.
    """
    name, measure = measure_of(metric)
    if truth is None and isinstance(metric, str):
        raise ValueError(f"metric '{name}' compares with the truth and none is given; give truth=.")
    rows = []
    for seed in tqdm(seeds, disable=None if progress is None else not progress, leave=False):
        result = solver(y, operator, prior, seed=seed, progress=False)
        x = result.samples[0]
        row = measure(x) if truth is None else measure(x, truth)
        rows.append(torch.full_like(row, math.inf) if result.status == "diverged" else row)
    return Ranking(tuple(seeds), torch.stack(rows).double().cpu(), name)
