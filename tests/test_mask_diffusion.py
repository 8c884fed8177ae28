"""Masks by diffusion: the exact toy, windows, networks, training, files."""

import pytest
import torch

from medical.segment.diffusion import draw
from medical.segment.segmented import Segmented


def intervals(n=64):
    """Two nested intervals with odds 70 to 30, as masks `(2, 1, 1, 1, n)` in [-1, 1]."""
    masks = torch.full((2, 1, 1, 1, n), -1.0)
    masks[0, ..., 20:40] = 1
    masks[1, ..., 20:46] = 1
    return masks, torch.tensor([0.7, 0.3])


def bayes(masks, odds):
    """Posterior mean over a known set of masks under white noise."""

    def denoise(y, s):
        distance = (y[:, None].double() - masks).flatten(2).square().sum(2)
        weight = torch.softmax(odds.double().log() - distance / (2 * s**2), 1)
        return (weight @ masks.double().flatten(1)).reshape(y.shape).to(y)

    return denoise


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 20), ("ddim", 50), ("dpm++-2m", 20)])
def test_samples_of_a_known_set_are_its_masks_by_their_odds(sampler, steps):
    masks, odds = intervals()
    count = 4000
    x = draw(
        bayes(masks, odds),
        (1, 1, 1, 64),
        samples=count,
        steps=steps,
        sampler=sampler,
        batch=count,
        seed=3,
    )
    off = (x[:, None] - masks).abs().flatten(2).amax(2)
    assert (off.amin(1) < 0.05).float().mean() >= 0.99
    # 3.4 standard errors of a frequency over 4000 draws, 0.0072, and no room for more bias
    frequency = (off.argmin(1) == 0).float().mean()
    assert abs(frequency - 0.7) < 0.025
    found = Segmented.of_samples(x)
    p = 0.3 * (masks[1] - masks[0] > 0).float() + (masks[0] > 0).float()
    assert (found.probability[0] - p).abs().max() < 0.025
    assert (found.std[0] - (p * (1 - p)).sqrt()).abs().max() < 0.015
    assert torch.equal(found.mask[0], (masks[0] > 0).float())
