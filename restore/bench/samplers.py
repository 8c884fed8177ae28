"""Samplers at equal cost: how far from the true trajectory, on every grid.

The prior is a mixture whose probability-flow ODE is solved in closed form,
`priors.ProductMixture`, in an orthonormal basis that couples its pixels. 33 trajectories start at
the quantiles 3 % to 97 % of noise level 90 and are followed to the clean image, the final denoising
included in the calls; an error is the distance from where the trajectory truly ends, in units in
which the data have a standard deviation of about 1. Of every sampler the best grid counts, DDIM
included.

Random samplers have no trajectory of their own; theirs is not a column of this table.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from priors import ProductMixture
from priors.bases import Dense
from priors.schedules import VP
from restore.samplers import available
from restore.samplers.grid import GRIDS, build
from restore.samplers.sampler import Sampler

HIGH, LOWS = 90.0, (0.15, 0.08, 0.04, 0.02)
_MIXTURE = ((0.3, 0.5, 0.2), (-1.2, 0.4, 1.5), (0.3, 0.4, 0.25))


@dataclass(frozen=True)
class Row:
    """One sampler at one budget, on its best grid.

    Attributes:
        sampler: its name.
        calls: network calls, at most.
        used: network calls spent.
        grid: name of the grid.
        low: noise level of the grid's last point.
        rms: error, root mean square over trajectories.
        worst: error, largest over trajectories.
        against_ddim: rms over DDIM's, DDIM on its own best grid.
    """

    sampler: str
    calls: int
    used: int
    grid: str
    low: float
    rms: float
    worst: float
    against_ddim: float


def mixture() -> ProductMixture:
    """The prior: 33 coefficients of three Gaussians, in a random orthonormal basis."""
    generator = torch.Generator().manual_seed(5)
    columns = torch.linalg.qr(torch.randn(33, 33, dtype=torch.float64, generator=generator))[0]
    return ProductMixture(*_MIXTURE, (1, 3, 11), Dense(columns))


def starts(prior: ProductMixture) -> Tensor:
    """One image at level `HIGH` whose 33 coefficients are quantiles from 3 % to 97 %."""
    u = torch.linspace(0.03, 0.97, 33, dtype=torch.float64)
    z = torch.special.ndtri(u) * HIGH
    # at this level a coefficient is Gaussian up to 1e-3: its quantile by a few Newton steps
    for _ in range(20):
        density = torch.exp(-0.5 * (z / HIGH) ** 2) / (HIGH * math.sqrt(2 * math.pi))
        z = z - (prior.cdf(z, HIGH) - u) / density
    assert prior.basis is not None
    return prior.basis.synthesise(z.reshape(1, 1, 3, 11))


def run(names: Sequence[str], budgets: Sequence[int]) -> Iterator[Row]:
    """Try every sampler on every grid at every budget; yield the best grid's row.

    Args:
        names: of `restore.samplers.available()`, deterministic ones of known cost.
        budgets: network calls, the final denoising included.
    """
    prior = mixture()
    x = starts(prior)
    truth = prior.flow(x, HIGH, 0.0)
    for calls in budgets:
        ddim = _best("ddim", calls, prior, x, truth)
        assert ddim is not None
        for name in names:
            best = _best(name, calls, prior, x, truth)
            if best is None:
                continue
            rms, worst, used, grid, low = best
            yield Row(name, calls, used, grid, low, rms, worst, rms / ddim[0])


def deterministic() -> list[str]:
    """Names of the samplers that follow a trajectory at a known cost."""
    return [name for name, one in available().items() if not one.random and _cost_known(one)]


def _cost_known(sampler: Sampler) -> bool:
    try:
        sampler.calls(1)
    except ValueError:
        return False
    return True


def _best(
    name: str, calls: int, prior: ProductMixture, x: Tensor, truth: Tensor
) -> tuple[float, float, int, str, float] | None:
    """Error, largest error, calls, grid and last level of a sampler's best grid, or None."""
    sampler = available()[name]
    try:
        steps = sampler.steps_within(calls)
    except ValueError:
        return None
    found = []
    for grid in GRIDS:
        for low in LOWS:
            walk = build(grid, VP(), steps, HIGH, low)
            apart = sampler(prior, walk[0].alpha * x, walk) - truth
            rms, worst = float(apart.square().mean().sqrt()), float(apart.abs().max())
            found.append((rms, worst, sampler.calls(steps) + 1, grid, low))
    return min(found)
