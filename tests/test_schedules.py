import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priors.schedules import (
    DDPM,
    EDM,
    VE,
    VP,
    Discrete,
    RectifiedFlow,
    SubVP,
    edm_levels,
    log_levels,
)

SCHEDULES = [VP(), VP(b0=2.0, b1=2.0), SubVP(), VE(), EDM(), RectifiedFlow(), DDPM()]
INTERIOR = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)


def times(schedule):
    return 999 * INTERIOR if isinstance(schedule, DDPM) else INTERIOR


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_time_inverts_level(schedule):
    t = times(schedule)
    torch.testing.assert_close(schedule.time(schedule.level(t)), t, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_level_is_sigma_over_alpha_and_grows_with_time(schedule):
    t = times(schedule)
    level = schedule.level(t)
    torch.testing.assert_close(level, schedule.sigma(t) / schedule.alpha(t), rtol=1e-12, atol=0)
    assert (level.diff() > 0).all()
    assert level.dtype == torch.float64


@pytest.mark.parametrize("schedule", [VP(), DDPM()], ids=repr)
def test_variance_is_preserved(schedule):
    t = times(schedule)
    total = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    torch.testing.assert_close(total, torch.ones_like(t), rtol=1e-14, atol=0)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_closed_forms(t):
    alpha = math.exp(-(t**2) * (20 - 0.1) / 4 - t * 0.1 / 2)
    assert float(VP().alpha(t)) == pytest.approx(alpha, rel=1e-14)
    assert float(SubVP().alpha(t)) == pytest.approx(alpha, rel=1e-14)
    assert float(VP().sigma(t)) ** 2 == pytest.approx(1 - alpha**2, rel=1e-12)
    assert float(SubVP().sigma(t)) == pytest.approx(1 - alpha**2, rel=1e-12)
    assert float(VE(0.02, 5.0).sigma(t)) == pytest.approx(0.02 * 250**t, rel=1e-14)
    assert (float(EDM().alpha(t)), float(EDM().sigma(t))) == (1.0, t)
    assert (float(RectifiedFlow().alpha(t)), float(RectifiedFlow().sigma(t))) == (1 - t, t)


def test_limits():
    assert float(VP().level(0.0)) == float(SubVP().level(0.0)) == 0.0
    assert float(RectifiedFlow().time(0.0)) == 0.0
    assert float(RectifiedFlow().time(math.inf)) == 1.0
    # near t = 0 both roots must survive: B ~ b0 t
    assert float(VP().time(1e-9)) == pytest.approx(1e-18 / 0.1, rel=1e-6)
    assert VP().level_range[1] == pytest.approx(math.sqrt(math.exp(10.05) - 1))
    assert VE().level_range == (0.01, 50.0)


def test_ddpm_levels_are_those_of_the_papers():
    schedule = DDPM()
    low, high = schedule.level_range
    assert low == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-9)
    assert (round(low, 4), round(high, 1)) == (0.0100, 157.4)
    abar = 1.0
    for step in range(1000):
        abar *= 1 - (1e-4 + (2e-2 - 1e-4) * step / 999)
    assert float(schedule.alpha(999)) ** 2 == pytest.approx(abar, rel=1e-10)


@given(st.floats(0, 998.999))
def test_between_steps_the_log_level_is_linear(t):
    schedule, i = DDPM(), math.floor(t)
    ends = schedule.level(torch.tensor([i, i + 1])).log()
    expected = ends[0] + (t - i) * (ends[1] - ends[0])
    assert float(schedule.level(t).log()) == pytest.approx(float(expected), abs=1e-10)


def test_a_discrete_schedule_keeps_its_table():
    table = (0.9, 0.5, 0.1)
    schedule = Discrete(table)
    steps = torch.tensor([[0], [1], [2]])
    expected = torch.tensor(table, dtype=torch.float64).sqrt()[:, None]
    torch.testing.assert_close(schedule.alpha(steps), expected, rtol=1e-14, atol=0)
    assert schedule == Discrete(table)
    assert schedule != Discrete((0.9, 0.5, 0.2))
    assert len({DDPM(), DDPM(), DDPM(steps=10)}) == 2


@pytest.mark.parametrize("table", [(), (0.5,), (0.5, 0.6), (1.0, 0.5), (0.5, 0.0), (0.5, math.nan)])
def test_an_impossible_table_is_refused(table):
    with pytest.raises(ValueError, match="strictly decreasing"):
        Discrete(table)


@pytest.mark.parametrize("t", [-0.1, 999.1, math.nan])
def test_times_outside_the_table_are_refused(t):
    with pytest.raises(ValueError, match="step must lie in"):
        DDPM().alpha(t)


@pytest.mark.parametrize("level", [0.0, 0.009, 158.0, math.nan])
def test_levels_outside_the_table_are_refused(level):
    with pytest.raises(ValueError, match="level must lie in"):
        DDPM().time(level)


@given(st.integers(2, 300), st.floats(1e-3, 1.0), st.floats(1.5, 1e4), st.floats(1.0, 10.0))
def test_grids(n, sigma_min, ratio, rho):
    sigma_max = sigma_min * ratio
    for levels in (log_levels(n, sigma_max, sigma_min), edm_levels(n, sigma_max, sigma_min, rho)):
        assert levels.shape == (n,)
        assert float(levels[0]) == pytest.approx(sigma_max, rel=1e-10)
        assert float(levels[-1]) == pytest.approx(sigma_min, rel=1e-10)
        assert (levels.diff() < 0).all()


def test_grids_are_even_in_their_own_variable():
    steps = log_levels(9, 80.0, 0.002).log().diff()
    torch.testing.assert_close(steps, steps[:1].expand(8), rtol=1e-10, atol=0)
    steps = (edm_levels(9, 80.0, 0.002) ** (1 / 7)).diff()
    torch.testing.assert_close(steps, steps[:1].expand(8), rtol=1e-10, atol=0)


@pytest.mark.parametrize("grid", [log_levels, edm_levels])
@pytest.mark.parametrize("arguments", [(1, 1.0, 0.1), (5, 0.1, 1.0), (5, 1.0, 0.0), (5, 1.0, -1.0)])
def test_impossible_grids_are_refused(grid, arguments):
    with pytest.raises(ValueError, match="noise grid"):
        grid(*arguments)
