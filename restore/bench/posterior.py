"""Solvers against exact posteriors.

A prior whose posterior is known, a measurement drawn from it, and two numbers:

    bias   root-mean-square error of the sample mean, in units of the posterior std, with the part
           that finitely many samples explain removed
    ratio  root-mean-square std of the samples over that of the posterior

and `error = hypot(bias, ratio - 1)`. The squared bias is averaged over problems before its sign is
dropped; it is then zero on average for a perfect sampler. Averaged over p problems its standard
error is `sqrt(2 / d_eff) / (n sqrt(p))` for n samples and d_eff effective dimensions: at n = 64,
p = 3 chance alone makes biases of about 0.04 where d_eff is 60 and 0.02 where it is 1000. The exact
sampler therefore stands in every table.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
from priors import Gaussian
from restore.solver import Solver

# task -> (operator, noise std)
Tasks = dict[str, tuple[str, float]]

IMAGE_TASKS: Tasks = {
    "blur": ("blur:sigma=2", 0.02),
    "mask 80 %": ("mask:keep=0.2", 0.05),
    "x4": ("downsample:factor=4", 0.02),
}
SMALL_TASKS: Tasks = {
    "blur": ("blur:sigma=1", 0.1),
    "mask 50 %": ("mask:keep=0.5", 0.1),
    "denoise": ("denoise", 0.1),
}


def small_gaussian() -> Gaussian:
    """16x16 pixels, pixel std 0.2, squared-exponential covariance of length 1.5 pixels."""
    axis = torch.arange(16, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    covariance = 0.04 * torch.exp(-torch.cdist(grid, grid).square() / (2 * 1.5**2))
    return Gaussian.dense(torch.full((1, 16, 16), 0.5), covariance)


def power_law_image() -> Gaussian:
    """64x64 pixels, periodic, pixel std 0.15, power `1 / max(|f|, 1)^2`."""
    return Gaussian.power_law((1, 64, 64))


def modulated_gaussian() -> Gaussian:
    """32x32 pixels, a power-law prior whose contrast varies seven-fold over the image.

    Not stationary: a method that only fits a power spectrum passes the other priors, not this.
    """
    base = Gaussian.power_law((1, 32, 32))
    unit = torch.eye(1024, dtype=torch.float64).reshape(-1, 1, 32, 32)
    axis = torch.linspace(0, 2 * math.pi, 33, dtype=torch.float64)[:32]
    contrast = 1 + 0.375 * (axis.sin()[:, None] + (axis + 1).sin()[None, :])
    scale = contrast.flatten()
    covariance = scale[:, None] * base.covariance(unit).reshape(1024, 1024) * scale[None, :]
    return Gaussian.dense(base.mean, covariance)


PRIORS: dict[str, tuple[Callable[[], Gaussian], Tasks]] = {
    "gaussian 16x16": (small_gaussian, SMALL_TASKS),
    "power law 64x64": (power_law_image, IMAGE_TASKS),
    "modulated 32x32": (modulated_gaussian, IMAGE_TASKS),
}


@dataclass(frozen=True)
class Row:
    """One line of the bench.

    Attributes:
        prior, task, solver: what was run.
        error, bias, ratio: see the module's docstring.
        misfit: mean data misfit of the samples; 1 is consistent.
        calls: network calls a sample, forwards and VJPs.
        seconds: a problem, all samples together.
        n: samples a problem.
        problems: problems pooled.
        diverged: problems on which the solver gave up; its numbers then mean nothing.
    """

    prior: str
    task: str
    solver: str
    error: float
    bias: float
    ratio: float
    misfit: float
    calls: float
    seconds: float
    n: int
    problems: int
    diverged: int = 0


def run(
    solvers: Sequence[Solver],
    *,
    priors: Sequence[str] = tuple(PRIORS),
    n: int = 64,
    problems: int = 3,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Run every solver on every prior and task; the exact sampler first.

    Args:
        solvers: what to test.
        priors: names from `PRIORS`.
        n: samples a problem.
        problems: measurements drawn and pooled.
        progress: show each solver's own bar.

    Yields:
        One `Row` for each prior, task and solver.
    """
    for prior_name in priors:
        build, tasks = PRIORS[prior_name]
        prior = build()
        for task, (spec, sigma) in tasks.items():
            cases = [_Case(prior, spec, sigma, seed) for seed in range(problems)]
            exact = [
                (c.posterior.sample(n, torch.Generator().manual_seed(100 + i)), 0.0, 0.0)
                for i, c in enumerate(cases)
            ]
            yield _row(prior_name, task, "exact sampler", cases, exact, diverged=0)
            for solver in solvers:
                found, diverged = [], 0
                for seed, case in enumerate(cases):
                    result = solver(
                        case.y,
                        case.operator,
                        prior,
                        samples=n,
                        seed=seed,
                        batch_size=n,
                        progress=progress,
                    )
                    found.append((result.samples[:, 0], result.cost.calls, result.cost.seconds))
                    diverged += result.status == "diverged"
                yield _row(prior_name, task, solver.name, cases, found, diverged=diverged)


class _Case:
    """One measurement and its exact posterior."""

    def __init__(self, prior: Gaussian, spec: str, sigma: float, seed: int) -> None:
        self.sigma = sigma
        shape = tuple(prior.mean.shape)
        physics = operators.parse(spec, shape, noise=sigma).to(torch.float64)
        assert isinstance(physics, LinearPhysics)
        self.operator = physics
        truth = prior.sample(1, torch.Generator().manual_seed(seed))
        self.y = operators.measure(
            physics, truth, seed=1000 + seed
        )  # other numbers than the truth's
        self.posterior = prior.posterior(self.y, physics, sigma)


def _row(
    prior: str,
    task: str,
    solver: str,
    cases: list[_Case],
    found: list[tuple[Tensor, float, float]],
    *,
    diverged: int,
) -> Row:
    """Pool the problems of one solver."""
    squares, ratios, misfits = [], [], []
    for case, (samples, _, _) in zip(cases, found, strict=True):
        square, ratio = bias_and_ratio(samples, case.posterior.mean, case.posterior.std)
        squares.append(square)
        ratios.append(ratio)
        predicted = case.operator.A(samples)
        seen = (case.posterior.matrix != 0).any(1).sum()
        energy = (predicted - case.y).square().flatten(1).sum(1).mean()
        misfits.append(float(energy / (seen * case.sigma**2)))
    n, p = len(found[0][0]), len(cases)
    bias = math.sqrt(max(0.0, sum(squares) / p))
    ratio = sum(ratios) / p
    return Row(
        prior=prior,
        task=task,
        solver=solver,
        error=math.hypot(bias, ratio - 1),
        bias=bias,
        ratio=ratio,
        misfit=sum(misfits) / p,
        calls=sum(f[1] for f in found) / p,
        seconds=sum(f[2] for f in found) / p,
        n=n,
        problems=p,
        diverged=diverged,
    )


def bias_and_ratio(samples: Tensor, mean: Tensor, std: Tensor) -> tuple[float, float]:
    """Squared bias (unclipped) and std ratio of samples `(S, C, *spatial)` against the truth."""
    power = std.square().mean()
    spread = samples.var(0).mean()
    square = (samples.mean(0) - mean).square().mean() - spread / len(samples)
    return float(square / power), float((spread / power).sqrt())
