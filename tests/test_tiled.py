import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from priors.denoiser import Card, Denoiser, per_image
from priors.tiled import Tiled


class Local(Denoiser):
    """Two random 3-pixel convolutions: sees 2 pixels to each side, and the noise level."""

    radius = 2

    def __init__(self, spatial_dims=2):
        super().__init__(Card(name="local"))
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
        self.first, self.second = conv(1, 3, 3, padding=1), conv(3, 1, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64) / 3
        self.shapes = []

    def forward(self, x, sigma, **kwargs):
        self.shapes.append(tuple(x.shape))
        return x + per_image(sigma, x) * self.second(torch.tanh(self.first(x)))


def image(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    tile=st.integers(5, 20),
    overlap=st.integers(4, 12),
    batch=st.integers(1, 5),
)
def test_equal_to_untiled_for_a_local_denoiser(size, tile, overlap, batch):
    overlap = min(overlap, tile - 1)
    prior, x = Local(), image(2, 1, *size)
    sigma = torch.tensor([0.3, 0.9], dtype=torch.float64)
    tiled = Tiled(prior, tile, overlap, batch=batch)
    with torch.no_grad():
        expected = prior(x, sigma)
        prior.shapes.clear()
        torch.testing.assert_close(tiled(x, sigma), expected, rtol=0, atol=1e-12)
    # bounded memory: never more than `batch` tiles at once
    assert all(n <= 2 * batch and max(s) <= tile for n, _, *s in prior.shapes)


def test_volumes_and_sides_per_axis():
    prior, x = Local(spatial_dims=3), image(1, 1, 9, 14, 11)
    for tile in (8, (16, 6, 7)):
        found = Tiled(prior, tile, overlap=4)(x, 0.5)
        torch.testing.assert_close(found, prior(x, 0.5), rtol=0, atol=1e-12)


def test_too_small_an_overlap_is_seen():
    """The equality above is not vacuous: one pixel of context too few, and it fails."""
    prior, x = Local(), image(1, 1, 40, 40)
    error = (Tiled(prior, tile=16, overlap=2)(x, 0.5) - prior(x, 0.5)).abs().max()
    assert error > 1e-3


def test_every_pixel_has_the_context_promised():
    """A denoiser that marks pixels nearer than the margin to its tile's edge shows none inside."""

    class Margin(Denoiser):
        def __init__(self):
            super().__init__(Card(name="margin"))

        def forward(self, x, sigma, **kwargs):
            i = torch.arange(x.shape[-1], dtype=x.dtype)
            return torch.minimum(i, i.flip(0)).expand_as(x)

    for n in range(20, 60):
        depth = Tiled(Margin(), tile=20, overlap=7)(torch.zeros(1, 1, n), 0.1)[0, 0]
        assert depth[3 : n - 3].min() >= 3
        assert (depth[0], depth[-1]) == (0, 0)


def test_an_image_no_larger_than_the_tile_passes_through():
    prior, x = Local(), image(1, 1, 16, 9)
    assert torch.equal(Tiled(prior, tile=16, overlap=4)(x, 0.5), prior(x, 0.5))
    assert prior.shapes == [(1, 1, 16, 9)] * 2


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients(recompute):
    prior, x = Local(), image(2, 1, 21, 18).requires_grad_()
    v = image(2, 1, 21, 18, seed=2)
    (expected,) = torch.autograd.grad(prior(x, 0.7), x, v)
    tiled = Tiled(prior, tile=12, overlap=4, batch=2, recompute=recompute)
    prior.shapes.clear()
    out = tiled(x, 0.7)
    calls = len(prior.shapes)
    (found,) = torch.autograd.grad(out, x, v)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert len(prior.shapes) == (2 if recompute else 1) * calls


def test_gradients_keep_only_tile_inputs():
    def kept(recompute):
        """Numbers that autograd stores from the forward pass."""
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        x = image(1, 1, 60, 60).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            Tiled(Local(), tile=16, overlap=4, recompute=recompute)(x, 0.7)
        return total

    assert kept(True) < kept(False) / 3


def test_torch_func_without_recomputation():
    prior, x, v = Local(), image(1, 1, 21, 18), image(1, 1, 21, 18, seed=2)
    tiled = Tiled(prior, tile=12, overlap=4, recompute=False)
    expected = torch.func.vjp(lambda z: prior(z, 0.7), x)[1](v)[0]
    found = torch.func.vjp(lambda z: tiled(z, 0.7), x)[1](v)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    expected = torch.func.jvp(lambda z: prior(z, 0.7), (x,), (v,))[1]
    found = torch.func.jvp(lambda z: Tiled(prior, 12, 4)(z, 0.7), (x,), (v,))[1]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_card_tells_of_the_tiles():
    prior = Local()
    prior.card = Card(name="local", channels=1, exact=True)
    card = Tiled(prior, tile=16, overlap=4).card
    assert (card.name, card.channels, card.exact) == ("local", 1, False)
    assert card.extra == {"tile": 16, "overlap": 4}
    assert "expects 1 channel" in (Tiled(prior).refuse((1, 3, 8, 8)) or "")


@pytest.mark.parametrize(
    ("tile", "overlap", "batch"), [(16, 16, 1), (16, -1, 1), (16, 4, 0), ((16, 3), 4, 1), (0, 0, 1)]
)
def test_impossible_tiles_are_refused(tile, overlap, batch):
    with pytest.raises(ValueError, match="overlap < tile"):
        Tiled(Local(), tile, overlap, batch=batch)


def test_priors_of_one_size_and_wrong_sides_are_refused():
    prior = Local()
    with pytest.raises(ValueError, match="3 sides"):
        Tiled(prior, (8, 8, 8), 4)(image(1, 1, 20, 20), 0.1)
    prior.card = Card(name="fixed", image_shape=(1, 8, 8))
    with pytest.raises(ValueError, match="cannot be tiled"):
        Tiled(prior)
