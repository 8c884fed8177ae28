"""Counting, transmission and magnitude noise: their moments, and no chance shared in a batch."""

import math

import pytest
import torch
from scipy.special import ive

import operators

MODELS = [
    operators.PoissonNoise(50.0),
    operators.TransmissionNoise(1e4, depth=2.0),
    operators.RicianNoise(0.1),
    operators.GaussianNoise(0.1),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_an_image_meets_the_same_noise_alone_and_in_any_precision(model):
    z = torch.linspace(0.1, 1, 60, dtype=torch.float64).reshape(3, 1, 4, 5)
    together = model(z, seed=3)
    torch.testing.assert_close(model(z[:1], seed=3), together[:1], rtol=0, atol=0)
    single = model(z.float(), seed=3)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=1e-6, atol=1e-6)
    assert not torch.equal(model(z, seed=4), together)


def test_poisson_has_its_mean_and_variance():
    n, counts, z = 200_000, 7.0, 0.6
    y = operators.PoissonNoise(counts)(torch.full((1, n), z, dtype=torch.float64))
    # five standard errors; the variance of a Poisson's sample variance is (2 mean^2 + mean) / n
    rate = counts * z
    assert abs(y.mean().item() - z) < 5 * math.sqrt(rate / n) / counts
    spread = 5 * math.sqrt((2 * rate**2 + rate) / n) / counts**2
    assert abs(y.var().item() - z / counts) < spread
    assert torch.equal((y * counts).round(), y * counts)


def test_transmission_is_the_line_integral_with_the_delta_methods_variance():
    n, photons, depth, z = 100_000, 1e4, 2.0, 0.7
    y = operators.TransmissionNoise(photons, depth)(torch.full((1, n), z, dtype=torch.float64))
    seen = photons * math.exp(-depth * z)
    std = 1 / math.sqrt(seen) / depth
    bias = 1 / (2 * seen) / depth  # of the logarithm, second order
    assert abs(y.mean().item() - z - bias) < 5 * std / math.sqrt(n)
    assert y.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * n) + 2 / seen)


def test_no_photon_at_all_is_finite():
    y = operators.TransmissionNoise(10.0)(torch.full((1, 50), 40.0))
    torch.testing.assert_close(y, torch.full_like(y, math.log(20.0)))


@pytest.mark.parametrize("z", [0.0, 0.1, 0.5])
def test_rician_mean_is_laguerre(z):
    n, sigma = 200_000, 0.2
    y = operators.RicianNoise(sigma)(torch.full((1, n), z, dtype=torch.float64))
    t = z**2 / (4 * sigma**2)
    mean = sigma * math.sqrt(math.pi / 2) * ((1 + 2 * t) * ive(0, t) + 2 * t * ive(1, t))
    assert abs(y.mean().item() - mean) < 5 * sigma / math.sqrt(n)
    # the second moment has no approximation in it
    second = y.square().mean().item()
    assert second == pytest.approx(z**2 + 2 * sigma**2, rel=0.02)


def test_measuring_leaves_generators_alone():
    physics = operators.denoise((1, 8, 8), distribution="poisson", counts=20)
    x = torch.full((1, 1, 8, 8), 0.5)
    state = torch.random.get_rng_state()
    first = operators.measure(physics, x, seed=1)
    assert torch.equal(first, operators.measure(physics, x, seed=1))
    assert not torch.equal(first, operators.measure(physics, x, seed=2))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "poison"}, "did you mean 'poisson'"),
        ({"distribution": "poisson", "counts": 0}, "counts is 0"),
        ({"distribution": "poisson", "noise": 0.1}, "drop noise"),
        ({"distribution": "rician", "noise": -1}, "noise is -1"),
    ],
)
def test_bad_noise_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        operators.denoise((1, 8, 8), **options)
