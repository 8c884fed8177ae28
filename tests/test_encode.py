"""From image to noise and back, on flows known in closed form."""

import math

import pytest
import torch
from flows import CLEAN, NOISY, lam_grid, mixture
from toys import dense

from priors.schedules import EDM, RectifiedFlow
from restore.samplers import available
from restore.samplers import grid as grids
from restore.samplers.encode import decode, encode, round_trip
from restore.samplers.grid import Grid

F64 = torch.float64
FORWARD_ONLY = ("dpm-solver-adaptive", "time-shift")
ABLE = [n for n, s in available().items() if not (s.memory or s.random) and n not in FORWARD_ONLY]
TOLERANT = ("rk45",)  # errs by its tolerance, whatever the grid


def at_the_end(prior, grid, count=2):
    """Images with the noise of the grid's last point."""
    g = torch.Generator().manual_seed(0)
    x = prior.sample(count, g)
    end = grid[-1]
    return end.alpha * x + end.sigma * torch.randn(x.shape, dtype=F64, generator=g)


def wanted(prior, x, grid):
    a, b = grid[-1], grid[0]
    return b.alpha * prior.flow(x / a.alpha, a.level, b.level)


def miss(name, steps, schedule=None):
    prior, grid = mixture(rotated=True), lam_grid(steps, schedule)
    x = at_the_end(prior, grid)
    return float((encode(prior, x, grid, name) - wanted(prior, x, grid)).abs().max())


@pytest.mark.parametrize("name", ABLE)
def test_the_noise_of_an_image_is_where_the_flow_carries_it(name):
    """An error that falls as the sampler's order promises, first order at least."""
    coarse, fine = miss(name, 32), miss(name, 128)
    if name in TOLERANT:
        assert fine < 1e-3
    else:
        assert fine < 0.06
        assert fine < coarse / 3.3  # a factor of 4 at first order, in the limit


def test_rk4_encodes_exactly_enough_to_check_others():
    assert miss("rk4", 64) < 1e-4
    assert miss("rk4", 64, RectifiedFlow()) < 1e-4


def test_a_gaussian_is_encoded_in_closed_form():
    """Every coordinate is stretched by sqrt((c + s_high^2) / (c + s_low^2))."""
    c = torch.tensor([0.02, 0.5, 2.0], dtype=F64)
    Q = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(1)))[0]
    mean = torch.tensor([0.2, -0.1, 0.4], dtype=F64)
    prior = dense(Q @ torch.diag(c) @ Q.T, mean)
    grid = grids.uniform_lambda(EDM(), 60, 30.0, 0.02)
    x = torch.tensor([[0.3, 0.5, -1.0]], dtype=F64)
    stretch = Q @ torch.diag(((c + 900) / (c + 0.0004)).sqrt()) @ Q.T
    exact = mean + (x - mean) @ stretch
    found = encode(prior, x.reshape(1, 1, 1, 3), grid, "rk4").flatten(1)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=0)


def test_ddim_inversion_is_lossy_and_rk4_is_not():
    """Relative errors of a round trip on the mixture: DDIM's halves with the steps."""
    prior = mixture()
    errors = {}
    for name in ("ddim", "rk4"):
        for steps in (10, 20, 50, 100):
            grid = lam_grid(steps)
            x = at_the_end(prior, grid, 8)
            trip = round_trip(prior, x, grid, name)
            again = (decode(prior, trip.noise, grid, name) - x).flatten(1).norm(dim=1)
            torch.testing.assert_close(trip.error, again / x.flatten(1).norm(dim=1))
            errors[name, steps] = float(trip.error.mean())
    assert errors["ddim", 50] / errors["ddim", 100] == pytest.approx(2, rel=0.2)
    assert errors["ddim", 10] > 0.2
    assert errors["rk4", 50] < 1e-3 < errors["ddim", 100]


def test_a_reversed_grid_is_the_same_points_and_steps():
    grid = lam_grid(5)
    back = grid.reversed()
    assert back.points == grid.points[::-1]
    assert back.reversed() == grid
    assert back.h(0) == pytest.approx(-grid.h(4))
    assert back.between(0, 0.25).lam == pytest.approx(grid.between(4, 0.75).lam)
    assert (back[0].lam, back[-1].lam) == pytest.approx((CLEAN, NOISY))
    for times, rising in (((0.1, 1.0), False), ((1.0, 0.1), True)):
        with pytest.raises(ValueError, match="strictly falling"):
            Grid(EDM(), times, rising)


def test_samplers_that_cannot_be_run_backwards_are_refused():
    prior, grid = mixture(), lam_grid(4)
    x = at_the_end(prior, grid)
    unable = [n for n in available() if n not in ABLE]
    assert "ancestral" in unable
    for name in unable:
        with pytest.raises(ValueError, match="cannot be run backwards; use rk4") as info:
            encode(prior, x, grid, name)
        assert "\n" not in str(info.value)
    assert math.isfinite(float(encode(prior, x, grid).sum()))
