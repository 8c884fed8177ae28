"""PiGDM against linear recursions, the exact posterior where its model holds, and DDNM."""

import math
from itertools import pairwise

import deepinv
import pytest
import torch
from recursions import EYE, A, assert_law, ddpm_levels, denoiser, follow, outcome

import operators
from priors import Dirac, Gaussian
from priors.bases import Hartley
from restore.solvers.pigdm import PiGDM

F64 = torch.float64


def recursion(solver, y, sigma_y):
    """Algorithm 1, in matrices."""
    levels, c = ddpm_levels(solver.steps), solver.variance
    bayes = solver.weighting == "bayes"
    chain = []
    for s, t in pairwise(levels):
        D, r2 = denoiser(s), c * s**2 / (c + s**2)
        gain = A.T / (r2 * float(A @ A.T) + sigma_y**2)
        K = (s**2 if bayes else r2) * D.T @ gain
        guided, g = D - K @ A @ D, (K * y)[:, 0]
        fresh = solver.eta * t * math.sqrt(1 - (t / s) ** 2)
        kept = math.sqrt(t**2 - fresh**2) / s
        old, less = (EYE - guided, -kept * g) if bayes else (EYE - D, 0 * g)
        chain.append((guided + kept * old, g + less, fresh * EYE))
    return follow(torch.zeros(2, dtype=F64), levels[0] ** 2 * EYE, chain)


@pytest.mark.parametrize("svd", [True, False])
@pytest.mark.parametrize(
    ("options", "sigma_y"),
    [
        ({"steps": 30}, 0.3),
        ({"steps": 30, "eta": 0.2, "variance": 0.4}, 0.3),
        ({"steps": 30, "weighting": "code"}, 0.3),
        ({"steps": 30, "weighting": "code"}, 0.0),
        ({"steps": 30}, 0.0),
    ],
)
def test_law_of_the_outcome(options, sigma_y, svd):
    solver = PiGDM(**options)
    assert_law(outcome(solver, 0.7, sigma_y, 20000, svd=svd), *recursion(solver, 0.7, sigma_y))


@pytest.mark.parametrize(
    ("c", "mean", "variance"),
    [(1.0, 0.73394, 0.08305), (0.1, 0.34681, 0.05100), (4.0, 0.79843, 0.07843)],
)
def test_scalar_reference_values(c, mean, variance):
    """Prior N(0, c), y = 0.8, sigma_y = 0.3: exact for c = 1, with a known bias elsewhere."""
    count = 10000
    variances = torch.full((1, 1, count), c, dtype=F64)
    prior = Gaussian(torch.zeros(1, 1, count), Hartley(), variances, value_range=(-1, 1))
    operator = operators.denoise((1, 1, count), noise=0.3).to(F64)
    y = torch.full((1, 1, 1, count), 0.8, dtype=F64)
    x = PiGDM(steps=1000)(y, operator, prior).samples.flatten()
    assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / count) + 0.002)
    assert float(x.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / count) + 0.03)


def test_its_variance_option_makes_other_priors_exact():
    """c = 0.1 told: the exact 0.42105 and 0.04737; also in the range [0, 1]."""
    count, scale = 10000, 0.5
    shape = (1, 1, count)
    variances = torch.full(shape, 0.1 * scale**2, dtype=F64)
    prior = Gaussian(torch.full(shape, 0.5), Hartley(), variances)
    operator = operators.denoise(shape, noise=0.3 * scale).to(F64)
    y = torch.full((1, *shape), 0.5 + 0.8 * scale, dtype=F64)
    x = (PiGDM(steps=1000, variance=0.1)(y, operator, prior).samples.flatten() - 0.5) / scale
    assert float(x.mean()) == pytest.approx(0.42105, abs=5 * math.sqrt(0.047 / count) + 0.003)
    assert float(x.var()) == pytest.approx(0.04737, rel=5 * math.sqrt(2 / count) + 0.03)


def test_white_prior_without_noise_is_projection():
    """For C = I the guided image is `D + A^+ (y - A D)`, whatever the step."""
    prior = Gaussian(torch.zeros(1, 8, 8), Hartley(), torch.ones(1, 8, 8), value_range=(-1, 1))
    operator = operators.parse("mask:keep=0.5", (1, 8, 8)).to(F64)
    y = operator.A(prior.sample(1, torch.Generator().manual_seed(0)))
    seen = []
    PiGDM(steps=9)(y, operator, prior, callback=lambda step: seen.append(step.x))
    for x in seen:
        torch.testing.assert_close(operator.A(x), y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", ["blur:sigma=0.7", "downsample:factor=2,filter=box"])
def test_conjugate_gradients_agree_with_the_singular_values(spec):
    prior = Gaussian.power_law((1, 8, 8))
    operator = operators.parse(spec, (1, 8, 8), noise=0.1).to(F64)
    y = operators.measure(operator, prior.sample(2, torch.Generator().manual_seed(0)), seed=1)
    plain = deepinv.physics.LinearPhysics(
        A=lambda x, **_: operator.A(x), A_adjoint=lambda v, **_: operator.A_adjoint(v),
        noise_model=operators.GaussianNoise(0.1),
    )  # fmt: skip
    solver = PiGDM(steps=12, tol=1e-10, max_iter=200)
    closed, iterated = (solver(y, physics, prior, samples=2) for physics in (operator, plain))
    torch.testing.assert_close(iterated.samples, closed.samples, rtol=0, atol=1e-6)


def test_a_nonlinear_operator_is_guided_through_its_pseudo_inverse():
    """A rounding camera without derivative: what comes back rounds to the measurement, nearly."""
    levels = 8
    camera = deepinv.physics.Physics(A=lambda x, **_: (x * levels).round() / levels)
    camera.A_dagger = lambda y, **_: y
    prior = Gaussian.power_law((1, 8, 8))
    x = prior.sample(1, torch.Generator().manual_seed(0))
    found = PiGDM(steps=50)(camera.A(x), camera, prior).samples[0]
    assert float((camera.A(found) - camera.A(x)).abs().max()) <= 1 / levels + 1e-9
    assert float((found - x).abs().mean()) < 1 / levels


def test_a_point_mass_prior_is_not_guided():
    x = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=F64)
    operator = operators.parse("mask:keep=0.5", (1, 8, 8), noise=0.05).to(F64)
    y = operators.measure(operator, x, seed=2)
    torch.testing.assert_close(PiGDM(steps=4)(y, operator, Dirac(x)).samples[0], x)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"variance": 0.0}, {"weighting": "bayse"}])
def test_impossible_constants_are_refused(bad):
    with pytest.raises(ValueError, match="pigdm"):
        PiGDM(**bad)
