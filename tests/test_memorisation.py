"""Memory is found in priors that are nothing else, and not in those that have none."""

import math

import pytest
import torch

from priors import Dirac, Gaussian
from priors.denoiser import Card
from priors.diagnostics import (
    agreement,
    diagnose,
    generalisation_gap,
    neighbours,
    two_halves,
)
from priors.networks import NoisePredictor
from priors.training import Recipe

SHAPE = (1, 8, 8)
PRIOR = Gaussian.power_law(SHAPE)


def drawn(count, seed):
    return PRIOR.sample(count, torch.Generator().manual_seed(seed))


SEEN, UNSEEN, OTHERS = drawn(40, 1), drawn(40, 2), drawn(40, 3)


@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_point_masses_at_the_training_images_are_found(sigma):
    memory = Dirac(SEEN)
    gap = generalisation_gap(memory, SEEN, UNSEEN, sigma)
    assert gap.decibels > 6
    assert not gap.passed
    near = neighbours(memory, SEEN, UNSEEN, sigma)
    assert near.ratio < 0.5
    assert near.share > 0.9
    assert not near.passed


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.3, 1.0])
def test_the_prior_that_images_were_drawn_from_has_no_memory(sigma):
    gap = generalisation_gap(PRIOR, SEEN, UNSEEN, sigma)
    assert abs(gap.decibels) < 5 * gap.error
    assert gap.passed
    near = neighbours(PRIOR, SEEN, UNSEEN, sigma)
    assert near.count == 40
    assert near.passed
    # both nearest distances have one distribution, but the 40 results share the images: over many
    # sets of images the share is one half
    shares = torch.tensor(
        [neighbours(PRIOR, drawn(8, 10 + i), drawn(9, 1000 + i), sigma).share for i in range(60)]
    )
    assert abs(float(shares.mean()) - 0.5) < 5 * float(shares.std()) / math.sqrt(60)


def test_what_is_said_of_a_gap_is_what_it_is():
    class Twice:
        """Errs by 0.1 on images of mean above 1, by 0.2 below."""

        def __call__(self, x, sigma):
            return torch.where(x.mean((1, 2, 3), keepdim=True) > 1, 2.1, 0.2).expand_as(x)

    gap = generalisation_gap(Twice(), torch.full((9, *SHAPE), 2.0), torch.zeros(9, *SHAPE), 0.01)
    assert gap.seen == pytest.approx(0.1, rel=1e-5)
    assert gap.unseen == pytest.approx(0.2, rel=1e-5)
    assert gap.decibels == pytest.approx(20 * math.log10(2), rel=1e-5)
    assert gap.error == pytest.approx(0, abs=1e-5)


def test_the_error_of_a_gap_is_its_spread_over_sets_of_images():
    sigma, found = 0.3, []
    for i in range(100):
        found.append(generalisation_gap(PRIOR, drawn(20, i), drawn(20, 500 + i), sigma, seed=i))
    spread = torch.tensor([gap.decibels for gap in found]).std()
    told = torch.tensor([gap.error for gap in found]).square().mean().sqrt()
    # a standard deviation of 100 numbers is known to 1 / sqrt(200)
    assert float(spread / told) == pytest.approx(1, abs=5 / math.sqrt(200))


def test_two_memories_agree_less_than_two_that_learnt_the_same():
    one, other = Dirac(SEEN), Dirac(OTHERS)
    memories = agreement(one, other, UNSEEN, 0.1)
    assert memories.ahead < 0
    learnt = agreement(PRIOR, Gaussian.power_law(SHAPE, std=0.151), UNSEEN, 0.3)
    assert learnt.ahead > 20
    # results wrong independently and equally lie 3 dB below their PSNR
    noise = [0.1 * torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(i)).double()
             for i in (8, 9)]  # fmt: skip
    apart = agreement(lambda *_: UNSEEN + noise[0], lambda *_: UNSEEN + noise[1], UNSEEN, 0.3)
    assert apart.ahead == pytest.approx(-10 * math.log10(2), abs=5 * 10 / math.log(10) / 30)
    assert apart.one == pytest.approx(20, abs=5 * 10 / math.log(10) * math.sqrt(2 / 2560))


def test_the_diagnosis_says_so():
    def memory(prior):
        found = diagnose(prior, UNSEEN[:12], (0.1, 0.3), seen=SEEN[:12], stride=2)
        return next(v for v in found.verdicts if v.about == "memory")

    assert memory(PRIOR).ok
    accused = memory(Dirac(SEEN[:12]))
    assert accused.ok is False
    assert accused.sentence.startswith("It memorised: it denoises its training images up to ")
    assert "nearest to training images (sigma 0.1 and 0.3)" in accused.sentence


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=r"found 40 and 1; give more\.$"):
        neighbours(PRIOR, SEEN, UNSEEN[:1], 0.1)
    with pytest.raises(ValueError, match=r"found 1; give more\.$"):
        next(two_halves((PRIOR, PRIOR), UNSEEN[:1], Recipe(steps=1)))


def discs(count, seed, size=32):
    """Random discs on random grey."""
    u = torch.rand(count, 3, 5, generator=torch.Generator().manual_seed(seed))
    axis = torch.arange(size, dtype=torch.float32)
    image = u[:, 0, 0].reshape(-1, 1, 1).expand(count, size, size)
    for i in range(3):
        cx, cy, radius, grey = (u[:, i, j].reshape(-1, 1, 1) for j in range(1, 5))
        far = (axis[None, None] - size * cx) ** 2 + (axis[None, :, None] - size * cy) ** 2
        image = torch.where(far < (size * (0.1 + 0.3 * radius)) ** 2, grey, image)
    return image[:, None].contiguous()


def trained_pair(count, steps):
    """Two small networks, each trained on its half of `count` images."""
    networks = []
    for seed in range(2):
        network = NoisePredictor(Card(name="small", channels=1), (8, 16, 16, 16), 1)
        generator = torch.Generator().manual_seed(seed)
        for p in network.parameters():
            p.data = torch.randn(p.shape, generator=generator) / math.sqrt(2 * p[0].numel())
        networks.append(network.to(memory_format=torch.channels_last))
    recipe = Recipe(
        steps=steps, sigmas=((1.0, 0.1, 1.5),), lr=5e-3, warmup=20, ema=0.95, bfloat16=False
    )
    images = discs(count, 5)
    history = list(two_halves((networks[0], networks[1]), images, recipe))
    return networks, images[: count // 2], history


def test_two_halves_are_trained_each_on_its_own():
    networks, _, history = trained_pair(4, 3)
    assert [(a.step, b.step) for a, b in history] == [(1, 1), (2, 2), (3, 3)]
    assert all(not network.training for network in networks)
    assert history[0][0].loss != history[0][1].loss
    again, _, _ = trained_pair(4, 3)
    for one, other in zip(networks, again, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
        )


@pytest.mark.slow
def test_networks_become_one_as_images_grow_in_number():
    """Measured at sigma 0.3: 20.6 dB for a single image each and 29.9 dB for 256."""
    test, found = discs(64, 77), {}
    for count in (2, 512):
        (one, other), seen, _ = trained_pair(count, 300)
        gap = generalisation_gap(one, seen.repeat(64 // len(seen) or 1, 1, 1, 1), test, 0.3)
        found[count] = agreement(one, other, test, 0.3), gap
    (few, memory), (many, learnt) = found[2], found[512]
    assert many.mutual > few.mutual + 4
    assert many.ahead > few.ahead + 1
    assert not memory.passed
    assert memory.decibels > 6
    assert learnt.passed
