"""Shipped networks: exact equivariance, any size, and the handover to a closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from priors.denoiser import Card, Denoiser, per_image
from priors.exact import Gaussian
from priors.networks import Handover, NoisePredictor, _pad_by_reflection

F64 = torch.float64
SIZES = [(32, 40), (37, 45), (1, 9), (20, 1), (1, 1), (5, 70), (31, 33)]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def tiny(channels=1, seed=0):
    network = NoisePredictor(Card(name="tiny", channels=channels), (2, 3, 4, 5), 1).double()
    for i, p in enumerate(network.parameters()):
        p.data = random(*p.shape, seed=seed + i) / p[0].numel() ** 0.5
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("size", SIZES)
def test_scaling_image_and_noise_scales_the_answer(size):
    network, x = tiny(), random(2, 1, *size)
    sigma = torch.tensor([0.1, 0.7], dtype=F64)
    expected = network(x, sigma)
    assert expected.shape == x.shape
    assert float((expected - x).abs().max()) > 1e-3  # the network does something
    for a in (1e-3, 0.5, 40.0):
        torch.testing.assert_close(network(a * x, a * sigma), a * expected, rtol=1e-9, atol=0)


def test_it_subtracts_what_the_network_predicts():
    network, x = tiny(channels=3), random(2, 3, 40, 64)
    sigma = torch.tensor([0.2, 0.3], dtype=F64)
    torch.testing.assert_close(network(x, sigma), x - network.net(x, sigma), rtol=0, atol=1e-14)
    odd = x[..., :37, :59]
    whole = F.pad(odd, (0, 5, 0, 3), mode="reflect")
    expected = (whole - network.net(whole, sigma))[..., :37, :59]
    torch.testing.assert_close(network(odd, sigma), expected, rtol=0, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    more=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_padding_is_reflection_however_often(size, more):
    x = random(2, 1, *size)
    found = _pad_by_reflection(x, size[0] + more[0], size[1] + more[1])
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, more[0]), (0, more[1])), mode="reflect")
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", [(32, 32), (17, 50)])
def test_sigma_per_image_equals_one_at_a_time(size):
    network, x = tiny(), random(3, 1, *size)
    sigma = torch.tensor([0.01, 0.3, 2.0], dtype=F64)
    alone = torch.cat([network(x[i : i + 1], float(sigma[i])) for i in range(3)])
    for level in (sigma, sigma.reshape(3, 1, 1, 1)):
        torch.testing.assert_close(network(x, level), alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(network(x, 0.3)[1:2], alone[1:2], rtol=0, atol=1e-12)


def test_the_callers_dtype_comes_back():
    network, x = tiny().float(), random(1, 1, 33, 34)
    single = network(x.float(), 0.1)
    assert (single.dtype, network(x, 0.1).dtype) == (torch.float32, F64)
    torch.testing.assert_close(network(x, 0.1).float(), single, rtol=0, atol=1e-5)


def test_gradients_reach_image_and_weights():
    network, x = tiny(), random(1, 1, 13, 34).requires_grad_()
    v, h = random(1, 1, 13, 34, seed=1), 1e-6
    (slope,) = torch.autograd.grad(network(x, 0.3), x, v)
    step = random(1, 1, 13, 34, seed=2)
    with torch.no_grad():
        change = (network(x + h * step, 0.3) - network(x - h * step, 0.3)) / (2 * h)
    torch.testing.assert_close((slope * step).sum(), (change * v).sum(), rtol=1e-5, atol=1e-7)
    network.requires_grad_(True)
    network(x, 0.3).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_open_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="needs a number of channels"):
        NoisePredictor(Card(name="any"), (2, 3, 4, 5), 1)


# -- handover ----------------------------------------------------------------------------------


class Counted(Denoiser):
    """Shrinks by a constant and counts its calls."""

    def __init__(self, gain):
        super().__init__(Card(name="counted"))
        self.gain, self.calls = gain, 0

    def forward(self, x, sigma, **kwargs):
        self.calls += 1
        return self.gain * x / (1 + per_image(sigma, x))


def pair():
    network, gaussian = Counted(1.0), Counted(0.5)
    return Handover(Card(name="pair"), network, gaussian, 0.4, 1.0), network, gaussian


@pytest.mark.parametrize("sigma", [0.0, 1e-3, 0.39])
def test_below_it_is_the_network_alone(sigma):
    prior, network, gaussian = pair()
    x = random(2, 1, 4, 4)
    assert torch.equal(prior(x, sigma), network(x, sigma))
    assert gaussian.calls == 0


@pytest.mark.parametrize("sigma", [1.01, 5.0, 1e4])
def test_above_it_is_the_closed_form_alone(sigma):
    prior, network, gaussian = pair()
    x = random(2, 1, 4, 4)
    assert torch.equal(prior(x, sigma), gaussian(x, sigma))
    assert network.calls == 0


def test_between_it_blends_linearly_in_log_sigma():
    prior, network, gaussian = pair()
    x = random(1, 1, 4, 4)
    for w in (0.1, 0.5, 0.8):
        sigma = 0.4**w * 1.0 ** (1 - w)
        expected = w * network(x, sigma) + (1 - w) * gaussian(x, sigma)
        torch.testing.assert_close(prior(x, sigma), expected)
    grid = torch.logspace(-0.6, 0.2, 400, dtype=F64)
    path = torch.cat([prior(x, float(s)) for s in grid])
    assert float(path.diff(dim=0).abs().max()) < 0.02 * float(x.abs().max())  # no jump


def test_images_of_a_batch_are_handed_over_each_at_its_level():
    prior, *_ = pair()
    x, sigma = random(4, 1, 4, 4), torch.tensor([0.1, 0.5, 0.8, 3.0], dtype=F64)
    alone = torch.cat([prior(x[i : i + 1], float(sigma[i])) for i in range(4)])
    torch.testing.assert_close(prior(x, sigma), alone, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("sigma", [0.2, 0.6, 2.0])
def test_gradients_flow_through_the_pair(sigma):
    shape = (1, 33, 34)
    prior = Handover(Card(name="pair"), tiny(), Gaussian.power_law(shape), 0.4, 1.0)
    x, v, step = (random(1, *shape, seed=s) for s in range(3))
    (slope,) = torch.autograd.grad(prior(x.requires_grad_(), sigma), x, v)
    with torch.no_grad():
        change = (prior(x + 1e-6 * step, sigma) - prior(x - 1e-6 * step, sigma)) / 2e-6
    torch.testing.assert_close((slope * step).sum(), (change * v).sum(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
def test_impossible_handovers_are_refused(low, high):
    with pytest.raises(ValueError, match="0 < low < high"):
        Handover(Card(name="pair"), Counted(1), Counted(1), low, high)
