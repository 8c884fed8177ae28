"""The power-law prior: its fit against a known law, its denoiser against dense algebra."""

import copy
import json
import math
import pickle

import pytest
import torch

from priors.bases import Cosine
from priors.denoiser import Card
from priors.exact import Gaussian
from priors.powerlaw import PowerLaw, PowerLawDenoiser, fit_power_law

F64 = torch.float64
COLOURS = torch.linalg.qr(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=F64).T)[0].T
LAW = PowerLaw(
    colours=tuple(tuple(row) for row in COLOURS.tolist()),
    mean=(0.8, 0.02, -0.01),
    mean_std=(0.2, 0.05, 0.02),
    amplitude=(1e-2, 1e-3, 1e-4),
    exponent=(1.9, 1.6, 1.3),
)


def law_of_grey(**changes):
    numbers = {"mean": (0.5,), "mean_std": (0.2,), "amplitude": (2e-3,), "exponent": (2.0,)}
    return PowerLaw(colours=((1.0,),), **(numbers | changes))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def draw(law, count, size, seed=0):
    """Images of the law, from the definition: cosine coefficients of power `a / f^b`."""
    colours = torch.tensor(law.colours, dtype=F64)
    shape = (len(colours), *size)
    axes = [torch.arange(n, dtype=F64) / (2 * n) for n in size]
    f = (axes[0][:, None] ** 2 + axes[1][None, :] ** 2).sqrt()
    z = random(count, *shape, seed=seed)
    for k, (a, b) in enumerate(zip(law.amplitude, law.exponent, strict=True)):
        std = (a / f**b).sqrt()
        std[0, 0] = math.sqrt(f.numel()) * law.mean_std[k]
        z[:, k] *= std
    components = Cosine().synthesise(z) + torch.tensor(law.mean, dtype=F64)[:, None, None]
    return torch.einsum("kc,bkhw->bchw", colours, components)


def slope_error(count, size):
    """Standard errors of intercept and slope; n coefficients have log power +- sqrt(2/n)."""
    axes = [torch.arange(n, dtype=F64) / (2 * n) for n in size]
    f = (axes[0][:, None] ** 2 + axes[1][None, :] ** 2).sqrt().flatten()[1:]
    ring = (4 * f.log2()).round()
    x = torch.stack([f[ring == r].log().mean() for r in ring.unique()])
    n = torch.stack([(ring == r).sum() for r in ring.unique()])
    fit = torch.linalg.pinv(torch.stack([torch.ones_like(x), -x], dim=1))
    return ((fit**2 * 2 / (n * count)).sum(1)).sqrt().tolist()


def test_fit_recovers_the_law():
    count, size = 300, (48, 64)
    found = fit_power_law(draw(LAW, count, size))
    intercept, slope = slope_error(count, size)
    variances = LAW.variances((3, *size)).flatten(1).sum(1)
    for k in range(3):
        std = LAW.mean_std[k]
        assert found.mean_std[k] == pytest.approx(std, abs=5 * std / math.sqrt(2 * count) + 0.002)
        assert found.exponent[k] == pytest.approx(LAW.exponent[k], abs=5 * slope + 0.02)
        log_ratio = math.log(found.amplitude[k] / LAW.amplitude[k])
        assert abs(log_ratio) < 5 * intercept + 0.06  # the rings are a quarter of an octave wide
    turn = torch.tensor(found.colours, dtype=F64) @ COLOURS.T
    for i in range(3):
        for j in range(3):
            if i != j:
                gap = float((variances[i] * variances[j]).sqrt() / (variances[i] - variances[j]))
                assert abs(float(turn[i, j])) < 5 * abs(gap) / math.sqrt(count)
    # means are compared in the fitted colours, whose signs are free
    mean = torch.tensor(found.colours, dtype=F64).T @ torch.tensor(found.mean, dtype=F64)
    expected = COLOURS.T @ torch.tensor(LAW.mean, dtype=F64)
    assert float((mean - expected).abs().max()) < 5 * 0.2 / math.sqrt(count)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_fit_of_the_slope(exponent):
    law = law_of_grey(exponent=(exponent,))
    found = fit_power_law(draw(law, 200, (64, 64), seed=int(exponent)))
    assert found.exponent[0] == pytest.approx(
        exponent, abs=5 * slope_error(200, (64, 64))[1] + 0.02
    )
    assert abs(found.colours[0][0]) == pytest.approx(1)


def test_what_cannot_be_fitted_is_refused():
    grey = draw(law_of_grey(), 10, (16, 16))
    for images in (grey.expand(-1, 3, -1, -1), grey[:1], torch.full((4, 1, 16, 16), 0.5)):
        with pytest.raises(ValueError, match="several images that vary"):
            fit_power_law(images)


@pytest.mark.parametrize("size", [(4, 5), (1, 7), (6, 1)])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_denoiser_is_the_matrix_formula(size, sigma):
    """Covariance put together densely: colours times cosine basis times variances."""
    prior = PowerLawDenoiser(Card(name="law", channels=3), LAW)
    shape, n = (3, *size), 3 * math.prod(size)
    unit = torch.eye(n, dtype=F64).reshape(n, *shape)
    columns = torch.einsum("kc,bkhw->bchw", COLOURS, Cosine().synthesise(unit))
    B = columns.reshape(n, n).T
    C = B @ torch.diag(LAW.variances(shape).flatten()) @ B.T
    mean = torch.einsum("kc,k->c", COLOURS, torch.tensor(LAW.mean, dtype=F64))
    x = random(2, *shape)
    dense = Gaussian.dense(mean[:, None, None].expand(shape), C)
    torch.testing.assert_close(prior(x, sigma), dense(x, sigma), rtol=1e-8, atol=1e-8)


def test_power_of_a_frequency_does_not_depend_on_the_size():
    small, large = LAW.variances((3, 8, 12)), LAW.variances((3, 16, 24))
    torch.testing.assert_close(large[:, ::2, ::2].flatten(1)[:, 1:], small.flatten(1)[:, 1:])
    torch.testing.assert_close(large[:, 0, 0], 4 * small[:, 0, 0])  # the mean has std of its own


def test_one_prior_serves_any_size_dtype_and_sigma_per_image():
    prior = PowerLawDenoiser(Card(name="law", channels=1), law_of_grey())
    sigma = torch.tensor([0.1, 3.0])
    for size in [(1, 1), (1, 9), (33, 7), (64, 64), (5, 6, 7), (11,)]:
        x = random(2, 1, *size).float()
        found = prior(x, sigma)
        assert (found.shape, found.dtype) == (x.shape, torch.float32)
        alone = torch.cat([prior(x[i : i + 1], float(sigma[i])) for i in range(2)])
        torch.testing.assert_close(found, alone)


def test_high_noise_leaves_the_mean_colour():
    prior = PowerLawDenoiser(Card(name="law", channels=3), LAW)
    mean = torch.einsum("kc,k->c", COLOURS, torch.tensor(LAW.mean, dtype=F64))
    found = prior(random(1, 3, 8, 9), 1e6)
    torch.testing.assert_close(found, mean[:, None, None].expand(1, 3, 8, 9), rtol=0, atol=1e-6)


def test_it_denoises_its_own_images():
    """The error is the posterior's: `trace C (C + s^2)^-1 s^2`, over pixels."""
    law, sigma, count = law_of_grey(), 0.3, 100
    x = draw(law, count, (16, 16))
    prior = PowerLawDenoiser(Card(name="law", channels=1), law)
    error = (prior(x + sigma * random(*x.shape, seed=1), sigma) - x).square().mean((1, 2, 3))
    variances = law.variances((1, 16, 16))
    expected = float((variances * sigma**2 / (variances + sigma**2)).mean())
    assert abs(float(error.mean()) - expected) < 5 * float(error.std()) / math.sqrt(count)


def test_it_survives_json_copies_and_pickling():
    law = PowerLaw.from_dict(json.loads(json.dumps(LAW.as_dict())))
    assert law == LAW
    prior = PowerLawDenoiser(Card(name="law", channels=3), law)
    x = random(1, 3, 8, 8)
    expected = prior(x, 0.2)
    for twin in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert torch.equal(twin(x, 0.2), expected)


def test_a_card_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="3 colour components, the card 1"):
        PowerLawDenoiser(Card(name="law", channels=1), LAW)
