import math

import pytest
import torch

from priors.denoiser import Card, Denoiser, per_image
from priors.diagnostics import jacobian_asymmetry, residual_std, sigma_check, tweedie_gap

VARIANCE = 0.05


class Shrink(Denoiser):
    """Exact for white N(1/2, VARIANCE); `told` multiplies the sigma that it hears."""

    def __init__(self, told=1.0, gain=1.0):
        super().__init__(Card(name="shrink"))
        self.told, self.gain = told, gain

    def forward(self, x, sigma, **kwargs):
        s = self.told * per_image(sigma, x)
        return 0.5 + self.gain * VARIANCE / (VARIANCE + s**2) * (x - 0.5)


class Matrix(Denoiser):
    """`D(x) = A x` on the pixels of an image, times sigma."""

    def __init__(self, A):
        super().__init__(Card(name="matrix"))
        self.A = A

    def forward(self, x, sigma, **kwargs):
        return per_image(sigma, x) * (x.flatten(1) @ self.A.T).reshape(x.shape)


def images(n=32):
    generator = torch.Generator().manual_seed(3)
    return 0.5 + VARIANCE**0.5 * torch.randn(n, 1, 16, 16, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_errors_and_their_expectation_agree_for_the_exact_denoiser(sigma):
    exact = math.sqrt(VARIANCE * sigma**2 / (VARIANCE + sigma**2))
    bound = 5 / math.sqrt(2 * images().numel())  # five standard errors of a standard deviation
    assert residual_std(Shrink(), images(), sigma) == pytest.approx(exact, rel=bound)
    assert abs(tweedie_gap(Shrink(), images(), sigma)) < bound


def test_the_gap_tells_overconfidence_from_modesty():
    # J = g I: expected error g s^2, actual (1 - g)^2 c + g^2 s^2, equal at the exact g and at 1
    def gap(told, sigma=0.3):
        g = VARIANCE / (VARIANCE + (told * sigma) ** 2)
        actual = (1 - g) ** 2 * VARIANCE + g**2 * sigma**2
        return math.sqrt(g * sigma**2 / actual) - 1

    for told in (0.0, 0.5, 1.0, 2.0):
        assert tweedie_gap(Shrink(told), images(), 0.3) == pytest.approx(gap(told), abs=0.04)
    assert gap(2.0) < -0.1
    assert gap(0.5) > 0.1
    assert tweedie_gap(Shrink(gain=-1.0), images(), 0.3) == -1


def test_the_true_sigma_wins_and_a_wrong_scale_is_found():
    errors = sigma_check(Shrink(), images(), 0.2)
    assert errors.passed
    gain = VARIANCE / (VARIANCE + 0.4**2)
    twice = math.sqrt((1 - gain) ** 2 * VARIANCE + gain**2 * 0.2**2)
    assert errors.twice == pytest.approx(twice, rel=0.04)
    assert not sigma_check(Shrink(told=0.5), images(), 0.2).passed
    assert not sigma_check(Shrink(told=2.0), images(), 0.2).passed


def test_noise_repeats_with_the_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    assert residual_std(Shrink(), images(), 0.2, 0) == residual_std(Shrink(), images(), 0.2, 0)
    assert residual_std(Shrink(), images(), 0.2, 0) != residual_std(Shrink(), images(), 0.2, 1)
    assert tweedie_gap(Shrink(), images(), 0.2, 0) == tweedie_gap(Shrink(), images(), 0.2, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_independent_of_images_drawn_from_the_same_seed():
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(4, 1, 16, 16, generator=generator, dtype=torch.float64)
    # D = 1/2 + 2 (x - 1/2) errs by (x_0 - 1/2) + 2 n: the squares add only without correlation
    identity = residual_std(Shrink(told=0.0), white, 1.0, seed=0)
    doubled = residual_std(Shrink(told=0.0, gain=2.0), white, 1.0, seed=0)
    assert doubled**2 == pytest.approx(
        float((white - 0.5).square().mean()) + 4 * identity**2, rel=0.1
    )


def test_asymmetry_of_a_known_matrix():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(48, 48, generator=generator, dtype=torch.float64)
    x = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for weight in (0.0, 0.1, 1.0, 3.0):
        B = (A + A.T) / 2 + weight * (A - A.T) / 2
        expected = float((B - B.T).norm() / (B + B.T).norm())
        found = jacobian_asymmetry(Matrix(B), x, 0.7, probes=100, generator=generator)
        assert found.shape == (2,)
        # the mean of 100 quadratic forms in 48 dimensions is known to about 2 %
        torch.testing.assert_close(found, torch.full_like(found, expected), rtol=0.1, atol=1e-12)


def test_norms_are_per_image():
    """An image whose Jacobian vanishes twice as fast changes nothing for the other."""
    A = torch.triu(torch.ones(16, 16, dtype=torch.float64))
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor([1.0, 1e-6], dtype=torch.float64)
    found = jacobian_asymmetry(Matrix(A), x, sigma, probes=200)
    assert float(found[1] / found[0]) == pytest.approx(1, rel=0.2)


def test_networks_with_attention():
    """Fused attention has no forward-mode derivative: the diagnosis must avoid it."""

    class Attention(Denoiser):
        def __init__(self):
            super().__init__(Card(name="attention"))

        def forward(self, x, sigma, **kwargs):
            z = x.flatten(2).mT[:, None].contiguous()
            return torch.nn.functional.scaled_dot_product_attention(z, z, z)[:, 0].mT.reshape(
                x.shape
            )

    x = torch.rand(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert 0 < float(jacobian_asymmetry(Attention(), x, 0.1)) < 1
