"""DAPS against linear recursions, its known over-dispersion, and its exact reference mode."""

import math
from itertools import pairwise

import deepinv
import pytest
import torch
from recursions import EYE, A, assert_law, denoiser, follow, outcome

import operators
import restore
from priors import Dirac, Gaussian
from priors.bases import Hartley
from priors.schedules import edm_levels
from restore.problem import Problem, stream
from restore.solvers.daps import DAPS, squared_norm

F64 = torch.float64


def white(c, count):
    variances = torch.full((1, 1, count), c, dtype=F64)
    return Gaussian(torch.zeros(1, 1, count), Hartley(), variances, value_range=(-1, 1))


def scalar(solver, *, c=1.0, y=0.8, sigma_y=0.3, count=10000, seen=True):
    """Mean and variance of a white pixel measured to be `y`."""
    shape = (1, 1, count)
    operator = operators.denoise(shape, noise=sigma_y).to(F64)
    if not seen:
        operator = deepinv.physics.Inpainting(shape, mask=torch.zeros(1, *shape)).to(F64)
    x = solver(torch.full((1, *shape), y, dtype=F64), operator, white(c, count)).samples
    return float(x.mean()), float(x.var())


def problem_of(operator, shape, images=1):
    """A chunk of one sample."""
    x = torch.zeros((images, *shape), dtype=F64)
    return Problem(
        y=operator.A(x + 0.5),
        operator=operator,
        prior=Gaussian.power_law(shape),
        shape=tuple(x.shape),
        sigma_y=torch.ones((images, 1, 1, 1), dtype=F64),
        streams=[stream(0, 0)],
        observed=torch.ones_like(operator.A(x)),
    )


def flow(start, steps):
    """Matrix of the Euler steps of the probability flow."""
    levels = [*edm_levels(steps, start, 0.01).tolist(), 0.0]
    E = EYE
    for s, t in pairwise(levels):
        E = (denoiser(s) + t / s * (EYE - denoiser(s))) @ E
    return E


@pytest.mark.parametrize("steps", [2, 5])
def test_law_of_the_outcome(steps):
    """Exact inner samples: every level is a Gaussian fit about the end of the flow."""
    solver, y, tau = DAPS(levels=12, ode_steps=steps, tau=0.3, inner="exact"), 0.7, 0.3
    levels = edm_levels(12, 100, 0.1).tolist()
    mean, covariance = torch.zeros(2, dtype=F64), levels[0] ** 2 * EYE
    for k, s in enumerate(levels):
        S = torch.linalg.inv(A.T @ A / tau**2 + EYE / s**2)
        step = (S @ flow(s, steps) / s**2, (S @ A.T * y / tau**2)[:, 0], torch.linalg.cholesky(S))
        mean, covariance = follow(mean, covariance, [step])
        if k + 1 < len(levels):
            covariance = covariance + levels[k + 1] ** 2 * EYE
    assert_law(outcome(solver, y, 0.3, 20000), mean, covariance)


def test_without_data_it_is_too_wide():
    """N(0, 1) comes back with variance 2.118 from the exact flow, 1.577 from five Euler steps."""
    levels = [*edm_levels(200, 100, 0.1).tolist(), 0.0]
    variances = {"euler": 1e4, "exact": 1e4}
    for s, t in pairwise(levels):
        shrunk = {"euler": _euler(s, 5) ** 2, "exact": 1 / (1 + s**2)}
        variances = {k: v * shrunk[k] + s**2 + t**2 for k, v in variances.items()}
    assert variances["exact"] == pytest.approx(2.118, abs=1e-3)
    assert variances["euler"] == pytest.approx(1.577, abs=1e-3)
    _, variance = scalar(DAPS(inner="exact"), y=0.0, seen=False)
    assert variance == pytest.approx(variances["euler"], rel=5 * math.sqrt(2 / 10000))
    _, variance = scalar(DAPS(inner="exact", ode_steps=60), y=0.0, seen=False, count=4000)
    assert variance == pytest.approx(variances["exact"], rel=5 * math.sqrt(2 / 4000) + 0.04)


def _euler(start, steps):
    factor, levels = 1.0, [*edm_levels(steps, start, 0.01).tolist(), 0.0]
    for s, t in pairwise(levels):
        factor *= (1 + t * s) / (1 + s**2)  # D = x / (1 + s^2)
    return factor


@pytest.mark.parametrize(
    ("tau", "mean", "variance"),
    [(0.3, 0.7661, 0.0859), (0.1, 0.7961, 0.00993), (0.01, 0.79996, 1.0e-4)],
)
def test_scalar_reference_values(tau, mean, variance):
    """y = 0.8, the flow followed finely; the posterior has 0.7339 and 0.0826 at tau 0.3."""
    count = 4000
    found = scalar(DAPS(inner="exact", tau=tau, ode_steps=60), count=count)
    assert found[0] == pytest.approx(mean, abs=5 * math.sqrt(variance / count) + 1e-3 * tau)
    assert found[1] == pytest.approx(variance, rel=5 * math.sqrt(2 / count) + 0.01)


@pytest.mark.parametrize("c", [0.1, 1.0])
def test_reference_mode_is_the_posterior(c):
    """The exact mean and variance instead of the flow and the level: nothing is left wrong."""
    mean, variance = c * 0.8 / (c + 0.09), c * 0.09 / (c + 0.09)
    for inner, levels, slack in (("exact", 60, 0.0), ("langevin", 30, 0.13)):
        solver = DAPS(variance=c, inner=inner, levels=levels)
        found = scalar(solver, c=c)
        assert found[0] == pytest.approx(mean, abs=5 * math.sqrt(variance / 1e4) + 0.01)
        assert found[1] == pytest.approx(variance, rel=5 * math.sqrt(2 / 1e4) + 0.02 + slack)


def test_langevin_has_the_variance_of_its_step():
    """On a quadratic, stationary variance is that of the target over `1 - h L / 2`."""
    for relative in (0.2, 1.0):
        solver = DAPS(
            levels=2, variance=1.0, relative_step=relative, sigma_min=0.5, langevin_steps=60
        )
        target = 1 / (1 / 0.3**2 + 1.25 / 0.25)  # spread^2 = 0.25 / 1.25
        gain = target / 0.2  # of the centre
        noisy = scalar(solver)[1]
        # the centre is (x_0 + 0.5 n) / 1.25, x_0 of the level before with the same inflation
        first = 1 / (1 / 0.3**2 + 1 / (1e4 / (1e4 + 1)))
        inflate = 1 / (1 - relative / 2)
        spread = gain**2 * (first * inflate + 0.25) / 1.25**2
        assert noisy == pytest.approx(spread + target * inflate, rel=5 * math.sqrt(2 / 1e4) + 0.01)


def test_the_step_is_stable_whatever_the_operators_norm():
    """The step follows the norm; the paper's, for an operator of norm 3, runs away."""
    shape = (1, 8, 8)
    prior = Gaussian.power_law(shape)
    strong = deepinv.physics.LinearPhysics(
        A=lambda x, **_: 3 * x, A_adjoint=lambda y, **_: 3 * y,
        noise_model=operators.GaussianNoise(0.01),
    )  # fmt: skip
    x = prior.sample(1, torch.Generator().manual_seed(3))
    y = operators.measure(strong, x, seed=1)
    assert DAPS(levels=5, langevin_steps=30)(y, strong, prior).status == "ok"
    paper = DAPS.paper_settings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("restore.solver.log.warning", lambda *_: None)
        assert DAPS(levels=5, tau=paper.tau, step="paper")(y, strong, prior).status == "diverged"


@pytest.mark.parametrize(
    "spec", ["blur:sigma=0.7", "downsample:factor=2,filter=box", "mask:keep=0.5"]
)
def test_norm_by_power_iteration(spec):
    shape = (1, 8, 8)
    operator = operators.parse(spec, shape).to(F64)
    matrix = operator.A(torch.eye(64, dtype=F64).reshape(64, *shape)).flatten(1)
    exact = float(torch.linalg.matrix_norm(matrix, 2)) ** 2
    found = squared_norm(problem_of(operator, shape, images=2))
    assert found.shape == (2, 1, 1, 1)
    assert 0.8 * exact < float(found[0]) <= exact * (1 + 1e-9)
    assert float(found[0]) == pytest.approx(float(found[1]))


def test_norm_of_a_nonlinear_operator_is_that_of_its_derivative():
    cube = deepinv.physics.Physics(A=lambda x, **_: x**3)
    x = torch.linspace(0.1, 1, 64, dtype=F64).reshape(1, 1, 8, 8)
    problem = problem_of(cube, (1, 8, 8))
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    torch.testing.assert_close(problem.gram(v, x), (3 * x**2) ** 2 * v)
    assert float(squared_norm(problem, x, iterations=200)) == pytest.approx(9.0, rel=1e-2)


def test_nonlinear_operators_are_solved():
    """A squaring camera: its measurement is met within the noise."""
    camera = deepinv.physics.Physics(
        A=lambda x, **_: x.square(), noise_model=operators.GaussianNoise(0.02)
    )
    camera.A_dagger = lambda y, **_: y.clamp_min(0).sqrt()
    prior = Gaussian.power_law((1, 8, 8))
    x = prior.sample(1, torch.Generator().manual_seed(0)).clamp_min(0.1)
    y = operators.measure(camera, x, seed=3)
    result = DAPS(levels=12, langevin_steps=40, sigma_max=10)(y, camera, prior, samples=2)
    assert result.status == "ok"
    assert float(result.misfit) < 1.6


def test_a_known_image_comes_back_up_to_the_last_level():
    x = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=F64)
    operator = operators.parse("mask:keep=0.5", (1, 8, 8), noise=0.05).to(F64)
    y = operators.measure(operator, x, seed=2)
    found = DAPS(levels=4, sigma_min=1e-4, langevin_steps=5)(y, operator, Dirac(x)).samples[0]
    torch.testing.assert_close(found, x, rtol=0, atol=1e-3)


def test_impossible_requests_are_refused():
    for bad in ({"levels": 1}, {"relative_step": 2.0}, {"tau": -1.0}, {"inner": "exakt"}):
        with pytest.raises(ValueError, match=r"daps|unknown"):
            DAPS(**bad)
    squared = deepinv.physics.Physics(A=lambda x, **_: x**2)
    squared.A_dagger = lambda y, **_: y.clamp_min(0).sqrt()
    y = torch.full((1, 1, 8, 8), 0.3, dtype=F64)
    with pytest.raises(ValueError, match="needs a linear operator"):
        restore.solve(y, squared, Gaussian.power_law((1, 8, 8)), DAPS(inner="exact"))
