"""The shipped priors of scans, on slices that neither their training nor any patient has shown."""

import math

import pytest
import torch

import priors
from priors.weights import SHELF

SIDE = 144


def plane():
    axis = torch.linspace(-1, 1, SIDE)
    return torch.meshgrid(axis, axis, indexing="ij")


def inside(level, width=1.5 / SIDE):
    """1 where `level` > 0, with an edge of a pixel or two, as a scanner blurs."""
    return (level / width).clamp(-1, 1) / 2 + 0.5


def head(thickness, lobes):
    """A CT slice (1, 1, H, W) in the prior's range: skin, fat, skull, brain, fluid, a sinus."""
    y, x = plane()
    angle = torch.atan2(y, x)
    radius = (y.square() / 0.85 + x.square() / 0.6).sqrt() * (1 + 0.02 * (3 * angle).cos())
    hu = torch.full_like(x, -1000.0)
    inner = 0.9 - thickness
    folds = 0.03 * (lobes * angle + 4 * radius).sin()
    ventricle = 0.22 - (y.square() + (4 * (x.abs() - 0.12)).square()).sqrt()
    sinus = 0.09 - (x.square() + (y - 0.74).square()).sqrt()
    layers = (
        (0.98 - radius, 30.0),
        (0.96 - radius, -90.0),
        (0.92 - radius, 50.0),
        (0.90 - radius, 1400.0),
        (0.90 - thickness / 4 - radius, 600.0),
        (0.90 - 3 * thickness / 4 - radius, 1200.0),
        (inner - radius, 8.0),
        (inner - 0.02 + folds - radius, 38.0),
        (inner - 0.12 + 2 * folds - radius, 28.0),
        (ventricle, 8.0),
        (sinus, -1000.0),
    )
    for level, value in layers:
        hu = torch.lerp(hu, torch.full_like(hu, value), inside(level))
    return ((hu + 1000) / 3000)[None, None]


def brain(lobes, turns):
    """An MR slice (1, 1, H, W): folded layers in a head; under a phase of `turns` half-circles."""
    y, x = plane()
    angle, radius = torch.atan2(y, x), (y.square() / 0.8 + x.square() / 0.6).sqrt()
    folds = 0.06 * (lobes * angle + 5 * radius).sin() + 0.03 * (2.3 * lobes * angle).cos()
    image = torch.zeros_like(x)
    layers = (
        (0.98 - radius, 0.9),
        (0.90 - radius, 0.08),
        (0.80 - radius, 0.25),
        (0.74 + folds - radius, 0.5),
        (0.62 + 1.6 * folds - radius, 0.72),
        (0.16 - (y.square() + (3 * (x.abs() - 0.12)).square()).sqrt(), 0.15),
    )
    for level, value in layers:
        image = torch.lerp(image, torch.full_like(image, value), inside(level))
    return (image * (turns * math.pi * (x + 0.6 * y)).cos())[None, None]


SLICES = {
    "ct": [head(0.12, 17), head(0.2, 11)],
    "mr": [brain(9, 0.0), brain(13, 0.0), brain(11, 0.7), brain(8, 1.1)],
}


@torch.no_grad()
def rmse(prior, slices, sigma, told):
    """Error over all slices when the noise is `sigma` and the prior is told `told`."""
    generator = torch.Generator().manual_seed(0)
    errors = []
    for x in slices:
        noisy = x + sigma * torch.randn(x.shape, generator=generator)
        errors.append((prior(noisy, told) - x).square().mean())
    return float(torch.stack(errors).mean().sqrt())


@pytest.mark.parametrize("name", ["ct", "mr"])
def test_the_true_noise_level_is_the_best(name):
    """A posterior mean has the least error; told another level, it leaves noise or blurs."""
    prior = priors.load(name)
    for sigma in (0.03, 0.1, 0.4):
        right = rmse(prior, SLICES[name], sigma, sigma)
        assert right < rmse(prior, SLICES[name], sigma, sigma / 2)
        assert right < rmse(prior, SLICES[name], sigma, 2 * sigma)


@pytest.mark.parametrize("name", ["ct", "mr"])
def test_scans_are_denoised_better_than_by_the_prior_of_photographs(name):
    prior, photographs = priors.load(name), priors.load("natural-gray")
    for sigma in (0.1, 0.4):  # below, edges decide, and those of photographs do as well
        found = rmse(prior, SLICES[name], sigma, sigma)
        assert found < 0.97 * rmse(photographs, SLICES[name], sigma, sigma)


@pytest.mark.parametrize("name", ["ct", "mr"])
def test_cards_say_the_units_and_who_was_held_out(name):
    card = priors.available()[name]
    assert str(card.extra["units"]).startswith("u = ")
    assert card.extra["held_out"]
    assert "patients" in card.training_data
    assert (SHELF.folder / f"{name}.safetensors").stat().st_size < 5 * 2**20
