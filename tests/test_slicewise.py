"""Priors of flat images on volumes, and of one channel on several."""

import math

import pytest
import torch
from torch import nn

import operators
from priors import Card, ChannelWise, Denoiser, Gaussian, Latent, SliceWise, lift, per_image
from restore.bench.posterior import bias_and_ratio
from restore.solvers.dps import DPS
from restore.solvers.mmps import MMPS

F64 = torch.float64
SIZE = (5, 6, 7)


class Local(Denoiser):
    """A convolution between two others: sees pixels beside it, all channels, and the noise."""

    def __init__(self, channels=1):
        super().__init__(Card(name="local", channels=channels, spatial_dims=2))
        self.first = nn.Conv2d(channels, 3, 3, padding=1)
        self.second = nn.Conv2d(3, channels, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=F64) / 3
        self.shapes = []

    def forward(self, x, sigma, **kwargs):
        self.shapes.append(tuple(x.shape))
        return x + per_image(sigma, x) * self.second(torch.tanh(self.first(x)))


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def by_hand(prior, x, sigma, axis):
    dim = 2 + axis
    return torch.stack([prior(s, sigma) for s in x.unbind(dim)], dim)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_every_slice_meets_the_prior_few_at_a_time(axis, chunk):
    prior, x = Local(2), normal(3, 2, *SIZE)
    sigma = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    expected = by_hand(prior, x, sigma, axis)
    prior.shapes.clear()
    with torch.no_grad():
        found = SliceWise(prior, axis=axis, chunk=chunk)(x, sigma)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    flat = tuple(n for i, n in enumerate(SIZE) if i != axis)
    assert all(n <= chunk and tuple(rest) == (2, *flat) for n, *rest in prior.shapes)
    assert sum(n for n, *_ in prior.shapes) == 3 * SIZE[axis]


def test_a_volume_does_not_depend_on_the_batch_around_it():
    prior, x = SliceWise(Local(), chunk=2), normal(3, 1, *SIZE)
    with torch.no_grad():
        assert torch.equal(prior(x, 0.4)[1:2], prior(x[1:2], 0.4))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients(axis, recompute):
    prior, x, v = Local(), normal(2, 1, *SIZE).requires_grad_(), normal(2, 1, *SIZE, seed=2)
    (expected,) = torch.autograd.grad(by_hand(prior, x, 0.7, axis), x, v)
    sliced = SliceWise(prior, axis=axis, chunk=2, recompute=recompute)
    out = sliced(x, 0.7)
    calls = len(prior.shapes)
    (found,) = torch.autograd.grad(out, x, v)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (len(prior.shapes) > calls) is recompute


def test_gradients_keep_only_the_slices():
    def kept(recompute):
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        x = normal(1, 1, 16, 12, 12).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            SliceWise(Local(), recompute=recompute)(x, 0.7)
        return total

    assert kept(True) < kept(False) / 3


def test_torch_func_without_recomputation():
    prior, x, v = Local(), normal(1, 1, *SIZE), normal(1, 1, *SIZE, seed=2)
    sliced = SliceWise(prior, axis=1, chunk=2, recompute=False)
    expected = torch.func.vjp(lambda z: by_hand(prior, z, 0.7, 1), x)[1](v)[0]
    found = torch.func.vjp(lambda z: sliced(z, 0.7), x)[1](v)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    expected = torch.func.jvp(lambda z: by_hand(prior, z, 0.7, 1), (x,), (v,))[1]
    with torch.no_grad():
        found = torch.func.jvp(lambda z: SliceWise(prior, axis=1)(z, 0.7), (x,), (v,))[1]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_card_is_that_of_volumes():
    flat = Gaussian.power_law((2, 6, 7))
    sliced = SliceWise(flat, axis=0)
    assert (sliced.card.spatial_dims, sliced.card.channels, sliced.card.exact) == (3, 2, True)
    assert sliced.card.image_shape is None  # any number of slices
    assert sliced.refuse((1, 2, 9, 6, 7)) is None
    assert "knows images of shape (2, 6, 7)" in (sliced.refuse((1, 2, 9, 6, 8)) or "")
    assert "is for 3-D images" in (sliced.refuse((1, 2, 6, 7)) or "")


def test_channels_alone():
    prior, x = Local(), normal(3, 2, 6, 7)
    sigma = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    both = ChannelWise(prior)
    for c in range(2):
        torch.testing.assert_close(
            both(x, sigma)[:, c : c + 1], prior(x[:, c : c + 1], sigma), rtol=0, atol=1e-12
        )
    assert both.refuse((1, 2, 6, 7)) is None
    fixed = ChannelWise(Gaussian.power_law((1, 6, 7)))
    assert fixed.refuse((1, 2, 6, 7)) is None
    assert "knows images of shape (1, 6, 7)" in (fixed.refuse((1, 2, 6, 8)) or "")


def test_lifting_does_what_is_needed_and_no_more():
    grey, complex_, solid = Local(), Local(2), Gaussian.power_law((1, 4, 4, 4))
    assert lift(grey, (1, 1, 6, 7)) is grey
    assert lift(grey, (1, 3, 6, 7)) is grey  # colour is not two parts of a number
    assert lift(solid, (1, 1, 4, 4, 4)) is solid
    assert isinstance(lift(grey, (1, 2, 6, 7)), ChannelWise)
    assert isinstance(lift(complex_, (1, 2, *SIZE)), SliceWise)
    sliced = lift(grey, (1, 2, *SIZE), axis=2)
    x = normal(1, 2, *SIZE)
    parts = [by_hand(grey, x[:, c : c + 1], 0.4, 2) for c in range(2)]
    torch.testing.assert_close(sliced(x, 0.4), torch.cat(parts, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SliceWise(Local(), axis=3), "axis=3"),
        (lambda: SliceWise(Local(), chunk=0), "chunk=0"),
        (lambda: SliceWise(SliceWise(Local())), "is for 3-D images"),
        (lambda: SliceWise(Latent(Local(), lambda x: x, lambda z: z)), "is for latents"),
        (lambda: ChannelWise(Local(3)), "not one of a single channel"),
    ],
)
def test_mistakes_are_named(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_other_solvers_sample_the_posterior_of_volumes():
    """Slices share no number, so that their exact posteriors are those of a flat image each."""
    flat, shape = Gaussian.power_law((1, 8, 8)), (1, 3, 8, 8)
    operator = operators.parse("slices|mask:keep=0.5", shape, noise=0.05).to(F64)
    truth = flat.sample(3, torch.Generator().manual_seed(5)).transpose(0, 1)[None]
    y = operators.measure(operator, truth, seed=7)
    solver, n = MMPS(levels=20), 64
    samples = solver(y, operator, SliceWise(flat), samples=n, batch_size=n).samples[:, 0]
    for i in range(3):
        exact = flat.posterior(y[:, i], operator.operators[0], 0.05)
        square, ratio = bias_and_ratio(samples[:, :, i], exact.mean, exact.std)
        # 64 unknown pixels at most, the hidden half of them with nearly all of the variance
        chance = 3 * math.sqrt(2 / 32) / n
        assert square < 0.1**2 + chance
        assert ratio == pytest.approx(1, abs=0.1)


def test_solvers_that_do_not_lift_say_so_and_take_a_lifted_prior():
    flat, shape = Gaussian.power_law((1, 8, 8)), (1, 3, 8, 8)
    operator = operators.parse("slices|denoise", shape, noise=0.1).to(F64)
    y = operators.measure(operator, torch.full((1, *shape), 0.5, dtype=F64), seed=1)
    with pytest.raises(ValueError, match="knows images of shape"):
        DPS(steps=3)(y, operator, flat)
    assert DPS(steps=3)(y, operator, SliceWise(flat)).samples.shape == (1, 1, *shape)
