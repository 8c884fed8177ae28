"""Diffusions whose trajectories are known, and how errors of samplers are measured on them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from priors import ProductMixture
from priors.bases import Dense
from priors.schedules import VP, Schedule
from restore.samplers import grid as grids
from restore.samplers.grid import Grid
from restore.samplers.sampler import Sampler

MIXTURE = ((0.3, 0.5, 0.2), (-1.2, 0.4, 1.5), (0.3, 0.4, 0.25))
NOISY, CLEAN = -4.5, 2.5  # lam at which orders are measured


def mixture(rotated: bool = False) -> ProductMixture:
    """A nonlinear prior of 1x3x11 images, one coefficient for each start quantile."""
    basis = None
    if rotated:
        generator = torch.Generator().manual_seed(5)
        basis = Dense(
            torch.linalg.qr(torch.randn(33, 33, dtype=torch.float64, generator=generator))[0]
        )
    return ProductMixture(*MIXTURE, (1, 3, 11), basis)


def levels(steps: int, noisy: float = NOISY, clean: float = CLEAN) -> Tensor:
    """Levels evenly spaced in lam."""
    return torch.exp(-torch.linspace(noisy, clean, steps + 1, dtype=torch.float64))


def lam_grid(steps: int, schedule: Schedule | None = None, noisy: float = NOISY) -> Grid:
    """Evenly spaced in lam."""
    return grids.from_levels(schedule or VP(), levels(steps, noisy))


def time_grid(steps: int, schedule: Schedule | None = None, noisy: float = NOISY) -> Grid:
    """Evenly spaced in t."""
    ends = levels(1, noisy).tolist()
    return grids.uniform_time(schedule or VP(), steps, *ends)


def start(prior: ProductMixture, grid: Grid) -> Tensor:
    """One image at the first point whose coefficients are 33 quantiles in [.03, .97]."""
    at = grid[0]
    u = torch.linspace(0.03, 0.97, 33, dtype=torch.float64)
    guess = torch.special.ndtri(u) * (1 + at.level**2) ** 0.5
    low, high = guess - 9 * (1 + at.level), guess + 9 * (1 + at.level)
    for _ in range(80):
        middle = (low + high) / 2
        below = prior.cdf(middle, at.level) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    x = ((low + high) / 2).reshape(1, 1, 3, 11)
    return at.alpha * (x if prior.basis is None else prior.basis.synthesise(x))


def exact(prior: ProductMixture, x: Tensor, grid: Grid, end: int = -1) -> Tensor:
    """Where the trajectory from the grid's first point stands at point `end`."""
    a, b = grid[0], grid[end]
    return b.alpha * prior.flow(x / a.alpha, a.level, b.level)


def error(sampler: Sampler, grid: Grid, prior: ProductMixture | None = None) -> float:
    """Largest error at the grid's last point."""
    prior = prior or mixture()
    x = start(prior, grid)
    return float((sampler(prior, x, grid, clean=False) - exact(prior, x, grid)).abs().max())


def slope(sampler: Sampler, make: Callable[[int], Grid], counts: Sequence[int]) -> float:
    """Order of convergence: least-squares slope of log error against log steps."""
    n = torch.tensor(counts, dtype=torch.float64).log()
    e = torch.tensor([error(sampler, make(k)) for k in counts], dtype=torch.float64).log()
    n, e = n - n.mean(), e - e.mean()
    return -float((n * e).sum() / (n * n).sum())
