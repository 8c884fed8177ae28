"""DDS against the closed-form posterior of a small random field, and its own recursion.

The field has covariance `C_z x S`, slices of 6 x 6 pixels; every slice is seen through a random
matrix of 14 rows, and the prior knows `S` alone.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from toys import matrix_operator

import operators
from priors import Gaussian, SliceWise
from priors.schedules import DDPM
from restore.coupling import Coupling
from restore.problem import stream
from restore.solvers.dds import DDS

F64 = torch.float64
Z, SIDE, ROWS, VOLUMES = 8, 6, 14, 64
M = SIDE**2
NONE = DDS(z_prior="none", grid="time")  # the paper's grid
TUNED = DDS(lambda_rel=0.003, rho_rel=0.05, grid="time")


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def slice_covariance():
    i = torch.arange(SIDE, dtype=F64)
    points = torch.stack(torch.meshgrid(i, i, indexing="ij"), -1).reshape(-1, 2)
    apart = (points[:, None] - points[None]).square().sum(-1)
    return torch.exp(-apart / (2 * 1.5**2)) + 1e-3 * torch.eye(M, dtype=F64)


S = slice_covariance()
PRIOR = Gaussian.dense(torch.zeros(1, SIDE, SIDE), S, value_range=(-1.0, 1.0))
_k = torch.arange(Z, dtype=F64)
FIELD = torch.kron(torch.exp(-(_k[:, None] - _k[None]).abs() / 6), S)
SLICES = torch.kron(torch.eye(Z, dtype=F64), S)


def bayes(A, y, covariance, noise):
    """Posterior mean of volumes."""
    noisy = A @ covariance @ A.T + (noise**2 + 1e-12) * torch.eye(len(A), dtype=F64)
    gain = torch.linalg.solve(noisy, A @ covariance).T
    return (y.flatten(1) @ gain.T).reshape(-1, 1, Z, SIDE, SIDE)


class World:
    """Volumes drawn from the field, measured, and their exact posterior means."""

    def __init__(self, *, same=False, noise=0.0):
        matrices = [normal(ROWS, M, seed=0 if same else i) / SIDE for i in range(Z)]
        each = [matrix_operator(A, (1, SIDE, SIDE), noise) for A in matrices]
        self.operator = operators.slices((1, Z, SIDE, SIDE), operator=each)
        self.A, self.noise = torch.block_diag(*matrices), noise
        root = torch.linalg.cholesky(FIELD)
        self.x = (normal(VOLUMES, Z * M, seed=100) @ root.T).reshape(-1, 1, Z, SIDE, SIDE)
        self.y = operators.measure(self.operator, self.x, seed=101)

    def bayes(self, covariance):
        return bayes(self.A, self.y, covariance, self.noise)

    def run(self, solver, samples=1):
        """Samples `(samples, volumes, ...)`."""
        found = solver(self.y, self.operator, PRIOR, samples=samples, batch_size=samples)
        return found.samples

    def errors(self, x):
        """Mean square error of every volume."""
        return (x - self.x).square().flatten(1).mean(1)

    def mse(self, x):
        return float(self.errors(x).mean())

    def residual(self, x):
        return float((self.operator.A(x) - self.y).norm() / self.y.norm())


def jumps(x):
    return float((x[:, :, 1:] - x[:, :, :-1]).abs().mean())


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def independent(world):
    return world.run(NONE)[0]


@pytest.fixture(scope="module")
def tuned(world):
    return world.run(TUNED, samples=6)


# -- the world itself --------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_reference_has_the_error_that_theory_says(noise):
    """Trace of the posterior covariance; so have the slices' own, of the library's posterior."""
    world = World(noise=noise)
    noisy = world.A @ FIELD @ world.A.T + (noise**2 + 1e-12) * torch.eye(len(world.A), dtype=F64)
    covariance = FIELD - FIELD @ world.A.T @ torch.linalg.solve(noisy, world.A @ FIELD)
    errors = world.errors(world.bayes(FIELD))
    error = float(errors.std()) / VOLUMES**0.5
    assert float(errors.mean()) == pytest.approx(float(covariance.trace()) / (Z * M), abs=3 * error)
    alone = world.bayes(SLICES)
    for i in (0, 5):
        exact = PRIOR.posterior(world.y[:1, i], world.operator.operators[i], max(noise, 1e-6))
        torch.testing.assert_close(alone[:1, :, i], exact.mean[None], rtol=0, atol=1e-4)


def test_with_one_operator_for_all_slices_neighbours_tell_nothing():
    """Autokrigeability: noiseless, both posterior means are the same, and no z-prior can help."""
    world = World(same=True)
    torch.testing.assert_close(world.bayes(FIELD), world.bayes(SLICES), rtol=0, atol=1e-7)
    different = World()
    assert different.mse(different.bayes(FIELD)) < 0.5 * different.mse(different.bayes(SLICES))


# -- against the posterior ---------------------------------------------------------------------


def test_no_average_of_seeds_beats_the_posterior_mean(world, tuned):
    best = world.errors(world.bayes(FIELD))
    for mean in (tuned.mean(0), world.run(replace(TUNED, z_prior="quadratic"), 4).mean(0)):
        worse = world.errors(mean) - best
        assert float(worse.mean()) > -2 * float(worse.std()) / VOLUMES**0.5


def test_better_than_minimum_norm_and_than_independent_slices(world, independent, tuned):
    least = world.mse(world.bayes(torch.eye(Z * M, dtype=F64)))
    one = world.mse(tuned[0])
    assert one < 0.5 * least
    gain = world.errors(independent) - world.errors(tuned[0])
    assert float(gain.mean()) > 4 * float(gain.std()) / VOLUMES**0.5
    assert world.mse(tuned.mean(0)) < one


def test_the_residual_grows_and_jumps_shrink_with_lambda(world, independent):
    """lambda 0, 0.02, 0.05, 0.1 and 0.2 of an operator with |A^T A| of about 2.6, range 2."""
    found = [
        world.run(DDS(lambda_rel=lam / 5.2, rho_rel=0.1))[0] for lam in (0, 0.02, 0.05, 0.1, 0.2)
    ]
    residuals, steps = [world.residual(x) for x in found], [jumps(x) for x in found]
    assert residuals == sorted(residuals)
    assert steps == sorted(steps, reverse=True)
    assert max(residuals[:2]) < 0.05
    assert world.residual(independent) < 0.005


@dataclass(frozen=True)
class Forgetful:
    """A term whose variables begin anew at every level."""

    term: Coupling

    def start(self, like):
        return self.term.start(like)

    def add_gram(self, x, out):
        self.term.add_gram(x, out)

    def add_pull(self, v, out):
        self.term.add_pull(v, out)

    def update(self, x, v):
        for w in v:
            w.zero_()


class Unshared(DDS):
    def term(self, problem):
        return Forgetful(super().term(problem))


def test_variables_are_shared_between_levels(world, tuned):
    alone = world.run(Unshared(lambda_rel=TUNED.lambda_rel, rho_rel=TUNED.rho_rel))[0]
    assert world.mse(tuned[0]) < world.mse(alone)
    assert world.residual(tuned[0]) < world.residual(alone)


def test_lambda_zero_is_not_none(world, independent):
    """`d` keeps differences of a noisier iterate, and rho drags them along; none drops the term."""
    dragged = world.run(DDS(lambda_rel=0.0, rho_rel=0.4))[0]
    assert world.mse(dragged) > 1.5 * world.mse(independent)
    for options in ({"rho_rel": 0.4}, {"lambda_rel": 0.5}, {"boundary": "periodic"}):
        assert torch.equal(world.run(replace(NONE, **options))[0], independent)


def test_total_variation_helps_where_the_truth_is_piecewise_constant(world):
    x = normal(VOLUMES, 1, 2, M, seed=7) @ torch.linalg.cholesky(S).T
    x = x.reshape(VOLUMES, 1, 2, SIDE, SIDE).repeat_interleave(Z // 2, 2)
    y = world.operator.A(x)

    def error(solver):
        return float((solver(y, world.operator, PRIOR).samples[0] - x).square().mean())

    assert error(TUNED) < 0.5 * error(NONE)


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_noise_is_weighed_better_by_the_level_than_by_a_constant(noise):
    world = World(noise=noise)
    for solver in (NONE, TUNED):
        level, paper = (world.run(replace(solver, data=data))[0] for data in ("level", "paper"))
        better = world.errors(paper) - world.errors(level)
        assert float(better.mean()) > 2 * float(better.std()) / VOLUMES**0.5


# -- the algorithm -----------------------------------------------------------------------------


def test_steps_are_those_of_the_paper(monkeypatch):
    """Five levels of one volume against a transcript with dense matrices; with noise, eps old."""
    world = World(noise=0.1)
    solver = DDS(
        steps=5,
        eta=0.6,
        cg_steps=3,
        z_prior="quadratic",
        lambda_rel=0.02,
        data="paper",
        grid="time",
    )
    A, y = world.A, world.y[0].flatten()
    gain = float(torch.linalg.matrix_norm(A, 2) ** 2)
    exact = torch.full((1, 1, 1, 1, 1), gain, dtype=F64)
    monkeypatch.setattr("restore.volumes.squared_norm", lambda *_: exact)
    found = solver(world.y[:1], world.operator, PRIOR, seed=3).samples[0, 0].flatten()
    D = torch.zeros(Z - 1, Z, dtype=F64)
    D.diagonal().fill_(-1)
    D.diagonal(1).fill_(1)
    D = torch.kron(D, torch.eye(M, dtype=F64))
    gamma = solver.gamma / gain
    K = gamma * (A.T @ A + 0.02 * gain * D.T @ D) + torch.eye(Z * M, dtype=F64)
    generator, schedule = stream(3, 0), DDPM()
    times = torch.linspace(999, 0, 5, dtype=F64)
    alphas, sigmas = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()

    def noise():
        return torch.randn(Z * M, generator=generator, dtype=F64)

    x_t = sigmas[0] * noise()  # no image is left at the first level
    for i in range(5):
        slices = (x_t / alphas[i]).reshape(Z, 1, SIDE, SIDE)
        x_0 = PRIOR(slices, sigmas[i] / alphas[i]).flatten()
        eps = (x_t - alphas[i] * x_0) / sigmas[i]
        r = gamma * A.T @ y + x_0 - K @ x_0
        p = r
        for _ in range(3):
            step = r @ r / (p @ K @ p)
            x_0, new = x_0 + step * p, r - step * K @ p
            p, r = new + (new @ new) / (r @ r) * p, new
        if i < 4:
            x_t = alphas[i + 1] * x_0 + sigmas[i + 1] * (0.6 * noise() + math.sqrt(1 - 0.36) * eps)
    torch.testing.assert_close(found, x_0, rtol=0, atol=1e-9)


def test_any_axis_gives_the_same_volume():
    shape = (1, 4, 6, 6)
    operator = operators.parse("slices|mask:keep=0.5", shape, noise=0.1).to(F64)
    y = operators.measure(operator, normal(1, *shape, seed=1), seed=2)
    solver = DDS(steps=4)
    first = solver(y, operator, PRIOR).samples[0]
    again = solver(y, operator, SliceWise(PRIOR, chunk=3)).samples[0]
    torch.testing.assert_close(again, first, rtol=0, atol=1e-12)
    for axis in (1, 2):
        turned = operators.parse(f"slices:axis={axis}|mask:keep=0.5", (1, 6, 6, 6), noise=0.1)
        cube = operators.measure(turned.to(F64), normal(1, 1, 6, 6, 6, seed=1), seed=2)
        lifted = DDS(steps=4, axis=axis, z_prior="none")(cube, turned, PRIOR)
        assert lifted.samples.shape == (1, 1, 1, 6, 6, 6)


def test_flat_images_have_no_term_between_slices():
    operator = operators.parse("mask:keep=0.5", (1, 6, 6), noise=0.1).to(F64)
    y = operators.measure(operator, normal(1, 1, 6, 6, seed=1), seed=2)
    tied = DDS(steps=4, grid="time")
    flat, none = tied(y, operator, PRIOR), replace(NONE, steps=4)(y, operator, PRIOR)
    assert torch.equal(flat.samples, none.samples)


@pytest.mark.parametrize("shape", [(2, 6, 6), (2, 4, 6, 6)])
def test_complex_images_by_a_prior_of_one_channel(shape):
    """Fully sampled and noiseless, the data alone say what the image is."""
    volume = len(shape) == 4
    operator = operators.parse(("slices|" if volume else "") + "mri:acceleration=1", shape).to(F64)
    x = 0.5 * normal(1, *shape, seed=1)
    found = replace(NONE, steps=4)(operator.A(x), operator, PRIOR).samples[0]
    torch.testing.assert_close(found, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"steps": 1}, "steps >= 2"),
        ({"eta": 1.1}, "eta in"),
        ({"cg_steps": 0}, "cg_steps"),
        ({"s_max": 0.01}, "lowest level"),
        ({"data": "papers"}, "papers"),
        ({"grid": "tim"}, "unknown option 'tim'"),
        ({"axis": 3}, "axes are|axis is 3"),
        ({"z_prior": "tvs"}, "unknown z_prior"),
        ({"boundary": "zero"}, "unknown boundary"),
        ({"rho_rel": 0.0}, "rho_rel > 0"),
        ({"spacing": -1.0}, "spacing is -1.0"),
        ({"tv_axes": (0, 0)}, "axes are"),
    ],
)
def test_impossible_constants_are_refused(options, word):
    with pytest.raises(ValueError, match=word):
        DDS(**options)


def test_levels_start_where_they_are_told():
    """The highest level of the paper is 157; in between they stay even in log-noise."""
    world = World(noise=0.1)
    seen = []

    class Listening(Gaussian):
        def forward(self, x, sigma, **kwargs):
            seen.append(float(torch.as_tensor(sigma).flatten()[0]))
            return super().forward(x, sigma, **kwargs)

    prior = Listening(PRIOR.mean, PRIOR.basis, PRIOR.variances, value_range=(-1.0, 1.0))
    for s_max, highest in ((6.0, 6.0), (None, 157.4)):
        seen.clear()
        DDS(steps=4, s_max=s_max)(world.y[:1], world.operator, SliceWise(prior, chunk=Z))
        assert len(seen) == 4
        assert seen[0] == pytest.approx(highest, rel=0.01)
        ratios = [b / a for a, b in pairwise(seen)]
        assert ratios == pytest.approx([ratios[0]] * 3, rel=0.05)


def test_fitted_to_the_end_weak_directions_are_found():
    """Directions seen a tenth as well as others: five steps leave them to the prior's guess."""
    weak = torch.logspace(0, -2, ROWS, dtype=F64)
    matrices = [weak[:, None] * normal(ROWS, M, seed=i) / SIDE for i in range(Z)]
    noise = 1e-3
    each = [matrix_operator(A, (1, SIDE, SIDE), noise) for A in matrices]
    operator = operators.slices((1, Z, SIDE, SIDE), operator=each)
    root = torch.linalg.cholesky(FIELD)
    x = (normal(VOLUMES, Z * M, seed=100) @ root.T).reshape(-1, 1, Z, SIDE, SIDE)
    y = operators.measure(operator, x, seed=101)
    many = replace(DDS.limited_angle(), z_prior="none")

    def errors(solver):
        return (solver(y, operator, PRIOR).samples[0] - x).square().flatten(1).mean(1)

    gain = errors(replace(many, cg_steps=5)) - errors(many)
    assert float(gain.mean()) > 4 * float(gain.std()) / VOLUMES**0.5
