"""DDRM against the linear recursion of its equations, its limits, and its refusals."""

import math
from itertools import pairwise

import deepinv
import pytest
import torch
from recursions import EYE, NORM, A, V, assert_law, ddpm_levels, denoiser, follow, outcome
from toys import pairs

import operators
import restore
from priors import Dirac, Gaussian
from restore.solvers.ddrm import DDRM

F64 = torch.float64


def recursion(steps, eta, eta_b, y, sigma_y):
    """Equations 7 and 8, in matrices."""
    levels, y_bar, noise = ddpm_levels(steps), y / NORM, sigma_y / NORM
    rest = EYE - V @ V.T
    s = levels[0]
    mean = y_bar * V[:, 0]
    covariance = s**2 * rest + (s**2 - noise**2) * V @ V.T
    chain = []
    for s, t in pairwise(levels):
        D = denoiser(s)
        old = math.sqrt(1 - eta**2)
        free = D + old * t / s * (EYE - D)
        if t < noise:
            p = old * t / noise
            F, g, fresh = (1 - p) * V.T @ D, p * y_bar, eta * t
        else:
            F, g = (1 - eta_b) * V.T @ D, eta_b * y_bar
            fresh = math.sqrt(t**2 - eta_b**2 * noise**2)
        chain.append((rest @ free + V @ F, g * V[:, 0], eta * t * rest + fresh * V @ V.T))
    return follow(mean, covariance, chain)


@pytest.mark.parametrize(
    ("steps", "eta", "eta_b", "sigma_y"),
    [
        (20, 0.85, 1.0, 0.3),
        (20, 0.5, 0.4, 0.3),
        (7, 1.0, 1.0, 0.05),
        (20, 0.0, 1.0, 2.0),
        (2, 0.0, 0.5, 0.0115),  # the one step before the last shows its noise
    ],
)
def test_law_of_the_outcome(steps, eta, eta_b, sigma_y):
    x = outcome(DDRM(steps=steps, eta=eta, eta_b=eta_b), 0.7, sigma_y, 20000)
    assert_law(x, *recursion(steps, eta, eta_b, 0.7, sigma_y))


def test_noiseless_data_are_met_to_rounding():
    x = outcome(DDRM(), 0.7, 0.0, 500)
    torch.testing.assert_close(x @ A[0], torch.full((500,), 0.7, dtype=F64), rtol=0, atol=1e-12)
    assert float(x.var(0).min()) > 1e-3  # the hidden direction is not


@pytest.mark.parametrize(
    "spec", ["blur:sigma=1", "downsample:factor=4", "mask:keep=0.4", "denoise"]
)
@pytest.mark.parametrize("shape", [(1, 16, 20), (3, 20, 16)])
def test_noiseless_data_of_real_operators_are_met(spec, shape):
    prior = Gaussian.power_law(shape)
    operator = operators.parse(spec, shape).to(F64)
    y = operator.A(prior.sample(2, torch.Generator().manual_seed(1)))
    result = DDRM(steps=6)(y, operator, prior, samples=3)
    error = (operator.A(result.samples[1]) - y).norm() / y.norm()
    assert float(error) < 1e-6  # singular values below the cutoff are left alone


def test_what_is_not_measured_is_ddim_on_the_prior():
    """Every singular value is 0: eta 0 gives back the Gaussian prior, up to its steps."""
    count = 20000
    blind = deepinv.physics.Inpainting((1, count, 2), mask=torch.zeros(1, 1, count, 2)).to(F64)
    y = torch.zeros((1, 1, count, 2), dtype=F64)
    x = DDRM(steps=400, eta=0.0)(y, blind, pairs(0.8, count)).samples[0, 0, 0]
    expected = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
    torch.testing.assert_close(torch.cov(x.T), expected, rtol=0, atol=0.06)


def test_a_known_image_comes_back_exactly():
    x = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=F64)
    operator = operators.parse("blur:sigma=0.7", (1, 8, 8), noise=0.05).to(F64)
    found = DDRM()(operators.measure(operator, x, seed=2), operator, Dirac(x)).samples[0]
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)


def test_every_image_has_its_own_noise():
    """Levels per image: a batch equals its images alone."""
    prior = Gaussian.power_law((1, 8, 8))
    x = prior.sample(2, torch.Generator().manual_seed(1))

    def physics(sigma):
        operator = operators.parse("blur:sigma=0.7", (1, 8, 8), noise=0.1).to(F64)
        operator.noise_model = operators.GaussianNoise(torch.tensor(sigma))
        return operator

    y = x + 0.01
    both = DDRM()(y, physics([0.02, 0.3]), prior, samples=2).samples
    for i, sigma in enumerate((0.02, 0.3)):
        alone = DDRM()(y[i : i + 1], physics([sigma]), prior, samples=2).samples
        torch.testing.assert_close(both[:, i : i + 1], alone, rtol=0, atol=1e-6)


def test_operators_without_decomposition_are_refused_before_the_first_call():
    class Untouchable(Gaussian):
        def forward(self, x, sigma, **kwargs):
            raise AssertionError("called before the check")

    known = Gaussian.power_law((1, 16, 16))
    prior = Untouchable(known.mean, known.basis, known.variances)
    operator = operators.parse("ct:angles=8", (1, 16, 16), noise=0.01)
    y = operators.measure(operator, torch.rand(1, 1, 16, 16), seed=0)
    with pytest.raises(ValueError, match="fast singular value decomposition"):
        restore.solve(y, operator, prior, "ddrm")


@pytest.mark.parametrize("bad", [{"steps": 0}, {"eta": 1.5}, {"eta_b": -0.1}])
def test_impossible_constants_are_refused(bad):
    with pytest.raises(ValueError, match="ddrm needs"):
        DDRM(**bad)
