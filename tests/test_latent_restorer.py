"""Restoration diffusions on latents: in the coordinates of an isometry nothing changes."""

import pytest
from torch import nn
from trained_toys import gaussian_prior, measured

import restore
from priors import Card
from restore.trained.latent import LatentPairs
from restore.trained.resshift import ResShift


def to_latents(x):
    """Shift to unit-variance latents: half as many pixels a side, four times the channels."""
    return nn.functional.pixel_unshuffle((x - 0.5) / 0.1, 2)


def to_images(z):
    return 0.5 + 0.1 * nn.functional.pixel_shuffle(z, 2)


def latent_prior(mean, variance):
    inside = gaussian_prior((mean - 0.5) / 0.1, variance / 0.01)
    card = Card(name="latent pairs", channels=1, spatial_dims=2)
    return LatentPairs(card, inside, to_latents, to_images)


def test_scaled_and_shuffled_latents_give_the_scaled_law():
    y, physics = measured(side=32)
    result = restore.solve(
        y, physics, latent_prior(0.6, 0.0025), ResShift(kappa=10.0, min_noise=0.2), samples=40
    )
    # in pixels: kappa = 1, min_noise = 0.02, but for the floor min_noise / kappa of the schedule
    from restore.trained.resshift import ResShiftSchedule, sampled_variance

    expected = 0.01 * sampled_variance(ResShiftSchedule(15, 10.0, 0.3, 0.2), 0.25)
    n = result.samples.numel()
    assert result.samples.shape == (40, 1, 1, 32, 32)
    assert float(result.samples.var()) / expected == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    assert float(result.samples.mean()) == pytest.approx(0.6, abs=0.001)
    assert result.cost.forwards == 15


def test_a_sample_is_the_same_in_every_batch():
    y, physics = measured(count=2, side=8)
    prior, solver = latent_prior(0.6, 0.0025), ResShift(steps=4, min_noise=0.1)
    many = restore.solve(y, physics, prior, solver, samples=3, seed=2).samples
    few = restore.solve(y[:1], physics, prior, solver, samples=3, seed=2, batch_size=1).samples
    assert float((many[:, :1] - few).abs().max()) < 1e-12


def test_latents_are_not_fitted_to_the_measurement():
    y, physics = measured(side=8)
    with pytest.raises(ValueError, match="lives on latents"):
        restore.solve(y, physics, latent_prior(0.6, 0.0025), ResShift(consistent=True))
