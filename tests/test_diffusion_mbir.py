"""DiffusionMBIR: its exact law where every step is linear, its parts, and what they achieve."""

from collections import deque
from itertools import pairwise

import deepinv
import pytest
import torch
from recursions import follow
from toys import F64

import operators
from priors import Card, Denoiser, Dirac, Gaussian, SliceWise
from priors.schedules import log_levels
from restore import checkpoint
from restore.coupling import Quadratic
from restore.problem import Problem, stream
from restore.solvers import diffusion_mbir
from restore.solvers.diffusion_mbir import DiffusionMBIR, back_project


class Rows(deepinv.physics.LinearPhysics):
    """`y = matrix @ x.flatten()` of flat images."""

    def __init__(self, matrix, image_shape):
        super().__init__(img_size=image_shape)
        self.register_buffer("matrix", matrix)

    def A(self, x, **_):
        return (x.flatten(1) @ self.matrix.to(x).T).reshape(len(x), 1, -1, 1)

    def A_adjoint(self, y, **_):
        return (y.flatten(1) @ self.matrix.to(y)).reshape(-1, *self.img_size)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def squared_exponential(height, width, length=1.5):
    axes = torch.arange(height, dtype=F64), torch.arange(width, dtype=F64)
    grid = torch.cartesian_prod(*axes)
    near = torch.exp(-torch.cdist(grid, grid).square() / (2 * length**2))
    return near + 1e-3 * torch.eye(height * width, dtype=F64)


# -- the exact law ---------------------------------------------------------------------------------


class Affine(DiffusionMBIR):
    """With steps of fixed sizes, so that the whole chain is an affine map of its noise."""

    def langevin(self, score, z, sigma):
        return torch.full((len(z), 1, 1, 1), 0.05 * sigma**2, dtype=F64)

    def fit(self, problem, term, x, v):
        step, held = problem.A_adjoint(problem.y - problem.A(x)), torch.zeros_like(x)
        term.add_gram(x, held)
        term.add_pull(v, step)
        x.add_(step - held, alpha=STEP)


class Impulses(Problem):
    """Its noise is a unit impulse: image k has one at the k-th number drawn, the last has none."""

    def noise(self, like=None):
        shape = self.shape if like is None else tuple(like.shape)
        z = torch.zeros((shape[0], torch.Size(shape[1:]).numel()), dtype=F64)
        drawn = self.notes.setdefault("drawn", 0)
        z[drawn : drawn + z.shape[1]] = torch.eye(z.shape[1], dtype=F64)
        self.notes["drawn"] = drawn + z.shape[1]
        return z.reshape(shape)


STEP, SLICES, PIXELS, LEVELS = 0.3, 3, 6, 5
MEAN = draw(PIXELS, seed=1)
COVARIANCE = squared_exponential(2, 3)
MATRICES = draw(SLICES, 4, PIXELS, seed=2) / PIXELS**0.5


def measured_slices(axis):
    shape = [1, 2, 3]
    shape.insert(1 + axis, SLICES)
    rows = [Rows(matrix, (1, 2, 3)) for matrix in MATRICES]
    return tuple(shape), operators.slices(shape, operator=rows, axis=axis)


def exact(solver, term, y, boundary):
    """Mean and covariance of the result, slice after slice, by following matrices."""
    n = SLICES * PIXELS
    eye, zero = torch.eye(n, dtype=F64), torch.zeros((n, n), dtype=F64)
    jump = torch.roll(torch.eye(SLICES, dtype=F64), 1, 1) - torch.eye(SLICES, dtype=F64)
    if boundary == "neumann":
        jump[-1] = 0
    D = torch.kron(jump, torch.eye(PIXELS, dtype=F64))
    A = torch.block_diag(*MATRICES)
    mean = MEAN.repeat(SLICES)

    def denoiser(s):
        one = COVARIANCE @ torch.linalg.inv(COVARIANCE + s**2 * torch.eye(PIXELS, dtype=F64))
        return torch.block_diag(*[one] * SLICES)

    def on_x(F, g, noise):
        """A step of `x` alone, as one of `(x, v)`."""
        both = torch.block_diag(F, eye)
        return both, torch.cat([g, 0 * g]), torch.cat([noise * eye, zero])

    quadratic = isinstance(term, Quadratic)
    weight = float((term.lam if quadratic else term.rho).flatten()[0])
    steps = []
    levels = [*log_levels(LEVELS, solver.sigma_max, solver.sigma_min).tolist(), 0.0]
    for s, t in pairwise(levels):
        kept = (t / s) ** 2
        K = (1 - kept) * denoiser(s) + kept * eye
        noise = (s**2 - t**2) ** 0.5 if t > 0 else 0.0
        steps.append(on_x(K, (eye - K) @ mean, noise))
        if t > 0:
            e = 0.05 * t**2
            K = eye + e / t**2 * (denoiser(t) - eye)
            steps.append(on_x(K, (eye - K) @ mean, (2 * e) ** 0.5))
        pull = zero if quadratic or not solver.shared else STEP * weight * D.T
        K = eye - STEP * (A.T @ A + weight * D.T @ D)
        F = torch.cat([torch.cat([K, pull], 1), torch.cat([zero, eye], 1)])
        steps.append((F, torch.cat([STEP * A.T @ y, torch.zeros(n, dtype=F64)]), 0 * F[:, :1]))
        # of lambda = 0: u = 0 and d = v = D x
        F = torch.cat([torch.cat([eye, zero], 1), torch.cat([D, zero], 1)])
        steps.append((F, torch.zeros(2 * n, dtype=F64), 0 * F[:, :1]))
    start = torch.zeros((2 * n, 2 * n), dtype=F64)
    start[:n, :n] = levels[0] ** 2 * eye
    m, C = follow(torch.zeros(2 * n, dtype=F64), start, steps)
    return m[:n], C[:n, :n]


@pytest.mark.parametrize(
    ("axis", "options"),
    [
        (0, {"z_prior": "quadratic", "lambda_rel": 0.1}),
        (1, {"z_prior": "quadratic", "lambda_rel": 0.1}),
        (0, {"lambda_rel": 0.0, "rho_rel": 0.2}),
        (2, {"lambda_rel": 0.0, "rho_rel": 0.2, "boundary": "periodic"}),
        (0, {"lambda_rel": 0.0, "rho_rel": 0.2, "shared": False}),
    ],
)
def test_the_chain_is_the_recursion(axis, options):
    """Every noise number's effect on every voxel, so that no chance is left in the comparison."""
    solver = Affine(steps=LEVELS, sigma_max=20.0, sigma_min=0.05, axis=axis, **options)
    shape, operator = measured_slices(axis)
    prior = solver.lift(Gaussian.dense(MEAN.reshape(1, 2, 3), COVARIANCE), (1, *shape))
    y = draw(SLICES, 4, seed=3)
    draws = SLICES * PIXELS * 2 * LEVELS - SLICES * PIXELS  # start, predictor, corrector
    problem = Impulses(
        y=y.reshape(1, SLICES, 1, 4, 1).repeat(draws + 1, 1, 1, 1, 1),
        operator=operator,
        prior=prior,
        shape=(draws + 1, *shape),
        sigma_y=torch.zeros(draws + 1, 1, 1, 1, 1, dtype=F64),
        streams=[stream(0, 0)],
        observed=torch.ones((), dtype=F64),
    )
    *_, x = solver.iterate(problem)
    assert problem.notes["drawn"] == draws
    x = x.movedim(2 + axis, 1).flatten(1)
    found = (x[:-1] - x[-1]).T
    mean, covariance = exact(solver, solver.term(problem), y.flatten(), solver.boundary)
    torch.testing.assert_close(x[-1], mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(found @ found.T, covariance, rtol=0, atol=1e-9)


# -- parts -----------------------------------------------------------------------------------------


def problem_of(operator, y, shape):
    return Problem(
        y=y,
        operator=operator,
        prior=Dirac(torch.zeros((1, *shape), dtype=F64)),
        shape=(len(y), *shape),
        sigma_y=torch.zeros(len(y), 1, 1, 1, 1, dtype=F64),
        streams=[stream(0, 0)],
        observed=torch.ones((), dtype=F64),
    )


def test_the_fit_is_an_exact_line_search_of_the_whole_volume():
    """After it the gradient is orthogonal to the step, and the step is along the old gradient."""
    shape, operator = measured_slices(0)
    problem = problem_of(operator, operator.A(draw(2, *shape)), shape)
    solver = DiffusionMBIR()
    term = solver.term(problem)
    v = [draw(2, *shape, seed=4)]
    x = draw(2, *shape, seed=5)

    def gradient(x):
        g = problem.A_adjoint(problem.A(x) - problem.y)
        term.add_gram(x, g)
        pull = torch.zeros_like(x)
        term.add_pull(v, pull)
        return (g - pull).flatten(1)

    before = x.clone()
    slope = gradient(x)
    solver.fit(problem, term, x, v)
    step = (x - before).flatten(1)
    along = -(step * slope).sum(1) / slope.square().sum(1)
    torch.testing.assert_close(step, -along[:, None] * slope, rtol=1e-10, atol=1e-12)
    assert bool((along > 0).all())
    assert along[0] != along[1]  # volumes have their own step sizes
    assert float((step * gradient(x)).sum(1).abs().max()) < 1e-10


def test_the_end_of_ct_is_a_normalised_back_projection():
    operator = operators.slices((1, 2, 8, 8), operator="ct:angles=1,detectors=4").to(F64)
    problem = problem_of(operator, operator.A(draw(1, 1, 2, 8, 8)), (1, 2, 8, 8))
    x = draw(1, 1, 2, 8, 8, seed=1)
    before, share = x.clone(), operator.A_adjoint(operator.A(torch.ones_like(x)))
    unseen = share == 0
    assert bool(unseen.any())  # a detector that is too small for the slice
    back_project(problem, x)
    back = operator.A_adjoint(problem.y - operator.A(before))
    torch.testing.assert_close(x[~unseen], (before + back / share)[~unseen])
    assert torch.equal(x[unseen], before[unseen])


@pytest.mark.parametrize(
    ("spec", "ends"),
    [
        ("ct:angles=6", True),
        ("ct:geometry=fan,angles=6", True),
        ("mask", False),
        ("blur:sigma=0.5", False),
    ],
)
def test_the_end_comes_for_ct_alone(spec, ends, monkeypatch):
    """Of a mask it would copy the measurement with its noise."""
    monkeypatch.setattr(diffusion_mbir, "back_project", lambda _, x: x.fill_(7.0))
    flat = operators.parse(spec, (1, 8, 8)).to(F64)
    prior = Dirac(torch.zeros((1, 1, 8, 8), dtype=F64))
    for operator, shape in (
        (flat, (1, 1, 8, 8)),
        (operators.slices((1, 2, 8, 8), operator=flat), (1, 1, 2, 8, 8)),
        (operators.slices((1, 2, 8, 8), operator=[flat, flat]), (1, 1, 2, 8, 8)),
    ):
        y = operator.A(torch.ones(shape, dtype=F64))
        x = DiffusionMBIR(steps=2)(y, operator, prior).samples
        assert bool((x == 7.0).all()) == ends


def test_levels_stay_where_the_prior_knows():
    class Narrow(Denoiser):
        def __init__(self):
            super().__init__(
                Card(
                    name="narrow",
                    spatial_dims=2,
                    sigma_range=(0.05, 50.0),
                    value_range=(-1.0, 1.0),
                )
            )
            self.seen = []

        def forward(self, x, sigma, **_):
            self.seen.append(float(torch.as_tensor(sigma).max()))
            return x / (1 + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2)

    for sigma_max, expected in ((378.0, 50.0), (10.0, 20.0)):  # of [0, 1], twice in [-1, 1]
        prior = Narrow()
        operator = operators.slices((1, 2, 4, 4), operator="denoise", noise=0.1)
        solver = DiffusionMBIR(steps=5, sigma_max=sigma_max)
        solver(torch.zeros(1, 2, 1, 4, 4), operator, prior)
        assert max(prior.seen) == pytest.approx(expected)
        assert min(prior.seen) == pytest.approx(0.05)


# -- a small world ---------------------------------------------------------------------------------

DEPTH, SIDE = 8, 6


class World:
    """Volumes of a separable Gaussian law; every slice is seen through 14 rows of its own."""

    def __init__(self, count, seed=0):
        flat = squared_exponential(SIDE, SIDE)
        depth = torch.arange(DEPTH, dtype=F64)
        along = torch.exp(-(depth[:, None] - depth).abs() / 6)
        self.covariance = torch.kron(along, flat)
        self.flat_covariance = torch.kron(torch.eye(DEPTH, dtype=F64), flat)
        matrices = draw(DEPTH, 14, SIDE**2, seed=seed) / SIDE
        self.A = torch.block_diag(*matrices)
        shape = (1, DEPTH, SIDE, SIDE)
        rows = [Rows(matrix, (1, SIDE, SIDE)) for matrix in matrices]
        self.operator = operators.slices(shape, operator=rows)
        root = torch.linalg.cholesky(self.covariance)
        self.x = (draw(count, DEPTH * SIDE**2, seed=seed + 1) @ root.T).reshape(count, *shape)
        self.y = self.operator.A(self.x)
        self.prior = Gaussian.dense(torch.zeros(1, SIDE, SIDE), flat)

    def best(self, covariance):
        """Posterior means under a covariance; `I` gives the fit of least norm."""
        A = self.A
        weights = torch.linalg.solve(A @ covariance @ A.T, A @ covariance)
        return (self.y.flatten(1) @ weights).reshape(self.x.shape)

    def error(self, x):
        """Mean squared error of every volume."""
        return (x - self.x).square().flatten(1).mean(1)

    def misfit(self, x):
        return float((self.operator.A(x) - self.y).norm() / self.y.norm())

    def run(self, samples=1, seed=0, **options):
        """Results `(S, B, ...)`."""
        solver = DiffusionMBIR(**{"steps": 600, "sigma_max": 30.0, **options})
        return solver(
            self.y, self.operator, self.prior, samples=samples, seed=seed, progress=False
        ).samples


def test_the_number_of_slices_in_a_call_does_not_matter():
    world = World(2)
    results = []
    for chunk in (1, 3, 8):
        solver = DiffusionMBIR(steps=20)
        prior = SliceWise(world.prior, chunk=chunk)
        results.append(solver(world.y, world.operator, prior).samples)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=1e-9)


def test_volumes_and_samples_do_not_touch_each_other():
    world = World(3)
    solver = DiffusionMBIR(steps=20)
    both = solver(world.y, world.operator, world.prior, samples=2, batch_size=2).samples
    alone = solver(world.y[1:2], world.operator, world.prior, samples=2, batch_size=1).samples
    torch.testing.assert_close(alone, both[:, 1:2], rtol=0, atol=1e-9)


def test_a_flat_image_is_a_volume_of_one_slice():
    matrix = draw(14, SIDE**2) / SIDE
    flat = Rows(matrix, (1, SIDE, SIDE))
    volume = operators.slices((1, 1, SIDE, SIDE), operator=[flat])
    prior = Gaussian.dense(torch.zeros(1, SIDE, SIDE), squared_exponential(SIDE, SIDE))
    y = flat.A(draw(1, 1, SIDE, SIDE, seed=1))
    solver = DiffusionMBIR(steps=20)
    one = solver(y, flat, prior).samples
    many = solver(y[:, None], volume, prior).samples
    torch.testing.assert_close(many[:, :, :, 0], one, rtol=0, atol=1e-9)


def test_none_is_off_and_lambda_zero_is_not():
    """With lambda = 0, d holds differences of noisier levels and rho drags x along."""
    world = World(4)
    off = world.run(steps=100, z_prior="none")
    assert torch.equal(off, world.run(steps=100, z_prior="none", rho_rel=3.0, lambda_rel=1.0))
    errors = [float(world.error(off[0]).mean())]
    for rho_rel in (0.1, 0.4, 4.0):
        x = world.run(steps=100, lambda_rel=0.0, rho_rel=rho_rel)[0]
        errors.append(float(world.error(x).mean()))
    assert errors[1] < errors[2] < errors[3]
    # noise of levels up to 30 in a prior of variance 1; chance moves an error by some 20 %
    assert errors[2] > 2 * errors[0]
    assert errors[3] > 10 * errors[0]


def test_a_strong_rho_is_warned_of(caplog):
    world = World(1)
    world.run(steps=3, rho_rel=0.4)
    assert "held on to" not in caplog.text
    world.run(steps=3, rho_rel=0.6)
    assert "held on to" in caplog.text


def test_calls_are_counted():
    world = World(2)
    solver = DiffusionMBIR(steps=7, corrections=2)
    result = solver(world.y, world.operator, world.prior, samples=2)
    assert result.cost.calls == 7 + 2 * 6


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    world, solver, file = World(2), DiffusionMBIR(steps=12), tmp_path / "run"
    task = (world.y, world.operator, world.prior)
    whole = solver(*task, samples=2, batch_size=1).samples
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)

    class Killed(Exception):
        pass

    def kill(step):
        if steps.append(step.index) or len(steps) == 17:
            raise Killed

    steps: list[int] = []
    with pytest.raises(Killed):
        solver(*task, samples=2, batch_size=1, callback=kill, checkpoint=file)
    again = solver(*task, samples=2, batch_size=1, callback=kill, checkpoint=file)
    assert torch.equal(again.samples, whole)
    assert len(steps) == 24 + 1  # the step at which it was killed came twice
    assert again.cost.calls == 2 * 12 - 1


# -- what it achieves (slow) -----------------------------------------------------------------------


class Independent(Problem):
    """Its images draw from one stream, one after another: no common numbers, and fast."""

    def noise(self, like=None):
        shape = self.shape if like is None else tuple(like.shape)
        return torch.randn(shape, generator=self.streams[0], dtype=F64)


def many(solver, y, operator, prior, shape, count):
    """`count` independent results of one measurement."""
    problem = Independent(
        y=y.expand(count, *y.shape[1:]),
        operator=operator,
        prior=solver.lift(prior, (count, *shape)),
        shape=(count, *shape),
        sigma_y=torch.zeros(count, *[1] * (len(shape)), dtype=F64),
        streams=[stream(0, 0)],
        observed=torch.ones((), dtype=F64),
    )
    *_, x = deque(solver.iterate(problem), maxlen=1)
    return x.flatten(1)


@pytest.mark.slow
def test_without_data_it_draws_from_the_prior():
    """Error of the covariance at most twice that of exact draws: measured 0.063 against 0.042."""
    count, shape = 4096, (1, SIDE, SIDE)
    covariance = squared_exponential(SIDE, SIDE)
    blind = deepinv.physics.Inpainting(shape, mask=torch.zeros(1, *shape, dtype=F64)).to(F64)
    prior = Gaussian.dense(torch.zeros(shape), covariance)
    y = torch.zeros((1, *shape), dtype=F64)
    x = many(DiffusionMBIR(steps=1000, sigma_max=30.0), y, blind, prior, shape, count)
    root = torch.linalg.cholesky(covariance)

    def error(x):
        return float((x.T @ x / count - covariance).norm())

    exact_errors = [error(draw(count, SIDE**2, seed=seed) @ root.T) for seed in range(8)]
    assert error(x) < 2 * sum(exact_errors) / 8
    # r and 36 pixels make Langevin steps too long by a few per cent, the known bias of their rule
    assert 1 < float((x.T @ x / count).trace() / covariance.trace()) < 1.1


TUNED = {"lambda_rel": 0.0077, "rho_rel": 0.115}


@pytest.mark.slow
def test_it_is_between_the_best_and_the_least_norm():
    """Errors: Bayes 0.027, slice by slice 0.080, least norm 0.60, here 0.15, slices alone 0.25."""
    world = World(32)
    least_norm = float(world.error(world.best(torch.eye(DEPTH * SIDE**2, dtype=F64))).mean())
    bayes = world.error(world.best(world.covariance))
    x = world.run(samples=4, **TUNED)
    assert float(world.error(x[0]).mean()) < 0.5 * least_norm
    excess = world.error(x.mean(0)) - bayes  # nobody beats the posterior mean, but by chance
    assert float(excess.mean()) > -2 * float(excess.std()) / 32**0.5
    # total variation is the wrong prior for this law, and helps all the same
    assert float(world.error(x[0]).mean()) < float(world.error(world.run(z_prior="none")[0]).mean())


@pytest.mark.slow
def test_the_term_acts_as_its_weight_grows():
    world = World(16)
    misfits, jumps = [], []
    for lam in (0.0, 0.02, 0.05, 0.1, 0.2):  # of |A^T A| = 2.6
        x = world.run(lambda_rel=lam / 2.6, rho_rel=1 / 2.6)[0]
        misfits.append(world.misfit(x))
        jumps.append(float(x.diff(dim=2).abs().mean()))
    assert misfits == sorted(misfits)
    assert jumps == sorted(jumps, reverse=True)
    assert misfits[1] < 0.05


@pytest.mark.slow
def test_what_is_shared_is_worth_it():
    """Errors 0.17 and 0.24, misfits 0.08 and 0.22; slices alone have an error of 0.25."""
    world = World(16)
    strong = {"lambda_rel": 0.05 / 2.6, "rho_rel": 1 / 2.6}
    shared, anew = (world.run(shared=shared, **strong)[0] for shared in (True, False))
    assert world.misfit(shared) < 0.7 * world.misfit(anew)
    apart = world.error(anew) - world.error(shared)
    assert float(apart.mean()) > 2 * float(apart.std()) / 16**0.5


@pytest.mark.slow
def test_total_variation_helps_where_slices_are_alike():
    """Two blocks of equal slices: errors 0.03 and 0.27."""
    world = World(16)
    block = (
        draw(16, 1, 2, SIDE**2, seed=9) @ torch.linalg.cholesky(squared_exponential(SIDE, SIDE)).T
    )
    world.x = block.repeat_interleave(DEPTH // 2, dim=2).reshape(world.x.shape)
    world.y = world.operator.A(world.x)
    tied, alone = world.run(**TUNED)[0], world.run(z_prior="none")[0]
    assert float(world.error(tied).mean()) < 0.5 * float(world.error(alone).mean())


@pytest.mark.slow
def test_its_spread_is_wider_than_the_posterior_of_slices():
    """The ratio of variances is no 1 but 1.56, and the mean is off by 24 %, chance by 3 %."""
    world = World(1)
    solver = DiffusionMBIR(steps=600, sigma_max=30.0, z_prior="none")
    x = many(solver, world.y, world.operator, world.prior, (1, DEPTH, SIDE, SIDE), 128)
    A, C = world.A, world.flat_covariance
    posterior = C - C @ A.T @ torch.linalg.solve(A @ C @ A.T, A @ C)
    ratio = float(x.var(0).sum() / posterior.trace())
    mean = world.best(C).flatten()
    off = float((x.mean(0) - mean).norm() / mean.norm())
    assert 1.1 < ratio < 2.5
    assert off < 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 1}, "steps >= 2"),
        ({"corrections": -1}, "corrections >= 0"),
        ({"snr": 0.0}, "snr > 0"),
        ({"sigma_min": 500.0}, "sigma_min < sigma_max"),
        ({"axis": 3}, "expected some of 0"),
        ({"z_prior": "tvv"}, "unknown z_prior"),
        ({"rho_rel": 0.0}, "rho_rel > 0"),
    ],
)
def test_impossible_constants_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DiffusionMBIR(**options)
