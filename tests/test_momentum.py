"""Heavy-Ball and GHVB: orders, error constants, stability."""

import pytest
import torch
from flows import error, lam_grid, slope, time_grid

from priors.schedules import EDM
from restore.samplers import grid as grids
from restore.samplers.ddim import DDIM
from restore.samplers.grid import Grid
from restore.samplers.momentum import GHVB, HeavyBall


def level_grid(steps: int) -> Grid:
    return grids.uniform_level(EDM(), steps, 20.0, 0.3)


@pytest.mark.parametrize("base", ["ddim", "ab2", "2m"])
def test_heavy_ball_has_order_one_on_every_base(base):
    assert slope(HeavyBall(base=base), lam_grid, (128, 256, 512)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("beta", [0.8, 0.5])
def test_the_error_of_heavy_ball_is_a_known_multiple_of_ddims(beta):
    grid = lam_grid(1024)
    unit = error(DDIM(), grid)
    lag = 2 * (1 - beta) / beta
    # next order: O(1 / N), relative to a share that is smallest for ab2
    for base, share in (("ddim", 1 + lag), ("ab2", lag), ("2m", lag)):
        found = error(HeavyBall(base=base, beta=beta), grid) / unit
        assert found == pytest.approx(share, rel=0.03), base


def test_without_momentum_the_base_remains():
    grid = lam_grid(64)
    assert error(HeavyBall(beta=1, base="ddim"), grid) == pytest.approx(error(DDIM(), grid))
    assert error(GHVB(label=1), grid) == pytest.approx(error(DDIM(), grid))
    for base in ("ab2", "2m"):
        sampler = HeavyBall(beta=1, base=base)
        assert slope(sampler, lam_grid, (64, 128, 256)) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("label", [1.8, 2.8, 3.8])
def test_ghvb_has_order_k_on_grids_even_in_level(label):
    # even steps must resolve the lowest levels, so that the asymptote begins late
    sampler = GHVB(label=label)
    assert slope(sampler, level_grid, (1536, 3072)) == pytest.approx(sampler.k, abs=0.15)


def test_ghvb_has_order_two_where_levels_are_uneven():
    assert slope(GHVB(label=1.8), lam_grid, (64, 128, 256)) == pytest.approx(2, abs=0.15)
    assert slope(GHVB(label=1.8), time_grid, (64, 128, 256)) == pytest.approx(2, abs=0.15)
    assert slope(GHVB(label=2.8), lam_grid, (256, 512, 1024)) == pytest.approx(2, abs=0.15)


def test_weights_of_ghvb_are_the_papers():
    # on v_n, v_{n-1}, ..., multiplied by the paper's denominators; they sum to beta before
    for k in (2, 3, 4):
        for beta in (0.3, 0.8, 1.0):
            sampler = GHVB(label=k - 1 + beta)
            taps, difference = torch.zeros(k), torch.zeros(k)
            difference[0] = 1
            for w in sampler.weights:
                taps = taps + w * difference
                difference = difference - difference.roll(1)
            published = {
                2: ((2 + beta, beta - 2), 2),
                3: ((18 + 5 * beta, 8 * beta - 24, 6 - beta), 12),
                4: ((46 + 9 * beta, 19 * beta - 78, 42 - 5 * beta, beta - 10), 24),
            }
            values, scale = published[k]
            assert torch.allclose(taps * beta * scale, torch.tensor(values), atol=1e-4)
            assert float(taps.sum()) == pytest.approx(1, abs=1e-5)


CLOSED_FORMS = [
    *((HeavyBall(base="ddim", beta=b), 2 * (2 - b) / b) for b in (1, 0.8, 0.5, 0.2)),
    *((HeavyBall(base="ab2", beta=b), (2 - b) / b) for b in (1, 0.8, 0.5, 0.2)),
    *((HeavyBall(base="2m", beta=b), (2 - b) / b) for b in (1, 0.8, 0.5, 0.2)),
    *((GHVB(label=1 + b), 2 - b) for b in (0.2, 0.8, 1)),
    *((GHVB(label=2 + b), 6 * (2 - b) / (12 - b)) for b in (0.2, 0.8, 1)),
    *((GHVB(label=3 + b), 3 * (2 - b) / (11 - b)) for b in (0.2, 0.8, 1)),
]


@pytest.mark.parametrize(("sampler", "limit"), CLOSED_FORMS, ids=str)
def test_steps_are_stable_up_to_the_closed_form_and_not_beyond(sampler, limit):
    assert sampler.stability_limit() == pytest.approx(limit)
    # 2M extrapolates in lam, whose steps are even only where they are small
    last = 1e5 if sampler.name == "heavy-ball" and sampler.base == "2m" else 1.0
    grid = Grid(EDM(), tuple(last + s for s in range(500, -1, -1)))
    z = limit * torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.04, 1.5], dtype=torch.float64)
    x = torch.ones(1, 1, 1, len(z), dtype=torch.float64)
    out = sampler(lambda y, s: y - s * z * y, x, grid, clean=False).abs().flatten()
    assert (out[:-2] < 0.05).all(), out
    assert (out[-2:] > 20).all(), out


def test_bad_constants_are_refused():
    for call in (
        lambda: HeavyBall(beta=0),
        lambda: HeavyBall(beta=1.2),
        lambda: HeavyBall(base="3m"),
        lambda: GHVB(label=0),
        lambda: GHVB(label=4.5),
    ):
        with pytest.raises(ValueError, match=r"found|unknown"):
            call()
