"""Likelihoods: gradients, where their minimum lies, chi-square at the truth, and their solvers."""

import math

import deepinv
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators
import restore
from operators.noise import PoissonNoise, RicianNoise, TransmissionNoise
from priors import Dirac, Gaussian
from priors.schedules import DDPM
from restore.cli import main
from restore.likelihood import KINDS, likelihood, noise_kind
from restore.likelihood import Gaussian as GaussianLikelihood
from restore.problem import stream
from restore.solvers import available
from restore.solvers.daps import DAPS
from restore.solvers.dps import DPS
from restore.solvers.red_diff import REDDiff

F64 = torch.float64
NOISES = {
    "poisson": PoissonNoise(40.0),
    "transmission": TransmissionNoise(500.0, 3.0),
    "rician": RicianNoise(0.2),
}


def physics(noise, shape=(1, 8, 8)):
    operator = operators.denoise(shape).to(F64)
    operator.noise_model = noise
    return operator


def model(kind):
    return GaussianLikelihood(0.3) if kind == "gaussian" else likelihood(physics(NOISES[kind]))


def draw(kind, z, seed=1):
    noise = operators.GaussianNoise(0.3) if kind == "gaussian" else NOISES[kind]
    return operators.measure(physics(noise), z, seed=seed)


@pytest.fixture(scope="module")
def scene():
    prior = Gaussian.power_law((1, 8, 8))
    return prior, prior.sample(1, torch.Generator().manual_seed(4)).clamp_min(0.05)


# -- the functions -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), low=st.floats(-0.5, 0.5))
def test_gradient_is_the_derivative_of_the_energy(kind, seed, low):
    g = torch.Generator().manual_seed(seed)
    z = low + 2 * torch.rand((2, 1, 3, 4), generator=g, dtype=F64)
    y = draw(kind, z.abs(), seed)
    z = z.requires_grad_()
    energy = model(kind).energy(z, y)
    assert energy.shape == (2,)
    (expected,) = torch.autograd.grad(energy.sum(), z)
    torch.testing.assert_close(model(kind).gradient(z.detach(), y), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_curvature_bounds_the_second_derivative(kind):
    z = torch.linspace(-0.4, 2, 97, dtype=F64)[None, None, None].requires_grad_()
    y = draw(kind, z.detach().abs().flip(-1) + 0.02)
    energy = model(kind).energy(z, y).sum()
    (first,) = torch.autograd.grad(energy, z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    assert bool((second <= model(kind).curvature(z.detach(), y) * (1 + 1e-9)).all())


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "transmission"])
def test_energy_is_least_where_the_measurement_is_met(kind):
    y = draw(kind, torch.full((1, 1, 1, 200), 0.7, dtype=F64))
    assert float(model(kind).gradient(y, y).abs().max()) < 1e-6 * float(
        model(kind).precision(y).max()
    )


def test_energies_differ_from_log_probabilities_by_constants():
    """Against the distributions of torch, and Rice's by adding up its complex plane."""
    z = torch.tensor([[0.2, 0.9]], dtype=F64)
    N = torch.tensor([[7.0, 30.0]], dtype=F64)
    other = torch.tensor([[0.5, 0.4]], dtype=F64)

    def poisson(rate):
        return -torch.distributions.Poisson(rate).log_prob(N).sum(1)

    found = model("poisson")
    change = found.energy(z, N / 40) - found.energy(other, N / 40)
    torch.testing.assert_close(change, poisson(40 * z) - poisson(40 * other))
    found = model("transmission")
    y = torch.log(500 / N) / 3
    change = found.energy(z, y) - found.energy(other, y)
    rates = [500 * torch.exp(-3 * v) for v in (z, other)]
    torch.testing.assert_close(change, poisson(rates[0]) - poisson(rates[1]))
    found, y = model("rician"), torch.tensor([[0.45, 1.1]], dtype=F64)
    angle = torch.linspace(0, 2 * math.pi, 4001, dtype=F64)[:-1, None, None]

    def ring(v):
        apart = (y * angle.cos() - v) ** 2 + (y * angle.sin()) ** 2
        return -torch.exp(-apart / (2 * 0.04)).mean(0).log().sum(1)

    change = found.energy(z, y) - found.energy(other, y)
    torch.testing.assert_close(change, ring(z) - ring(other))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.25, 1.0])
def test_residual_has_mean_zero_and_variance_one_at_the_truth(kind, value):
    z = torch.full((1, 1, 1, 40000), value, dtype=F64)
    residual = model(kind).residual(z, draw(kind, z))
    assert float(residual.mean()) == pytest.approx(0, abs=5 / 200)
    assert float(residual.var()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_expected_gradient_vanishes_at_the_truth_and_its_variance_is_fishers(kind):
    z = torch.full((1, 1, 1, 40000), 0.9, dtype=F64)
    slope = model(kind).gradient(z, draw(kind, z))
    information = float(model(kind).precision(z).mean())
    assert float(slope.mean()) == pytest.approx(0, abs=5 * math.sqrt(information / 40000))
    assert float(slope.var()) == pytest.approx(information, rel=0.06)


def test_rays_without_a_photon_count_none():
    noise = TransmissionNoise(4.0, 2.0)
    y = operators.measure(physics(noise), torch.full((1, 1, 1, 50), 9.0, dtype=F64), seed=0)
    found = likelihood(physics(noise))
    torch.testing.assert_close(y, torch.full_like(y, math.log(8) / 2))
    zero = torch.zeros_like(y)
    torch.testing.assert_close(found.gradient(zero, y), torch.full_like(y, -8.0))


def test_dim_counts_pull_without_bias():
    """At half a count expected, where most see none: a score has mean zero at the truth."""
    z = torch.full((1, 1, 1, 40000), 0.5 / 40, dtype=F64)
    slope = model("poisson").gradient(z, draw("poisson", z))
    assert float(slope.mean()) == pytest.approx(0, abs=5 * float(slope.std()) / 200)


def test_magnitudes_of_strong_signals_have_the_noise_of_one_part():
    found = likelihood(physics(RicianNoise(1e-4)))
    z = torch.logspace(-1, 5, 200, dtype=F64)[None]
    residual = found.residual(z, z + 1e-4)
    torch.testing.assert_close(residual, torch.ones_like(z), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", NOISES)
def test_wild_estimates_have_finite_energies_that_pull_back(kind):
    """In float32, far on both sides of what can be measured, and for hardly any noise."""
    z = torch.tensor([[-1e4, -30.0, -1e-3, 0.0, 1e-6, 30.0, 1e4]])
    y = torch.full_like(z, 0.5)
    quiet = {"rician": RicianNoise(1e-4), "poisson": PoissonNoise(1e6)}
    for noise in (NOISES[kind], quiet.get(kind, NOISES[kind])):
        found = likelihood(physics(noise))
        values = (found.energy(z, y), found.gradient(z, y), found.residual(z, y))
        for value in (*values, found.curvature(z, y), found.power(z)):
            assert bool(torch.isfinite(value).all())
        slope = found.gradient(z, y)[0]
        assert bool((slope[:2] < 0).all())
        assert bool((slope[-2:] > 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_quadratic_form_is_the_gaussian_of_the_same_variance(kind):
    z = 0.3 + torch.rand((2, 1, 3, 4), generator=torch.Generator().manual_seed(0), dtype=F64)
    y = draw(kind, z)
    expected = (z - y) * model(kind).precision(y)
    torch.testing.assert_close(model(kind).quadratic(y).gradient(z, y), expected)


# -- which noise is which ----------------------------------------------------------------------


def test_kinds_are_those_of_the_noise_models():
    assert KINDS == ("gaussian", "poisson", "transmission", "rician")
    for kind, noise in NOISES.items():
        assert noise_kind(physics(noise)) == kind
        assert model(kind).kind == kind
    for noise in (operators.GaussianNoise(0.1), deepinv.physics.ZeroNoise()):
        assert noise_kind(physics(noise)) == "gaussian"
        assert likelihood(physics(noise)) is None


def test_noise_without_likelihood_is_refused():
    y = torch.full((1, 1, 8, 8), 0.5, dtype=F64)
    prior = Gaussian.power_law((1, 8, 8))
    for noise, word in (
        (deepinv.physics.UniformNoise(0.1), "needs Gaussian or Poisson or"),
        (RicianNoise(0.0), "sigma=0"),
    ):
        with pytest.raises(ValueError, match=word):
            restore.solve(y, physics(noise), prior, "dps")


@pytest.mark.parametrize("name", list(available()))
def test_solvers_say_which_noise_they_handle(name):
    """Those of squares refuse counts before the first call, and name one that can."""

    class Untouchable(Gaussian):
        def forward(self, x, sigma, **kwargs):
            raise AssertionError("called before the check")

    known = Gaussian.power_law((1, 8, 8))
    solver = available()[name]
    assert set(solver.likelihoods) <= set(KINDS)
    lacking = solver.lacks(physics(NOISES["poisson"]))
    if "poisson" in solver.likelihoods:
        assert lacking is None
        return
    prior = Untouchable(known.mean, known.basis, known.variances)
    y = torch.full((1, 1, 8, 8), 0.5, dtype=F64)
    with pytest.raises(ValueError, match=r"needs Gaussian noise.*solver '.*' can use it"):
        restore.solve(y, physics(NOISES["poisson"]), prior, name)


def test_the_command_line_lists_the_noise(capsys):
    assert main(["solvers", "--json"]) == 0
    shown = capsys.readouterr().out
    assert "gaussian, poisson, transmission, rician" in shown


# -- the solvers -------------------------------------------------------------------------------

SOLVERS = {
    "dps": DPS(steps=200, zeta=0.1),
    "red-diff": REDDiff(steps=200),
    "daps": DAPS(levels=25, langevin_steps=40),
}


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("name", SOLVERS)
def test_measurements_are_met(kind, name, scene):
    prior, x = scene
    y = draw(kind, x)
    before = y.clone()
    result = SOLVERS[name](y, physics(NOISES[kind]), prior, samples=4)
    assert torch.equal(y, before)
    assert result.status == "ok"
    assert float(result.misfit) < 1.5
    if name == "daps" or kind != "rician":  # the others fit the noise, and magnitudes have most
        assert float((result.mean - x).norm()) < 0.96 * float((prior.mean - x).norm())


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("name", SOLVERS)
def test_images_of_a_batch_do_not_touch_each_other(kind, name, scene):
    prior, x = scene
    solver = {
        "dps": DPS(steps=5),
        "red-diff": REDDiff(steps=5),
        "daps": DAPS(levels=3, langevin_steps=5),
    }
    pair = draw(kind, torch.cat([x, 0.4 * x.flip(-1)]))
    both = solver[name](pair, physics(NOISES[kind]), prior, samples=2)
    alone = solver[name](pair[1:], physics(NOISES[kind]), prior, samples=2)
    torch.testing.assert_close(both.samples[:, 1:], alone.samples, rtol=0, atol=1e-9)
    torch.testing.assert_close(both.misfit[1:], alone.misfit)


@pytest.mark.parametrize("kind", NOISES)
def test_misfit_is_one_for_the_truth(kind):
    z = 0.3 + 0.7 * torch.rand(
        (3, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=F64
    )
    y = draw(kind, z)
    result = DPS(steps=1)(y[:1], physics(NOISES[kind], (1, 64, 64)), Dirac(z[:1]))
    assert float(result.misfit) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "noise", [PoissonNoise(0.6), TransmissionNoise(1.5, 3.0)], ids=["poisson", "transmission"]
)
def test_misfit_is_one_for_the_truth_where_hardly_anything_is_counted(noise):
    z = torch.rand((1, 1, 96, 96), generator=torch.Generator().manual_seed(0), dtype=F64)
    operator = physics(noise, (1, 96, 96))
    result = DPS(steps=1)(operators.measure(operator, z, seed=1), operator, Dirac(z))
    assert float(result.misfit) == pytest.approx(1, abs=0.08)


def test_darkness_is_consistent_with_no_counts():
    z = torch.zeros((1, 1, 8, 8), dtype=F64)
    operator = physics(PoissonNoise(40.0))
    result = DPS(steps=1)(operators.measure(operator, z, seed=1), operator, Dirac(z))
    assert result.status == "ok"


def test_dps_weighs_counts_as_its_paper_or_by_the_likelihood(scene):
    """One step from pure noise, against autograd through the network, in [0, 1]."""
    prior, x = scene
    y, operator = draw("poisson", x), physics(NOISES["poisson"])
    eps = torch.randn(x.shape[1:], generator=stream(4, 0), dtype=F64)[None].requires_grad_()
    s = DDPM().level(999).item()
    z = prior(0.5 + 0.5 * s * eps, 0.5 * s)  # alpha_T x_0 is nothing beside the noise

    def pull(**options):
        one, none = (DPS(steps=1, clip=False, zeta=v, **options) for v in (0.1, 0.0))
        still, moved = (d(y, operator, prior, seed=4).samples[0] for d in (none, one))
        return still - moved

    weights = 1 / (2 * y.clamp_min(0.5 / 40))
    (paper,) = torch.autograd.grad(
        (weights * (y - z).square()).sum().sqrt(), eps, retain_graph=True
    )
    (exact,) = torch.autograd.grad(model("poisson").energy(z, y).sum(), eps)
    for found, expected in ((pull(), paper), (pull(poisson="likelihood"), exact)):
        cosine = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0)
        assert float(cosine) == pytest.approx(1, abs=1e-9)
    apart = torch.nn.functional.cosine_similarity(paper.flatten(), exact.flatten(), 0)
    assert float(apart) < 0.999


def test_langevin_samples_the_posterior_of_counts():
    """One bright pixel, N(0.8, 0.1) prior: mean and std against the integral on a grid."""
    count, c = 4000, 0.01
    shape = (1, 1, count)
    flat = Gaussian.power_law(shape)
    prior = Gaussian(torch.full(shape, 0.8), flat.basis, torch.full(shape, c), value_range=(-1, 1))
    y = torch.full((1, *shape), 25 / 40, dtype=F64)
    grid = torch.linspace(0.2, 1.6, 4001, dtype=F64)
    log_p = 25 * (40 * grid).log() - 40 * grid - (grid - 0.8).square() / (2 * c)
    p = torch.softmax(log_p, 0)
    mean = float((p * grid).sum())
    std = math.sqrt(float((p * (grid - mean).square()).sum()))
    solver = DAPS(variance=c, levels=20, sigma_max=1.0, langevin_steps=60, relative_step=0.1)
    x = solver(y, physics(NOISES["poisson"], shape), prior).samples.flatten()
    assert float(x.mean()) == pytest.approx(mean, abs=0.1 * std)
    assert float(x.std()) == pytest.approx(std, rel=0.08)
