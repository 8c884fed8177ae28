"""Twisted SMC: chains, weights and mode shares in closed form; resampling; the bench's mixtures."""

import logging
import math
from dataclasses import replace
from itertools import pairwise

import deepinv
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators
import restore
from priors import Denoiser, Gaussian, GaussianMixture
from priors.posteriors import MixturePosterior
from priors.schedules import log_levels
from restore.bench import posterior
from restore.bench.mixtures import SHAPES, Pixels, Rows, grid_case
from restore.bench.scores import bias_and_ratio, mode_error
from restore.moments import MomentMatching
from restore.population import Population
from restore.problem import Problem, stream
from restore.resampling import effective_size, normalised, sorted_systematic
from restore.result import judge
from restore.solvers.mmps import MMPS
from restore.solvers.moment_ladder import MomentLadder
from restore.solvers.twisted_smc import TwistedSMC, move, noise, restart_level

F64 = torch.float64
UNIT = (-0.5, 0.5)  # a range of width one around zero: levels are then as in the formulas


def pixels(variance, count):
    """`count` independent pixels around zero."""
    variances = torch.full((1, 1, count), variance, dtype=F64)
    return Gaussian(torch.zeros(1, 1, count), Pixels(), variances, value_range=UNIT)


def problem_of(case_y, operator, prior, *, samples=1, seed=0):
    shape = (samples * len(case_y), *prior.card.image_shape)
    return Problem(
        y=case_y.repeat(samples, *[1] * (case_y.ndim - 1)),
        operator=operator,
        prior=prior,
        shape=shape,
        sigma_y=torch.full((shape[0], 1, 1, 1), float(operator.noise_model.sigma), dtype=F64),
        streams=[stream(seed, i) for i in range(samples)],
        observed=torch.ones((samples * len(case_y), *case_y.shape[1:]), dtype=F64),
    )


def cross():
    """Four modes in the plane, seen along one direction with much noise."""
    means = torch.tensor([[-1.0, 0], [1, 0], [0, 1], [0, -1]], dtype=F64).reshape(4, 1, 1, 2)
    variances = torch.full((1, 1, 2), 0.01, dtype=F64)
    parts = [Gaussian(m, Pixels(), variances, value_range=UNIT) for m in means]
    prior = GaussianMixture([0.1, 0.4, 0.2, 0.3], parts)
    row = torch.tensor([[math.cos(0.3), math.sin(0.3)]], dtype=F64)
    operator = Rows(row, (1, 1, 2), noise_model=operators.GaussianNoise(0.3))
    y = torch.tensor([[0.1]], dtype=F64)
    return prior, operator, y, prior.posterior(y, operator, 0.3)


def scalar(c, sigma_y=0.3, y=0.8):
    """A pixel of variance `c` seen with noise, and one that is not seen."""
    row = torch.tensor([[1.0, 0.0]], dtype=F64)
    operator = Rows(row, (1, 1, 2), noise_model=operators.GaussianNoise(sigma_y))
    return pixels(c, 2), operator, torch.tensor([[y]], dtype=F64)


def descend(prior, operator, y, count, grid):
    """A population at the end of its descent, never resampled, and its log weights."""
    problem = problem_of(y, operator, prior)
    match, generator = MomentMatching(problem), stream(0, 0)
    shape = (count, 1, *problem.shape[1:])
    x = grid[0] * noise(shape, problem, generator)
    particles = Population(match, x, grid[0], ess=0.0, coupling=0.03, generator=generator)
    for s, u in pairwise(grid):
        z_0 = noise(shape, problem, generator)
        particles.advance(*move_to(match, particles, s, u, z_0))
    return particles.at.D, particles.log_weights(particles.parts())[0]


def move_to(match, particles, s, u, z_0):
    x, log_ratio = move(match, particles.x, particles.at, s, u, z_0)
    return x, u, log_ratio


# -- the chain and its weights -----------------------------------------------------------------


@pytest.mark.parametrize("c", [0.1, 1.0])
def test_without_data_the_chain_follows_its_recursion(c):
    """Step s -> u multiplies by a and adds noise b: var' = a^2 var + b^2."""
    count = 40000
    blind = Rows(torch.zeros((1, count), dtype=F64), (1, 1, count))
    blind.noise_model = operators.GaussianNoise(0.1)
    solver = TwistedSMC(levels=20, sigma_max=100, sigma_min=1e-3, restart_levels=0, min_particles=1)
    y = torch.zeros((1, 1), dtype=F64)
    found = solver(y, blind, pixels(c, count)).samples.flatten()
    grid = log_levels(20, 100, 1e-3).tolist()
    variance = grid[0] ** 2
    for s, u in pairwise(grid):
        kappa, at_s, at_u = 1 - u**2 / s**2, c / (c + s**2), c / (c + u**2)
        alpha = kappa * at_s + u**2 / s**2
        a = alpha * (1 + kappa * at_u / 2) - kappa * at_s / 2
        b = u * math.sqrt(kappa) * (1 + kappa * at_u / 2)
        variance = a**2 * variance + b**2
    assert variance / c == pytest.approx(0.807, abs=0.02)  # at 20 levels; it tends to 1
    assert float(found.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count))
    assert float(found.mean()) == pytest.approx(0, abs=4 * math.sqrt(c / count))


@pytest.mark.parametrize(
    ("c", "mean", "variance", "plain"),
    [(1.0, 0.7299, 0.0819, 0.758), (0.1, 0.4074, 0.0460, 0.459), (4.0, 0.7804, 0.0883, 0.793)],
)
def test_weights_bring_the_moments_of_a_scalar_posterior(c, mean, variance, plain):
    """Prior N(0, c), A = 1, y = 0.8, sigma_y = 0.3, 40 levels: known values, exact ones nearby."""
    count = 20000
    D, log_w = descend(*scalar(c), count, log_levels(40, 100, 1e-3).tolist())
    x, w = D[:, 0, 0, 0, 0], normalised(log_w)[:, 0]
    effective = float(effective_size(log_w))
    weighted = float(w @ x)
    assert weighted == pytest.approx(mean, abs=4 * math.sqrt(variance / effective))
    spread = float(w @ (x - weighted).square())
    assert spread == pytest.approx(variance, rel=5 * math.sqrt(2 / effective))
    assert float(x.mean()) == pytest.approx(plain, abs=5 * math.sqrt(variance / count))
    exact = 0.8 * c / (c + 0.09)
    assert abs(weighted - exact) < abs(float(x.mean()) - exact)


def test_variance_of_the_weights_falls_with_the_levels():
    """About 0.50 and 0.08 at 40 and 160 levels: error of the proposal, like 1 / levels."""
    variances = [
        float(descend(*scalar(1.0), 10000, log_levels(k, 100, 1e-3).tolist())[1].var())
        for k in (40, 160)
    ]
    assert variances[0] == pytest.approx(0.5, abs=0.1)
    assert variances[1] == pytest.approx(0.08, abs=0.03)


def test_any_shift_is_paid_for_exactly():
    """Shifted particles with the ratio as weight have the law of the unshifted: mean weight 1."""
    count = 50000
    prior, operator, y, _ = cross()
    match = MomentMatching(problem_of(y, operator, prior))
    x, z_0 = torch.randn((2, count, 1, 1, 1, 2), generator=stream(3, 0), dtype=F64)
    at = match(0.5 * x, 0.5)
    still, pushed = (
        replace(at, D_y=at.D + by)
        for by in (0, torch.tensor([0.3, -0.2], dtype=F64).reshape(1, 1, 1, 2) + 0.1 * at.D)
    )
    plain, log_ratio = move(match, 0.5 * x, still, 0.5, 0.4, z_0)
    assert not bool(log_ratio.any())
    moved, log_ratio = move(match, 0.5 * x, pushed, 0.5, 0.4, z_0)
    log_ratio = log_ratio.sum(2)
    weight = log_ratio.exp().flatten()
    error = 5 / math.sqrt(count)
    assert float(weight.mean()) == pytest.approx(1, abs=error * float(weight.std()))
    for f in (lambda v: v, torch.square, torch.tanh):
        before, after = f(plain).reshape(count, 2), f(moved).reshape(count, 2)
        weighted = (weight[:, None] * after).mean(0)
        scale = (weight[:, None] * after).std(0) + before.std(0)
        assert bool(((weighted - before.mean(0)).abs() < error * scale).all())
    assert not torch.allclose(moved.mean(0), plain.mean(0), atol=0.05)  # weights were needed


def test_log_evidence_is_found():
    for case in (grid_case(SHAPES["R^8"], 3), grid_case(SHAPES["R^8"], 4)):
        components = case.posterior.components
        evidence = torch.tensor([p.log_evidence for p in components], dtype=F64)
        exact = float(torch.logsumexp(case.prior.log_weights + evidence, 0))
        solver = TwistedSMC(min_particles=2048, restart_levels=0)
        result = solver(case.y, case.operator, case.prior, samples=2)
        assert result.notes["log p(y)"][0] == pytest.approx(exact, abs=0.12)
        assert 1 <= result.notes["least effective particles"][0] <= 2048


# -- mode weights ------------------------------------------------------------------------------


def shares(samples):
    modes = torch.tensor([[-1.0, 0], [1, 0], [0, 1], [0, -1]], dtype=F64)
    nearest = torch.cdist(samples.flatten(1), modes).argmin(1)
    return torch.bincount(nearest, minlength=4) / len(samples)


def test_four_modes_get_their_shares_where_moment_matching_fails():
    prior, operator, y, exact = cross()
    known = torch.tensor([0.00122, 0.03294, 0.52760, 0.43824], dtype=F64)
    torch.testing.assert_close(exact.weights, known, rtol=0, atol=1e-5)
    n = 4096
    samples = TwistedSMC(mult=1)(y, operator, prior, samples=n, batch_size=n).samples[:, 0]
    allowed = 4 * (known * (1 - known) / n).sqrt() + 0.004  # the chain of 40 levels has a bias
    assert bool(((shares(samples) - known).abs() < allowed).all())
    guided = MMPS()(y, operator, prior, samples=1000, batch_size=1000).samples[:, 0]
    assert float(shares(guided)[1]) > 0.1


@pytest.mark.parametrize("dimension", SHAPES)
def test_mixtures_are_right_to_the_floor_of_exact_sampling(dimension):
    n, p = (512, 3) if dimension == "R^8" else (256, 1)
    name = f"mixture {dimension}"
    exact, ours, plain = posterior.run(
        [TwistedSMC(), MomentLadder()], priors=[name], n=n, problems=p, progress=False
    )
    assert (exact.solver, ours.solver, ours.diverged) == ("exact sampler", "twisted-smc", 0)
    assert ours.modes < 0.05 * math.sqrt(512 / n)
    assert ours.error < 0.08 * math.sqrt(512 / n)
    assert ours.forwards + ours.vjps < 600
    assert plain.modes > 0.1


def test_eight_samples_have_the_right_law():
    """Sets of eight, pooled over seeds: no bias although each set has only 64 particles."""
    case = grid_case(SHAPES["R^8"], 21)
    sets = [
        TwistedSMC()(case.y, case.operator, case.prior, samples=8, seed=seed) for seed in range(16)
    ]
    assert sets[0].cost.calls <= 1000
    assert sets[0].notes["particles"] == 64
    pooled = torch.cat([result.samples[:, 0] for result in sets])
    floor = float((2 * case.posterior.weights / (math.pi * len(pooled))).sqrt().sum() / 2)
    assert mode_error(pooled, case.posterior) < 2 * floor


# -- independent ambiguities -------------------------------------------------------------------


class SideBySide(Denoiser):
    """Independent priors of 2x4 pixels, one below the other."""

    def __init__(self, priors):
        card = replace(priors[0].card, image_shape=(1, 2 * len(priors), 4))
        super().__init__(card)
        self.priors = torch.nn.ModuleList(priors)

    def forward(self, x, sigma, **kwargs):
        parts = x.split(2, dim=2)
        return torch.cat([p(part, sigma) for p, part in zip(self.priors, parts, strict=True)], 2)


def side_by_side(count):
    cases = [grid_case(SHAPES["R^8"], i) for i in range(count)]
    rows = torch.block_diag(*[case.operator.matrix for case in cases])
    noise_model = operators.GaussianNoise(0.02)
    operator = Rows(rows, (1, 2 * count, 4), noise_model=noise_model)
    prior = SideBySide([case.prior for case in cases])
    return cases, prior, operator, torch.cat([case.y for case in cases], 1)


def test_independent_ambiguities_need_no_more_particles():
    cases, prior, operator, y = side_by_side(4)
    n, tv, least = 200, {}, {}
    for name, coupling in (("parts", 0.03), ("whole", -1.0)):
        solver = TwistedSMC(mult=2, levels=24, coupling=coupling)
        result = solver(y, operator, prior, samples=n, batch_size=n)
        blocks = result.samples[:, 0].split(2, dim=2)
        errors = [mode_error(b, c.posterior) for b, c in zip(blocks, cases, strict=True)]
        tv[name], least[name] = sum(errors) / 4, result.notes["least effective particles"][0]
    floor = [float((2 * c.posterior.weights / (math.pi * n)).sqrt().sum() / 2) for c in cases]
    assert tv["parts"] < 1.5 * sum(floor) / 4
    assert tv["parts"] < tv["whole"]
    assert least["parts"] > least["whole"]


def test_parts_that_depend_on_each_other_are_not_taken_apart():
    """One of two modes: orthogonal rows look independent inside a mode, and are not."""
    means = torch.tensor([[-1.0, -1], [1, 1]], dtype=F64).reshape(2, 1, 1, 2)
    variances = torch.full((1, 1, 2), 0.01, dtype=F64)
    prior = GaussianMixture([0.5, 0.5], [Gaussian(m, Pixels(), variances) for m in means])
    operator = Rows(torch.eye(2, dtype=F64), (1, 1, 2), noise_model=operators.GaussianNoise(3.0))
    y = torch.tensor([[0.3, 0.3]], dtype=F64)
    match = MomentMatching(problem_of(y, operator, prior))
    x = prior.sample(200, stream(0, 0))[:, None] + 0.01 * noise(
        (200, 1, 1, 1, 2), match.problem, stream(1, 0)
    )
    particles = Population(match, x, 0.01, ess=0.5, coupling=0.03, generator=stream(2, 0))
    parts = particles.parts()
    assert not bool(parts.single)
    parts, index = particles.select(0.01, 200, parts, 0)
    assert bool(parts.single)
    drawn = parts.take_pixels(particles.at.D, index).reshape(200, 2)
    assert bool((drawn[:, 0] * drawn[:, 1] > 0).all())


# -- the restart -------------------------------------------------------------------------------


def test_restart_level_is_the_top_for_a_gaussian_and_the_width_of_a_mode_for_a_mixture():
    prior, operator, y, exact = cross()
    for model, low, high in ((pixels(0.3, 2), 10, 10), (prior, 0.05, 0.2)):
        match = MomentMatching(problem_of(y, operator, model, samples=64))
        x = exact.sample(64, stream(1, 0))[:, None]
        found = float(restart_level(match, x, 10.0, 0.003, 0.01, stream(2, 0)))
        assert low - 1e-9 <= found <= high + 1e-9


def test_restart_does_not_reach_over_modes_that_were_not_measured():
    case = grid_case(SHAPES["R^8"], 1)
    variances = torch.full((1, 2, 4), 0.04, dtype=F64)
    plain = Gaussian(torch.full((1, 2, 4), 0.5), Pixels(), variances)
    prior = SideBySide([plain, case.prior])
    row = torch.cat([case.operator.matrix, torch.zeros(1, 8, dtype=F64)], 1)
    operator = Rows(row, (1, 4, 4), noise_model=operators.GaussianNoise(0.02))
    result = TwistedSMC(levels=20)(case.y, operator, prior, samples=400)
    assert result.notes["restart level"][0] < 0.1
    nearest = MixturePosterior(case.prior.log_weights.exp(), case.posterior.components)
    assert mode_error(result.samples[:, 0, :, 2:], nearest) < 0.15  # 0.09 for exact draws


def test_gaussian_posterior_is_exact_through_the_restart():
    prior = Gaussian.power_law((1, 8, 8))
    n, square, ratio = 512, 0.0, 0.0
    for seed in range(2):
        generator = stream(seed, 50)
        rows = torch.nn.functional.normalize(torch.randn((4, 64), generator=generator, dtype=F64))
        operator = Rows(rows, (1, 8, 8), noise_model=operators.GaussianNoise(0.02))
        y = operator.A(prior.sample(1, generator))
        exact = prior.posterior(y, operator, 0.02)
        solver = TwistedSMC(mult=1, levels=20)
        samples = solver(y, operator, prior, samples=n, seed=seed).samples[:, 0]
        scores = bias_and_ratio(samples, exact.mean, exact.std)
        square, ratio = square + scores[0] / 2, ratio + scores[1] / 2
        assert len(samples.flatten(1).unique(dim=0)) == n  # no duplicates are left
    variance = exact.std.square().flatten()
    effective = float(variance.sum() ** 2 / variance.square().sum())
    assert square < 0.03**2 + 3 * math.sqrt(1 / effective) / n
    assert ratio == pytest.approx(1, abs=0.02)


# -- resampling --------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.999))
def test_equal_weights_keep_every_particle(seed, offset):
    points = torch.randn((31, 2, 3), generator=stream(seed, 0), dtype=F64)
    index = sorted_systematic(points, torch.zeros((31, 2), dtype=F64), 31, offset)
    for image in index.T:
        assert sorted(image.tolist()) == list(range(31))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.999))
def test_groups_on_a_line_get_their_share_to_within_one(seed, offset):
    generator = stream(seed, 1)
    group = torch.randint(4, (200, 3), generator=generator)
    along = torch.randn((3, 5), generator=generator, dtype=F64)
    points = 10 * group[..., None] * along + torch.rand((200, 3, 5), generator=generator) * 0.1
    log_weights = torch.randn((200, 3), generator=generator, dtype=F64) + group
    index = sorted_systematic(points, log_weights, 64, offset)
    chosen, weights = group.gather(0, index), normalised(log_weights)
    for k in range(4):
        expected = 64 * (weights * (group == k)).sum(0)
        assert bool(((chosen == k).sum(0) - expected).abs().max() < 1 + 1e-9)


# -- what a joint solver promises --------------------------------------------------------------


def small():
    return TwistedSMC(levels=12, restart_levels=3, min_particles=40)


def test_a_set_depends_on_seed_and_size_only():
    case = grid_case(SHAPES["R^8"], 1)
    arguments = (case.y, case.operator, case.prior)
    eight = small()(*arguments, samples=8, seed=2)
    for batch_size in (5, 16, 100):
        again = small()(*arguments, samples=8, seed=2, batch_size=batch_size)
        torch.testing.assert_close(again.samples, eight.samples, rtol=0, atol=1e-6)
        assert again.cost.calls == pytest.approx(eight.cost.calls)
    assert not torch.equal(small()(*arguments, samples=8, seed=3).samples, eight.samples)


def test_no_network_call_is_larger_than_asked():
    case = grid_case(SHAPES["R^8"], 1)
    sizes = []

    class Watched(GaussianMixture):
        def forward(self, x, sigma, **kwargs):
            sizes.append(len(x))
            return super().forward(x, sigma)

    watched = Watched(case.prior.log_weights.exp().tolist(), list(case.prior.components))
    result = small()(case.y, case.operator, watched, samples=4, batch_size=16)
    assert max(sizes) == 16
    assert result.cost.forwards == pytest.approx(sum(sizes) / 4)


def test_images_of_a_batch_have_populations_of_their_own():
    """Each image its own weights, resampling, restart level and mask."""
    case = grid_case(SHAPES["R^8"], 1)
    masks = torch.zeros((2, 1, 2, 4), dtype=F64)
    masks[0, 0, 0, 1] = masks[1, 0, 1, 2] = masks[1, 0, 0, 0] = 1

    def physics(mask):
        noise_model = operators.GaussianNoise(0.05)
        return deepinv.physics.Inpainting((1, 2, 4), mask=mask, noise_model=noise_model).to(F64)

    y = masks * torch.tensor([0.7, 0.3], dtype=F64).reshape(2, 1, 1, 1)
    together = small()(y, physics(masks), case.prior, samples=6)
    for b in range(2):
        alone = small()(y[b : b + 1], physics(masks[b : b + 1]), case.prior, samples=6)
        torch.testing.assert_close(together.samples[:, b], alone.samples[:, 0], rtol=0, atol=1e-8)
        for name in ("log p(y)", "restart level", "resamplings"):
            assert together.notes[name][b] == pytest.approx(alone.notes[name][0], abs=1e-8)


def test_single_precision_gives_the_same_shares():
    case = grid_case(SHAPES["R^8"], 5)
    single = case.operator.clone().to(torch.float32)
    result = TwistedSMC()(case.y.float(), single, case.prior, samples=128)
    double = TwistedSMC()(case.y, case.operator, case.prior, samples=128)
    assert result.samples.dtype == torch.float32
    gap = (mode_error(r.samples[:, 0], case.posterior) for r in (result, double))
    assert abs(next(gap) - next(gap)) < 0.05


def test_many_measurements_are_left_to_the_moment_ladder(caplog):
    prior = Gaussian.power_law((1, 10, 10))
    operator = operators.parse("blur:sigma=1", (1, 10, 10), noise=0.05).to(F64)
    y = operators.measure(operator, prior.sample(1, stream(0, 9)), seed=1)
    with caplog.at_level(logging.WARNING, logger="restore"):
        result = restore.solve(y, operator, prior, "twisted-smc", samples=2, seed=4)
    assert "mode weights not corrected: 100 measurements" in result.notes["instead"]
    assert "mode weights not corrected" in caplog.text
    assert "mode weights not corrected" in repr(result)
    assert result.provenance["solver"]["solver"] == "twisted-smc"
    plain = MomentLadder()(y, operator, prior, samples=2, seed=4).samples
    torch.testing.assert_close(result.samples, plain, rtol=0, atol=1e-6)


def test_notes_survive_a_file(tmp_path):
    case = grid_case(SHAPES["R^8"], 1)
    result = small()(case.y, case.operator, case.prior, samples=2)
    loaded = restore.Result.load(result.save(tmp_path / "r.safetensors"))
    assert loaded.notes == result.notes
    assert "restart level" in repr(loaded)


def test_a_misfit_of_one_measurement_is_not_held_against_it():
    misfit = torch.tensor([4.0])
    assert judge(misfit, None, "", torch.tensor([1]))[0] == "ok"
    assert judge(misfit, None, "", torch.tensor([64]))[0] == "inconsistent with data"
    assert judge(torch.tensor([20.0]), None, "", torch.tensor([1]))[0] == "inconsistent with data"


@pytest.mark.parametrize(
    "constants", [{"levels": 1}, {"mult": 0}, {"ess": 1.5}, {"constancy": 0.0}, {"sigma_min": 99.0}]
)
def test_impossible_constants_are_refused(constants):
    with pytest.raises(ValueError, match="found"):
        TwistedSMC(**constants)


def test_what_weights_cannot_use_is_refused():
    case = grid_case(SHAPES["R^8"], 1)
    silent = Rows(case.operator.matrix, case.operator.image_shape)
    with pytest.raises(ValueError, match="noise level above zero"):
        TwistedSMC()(case.y, silent, case.prior)
    silent.noise_model = operators.PoissonNoise(10.0)
    with pytest.raises(ValueError, match="Gaussian noise"):
        TwistedSMC()(case.y, silent, case.prior)
    squared = deepinv.physics.Physics(A=lambda x, **kw: x**2)
    with pytest.raises(ValueError, match="needs a linear operator"):
        TwistedSMC()(case.prior.sample(1, stream(0, 0)), squared, case.prior)
