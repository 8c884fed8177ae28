"""Exact networks: the optimal network of N(m, c) in its own variables must become exactly D."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from priors.adapters import Adapter, from_deepinv, from_diffusers, from_monai
from priors.denoiser import Card
from priors.diagnostics import sigma_check
from priors.predictions import from_x0
from priors.schedules import DDPM, EDM, VP, Discrete, RectifiedFlow

MEAN, VARIANCE = 0.4, 0.03  # of the images, in [0, 1]
CONFIG = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 2e-2,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}
KINDS = [("epsilon", "eps"), ("v_prediction", "v"), ("sample", "x0")]
ABAR = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
LOG_LEVEL = np.log(np.sqrt((1 - ABAR) / ABAR))


def exact(x, sigma):
    """The posterior mean of N(MEAN, VARIANCE) in [0, 1]."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1)
    return MEAN + VARIANCE / (VARIANCE + sigma**2) * (x - MEAN)


class ExactNetwork(nn.Module):
    """The optimal network of that prior on `value_range`, in DDPM's variables."""

    def __init__(self, kind, value_range=(-1.0, 1.0), variance_head=False):
        super().__init__()
        self.kind, self.variance_head = kind, variance_head
        scale = value_range[1] - value_range[0]
        self.mean, self.variance = scale * MEAN + value_range[0], scale**2 * VARIANCE

    def forward(self, x_t, timesteps, return_dict=True):
        level = np.exp(np.interp(timesteps.double().numpy(), np.arange(1000), LOG_LEVEL))
        level = torch.as_tensor(level, dtype=x_t.dtype).reshape(-1, 1, 1, 1)
        alpha = 1 / (1 + level**2).sqrt()
        gain = alpha * self.variance / (alpha**2 * (self.variance + level**2))
        x0 = self.mean + gain * (x_t - alpha * self.mean)
        value = from_x0(self.kind, x0, x_t, alpha, alpha * level)
        value = torch.cat([value, torch.ones_like(value)], 1) if self.variance_head else value
        return value if return_dict else (value,)


class Schedule:
    """What the adapter reads from a MONAI scheduler."""

    def __init__(self, prediction_type="epsilon"):
        self.alphas_cumprod, self.prediction_type = torch.as_tensor(ABAR), prediction_type


def noisy(sigma, batch=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, batch, 3, 8, 8, generator=generator, dtype=torch.float64)
    clean = MEAN + VARIANCE**0.5 * clean
    sigma = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return clean.to(dtype), (clean + sigma * noise).to(dtype)


SIGMAS = torch.tensor([0.0051, 0.07, 0.9, 60.0], dtype=torch.float64)


@pytest.mark.parametrize(("prediction_type", "kind"), KINDS)
@pytest.mark.parametrize("variance_head", [False, True])
def test_diffusers_adapter_is_exact(prediction_type, kind, variance_head):
    pytest.importorskip("diffusers")
    network = ExactNetwork(kind, variance_head=variance_head)
    prior = from_diffusers(network, CONFIG | {"prediction_type": prediction_type})
    _, x = noisy(SIGMAS)
    torch.testing.assert_close(prior(x, SIGMAS), exact(x, SIGMAS), rtol=1e-5, atol=1e-5)
    for sigma in SIGMAS.tolist():
        torch.testing.assert_close(prior(x, sigma), exact(x, sigma), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("prediction_type", "kind"), KINDS)
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (-1.0, 3.0)])
def test_monai_adapter_is_exact_in_every_range(prediction_type, kind, value_range):
    network = ExactNetwork(kind, value_range)
    prior = from_monai(network, Schedule(prediction_type), value_range=value_range)
    _, x = noisy(sigmas := torch.tensor([0.02, 0.07, 0.9, 30.0], dtype=torch.float64))
    torch.testing.assert_close(prior(x, sigmas), exact(x, sigmas), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [VP(), EDM(), RectifiedFlow(), DDPM()], ids=repr)
@pytest.mark.parametrize("kind", ["eps", "v", "flow", "x0", "score"])
def test_any_schedule_and_prediction(schedule, kind):
    class Network(nn.Module):
        def forward(self, x_t, t):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            alpha, sigma = alpha.reshape(-1, 1, 1, 1), sigma.reshape(-1, 1, 1, 1)
            x0 = exact((x_t / alpha + 1) / 2, sigma / alpha / 2)
            return from_x0(kind, 2 * x0 - 1, x_t, alpha, sigma)

    prior = Adapter(Network(), schedule, kind, card=Card(name="exact"))
    _, x = noisy(SIGMAS)
    # t is handed over in single precision at least, here in the double of the network
    torch.testing.assert_close(prior(x, SIGMAS), exact(x, SIGMAS), rtol=1e-8, atol=1e-8)


def test_images_in_other_units():
    """Hounsfield units on the outside, [-1, 1] within."""
    card = Card(name="ct", value_range=(-1000.0, 3000.0))
    prior = from_monai(ExactNetwork("eps"), Schedule(), value_range=(-1.0, 1.0), card=card)
    _, x = noisy(0.1)
    found = prior(4000 * x - 1000, 400.0)
    torch.testing.assert_close(found, 4000 * exact(x, 0.1) - 1000, rtol=1e-9, atol=1e-6)


def test_nearest_step_when_the_network_takes_whole_ones():
    seen = []

    class Whole(ExactNetwork):
        def forward(self, x_t, timesteps, return_dict=True):
            seen.append(timesteps)
            return super().forward(x_t, timesteps)

    prior = from_monai(Whole("eps"), Schedule(), value_range=(-1, 1), fractional=False)
    sigma = np.exp(LOG_LEVEL[[300, 700]]) / 2
    _, x = noisy(sigmas := torch.as_tensor(sigma), batch=2)
    torch.testing.assert_close(prior(x, sigmas), exact(x, sigmas), rtol=1e-9, atol=1e-9)
    between = float(np.exp(0.7 * LOG_LEVEL[300] + 0.3 * LOG_LEVEL[301]) / 2)
    torch.testing.assert_close(prior(x, between), exact(x, sigma[0]), rtol=1e-9, atol=1e-9)
    assert seen[0].dtype == torch.long
    assert seen[0].tolist() == [300, 700]


def test_below_the_first_level_the_score_is_kept():
    prior = from_monai(ExactNetwork("eps"), Schedule(), value_range=(-1, 1))
    lowest = prior.card.sigma_range[0]
    _, x = noisy(lowest, batch=1)
    torch.testing.assert_close(prior(x, 0.0), x, rtol=0, atol=1e-15)
    score = (exact(x, lowest) - x) / lowest**2
    for sigma in (0.3 * lowest, 0.999999 * lowest):
        torch.testing.assert_close(prior(x, sigma), x + sigma**2 * score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [-0.1, 79.0, float("nan"), torch.tensor([0.1, 100.0])])
def test_levels_that_the_network_does_not_know_are_refused(sigma):
    prior = from_monai(ExactNetwork("eps"), Schedule(), value_range=(-1, 1))
    with pytest.raises(ValueError, match=r"noise levels from 0 to 78\.7"):
        prior(torch.zeros(2, 3, 8, 8), sigma)


def test_the_highest_level_survives_single_precision():
    for steps in range(500, 540):
        scheduler = Schedule()
        scheduler.alphas_cumprod = torch.as_tensor(ABAR[:steps])
        prior = from_monai(ExactNetwork("eps"), scheduler, value_range=(-1, 1))
        sigma = torch.tensor(prior.card.sigma_range[1], dtype=torch.float32)
        assert prior(torch.zeros(1, 3, 8, 8), sigma).isfinite().all()


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0])
def test_the_true_sigma_beats_half_and_twice(sigma):
    clean, _ = noisy(sigma, batch=64)
    right = from_monai(ExactNetwork("eps"), Schedule(), value_range=(-1, 1))
    assert sigma_check(right, clean, sigma).passed


def test_sigma_check_finds_a_wrong_range():
    clean, _ = noisy(0.2, batch=64)
    wrong = from_monai(ExactNetwork("eps"), Schedule(), value_range=(0, 1))
    assert not sigma_check(wrong, clean, 0.2).passed


def test_gradients_and_dtypes():
    prior = from_monai(ExactNetwork("v"), Schedule("v_prediction"), value_range=(-1, 1))
    _, x = noisy(0.1, dtype=torch.float32)
    x.requires_grad_()
    out = prior(x, 0.1)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert out.dtype == torch.float32
    gain = VARIANCE / (VARIANCE + 0.1**2)
    torch.testing.assert_close(gradient, torch.full_like(x, gain), rtol=1e-4, atol=0)


def test_nothing_is_clipped():
    prior = from_monai(ExactNetwork("eps"), Schedule(), value_range=(-1, 1))
    x = torch.tensor([-5.0, 7.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    torch.testing.assert_close(prior(x, 0.05), exact(x, 0.05), rtol=1e-9, atol=1e-9)


def test_a_network_of_another_shape_is_refused():
    prior = Adapter(
        nn.Conv2d(3, 4, 1), EDM(), "x0", card=Card(name="four"), call=lambda n, x, t: n(x)
    )
    with pytest.raises(ValueError, match="returned shape"):
        prior(torch.zeros(1, 3, 8, 8), 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "flow"}, "unknown prediction_type 'flow'"),
        ({"beta_schedule": None, "_class_name": "FlowMatch"}, "of FlowMatch has no beta_schedule"),
        ({"beta_schedule": "lineal"}, "no beta_schedule 'lineal'"),
    ],
)
def test_configurations_that_are_refused(change, message):
    pytest.importorskip("diffusers")
    with pytest.raises(ValueError, match=message):
        from_diffusers(ExactNetwork("eps"), CONFIG | change)


def test_other_schedulers_ranges_and_kinds_are_refused():
    with pytest.raises(ValueError, match="has no alphas_cumprod"):
        from_monai(ExactNetwork("eps"), object(), value_range=(-1, 1))
    with pytest.raises(ValueError, match="low < high"):
        from_monai(ExactNetwork("eps"), Schedule(), value_range=(1, -1))
    with pytest.raises(ValueError, match="did you mean 'eps'"):
        Adapter(ExactNetwork("eps"), EDM(), "epsilon", card=Card(name="x"))


# real networks, tiny and untrained


def check_real(prior, x):
    """Shape, dtype, per-image levels, gradients, pickling."""
    sigma = torch.linspace(0.1, 1.0, len(x))
    together = prior(x, sigma)
    assert together.shape == x.shape
    for i in range(len(x)):
        alone = prior(x[i : i + 1], float(sigma[i]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)
    z = x.clone().requires_grad_()
    assert torch.autograd.grad(prior(z, sigma).sum(), z)[0].abs().max() > 0
    assert prior(x.double(), sigma).dtype == torch.float64
    assert torch.equal(pickle.loads(pickle.dumps(prior))(x, sigma), together)


def perturbed(network):
    """Untrained networks end in zeros; these answer something."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=generator)
    return network


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_diffusers_unet(prediction_type, zero_snr):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        rescale_betas_zero_snr=zero_snr,
    )
    unet = diffusers.UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    prior = from_diffusers(perturbed(unet), scheduler.config)
    _, x = noisy(0.3, batch=2, dtype=torch.float32)
    check_real(prior, x)
    assert (prior.card.channels, prior.card.spatial_dims) == (3, 2)
    assert "multiples of 2" in (prior.refuse((1, 3, 9, 8)) or "")
    assert "expects 3 channels" in (prior.refuse((1, 1, 8, 8)) or "")
    assert prior.refuse((1, 3, 8, 8)) is None

    # the same estimate as diffusers' own sampler sees at a step
    scheduler.set_timesteps(1000)
    for step in (10, 500, 900):
        abar = float(scheduler.alphas_cumprod[step])
        x_t = abar**0.5 * (2 * x - 1)
        with torch.no_grad():
            theirs = scheduler.step(unet(x_t, step).sample, step, x_t).pred_original_sample
            ours = prior(x, ((1 - abar) / abar) ** 0.5 / 2)
        torch.testing.assert_close(2 * ours - 1, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_monai_unet(spatial_dims):
    from monai.networks.nets import DiffusionModelUNet
    from monai.networks.schedulers import DDIMScheduler

    scheduler = DDIMScheduler(1000, prediction_type="v_prediction", clip_sample=False)
    unet = DiffusionModelUNet(
        spatial_dims=spatial_dims,
        in_channels=1,
        out_channels=1,
        channels=(8, 8),
        attention_levels=(False, True),
        num_res_blocks=1,
        norm_num_groups=4,
        num_head_channels=8,
    )
    prior = from_monai(perturbed(unet), scheduler, value_range=(-1, 1))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, *[8] * spatial_dims, generator=generator)
    check_real(prior, x)
    assert (prior.card.channels, prior.card.spatial_dims) == (1, spatial_dims)

    scheduler.set_timesteps(1000)
    for step in (10, 500, 900):
        abar = float(scheduler.alphas_cumprod[step])
        x_t = abar**0.5 * (2 * x - 1)
        with torch.no_grad():
            value = unet(x_t, timesteps=torch.full((2,), step))
            _, theirs = scheduler.step(value, step, x_t)
            ours = prior(x, ((1 - abar) / abar) ** 0.5 / 2)
        torch.testing.assert_close(2 * ours - 1, theirs, rtol=2e-3, atol=2e-3)


def test_deepinv_denoiser():
    from deepinv.models import DRUNet

    network = perturbed(DRUNet(3, 3, nc=(4, 4, 4, 4), nb=1, pretrained=None))
    _, x = noisy(0.3, batch=2, dtype=torch.float32)
    prior = from_deepinv(network)
    check_real(prior, x)
    assert torch.equal(prior(x, 0.3), network(x, 0.3))
    centred = from_deepinv(network, value_range=(-1.0, 1.0))
    expected = (network(2 * x - 1, 0.6) + 1) / 2
    torch.testing.assert_close(centred(x, 0.3), expected, rtol=1e-5, atol=1e-5)


def test_a_network_keeps_its_own_precision():
    seen = []

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.bfloat16))

        def forward(self, x, t):
            seen.append((x.dtype, t.dtype))
            return self.gain * x

    prior = Adapter(Half(), Discrete((0.9, 0.5)), "x0", card=Card(name="half"))
    out = prior(torch.ones(1, 1, 2, 2), 0.3)
    assert seen == [(torch.bfloat16, torch.float32)]
    assert out.dtype == torch.float32
