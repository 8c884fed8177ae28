"""What a wrong start costs, in closed form, and the right ones."""

import math

import pytest
import torch
from flows import mixture

from priors import Card, Dirac, Gaussian, GaussianMixture, load
from priors.bases import Hartley
from priors.denoiser import Denoiser
from priors.networks import Handover
from priors.powerlaw import PowerLaw, PowerLawDenoiser
from priors.predictions import to_x0
from priors.schedules import DDPM, Discrete
from restore.samplers.ddim import DDIM
from restore.samplers.grid import Grid, Point
from restore.samplers.terminal import (
    moments,
    one_more_step,
    rescale_zero_snr,
    start,
    white,
)
from restore.search.objectives import gaussian_flow

F64 = torch.float64
SHAPE = (1, 2, 3)
STABLE = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=F64).square()  # its betas
SD = Discrete(tuple(torch.cumprod(1 - STABLE, 0).tolist()))
MEAN = 0.7


def last(table):
    """The noisiest point of a schedule."""
    t = len(table.alphas_cumprod) - 1.0
    return Point(t, float(table.alpha(t)), float(table.sigma(t)))


def ends(prior, at, begin):
    """Mean and std that the exact flow makes of the two starts `begin(+1)` and `begin(-1)`.

    The flow of a Gaussian is affine, and so is `begin`: they tell both exactly.
    """
    there = [
        gaussian_flow(prior, begin(torch.full((1, *SHAPE), z, dtype=F64)) / at.alpha, at.level, 0.0)
        for z in (1.0, -1.0)
    ]
    return float(((there[0] + there[1]) / 2).mean()), float(((there[0] - there[1]) / 2).mean())


@pytest.mark.parametrize(
    ("table", "c", "lost"),
    [(SD, 1.0, 0.0683), (SD, 0.5, 0.034), (SD, 0.1, 0.007), (DDPM(), 1.0, 0.0064)],
)
def test_a_start_from_pure_noise_loses_the_known_share_of_the_mean(table, c, lost):
    at, prior = last(table), white(SHAPE, MEAN, c)
    mean, std = ends(prior, at, lambda z: z)
    share = at.alpha * c / math.hypot(at.alpha * c, at.sigma)
    assert mean == pytest.approx(MEAN * (1 - share), rel=1e-6)
    assert share == pytest.approx(lost, rel=0.03)  # the digits that are quoted
    # one step from no image: the mean is exact, the std misses what the image adds to the noise
    mean, std = ends(prior, at, lambda z: one_more_step(MEAN, at, z))
    assert mean == pytest.approx(MEAN, rel=1e-6)
    assert std / c == pytest.approx(at.sigma / math.hypot(at.alpha * c, at.sigma), rel=1e-6)
    # the marginal itself: both
    mean, std = ends(prior, at, lambda z: start(moments(prior, SHAPE), at, z))
    assert mean == pytest.approx(MEAN, rel=1e-6)
    assert std == pytest.approx(c, rel=1e-6)


def test_the_figures_of_stable_diffusion():
    at = last(SD)
    assert at.alpha**2 == pytest.approx(0.00466, abs=5e-6)
    assert at.sigma / math.hypot(at.alpha, at.sigma) == pytest.approx(0.9977, abs=5e-5)


def test_starts_keep_the_dtype_and_the_covariance():
    prior = Gaussian.power_law((2, 6, 5))
    at = Point(0.5, 0.8, 0.6)
    z = torch.eye(60, dtype=F64).reshape(60, 2, 6, 5)
    columns = (start(moments(prior, (2, 6, 5)), at, z) - at.alpha * prior.mean).flatten(1)
    # linear in z: its matrix S gives S^T S, the covariance, without sampling
    wanted = at.alpha**2 * prior.covariance(z).flatten(1) + at.sigma**2 * torch.eye(60, dtype=F64)
    torch.testing.assert_close(columns.T @ columns, wanted, rtol=0, atol=1e-12)
    assert start(moments(prior, (2, 6, 5)), at, z.float()).dtype == torch.float32


def test_a_correct_start_makes_brightness_right_by_ddim_too():
    # through the sampler, not the flow: the mean of a Gaussian is carried exactly by every step
    prior = white(SHAPE, MEAN, 0.5)
    grid = Grid(SD, (999.0, 600.0, 200.0, 20.0, 0.0))
    zero = torch.zeros(1, *SHAPE, dtype=F64)
    bright = DDIM()(prior, start(moments(prior, SHAPE), grid[0], zero), grid)
    assert float((bright - MEAN).abs().max()) < 1e-9
    dark = DDIM()(prior, zero, grid)
    assert float(dark.max()) < 0.98 * MEAN


# --- moments of priors ---------------------------------------------------------------------------


def covariance(prior, shape):
    n = math.prod(shape)
    return prior.covariance(torch.eye(n, dtype=F64).reshape(n, *shape)).flatten(1)


def test_moments_of_mixtures_are_exact():
    product = mixture(rotated=True)
    w, m, c = (
        torch.tensor(v, dtype=F64) for v in ((0.3, 0.5, 0.2), (-1.2, 0.4, 1.5), (0.3, 0.4, 0.25))
    )
    found = moments(product, (1, 3, 11))
    mean = (w * m).sum()
    assert product.basis is not None
    torch.testing.assert_close(product.basis.analyse(found.mean[None]), mean.expand(1, 1, 3, 11))
    torch.testing.assert_close(
        found.variances, ((w * (c**2 + m**2)).sum() - mean**2).expand(1, 3, 11)
    )

    generator = torch.Generator().manual_seed(3)
    parts = [
        Gaussian(
            torch.randn(SHAPE, generator=generator),
            Hartley(),
            torch.rand(SHAPE, generator=generator),
        )
        for _ in range(2)
    ]
    both = moments(GaussianMixture([1, 3], parts), SHAPE)
    mean = 0.25 * parts[0].mean + 0.75 * parts[1].mean
    second = sum(
        share * (covariance(part, SHAPE) + torch.outer(part.mean.flatten(), part.mean.flatten()))
        for share, part in zip((0.25, 0.75), parts, strict=True)
    )
    torch.testing.assert_close(both.mean, mean)
    torch.testing.assert_close(
        covariance(both, SHAPE), second - torch.outer(mean.flatten(), mean.flatten())
    )


def test_moments_of_atoms():
    atoms = torch.arange(12.0, dtype=F64).reshape(2, *SHAPE)
    found = moments(Dirac(atoms, [1, 3]), SHAPE)
    torch.testing.assert_close(found.mean, 0.25 * atoms[0] + 0.75 * atoms[1])
    # two atoms 6 apart: variance 36 / 4 * 3 / 4
    torch.testing.assert_close(found.variances, torch.full(SHAPE, 6.75, dtype=F64))


LAW = PowerLaw(((0.6, 0.8), (-0.8, 0.6)), (0.9, 0.1), (0.2, 0.1), (1e-3, 2e-4), (1.9, 1.7))


def test_the_moments_of_a_power_law_are_those_of_its_denoiser():
    law = PowerLawDenoiser(Card(name="law", channels=2, spatial_dims=2), LAW)
    found = moments(law, (2, 5, 4))
    x = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    for sigma in (0.05, 0.7, 20.0):
        torch.testing.assert_close(found(x, sigma), law(x, sigma), rtol=1e-9, atol=1e-9)


def test_shipped_networks_know_the_moments_of_their_power_law():
    prior = load("natural-gray")
    assert isinstance(prior, Handover)
    found = moments(prior, (1, 32, 48))
    assert 0.3 < float(found.mean.mean()) < 0.6
    # photographs in [0, 1]: no more than a coin of black and white, 0.5
    assert 0.15 < float(found.variances.mean().sqrt()) < 0.5


def test_unknown_moments_are_refused_and_can_be_given():
    class Other(Denoiser):
        pass

    with pytest.raises(ValueError, match="prior 'other' are not known; give them as numbers"):
        moments(Other(Card(name="other")), SHAPE)
    given = white(SHAPE, mean=0.4, std=0.3)
    at = Point(0.5, 0.8, 0.6)
    one = start(given, at, torch.ones(1, *SHAPE, dtype=F64))
    assert float(one.mean()) == pytest.approx(0.8 * 0.4 + math.hypot(0.8 * 0.3, 0.6))


# --- schedules that end in pure noise ------------------------------------------------------------


def test_a_rescaled_table_ends_in_pure_noise_and_begins_as_before():
    table = torch.tensor(SD.alphas_cumprod, dtype=F64)
    new = rescale_zero_snr(SD.alphas_cumprod)
    assert float(new[-1]) == 0.0
    assert float(new[0]) == pytest.approx(float(table[0]), rel=1e-15)
    # alpha is shifted and scaled: an affine function of what it was
    ratio = new.sqrt().diff() / table.sqrt().diff()
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-9, atol=0)
    finite = Discrete(tuple(new[:-1].tolist()))
    assert finite.level_range[1] > 10 * SD.level_range[1]
    for bad in ([0.9], [0.5, 0.9], [1.0, 0.5], [0.9, 0.0]):
        with pytest.raises(ValueError, match="strictly decreasing values inside"):
            rescale_zero_snr(bad)


def test_rescaling_agrees_with_diffusers():
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    betas = scheduling.rescale_zero_terminal_snr(STABLE)
    theirs = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(rescale_zero_snr(SD.alphas_cumprod), theirs, rtol=1e-9, atol=1e-12)


def test_one_more_step_enters_a_rescaled_table():
    # all the way from alpha = 0: the exact flow then ends at the right mean
    new = rescale_zero_snr(SD.alphas_cumprod)
    at = last(Discrete(tuple(new[:-1].tolist())))
    prior = white(SHAPE, MEAN, 1.0)
    mean, std = ends(prior, at, lambda z: one_more_step(prior.mean, at, z))
    assert mean == pytest.approx(MEAN, rel=1e-6)
    # the step is short: 1 - std is half of alpha^2, below 1e-4 here
    assert std == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["eps", "score"])
def test_noise_predictions_are_refused_where_alpha_is_zero(kind):
    x = torch.ones(2, *SHAPE)
    with pytest.raises(ValueError, match=f"prediction '{kind}' says nothing of the image"):
        to_x0(kind, x, x, 0.0, 1.0)
    with pytest.raises(ValueError, match="stop before"):
        to_x0(kind, x, x, torch.tensor([0.5, 0.0]), 1.0)
    for fine in ("v", "x0", "flow"):
        assert bool(torch.isfinite(to_x0(fine, x, x, 0.0, 1.0)).all())
