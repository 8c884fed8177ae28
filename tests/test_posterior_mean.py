"""The posterior mean and its std against closed forms; what the solver refuses."""

import math
from dataclasses import replace

import pytest
import torch
from toys import F64, dense, pairs, two_modes

import operators
from priors import Card, ChannelWise, Denoiser, Gaussian, SliceWise
from restore import Result
from restore.calibration import coverage
from restore.solvers.diffpir import DiffPIR
from restore.solvers.posterior_mean import PosteriorMean

SIGMA = 0.25  # exact in single precision, in which deepinv keeps it


def noisy(shape, sigma=SIGMA):
    return operators.denoise(shape, noise=sigma).to(F64)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def random_covariance(n):
    root = draw(n, n, seed=4)
    return root @ root.T / n


# -- mean and std --------------------------------------------------------------------------------


def test_of_a_gaussian():
    """Five correlated pixels, no further apart than the stride: both to rounding."""
    C, m = random_covariance(5), draw(5, seed=5)
    y = draw(3, 1, 1, 5, seed=6)
    found = PosteriorMean()(y, noisy((1, 1, 5)), dense(C, m), samples=2)
    gain = C @ torch.linalg.inv(C + SIGMA**2 * torch.eye(5, dtype=F64))
    expected = m + (y - m) @ gain.T
    torch.testing.assert_close(found.mean, expected, rtol=0, atol=1e-12)
    assert torch.equal(found.samples[0], found.samples[1])
    std = (C - gain @ C).diagonal().sqrt().expand_as(y)
    torch.testing.assert_close(found.std, std, rtol=0, atol=1e-10)


@pytest.mark.parametrize("y", [0.0, 0.05, -0.4, 1.3])
def test_of_two_modes(y):
    """Half way the std is that of the choice, which no normal distribution has."""
    variance, distance = 1 / 64, 1.0  # exact in single precision
    found = PosteriorMean()(
        torch.full((1, 1, 1, 2), y, dtype=F64),
        noisy((1, 1, 2)),
        two_modes(variance, distance),
        samples=2,
    )
    total = variance + SIGMA**2
    odds = math.tanh(2 * distance * y / total)  # two pixels vote, each with distance y / total
    shrunk, spread = variance / total, variance * SIGMA**2 / total
    means = [shrunk * y + (1 - shrunk) * m for m in (-distance, distance)]
    mean = (1 - odds) / 2 * means[0] + (1 + odds) / 2 * means[1]
    between = (1 - odds**2) / 4 * (means[1] - means[0]) ** 2
    assert found.mean.flatten().tolist() == pytest.approx([mean] * 2, abs=1e-12)
    assert found.std.flatten().tolist() == pytest.approx([math.sqrt(spread + between)] * 2)


def test_probes_are_unbiased_and_sharper_further_apart():
    """Pixels of a lattice act on each other; of the variance known is what J says, squared."""
    prior = Gaussian.power_law((1, 16, 16))
    y = prior.sample(1, torch.Generator().manual_seed(0)) + 0.125 * draw(1, 1, 16, 16)
    exact = prior.posterior(y, noisy((1, 16, 16), 0.125), 0.125).std
    errors = []
    for stride in (2, 4, 8, 16):
        solver = PosteriorMean(stride=stride)
        found = [solver(y, noisy((1, 16, 16), 0.125), prior, samples=2, seed=s) for s in range(8)]
        off = torch.stack([f.std[0] for f in found]).square() - exact.square()
        errors.append(float(off.square().mean().sqrt()))
        standard = float(off.mean((1, 2, 3)).std()) / 8**0.5
        assert abs(float(off.mean())) < 4 * standard + 1e-9
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8


def test_intervals_hold_what_they_promise():
    prior = Gaussian.power_law((1, 16, 16))
    n = 40
    truth = prior.sample(n, torch.Generator().manual_seed(1))
    y = truth + 0.125 * draw(n, 1, 16, 16, seed=2)
    found = PosteriorMean(stride=16)(y, noisy((1, 16, 16), 0.125), prior, samples=2)
    for level in (0.5, 0.9):
        low, high = found.interval(level)
        inside = ((truth >= low) & (truth <= high)).double().flatten(1).mean(1)
        standard = float(inside.std()) / n**0.5
        assert float(inside.mean()) == pytest.approx(level, abs=4 * standard)
    torch.testing.assert_close(coverage(found, truth, 0.9), inside)
    with pytest.raises(ValueError, match="between 0 and 1"):
        found.interval(1.0)


def test_nothing_is_better_and_a_sampler_of_points_is_not():
    prior = Gaussian.power_law((1, 16, 16))
    truth = prior.sample(8, torch.Generator().manual_seed(1))
    y = truth + 0.125 * draw(8, 1, 16, 16, seed=2)
    physics = noisy((1, 16, 16), 0.125)

    def errors(solver):
        return (solver(y, physics, prior).mean - truth).square().flatten(1).mean(1)

    worse = errors(DiffPIR(steps=20)) - errors(PosteriorMean())
    assert float(worse.mean()) > 2 * float(worse.std()) / 8**0.5


def test_a_jacobian_below_zero_counts_as_zero():
    class Mirror(Denoiser):
        def forward(self, x, sigma, **kwargs):
            return -x

    y = draw(1, 1, 4, 4)
    found = PosteriorMean()(y, noisy((1, 4, 4)), Mirror(Card(name="mirror")), samples=2)
    assert found.spread is not None
    assert torch.equal(found.spread, torch.zeros_like(y))


# -- what it asks and what it tells --------------------------------------------------------------


def test_the_std_is_computed_only_where_it_is_asked_for():
    prior, y = pairs(0.5, 3), draw(1, 1, 3, 2)
    one = PosteriorMean()(y, noisy((1, 3, 2)), prior)
    assert one.spread is None
    assert (one.cost.forwards, one.cost.vjps) == (1, 0)
    three = PosteriorMean()(y, noisy((1, 3, 2)), prior, samples=3)
    assert three.cost.forwards == pytest.approx(2 / 3)
    assert three.cost.vjps == pytest.approx(3 * 2 / 3)  # a product a pixel, shared by the samples
    assert torch.equal(one.samples[0], three.samples[0])


def test_a_file_keeps_the_std(tmp_path):
    y = draw(2, 1, 3, 2)
    found = PosteriorMean()(y, noisy((1, 3, 2)), pairs(0.5, 3), samples=2)
    found.save(tmp_path / "result.safetensors")
    again = Result.load(tmp_path / "result.safetensors")
    assert torch.equal(again.std, found.std)
    assert float(found.std.min()) > 0


def test_one_level_a_measurement():
    y = draw(2, 1, 3, 2)
    prior, levels = pairs(0.5, 3), (0.25, 0.75)
    physics = noisy((1, 3, 2), 1.0)
    physics.noise_model = operators.GaussianNoise(torch.tensor(levels))
    both = PosteriorMean()(y, physics.to(F64), prior, samples=2)
    for i, sigma in enumerate(levels):
        alone = PosteriorMean()(y[i : i + 1], noisy((1, 3, 2), sigma), prior, samples=2)
        torch.testing.assert_close(both.mean[i : i + 1], alone.mean, rtol=0, atol=1e-7)
        torch.testing.assert_close(both.std[i : i + 1], alone.std, rtol=0, atol=1e-7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_slice_by_slice(axis):
    """Slices longer than the stride: their probes must not meet."""
    prior = Gaussian.power_law((1, 5, 5))
    shape = [5, 5]
    shape.insert(axis, 9)
    y = draw(1, 1, *shape)
    physics = noisy((1, *shape))
    solver = PosteriorMean(axis=axis)
    found = solver(y, physics, prior, samples=2)
    again = PosteriorMean()(y, physics, SliceWise(prior, axis=axis, chunk=4), samples=2)
    assert torch.equal(found.std, again.std)
    for k in range(9):
        alone = PosteriorMean()(y.select(2 + axis, k), noisy((1, 5, 5)), prior, samples=2)
        torch.testing.assert_close(found.mean.select(2 + axis, k), alone.mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.std.select(2 + axis, k), alone.std, rtol=0, atol=1e-10)
    assert found.cost.vjps == 25 / 2


def test_both_channels_of_complex_images():
    prior, y = Gaussian.power_law((1, 4, 4)), draw(1, 2, 4, 4)
    found = PosteriorMean()(y, noisy((2, 4, 4)), prior, samples=2)
    again = PosteriorMean()(y, noisy((2, 4, 4)), ChannelWise(prior), samples=2)
    assert torch.equal(found.std, again.std)
    part = PosteriorMean()(y[:, 1:], noisy((1, 4, 4)), prior, samples=2)
    torch.testing.assert_close(found.std[:, 1:], part.std, rtol=0, atol=1e-10)


# -- refusals ------------------------------------------------------------------------------------


class Untouchable(Gaussian):
    def forward(self, x, sigma, **kwargs):
        raise AssertionError("called before the check")


@pytest.mark.parametrize(
    ("spec", "sigma", "word"),
    [
        ("cs:ratio=0.5", 0.1, "only adds noise"),
        ("mask:keep=0.5", 0.1, "only adds noise"),
        ("denoise", 0.0, "noise level above zero"),
        ("denoise:distribution=poisson", 0.0, "Gaussian noise"),
        ("denoise", 0.01, r"std of 0.01 .* knows 0.02 to 2; use another"),
        ("denoise", 3.0, r"std of 3 .* knows 0.02 to 2; use another"),
    ],
)
def test_refused_before_the_first_call(spec, sigma, word):
    known = pairs(0.5, 4)
    prior = Untouchable(known.mean, known.basis, known.variances)
    prior.card = replace(prior.card, sigma_range=(0.02, 2.0))
    operator = operators.parse(spec, (1, 4, 2), noise=sigma).to(F64)
    with pytest.raises(ValueError, match=word) as refused:
        PosteriorMean()(draw(1, 1, 4, 2), operator, prior)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("options", [{"axis": 3}, {"stride": 0}])
def test_impossible_constants_are_refused(options):
    with pytest.raises(ValueError, match="posterior-mean needs"):
        PosteriorMean(**options)
