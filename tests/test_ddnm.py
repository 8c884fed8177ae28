"""DDNM and DDNM+ against linear recursions, known numbers, and exact consistency."""

import math

import pytest
import torch
from recursions import EYE, NORM, A, V, assert_law, ddpm_levels, denoiser, follow, outcome
from toys import first_of_pairs, pairs

import operators
from priors import Gaussian
from restore.solvers.ddnm import DDNM, split

F64 = torch.float64


def recursion(solver, y, sigma_y, *, svd=True):
    """Algorithm 2, in matrices; without a decomposition singular values count as 1."""
    levels, y_bar = ddpm_levels(solver.steps), y / NORM
    noise = sigma_y / NORM if svd else torch.tensor(sigma_y, dtype=F64)
    seen = V @ V.T
    old = math.sqrt(1 - solver.eta**2)
    chain = []
    for s, t in zip(levels, levels[1:], strict=False):
        D = denoiser(s)
        lam, spare = (float(v) for v in split(noise, t))
        kept = spare * seen + t * (EYE - seen) if svd else spare * EYE
        F = D - lam * seen @ D + old / s * kept @ (EYE - D)
        chain.append((F, lam * y_bar * V[:, 0], solver.eta * kept))
    return follow(torch.zeros(2, dtype=F64), levels[0] ** 2 * EYE, chain)


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


def test_noise_budget_is_the_level():
    """What the measurement and the fresh noise add is `s_next^2`, and never more."""
    noise = torch.tensor([0.0, 1e-9, 0.1, 0.5, 0.5001, 3.0], dtype=F64)
    lam, spare = split(noise, 0.5)
    torch.testing.assert_close((lam * noise) ** 2 + spare**2, torch.full((6,), 0.25, dtype=F64))
    assert lam.tolist()[:4] == [1, 1, 1, 1]
    assert float(lam[4]) < 1
    assert [float(v) for v in split(noise, 0.0)[0]] == [1, 0, 0, 0, 0, 0]


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


def test_time_travel_follows_its_recursion():
    """Going back forgets the old noise: a stretch starts from the last estimate, noised."""
    solver = DDNM(steps=6, eta=0.5, travel_length=3, travel_repeat=2)
    levels, seen = ddpm_levels(6), V @ V.T
    mean, covariance = torch.zeros(2, dtype=F64), levels[0] ** 2 * EYE
    path = solver.path()
    for i, j in zip(path, path[1:], strict=False):
        if j < i:
            mean, covariance = fitted[0], fitted[1] + levels[j] ** 2 * EYE
            continue
        D = denoiser(levels[i])
        fit, g = D - seen @ D, 0.7 / NORM * V[:, 0]
        fitted = follow(mean, covariance, [(fit, g, 0 * EYE)])
        old = math.sqrt(1 - 0.5**2) * levels[j] / levels[i] * (EYE - D)
        mean, covariance = follow(mean, covariance, [(fit + old, g, 0.5 * levels[j] * EYE)])
    assert_law(outcome(solver, 0.7, 0.0, 20000), mean, covariance)


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
