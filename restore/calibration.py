"""Intervals that hold what they promise, by conformal risk control.

A sampler's own intervals cover as much as its posterior is right. On images whose truth is known
one can measure by how much they fall short and stretch them: with the half widths multiplied by
`factor`, the share of pixels outside is at most `1 - level` on average over new images that are
exchangeable with the calibration set, whatever the solver and the prior.

Angelopoulos, Bates, Fisch, Lei, Schuster, *Conformal Risk Control*, ICLR 2024, arXiv:2208.02814,
theorem 1: the smallest `factor` with `(n R(factor) + 1) / (n + 1) <= 1 - level`, `R` the mean over
the n calibration images of the share of pixels outside.

The promise is on average over images and over the pixels of an image, not for every pixel.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from restore.files import atomic
from restore.result import Result

# half widths are never smaller than this share of the mean half width of their image: where all
# samples agree to the last digit no factor would stretch the interval
_FLOOR = 0.01


@dataclass(frozen=True)
class Calibration:
    """By how much intervals must be stretched.

    Attributes:
        level: share of pixels that intervals promise to cover.
        factor: multiplies the half widths of the samples' own intervals.
        images: size n of the calibration set.
        before: share of pixels of the calibration set that the samples' own intervals cover.
        after: the same with the factor.
        recipe: solver, prior and operator it was fitted for.
    """

    level: float
    factor: float
    images: int
    before: float
    after: float
    recipe: dict[str, object]

    @classmethod
    def fit(
        cls, results: Iterable[Result], truths: Iterable[Tensor], *, level: float = 0.9
    ) -> "Calibration":
        """Fit to results whose truths are known.

        Args:
            results: restorations by one solver with one prior and one kind of operator.
            truths: for each result the clean images `(B, C, *spatial)`.
            level: share of pixels to cover, in (0, 1).

        Raises:
            ValueError: no images, other shapes, different recipes, or too few images for the level:
                n must be at least `1 / (1 - level) - 1`.
        """
        needed: list[Tensor] = []
        recipe: dict[str, object] | None = None
        for result, truth in zip(results, truths, strict=True):
            if tuple(truth.shape) != tuple(result.mean.shape):
                raise ValueError(
                    f"a truth has shape {tuple(truth.shape)} and its result "
                    f"{tuple(result.mean.shape)}; give them in the same order."
                )
            found = recipe_of(result)
            if recipe not in (None, found):
                raise ValueError(
                    "the results were made by different solvers, priors or operators; calibrate "
                    "each by itself."
                )
            recipe = found
            needed.extend(_stretch(result, truth.to(result.samples), level))
        n = len(needed)
        refuse_few_images(n, level)
        assert recipe is not None
        factor = _smallest_factor(needed, level)
        covered = [float((s <= 1).double().mean()) for s in needed]
        stretched = [float((s <= factor).double().mean()) for s in needed]
        return cls(level, factor, n, sum(covered) / n, sum(stretched) / n, recipe)

    def interval(self, result: Result) -> tuple[Tensor, Tensor]:
        """Return calibrated bounds `(B, C, *spatial)`.

        Raises:
            ValueError: the result was made in another way than those of the calibration set.
        """
        if (found := recipe_of(result)) != self.recipe:
            different = [key for key in found if found[key] != self.recipe.get(key)]
            raise ValueError(
                f"the calibration was fitted for another {' and '.join(different)}; fit one for "
                f"this {'and '.join(different)}."
            )
        middle, below, above = _half_widths(result, self.level)
        return middle - self.factor * below, middle + self.factor * above

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a JSON file, atomically.

        Raises:
            FileExistsError: the file exists and `overwrite` is not set.
        """
        path = Path(path)
        with atomic(path, overwrite=overwrite) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a calibration.
        """
        path = Path(path)
        try:
            return cls(**json.loads(path.read_text()))
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError):
            raise ValueError(
                f"'{path.name}' is not a calibration; make one with `restore calibrate`."
            ) from None

    def __str__(self) -> str:
        return (
            f"{self.level:.0%} intervals of the samples covered {self.before:.1%} of the pixels of "
            f"{self.images} images; stretched by {self.factor:.3g} they cover {self.after:.1%}"
        )


def refuse_few_images(n: int, level: float) -> None:
    """Refuse a calibration set that is too small for any promise.

    Raises:
        ValueError: fewer than `level / (1 - level)` images, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}.")
    if n * (1 - level) < level - 1e-9:
        raise ValueError(
            f"{n} calibration images cannot promise {level:.0%}, expected at least "
            f"{math.ceil(level / (1 - level) - 1e-9)}; add images or lower the level."
        )


def recipe_of(result: Result) -> dict[str, object]:
    """What must not change between calibration and use: solver, prior, operator."""
    story = json.loads(json.dumps(dict(result.provenance)))
    return {key: story.get(key) for key in ("solver", "prior", "operator")}


def coverage(result: Result, truth: Tensor, level: float = 0.9) -> Tensor:
    """Share of pixels `(B,)` of the truth `(B, C, *spatial)` inside the samples' intervals."""
    low, high = result.interval(level)
    truth = truth.to(result.samples)
    return ((truth >= low) & (truth <= high)).double().flatten(1).mean(1)


def _half_widths(result: Result, level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Median and the half widths below and above it, none of them zero."""
    low, high = result.interval(level)
    middle = torch.quantile(result.samples, 0.5, dim=0)
    mean = (high - low).flatten(1).mean(1).reshape(-1, *[1] * (middle.ndim - 1)) / 2
    floor = (_FLOOR * mean).clamp_min(torch.finfo(middle.dtype).eps)
    return middle, torch.maximum(middle - low, floor), torch.maximum(high - middle, floor)


def _stretch(result: Result, truth: Tensor, level: float) -> list[Tensor]:
    """For each image the factor that every pixel would need, sorted."""
    middle, below, above = _half_widths(result, level)
    distance = torch.where(truth < middle, (middle - truth) / below, (truth - middle) / above)
    return [image.flatten().double().sort().values for image in distance]


def _smallest_factor(needed: list[Tensor], level: float) -> float:
    """Invert the risk: a step function that falls only at the needed factors."""
    n = len(needed)
    allowed = ((n + 1) * (1 - level) - 1) / n  # of the mean share outside
    values = torch.cat(needed)
    weights = torch.cat([torch.full_like(s, 1 / (n * len(s))) for s in needed])
    order = values.argsort()
    outside = 1 - weights[order].cumsum(0)
    enough = (outside <= allowed + 1e-12).nonzero()[0]
    return float(values[order][enough])
