"""DDNM and DDNM+ against linear recursions, known numbers, and exact consistency."""

import math
from itertools import pairwise

import pytest
import torch
from recursions import EYE, NORM, A, V, assert_law, ddpm_levels, denoiser, follow, outcome
from toys import first_of_pairs, pairs

import operators
from priors import Gaussian
from restore.solvers.ddnm import DDNM

F64 = torch.float64
SEEN = V @ V.T
HIDDEN = EYE - SEEN
START = torch.zeros(2, dtype=F64)


def step(solver, s, t, y_bar, noise, *, svd=True):
    """One step from level `s` to `t`, in matrices: equations 17 and 51, or the simplified form."""
    D, eta, old = denoiser(s), solver.eta, math.sqrt(1 - solver.eta**2)
    if svd and noise > 0:
        lam, kept = (1, 0) if t >= noise else (old * t / noise, 0)
        fresh = math.sqrt(t**2 - noise**2) if t >= noise else eta * t
    else:
        lam = 1 if t >= noise else t / noise
        spare = math.sqrt(max(t**2 - (lam * noise) ** 2, 0))
        kept, fresh = old * spare, eta * spare
    around = HIDDEN * t if svd else HIDDEN * math.sqrt(max(t**2 - (lam * noise) ** 2, 0))
    F = D - lam * SEEN @ D + (kept * SEEN + old * around) @ (EYE - D) / s
    return F, lam * y_bar * V[:, 0], fresh * SEEN + eta * around


def recursion(solver, y, sigma_y, *, svd=True):
    """Algorithm 2 without travel; without a decomposition singular values count as 1."""
    levels, noise = ddpm_levels(solver.steps), sigma_y / float(NORM) if svd else sigma_y
    chain = [step(solver, s, t, y / NORM, noise, svd=svd) for s, t in pairwise(levels)]
    return follow(START, levels[0] ** 2 * EYE, chain)


@pytest.mark.parametrize("svd", [True, False])
@pytest.mark.parametrize(
    ("steps", "eta", "sigma_y"), [(20, 0.85, 0.0), (20, 0.0, 0.0), (20, 0.85, 0.4), (9, 0.5, 0.1)]
)
def test_law_of_the_outcome(steps, eta, sigma_y, svd):
    solver = DDNM(steps=steps, eta=eta)
    x = outcome(solver, 0.7, sigma_y, 20000, svd=svd)
    assert_law(x, *recursion(solver, 0.7, sigma_y, svd=svd))


@pytest.mark.parametrize(
    ("steps", "eta", "mean", "variance"),
    [
        (100, 0.85, 0.851, 0.157),
        (1000, 0.85, 0.890, 0.147),
        (100, 0.0, 0.862, 0.190),
        (100, 1.0, 0.835, 0.106),
    ],
)
def test_hidden_pixel_of_a_pair(steps, eta, mean, variance):
    """Correlation 0.9, the first seen to be 1; exact are 0.9 and 0.19. Fresh noise narrows."""
    count = 10000
    operator, y = first_of_pairs(count)
    x = DDNM(steps=steps, eta=eta)(y, operator, pairs(0.9, count)).samples[0, 0, 0]
    assert bool((x[:, 0] == 1).all())
    assert float(x[:, 1].mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / count))
    assert float(x[:, 1].var()) == pytest.approx(variance, rel=0.02 + 5 * math.sqrt(2 / count))


def test_a_trace_of_noise_leaves_the_last_word_to_the_denoiser():
    """Without noise data are met to rounding; with any, up to the noise of the last level."""
    exact, nearly = (outcome(DDNM(steps=50), 0.7, s, 4000) @ A[0] for s in (0.0, 1e-6))
    assert float((exact - 0.7).abs().max()) < 1e-12
    assert float((nearly - 0.7).std()) == pytest.approx(0.01 * float(NORM), rel=0.06)


@pytest.mark.parametrize("spec", ["blur:sigma=1", "downsample:factor=4", "mask:keep=0.4"])
def test_noiseless_data_are_met(spec):
    shape = (1, 16, 16)
    prior = Gaussian.power_law(shape)
    operator = operators.parse(spec, shape).to(F64)
    y = operator.A(prior.sample(2, torch.Generator().manual_seed(1)))
    result = DDNM(steps=6)(y, operator, prior, samples=2)
    error = (operator.A(result.samples[1]) - y).norm() / y.norm()
    assert float(error) < 1e-5
    assert result.status == "ok"


def test_time_travel_walks_stretches_again():
    assert DDNM(steps=4).path() == [0, 1, 2, 3, 4]
    twice = DDNM(steps=5, travel_length=2, travel_repeat=2)
    assert twice.path() == [0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert twice.length == 9
    thrice = DDNM(steps=3, travel_length=1, travel_repeat=3)
    assert thrice.path() == [0, 1, 0, 1, 0, 1, 2, 1, 2, 1, 2, 3]


def test_time_travel_counts_from_the_last_level():
    """Stretches end on the last level, as in RePaint; what is left over is at the start."""
    solver = DDNM(steps=6, travel_length=3, travel_repeat=2)
    assert solver.path() == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6]
    assert DDNM(steps=3, travel_length=5, travel_repeat=2).path() == [0, 1, 2, 3]


@pytest.mark.parametrize("travel", ["paper", "code"])
@pytest.mark.parametrize("sigma_y", [0.0, 0.4])
def test_time_travel_follows_its_recursion(travel, sigma_y):
    """Going back adds the noise between the levels, or noises the denoised image anew."""
    solver = DDNM(steps=60, eta=0.5, travel_length=4, travel_repeat=2, travel=travel)
    levels, y_bar = ddpm_levels(60), 0.7 / NORM
    law = denoised = (START, levels[0] ** 2 * EYE)
    for i, j in pairwise(solver.path()):
        s, t = levels[i], levels[j]
        if j > i:
            denoised = follow(*law, [(denoiser(s), START, 0 * EYE)])
            law = follow(*law, [step(solver, s, t, y_bar, sigma_y / float(NORM))])
        elif travel == "paper":
            law = (law[0], law[1] + (t**2 - s**2) * EYE)
        else:
            law = (denoised[0], denoised[1] + t**2 * EYE)
    assert_law(outcome(solver, 0.7, sigma_y, 20000), *law)


def test_every_call_of_a_travel_is_counted():
    operator, y = first_of_pairs(3)
    solver = DDNM(steps=5, travel_length=2, travel_repeat=3)
    seen = []
    result = solver(y, operator, pairs(0.5, 3), callback=seen.append)
    assert len(seen) == solver.length == result.cost.forwards
    assert bool((result.samples[..., 0] == 1).all())
    assert torch.equal(A[0], V[:, 0] * NORM)  # the toy's decomposition is its operator


@pytest.mark.parametrize("bad", [{"steps": 0}, {"eta": -1.0}, {"travel_length": 0}])
def test_impossible_constants_are_refused(bad):
    with pytest.raises(ValueError, match="ddnm needs"):
        DDNM(**bad)
    with pytest.raises(ValueError, match="unknown travel"):
        DDNM(travel="coed")
