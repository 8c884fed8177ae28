"""Chains through all noise levels: what they keep, what they change, what they cost."""

import math

import pytest
import torch
from flows import MIXTURE
from torch import Tensor

from priors import Gaussian, ProductMixture
from priors.schedules import log_levels
from restore.samplers.ddim import DDIM
from restore.samplers.dlg import DLG

F64 = torch.float64
LEVELS = tuple(log_levels(20, 10.0, 0.05).flip(0).tolist())
FINE = tuple(log_levels(40, 2.0, 0.05).flip(0).tolist())


def pixel() -> ProductMixture:
    return ProductMixture(*MIXTURE, (1, 1, 1))


def stationary(
    prior: Gaussian | ProductMixture,
    levels: tuple[float, ...],
    count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw states and level indices from the joint law."""
    k = torch.randint(len(levels), (count,), generator=generator)
    x = prior.sample(count, generator)
    noise = torch.randn(x.shape, generator=generator, dtype=F64)
    return x + torch.tensor(levels, dtype=F64)[k].reshape(-1, 1, 1, 1) * noise, k


def levels_after(chain: DLG, moves: int, count: int = 5000) -> float:
    """Total variation between the law of levels and the uniform one, in units of its noise."""
    prior, generator = pixel(), torch.Generator().manual_seed(0)
    x, k = stationary(prior, chain.levels, count, generator)
    for _ in range(moves):
        x, k = chain.move(prior, x, k, generator, prior.log_prob)
    n = len(chain.levels)
    found = torch.bincount(k, minlength=n) / count
    floor = n / 2 * math.sqrt(2 * (1 / n) * (1 - 1 / n) / (math.pi * count))
    return float((found - 1 / n).abs().sum() / 2) / floor


def test_levels_stay_uniform_from_a_stationary_start():
    # a sum of 20 deviations spreads by about 17% of its mean, the floor: 1.6 is beyond 3 of these
    for eta in (0.1, 0.5):
        assert levels_after(DLG(levels=LEVELS, eta=eta), 50) < 1.6, eta


def test_a_step_fixed_in_units_of_the_images_leaves_the_law():
    # above 4 s^2 it does not contract at the lowest levels: total variation 0.096, floor 0.025
    assert levels_after(DLG(levels=LEVELS, eta=0.5, absolute=True), 50) > 2.5


def test_the_likeliest_level_is_no_draw():
    assert levels_after(DLG(levels=LEVELS, pick="argmax"), 3) > 4


def test_the_last_state_draws_exactly_and_the_least_noisy_is_biased():
    count, prior = 6000, pixel()
    truth = prior.sample(400_000, torch.Generator().manual_seed(9)).flatten()
    found = {}
    for keep in ("last", "lowest"):
        generator = torch.Generator().manual_seed(1)
        x, k = stationary(prior, LEVELS, count, generator)
        chain = DLG(levels=LEVELS, keep=keep, skip=4)
        draws = chain.draws(prior, x, DDIM(), generator, start=k, steps=100, density=prior.log_prob)
        next(draws)
        found[keep] = next(draws).images.flatten()
    # four standard errors of the share below the gap, and 0.005 for the sampler's own error
    share = float((truth < -0.4).double().mean())
    slack = 4 * math.sqrt(share * (1 - share) / count) + 0.005
    assert float((found["last"] < -0.4).double().mean()) == pytest.approx(share, abs=slack)
    assert float(found["last"].std()) == pytest.approx(float(truth.std()), rel=0.04)
    assert float(found["lowest"].std()) > 1.08 * float(truth.std())


def test_the_residual_tells_the_slope_of_the_log_density():
    # d log p_s / d log s by central differences of the closed form, averaged over directions
    prior, chain = Gaussian.power_law((1, 8, 8)), DLG(levels=FINE)
    generator = torch.Generator().manual_seed(2)
    at, many = 20, 4000
    s = FINE[at]
    x = (prior.sample(1, generator) + s * torch.randn(1, 1, 8, 8, generator=generator)).double()
    law = chain._residual(
        prior, x.expand(many, 1, 8, 8), torch.full((many,), at), generator
    ).double()
    step = math.log(FINE[at + 1] / FINE[at - 1])
    slopes = (law[:, at + 1] - law[:, at - 1]) / step
    exact = (prior.log_prob(x, FINE[at + 1]) - prior.log_prob(x, FINE[at - 1])) / step
    # the random direction's error averages out; 0.6 is the curvature over two coarse levels
    slack = 5 * float(slopes.std()) / math.sqrt(many) + 0.6
    assert abs(float(slopes.mean()) - float(exact)) < slack
    # the number of pixels in place of nu would be off by the divergence
    energy = (x - prior(x, s)).square().sum() / s**2
    assert abs(float(energy - 64 - exact)) > 5


def test_levels_without_a_density_do_not_run_away():
    prior, generator = Gaussian.power_law((1, 8, 8)), torch.Generator().manual_seed(3)
    chain = DLG(levels=FINE)
    x, k = stationary(prior, FINE, 1000, generator)
    before = torch.tensor(FINE).log()[k].mean()
    for _ in range(30):
        x, k = chain.move(prior, x, k, generator)
    # uniform in log over 3.7, so that the mean's own error is 0.034; n for nu gives -0.4 and on
    assert abs(float(torch.tensor(FINE).log()[k].mean() - before)) < 4 * 0.034


def test_calls_are_counted_per_image():
    prior, generator, calls = pixel(), torch.Generator().manual_seed(4), 0

    def counted(x, s):
        nonlocal calls
        calls += len(x)
        return prior(x, s)

    for density, move in ((prior.log_prob, 1), (None, 3)):
        calls = 0
        x, k = stationary(prior, LEVELS, 50, generator)
        draws = DLG(levels=LEVELS, skip=4).draws(
            counted, x, DDIM(), generator, start=k, steps=12, density=density
        )
        total = sum(next(draws).calls for _ in range(3))
        assert total == pytest.approx(calls / 50)
        assert 3 * 4 * move < total <= 3 * (4 * move + 13)


def test_bad_constants_are_refused():
    for levels in ((1.0,), (1.0, 0.5), (0.0, 1.0)):
        with pytest.raises(ValueError, match="rising levels"):
            DLG(levels=levels)
    for eta in (0.0, 4.0):
        with pytest.raises(ValueError, match="eta > 0"):
            DLG(levels=LEVELS, eta=eta)
    with pytest.raises(ValueError, match="argmax"):
        DLG(levels=LEVELS, pick="max")
