"""Restorers trained on pairs, on held-out photographs, beside what they must beat.

    degraded     the measurement as an image: for x4 the bicubic enlargement
    regression   a plain network of the same size, trained on the same pairs (where one ships)
    one call     the diffusion's own network under overwhelming noise
    zero start   the deterministic walk of ResShift from no noise at all

PSNR is that of the mean of the samples and of one sample; features (EfficientNet-Lite0, smaller is
better) compare one image with the truth, pixel against pixel, and punish detail that is plausible
but elsewhere. `texture` does not: it is the power of the image's gradients over that of the truth,
1 when an image is as sharp as photographs are. `std ratio` is the spread of the samples over the
error of their mean, 1 when calibrated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from deepinv.physics import Physics
from torch import Tensor

import operators
from restore import trained
from restore.bench.denoising import photographs
from restore.bench.perceptual import feature_distance
from restore.metrics import psnr
from restore.trained import weights
from restore.trained.anchor import anchor
from restore.trained.resshift import ResShift
from restore.trained.restorer import regress

NOISE = {"x4": 0.01, "deblur": 0.02}


@dataclass(frozen=True)
class Row:
    """One method on one task, averaged over photographs; see the module's docstring."""

    task: str
    method: str
    calls: int
    psnr: float
    sample_psnr: float
    features: float
    texture: float
    std_ratio: float


def run(
    tasks: Sequence[str],
    *,
    size: int = 256,
    samples: int = 16,
    methods: Sequence[str] | None = None,
) -> Iterator[Row]:
    """Restore every photograph by every method.

    Args:
        tasks: "x4", "deblur".
        size: side of the photographs' central crops.
        samples: a photograph.
        methods: names of `restore.trained.available()` without the task, all by default.
    """
    for task in tasks:
        prior = weights.load(task)
        pairs = [
            _measured(x, prior.trained.operator, NOISE[task], i)
            for i, x in enumerate(photographs(3, size=size).values())
        ]
        degraded = [anchor(y, op, tuple(x.shape[1:]), 0.5) for x, op, y in pairs]
        truths = [x for x, _, _ in pairs]
        yield _row(task, "degraded", 0, degraded, truths)
        if f"{task}-regression" in weights.available():
            plain = weights.load(f"{task}-regression")
            yield _row(task, "regression", 1, [regress(plain, y_0) for y_0 in degraded], truths)
        yield _row(task, "one call", 1, [regress(prior, y_0) for y_0 in degraded], truths)
        zero = ResShift(steps=15, eta=0.0, boundary="zero")
        yield _row(task, "zero start", 15, [zero.around(prior, y_0)[0] for y_0 in degraded], truths)
        for name, (family, stored) in trained.available().items():
            if stored != task or (methods is not None and family not in methods):
                continue
            solver, _ = trained.load(name)
            drawn, calls = [], 0.0
            for seed, (_, op, y) in enumerate(pairs):
                result = solver(y, op, prior, samples=samples, seed=seed, progress=False)
                drawn.append(result.samples)
                calls = result.cost.calls
            yield _row(task, name, round(calls), drawn, truths)


def _measured(x: Tensor, spec: str, sigma: float, seed: int) -> tuple[Tensor, Physics, Tensor]:
    operator = operators.parse(spec, tuple(x.shape[1:]), noise=sigma)
    return x, operator, operators.measure(operator, x, seed=seed)


def _row(task: str, method: str, calls: int, drawn: list[Tensor], truths: list[Tensor]) -> Row:
    """Average over photographs; images `(1, C, H, W)` or samples `(S, 1, C, H, W)`."""
    found = []
    for images, truth in zip(drawn, truths, strict=True):
        samples = images if images.ndim == 5 else images[None]
        mean, one = samples.mean(0), samples[0]
        found.append(
            (
                float(psnr(mean, truth)),
                float(psnr(one, truth)),
                float(feature_distance(one, truth)),
                _gradient_power(one) / _gradient_power(truth),
                _std_ratio(samples, truth),
            )
        )
    return Row(task, method, calls, *torch.tensor(found, dtype=torch.float64).mean(0).tolist())


def _gradient_power(x: Tensor) -> float:
    return float(x.diff(dim=-1).square().mean() + x.diff(dim=-2).square().mean())


def _std_ratio(samples: Tensor, truth: Tensor) -> float:
    """Spread over error, the error of a mean of S samples being sqrt(1 + 1/S) too large."""
    count = len(samples)
    if count == 1:
        return float("nan")
    error = (samples.mean(0) - truth).square().mean()
    return float((samples.var(0).mean() * (1 + 1 / count) / error).sqrt())
