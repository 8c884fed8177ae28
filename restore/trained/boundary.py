"""One start for all images, found once: the optimal boundary of a diffusion ODE.

Ma, Yang, Yang, Fu, Liu, *Solving Diffusion ODEs with Optimal Boundary Conditions for Better Image
Super-Resolution*, ICLR 2024, arXiv:2305.15357.

    symbol        name here     meaning
    x_T           eps           the start; its noise alone, so that images can share it
    h_theta       solver        any deterministic restorer, at one number of steps
    R             pairs         clean and degraded images to choose by
    K             candidates    random starts that are tried
    M             metric        distance to the clean image; the paper's is perceptual

    eps* = argmin over K draws of sum over R of M(h_theta(eps, y_i), z_i)

**What to expect.** For a Gaussian posterior of covariance C that does not depend on y the start
enters as `C^(1/2) eps` whatever the image, so that sharing is exact. Under the square error the
best start is then zero: the mean, `10 log10 2 = 3.01` dB better than random ones, and blurred.
White C in d dimensions leaves little to a choice among random starts: the smallest of K values of
`|eps|^2 / d` is about `1 - (2 / d)^(1/2) E[max of K normals]`, 0.07 dB for a hundred starts of
64x64 in colour. Where C turns with y, or the posterior has several modes, what is good for one
image is bad for another.

A start found is of use for its own network, solver, steps and size only. It is judged on other
images than those that chose it, beside random starts, zero, scaled noise, a mean of samples and a
regression (`compare`).

Cost: K R restorations, once. With `halving` a fraction: all candidates are tried on two images,
the best quarter, eight at least, on two more, the best of these on four more, and so on; gap and
gain are then those of the last eight and more. Restoring costs no more than before.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from operators.validate import whole
from restore.metrics import psnr
from restore.trained.pair_prior import PairPrior
from restore.trained.pairs import Batch
from restore.trained.ranking import Metric, Ranking, measure_of
from restore.trained.restorer import Restorer, regress
from restore.trained.start import Boundary, constants, refuse_random, seeded_noise

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEDS = 8  # of the random starts that everything is compared with
_PER_CALL = 16  # images in one network call
_FIRST = 2  # images that all candidates see under halving
_KEPT, _FINALISTS = 4, 8  # one candidate in so many goes on, but so many at least


class Found(NamedTuple):
    """A start, and how it was chosen."""

    boundary: Boundary
    ranking: Ranking


def search(
    solver: Restorer,
    prior: PairPrior,
    pairs: Batch,
    *,
    candidates: int = 64,
    seed: int = 0,
    metric: str | Metric = "gradient",
    halving: bool = False,
    progress: bool | None = None,
) -> Found:
    """Find the start that is best for all pairs; see the module's docstring.

    Candidate k is the noise of seed `seed + k`, so that more candidates contain fewer. They are
    tried on the same images.

    Args:
        solver: deterministic; the start is for its constants.
        prior: its network.
        pairs: clean and degraded images of one size, none of which is to be judged by later.
        candidates: K.
        seed: of the first.
        metric: a word of `restore.trained.ranking.METRICS`, or a function of `(x, truth)`.
        halving: drop three candidates in four after 2, 4, 8, ... images.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError: the solver draws noise on its way, no candidates, or an unknown metric.
    """
    refuse_random(solver)
    whole("candidates", candidates, low=1, do="64 is quick, 512 thorough")
    name, measure = measure_of(metric)
    shape, seeds = tuple(pairs.x_0.shape[1:]), range(seed, seed + candidates)
    scores = torch.full((candidates, len(pairs.x_0)), math.nan, dtype=torch.float64)
    rounds = list(_rounds(candidates, len(pairs.x_0), halving))
    total = sum(kept * (end - begin) for kept, begin, end in rounds)
    with tqdm(total=total, disable=None if progress is None else not progress) as bar:
        for kept, begin, end in rounds:
            alive = scores[:, :begin].sum(1).argsort(stable=True)[:kept]
            part = Batch(pairs.x_0[begin:end], pairs.y_0[begin:end])
            for k in alive.tolist():
                x = restored(solver, prior, part.y_0, seeded_noise(seeds[k], shape))
                scores[k, begin:end] = measure(x, part.x_0).double().cpu()
                bar.update(end - begin)
    ranking = Ranking(tuple(seeds), scores, name)
    about = {
        "solver": solver.name,
        "constants": constants(solver),
        "weights": prior.card.name,
        "sha256": prior.card.sha256,
        "operator": prior.trained.operator,
        "seed": ranking.best,
        "candidates": candidates,
        "pairs": len(pairs.x_0),
        "halving": halving,
        "metric": name,
        "score": ranking.score,
        "left_out": ranking.left_out,
        "typical": ranking.typical,
        "order": list(ranking.order),
    }
    return Found(Boundary(seeded_noise(ranking.best, shape), about), ranking)


def _rounds(candidates: int, images: int, halving: bool) -> Iterator[tuple[int, int, int]]:
    """How many candidates are tried on which images."""
    begin, end, kept = 0, min(_FIRST, images) if halving else images, candidates
    while True:
        yield kept, begin, end
        if end == images:
            return
        begin, end, kept = end, min(2 * end, images), max(min(kept, _FINALISTS), -(-kept // _KEPT))


def restored(solver: Restorer, prior: PairPrior, y_0: Tensor, noise: Tensor) -> Tensor:
    """Restore degraded images `(B, C, *spatial)` from one start, a few at a time."""
    with torch.no_grad():
        parts = [solver.around(prior, part, noise=noise)[0] for part in y_0.split(_PER_CALL)]
    return torch.cat(parts)


@dataclass(frozen=True)
class Row:
    """One start, judged.

    Attributes:
        start: its name.
        score: mean over images, and over seeds where there are several; lower is better.
        over_seeds: standard deviation over seeds of that mean, NaN where there is one.
        psnr: mean, in dB.
        gain: by how much the score is below that of random starts, image by image.
        error: standard error of the gain over images.
    """

    start: str
    score: float
    over_seeds: float
    psnr: float
    gain: float
    error: float


def compare(
    solver: Restorer,
    prior: PairPrior,
    pairs: Batch,
    boundary: Boundary,
    *,
    metric: str | Metric = "gradient",
    seed: int = 10_000,
    seeds: int = SEEDS,
) -> list[Row]:
    """Judge a start on images that did not choose it, beside everything that is simpler.

    Args:
        solver: deterministic.
        prior: its network.
        pairs: clean and degraded images, other than those of the search.
        boundary: the start.
        metric: see `search`.
        seed: of the first random start, no candidate of the search.
        seeds: number of random starts.

    Returns:
        Random starts, scaled by each of `SCALES` (0 is the start at zero); the mean of the random
        samples; the network's own regression; the start that was found.
    """
    refuse_random(solver)
    _, measure = measure_of(metric)
    x_0, y_0 = pairs
    shape = tuple(x_0.shape[1:])
    noises = [seeded_noise(seed + i, shape) for i in range(seeds)]

    def at(scale: float) -> Tensor:
        used = noises if scale else noises[:1]
        return torch.stack([restored(solver, prior, y_0, scale * noise) for noise in used])

    randoms = at(1.0)
    chance = torch.stack([measure(x, x_0).double().cpu() for x in randoms]).mean(0)
    judge = _judge(measure, x_0, chance)
    named = {c: f"noise x {c:g}" for c in SCALES} | {0.0: "zero", 1.0: "random"}
    rows = [judge(named[c], randoms if c == 1 else at(c)) for c in reversed(SCALES)]
    rows.append(judge(f"mean of {seeds} random", randoms.mean(0, keepdim=True)))
    rows.append(judge("regression", regress(prior, y_0)[None]))
    rows.append(judge("found", restored(solver, prior, y_0, boundary.noise_for(shape))[None]))
    return rows


def _judge(measure: Metric, x_0: Tensor, chance: Tensor) -> Callable[[str, Tensor], Row]:
    def judge(name: str, drawn: Tensor) -> Row:
        scores = torch.stack([measure(x, x_0).double().cpu() for x in drawn])
        over_seeds = float(scores.mean(1).std()) if len(scores) > 1 else math.nan
        gain = chance - scores.mean(0)
        error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else math.nan
        decibels = torch.stack([psnr(x, x_0) for x in drawn]).mean()
        mean = float(scores.mean())
        return Row(name, mean, over_seeds, float(decibels), float(gain.mean()), error)

    return judge
