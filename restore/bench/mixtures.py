"""Solvers on priors of many modes, where several modes stay possible.

The prior of R^8 and R^80 has 25 narrow components (Cardoso et al. 2023, arXiv:2308.07983, scaled to
images in [0, 1]): means `0.5 + 0.2 (i, j, i, j, ...)` for i, j in -2 ... 2, standard deviation
0.025, random weights. One measurement along a random direction, noise 0.02, leaves some three to
six modes, 16 or 50 standard deviations apart.

    mode TV    total variation between mode frequencies and posterior weights
    error      `hypot(bias, ratio - 1)`, with the squared bias pooled over problems

A perfect sampler's frequencies are themselves off, by a TV of about 0.03 at 512 samples: it stands
in every table, and below it nothing can be told apart.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
from priors import Gaussian, GaussianMixture
from priors.posteriors import MixturePosterior
from restore.bench.problems import Case
from restore.bench.scores import bias_and_ratio, mode_error
from restore.solver import Solver

SHAPES: dict[str, tuple[int, int, int]] = {"R^8": (1, 2, 4), "R^80": (1, 8, 10)}


class Rows(LinearPhysics):
    """Any few numbers that depend linearly on an image: `y = M x`, `(B, C, H, W)` to `(B, m)`.

    Args:
        matrix: `(m, C H W)`.
        image_shape: `(C, H, W)`.
        **kwargs: the noise model.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, image_shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(img_size=image_shape, **kwargs)
        self.image_shape = image_shape
        self.register_buffer("matrix", matrix)

    def A(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Measure: `(B, C, H, W)` to `(B, m)`."""
        return x.flatten(1) @ self.matrix.T

    def A_adjoint(self, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Adjoint: `(B, m)` to `(B, C, H, W)`."""
        return (y @ self.matrix).reshape(-1, *self.image_shape)


class Pixels:
    """The basis of independent pixels."""

    def analyse(self, x: Tensor) -> Tensor:
        """Return the image itself."""
        return x

    synthesise = analyse


def grid_mixture(image_shape: tuple[int, ...], weights: Sequence[float]) -> GaussianMixture:
    """25 components of standard deviation 0.025 on a grid that repeats along the pixels."""
    pixels = math.prod(image_shape)
    variances = torch.full(image_shape, 0.025**2, dtype=torch.float64)
    means = [
        0.5 + 0.2 * torch.tensor([i, j], dtype=torch.float64).repeat(pixels // 2)
        for i in range(-2, 3)
        for j in range(-2, 3)
    ]
    return GaussianMixture(
        weights, [Gaussian(mean.reshape(image_shape), Pixels(), variances) for mean in means]
    )


def grid_case(image_shape: tuple[int, ...], seed: int, *, m: int = 1, sigma: float = 0.02) -> Case:
    """Draw weights (uniform on the simplex), m random directions, a truth and its measurement."""
    generator = torch.Generator().manual_seed(7919 * seed + 1)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    weights = -torch.rand(25, generator=generator, dtype=torch.float64).log()
    prior = grid_mixture(image_shape, weights.tolist())
    rows = torch.nn.functional.normalize(normal(m, math.prod(image_shape)), dim=1)
    physics = Rows(rows, image_shape, noise_model=operators.GaussianNoise(sigma))
    y = physics.A(prior.sample(1, generator)) + sigma * normal(1, m)
    return Case(prior, physics, y, prior.posterior(y, physics, sigma), sigma)


@dataclass(frozen=True)
class Row:
    """One line of the bench.

    Attributes:
        solver, dimension: what was run.
        tv, tv_max: mode TV, mean and largest over problems.
        error, bias, ratio: see the module's docstring.
        forwards, vjps: network calls a sample.
        seconds: a problem, all samples together.
        n: samples a problem.
        problems: problems pooled.
        diverged: problems on which the solver gave up; its numbers then mean nothing.
    """

    solver: str
    dimension: str
    tv: float
    tv_max: float
    error: float
    bias: float
    ratio: float
    forwards: float
    vjps: float
    seconds: float
    n: int
    problems: int
    diverged: int = 0


def run(
    solvers: Sequence[Solver],
    *,
    dimensions: Sequence[str] = tuple(SHAPES),
    n: int = 512,
    problems: int = 8,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Run every solver on every mixture; the exact sampler first.

    Args:
        solvers: what to test.
        dimensions: names from `SHAPES`.
        n: samples a problem.
        problems: mixtures drawn and pooled.
        progress: show each solver's own bar.

    Yields:
        One `Row` for each dimension and solver.
    """
    for dimension in dimensions:
        cases = [grid_case(SHAPES[dimension], seed) for seed in range(problems)]
        exact = [_exact(case, n, seed) for seed, case in enumerate(cases)]
        yield _row("exact sampler", dimension, cases, exact)
        for solver in solvers:
            found = [
                solver(
                    case.y,
                    case.operator,
                    case.prior,
                    samples=n,
                    seed=seed,
                    batch_size=max(n, 2048),
                    progress=progress,
                )
                for seed, case in enumerate(cases)
            ]
            drawn = [
                _Drawn(r.samples[:, 0], r.cost.forwards, r.cost.vjps, r.cost.seconds) for r in found
            ]
            diverged = sum(result.status == "diverged" for result in found)
            yield _row(solver.name, dimension, cases, drawn, diverged=diverged)


@dataclass(frozen=True)
class _Drawn:
    """Samples of one problem and what they cost."""

    samples: Tensor
    forwards: float = 0.0
    vjps: float = 0.0
    seconds: float = 0.0


def _exact(case: Case, n: int, seed: int) -> _Drawn:
    started = time.perf_counter()
    samples = case.posterior.sample(n, torch.Generator().manual_seed(100 + seed))
    return _Drawn(samples, seconds=time.perf_counter() - started)


def _row(
    solver: str, dimension: str, cases: list[Case], drawn: list[_Drawn], *, diverged: int = 0
) -> Row:
    """Pool the problems of one solver."""
    p = len(cases)
    modes = []
    for case, d in zip(cases, drawn, strict=True):
        assert isinstance(case.posterior, MixturePosterior)
        modes.append(mode_error(d.samples, case.posterior))
    scores = [
        bias_and_ratio(d.samples, c.posterior.mean, c.posterior.std)
        for c, d in zip(cases, drawn, strict=True)
    ]
    bias = math.sqrt(max(0.0, sum(square for square, _ in scores) / p))
    ratio = sum(ratio for _, ratio in scores) / p
    return Row(
        solver=solver,
        dimension=dimension,
        tv=sum(modes) / p,
        tv_max=max(modes),
        error=math.hypot(bias, ratio - 1),
        bias=bias,
        ratio=ratio,
        forwards=sum(d.forwards for d in drawn) / p,
        vjps=sum(d.vjps for d in drawn) / p,
        seconds=sum(d.seconds for d in drawn) / p,
        n=len(drawn[0].samples),
        problems=p,
        diverged=diverged,
    )
