"""Densities by the probability flow against priors whose density is known."""

import json
import math

import pytest
import torch
from flows import MIXTURE, mixture
from toys import dense

import priors
from priors import Dirac, Gaussian, GaussianMixture, ProductMixture
from priors.bases import Dense, Hartley
from priors.jacobian import linearise
from priors.schedules import EDM, VP
from restore.commands.likelihood import spread_roundings
from restore.images import Image
from restore.samplers import grid as grids
from restore.samplers.log_density import default_grid, log_density
from restore.samplers.runge_kutta import CLASSICAL, HEUN, Frame, RungeKutta, step

F64 = torch.float64


def grid(steps, high=50.0, low=0.01, schedule=None):
    return grids.uniform_lambda(schedule or EDM(), steps, high, low)


def draw(prior, count=3, noise=0.01, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = prior.sample(count, generator)
    return x + noise * torch.randn(x.shape, generator=generator, dtype=F64)


def rotated(n=8):
    """A mixture that couples few pixels: exact traces of it are cheap."""
    g = torch.Generator().manual_seed(5)
    basis = Dense(torch.linalg.qr(torch.randn(n, n, dtype=F64, generator=g))[0])
    return ProductMixture(*MIXTURE, (1, 2, n // 2), basis)


# -- the exact value -------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "steps"), [("rk4", 10), ("heun", 20), ("adaptive", 1)])
@pytest.mark.parametrize("coupled", [False, True])
def test_the_mixture_has_the_density_that_is_known(coupled, method, steps):
    prior = rotated() if coupled else mixture()
    x = draw(prior)
    n = x[0].numel()
    probes = None if coupled else 1  # a diagonal Jacobian needs one
    found = log_density(prior, x, grid(steps), method=method, probes=probes)
    error = (found.nats - prior.log_prob(x, 0.01)) / n
    assert float(error.abs().max()) < 0.02
    torch.testing.assert_close(found.nats_per_dim, found.nats / n)
    assert found.level == pytest.approx(0.01)


def test_the_error_vanishes_with_the_order_of_the_rule():
    """Root mean square over images, against steps so short that they are exact."""
    prior = mixture()
    x = draw(prior, 8, noise=0.3)

    def found(method, steps):
        return log_density(prior, x, grid(steps, 10, 0.3), method=method, probes=1).nats

    fine, counts = found("rk4", 240), (32, 80)
    for method, order in (("heun", 2), ("rk4", 4)):
        errors = [float((found(method, n) - fine).square().mean().sqrt()) for n in counts]
        slope = math.log(errors[0] / errors[1]) / math.log(counts[1] / counts[0])
        assert slope == pytest.approx(order, abs=0.15)


def test_a_gaussian_to_the_mismatch_at_its_highest_level():
    """With its own mean and variances at the top nothing is left; with rough ones `1 / s^2`."""
    prior = dense(torch.diag(torch.tensor([0.5, 2.0], dtype=F64)))
    x = torch.tensor([0.3, -1.2], dtype=F64).reshape(1, 1, 1, 2)
    exact = prior.log_prob(x, 1e-3)
    top = grid(60, 200, 1e-3)
    variance = torch.tensor([0.5, 2.0], dtype=F64).reshape(1, 1, 2)
    right = log_density(prior, x, top, mean=torch.zeros(1, 1, 2), variance=variance)
    torch.testing.assert_close(right.nats, exact, rtol=0, atol=1e-10)
    # variances off by d at level s cost d / (2 s^2) (z^2 - 1) nats each
    rough = log_density(prior, x, top, mean=0.0, variance=1.0)
    assert float((rough.nats - exact).abs()) < 5 * 1 / (2 * 200**2) + 1e-5


def test_white_images_are_exact_in_one_step():
    """In the frame of their own moments nothing moves."""
    mean, variances = (torch.full((1, 3, 4), v, dtype=F64) for v in (0.2, 0.3))
    prior = Gaussian(mean, Hartley(), variances)
    x = draw(prior, 2, noise=0.0)
    found = log_density(prior, x, grid(1), method="heun", mean=0.2, variance=0.3)
    torch.testing.assert_close(found.nats, prior.log_prob(x, 0.01), rtol=0, atol=1e-9)


def test_a_mixture_of_coupled_gaussians_and_point_masses():
    """Every denoiser: also those without a density of their own at level zero."""
    parts = [
        dense(torch.eye(3) * c, torch.tensor(m)) for c, m in ((0.1, [0.0] * 3), (0.4, [1.0] * 3))
    ]
    both = GaussianMixture([0.3, 0.7], parts)
    x = draw(both, 2, noise=0.05)
    found = log_density(both, x, grid(30, 60, 0.05))
    scores = torch.stack([p.log_prob(x, 0.05) for p in parts])
    exact = torch.logsumexp(scores + both.log_weights[:, None], 0)
    assert float((found.nats - exact).abs().max()) / 3 < 0.02

    atoms = Dirac(torch.tensor([0.2, 0.8], dtype=F64).reshape(2, 1, 1, 1))
    x = torch.tensor([0.15, 0.9], dtype=F64).reshape(2, 1, 1, 1)
    kernel = torch.distributions.Normal(atoms.atoms.flatten()[:, None], 0.1)
    exact = torch.logsumexp(kernel.log_prob(x.flatten()[None]) + math.log(0.5), 0)
    found = log_density(atoms, x, grid(40, 50, 0.1))
    torch.testing.assert_close(found.nats, exact, rtol=0, atol=2e-3)
    alone = log_density(Dirac(x[:1]), x[:1], grid(40, 50, 0.1)).nats  # its Jacobian is zero
    assert float(alone) == pytest.approx(-math.log(0.1 * math.sqrt(2 * math.pi)), abs=2e-3)


def test_the_density_integrates_to_one():
    """Over the line, by quadrature: a check that needs no formula of the density."""
    prior = ProductMixture(*MIXTURE, (1, 1, 1))
    x = torch.linspace(-4, 4, 401, dtype=F64).reshape(-1, 1, 1, 1)
    found = log_density(prior, x, grid(30, 50, 0.05))
    assert float(torch.trapezoid(found.nats.exp(), x.flatten())) == pytest.approx(1, abs=2e-3)


# -- probes ----------------------------------------------------------------------------------------


def test_signs_know_a_diagonal_covariance_exactly():
    prior = mixture()
    x = draw(prior, 2)
    by_one = log_density(prior, x, grid(6), probes=1, seed=3)
    by_all = log_density(prior, x, grid(6))
    torch.testing.assert_close(by_one.nats, by_all.nats, rtol=0, atol=1e-10)
    assert bool(by_one.std_error.isnan().all())  # one probe tells no spread
    assert log_density(prior, x, grid(6), probes=3).std_error.abs().max() < 1e-10
    assert bool((by_all.std_error == 0).all())


def test_the_variance_of_a_rotated_trace_is_that_of_its_off_diagonal():
    """`2 (|J|_F^2 - sum J_ii^2)` for one product; integrated over the levels for the density.

    On a Gaussian the Jacobian depends on the level alone, so that the density by a probe errs by
    `v^T B v - tr B`, B the integral of the Jacobians: the same formula with B.
    """
    g = torch.Generator().manual_seed(2)
    Q = torch.linalg.qr(torch.randn(6, 6, dtype=F64, generator=g))[0]
    c = torch.tensor([0.02, 0.1, 0.3, 0.7, 1.5, 3.0], dtype=F64)
    prior = dense(Q @ torch.diag(c) @ Q.T)
    x = draw(prior, 1)
    J = Q @ torch.diag(c / (c + 0.3**2)) @ Q.T
    _, product = linearise(lambda y: prior(y, 0.3), x)
    rows = torch.stack([product(e.reshape(x.shape)).flatten() for e in torch.eye(6, dtype=F64)])
    torch.testing.assert_close(rows, J, rtol=0, atol=1e-10)

    levels = grid(6, 10.0, 0.1)
    ends = ((c + s**2).log() / 2 for s in (10.0, 0.1))
    B = Q @ torch.diag(math.log(100) - next(ends) + next(ends)) @ Q.T  # int c / (c + s^2) ds / s
    expected = float(2 * (B.square().sum() - B.diagonal().square().sum()))
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 6)
    errors = (every @ B * every).sum(1) - B.trace()
    assert float(errors.square().mean()) == pytest.approx(expected, rel=1e-10)

    exact, count = log_density(prior, x, levels).nats, 400
    found = log_density(prior, x, levels, probes=count, seed=1)
    variance = float(found.std_error) ** 2 * count
    kurtosis = float((errors**4).mean()) / expected**2
    # four standard errors of a variance, and five percent for the steps of the grid
    assert variance == pytest.approx(expected, rel=4 * math.sqrt((kurtosis - 1) / count) + 0.05)
    assert abs(float(found.nats - exact)) < 5 * math.sqrt(expected / count)


def test_probes_are_the_seeds_and_the_same_for_every_image():
    prior = rotated()
    x = draw(prior, 3)
    together = log_density(prior, x, grid(4), probes=2, seed=7)
    alone = log_density(prior, x[1:2], grid(4), probes=2, seed=7)
    torch.testing.assert_close(together.nats[1:2], alone.nats, rtol=0, atol=1e-10)
    torch.testing.assert_close(together.std_error[1:2], alone.std_error, rtol=0, atol=1e-10)
    other = log_density(prior, x, grid(4), probes=2, seed=8)
    assert float((other.nats - together.nats).abs().min()) > 1e-6


# -- what is told ----------------------------------------------------------------------------------


def test_adaptive_steps_are_each_images_own():
    prior = mixture()
    x = draw(prior, 2)
    far = torch.cat([x, 40 + x[:1]])
    alone = log_density(prior, x, grid(1), method="adaptive", probes=1).nats
    beside = log_density(prior, far, grid(1), method="adaptive", probes=1).nats[:2]
    assert torch.equal(alone, beside)


def test_bits_follow_the_range_of_the_images():
    """Eight bits over the range: 8 - log2 of the density on [0, 1], 7 - ... on [-1, 1]."""
    variances = torch.full((1, 2, 2), 0.05)
    unit = Gaussian(torch.full((1, 2, 2), 0.5), Hartley(), variances)
    wide = Gaussian(torch.zeros(1, 2, 2), Hartley(), 4 * variances, value_range=(-1.0, 1.0))
    x = draw(unit, 2)
    a = log_density(unit, x, grid(20, 50, 0.01))
    b = log_density(wide, 2 * x - 1, grid(20, 100, 0.02))
    torch.testing.assert_close(a.bits_per_dim, -a.nats_per_dim / math.log(2) + 8)
    torch.testing.assert_close(b.bits_per_dim, -b.nats_per_dim / math.log(2) + 7)
    torch.testing.assert_close(a.bits_per_dim, b.bits_per_dim, rtol=0, atol=1e-9)


def test_calls_are_counted_and_the_schedule_of_the_grid_does_not_matter():
    calls = 0

    class Counting(ProductMixture):
        def forward(self, x, sigma, **kwargs):
            nonlocal calls
            calls += 1
            return super().forward(x, sigma)

    prior = Counting(*MIXTURE, (1, 3, 4))
    x = draw(prior, 2)
    for method, each in (("rk4", 4), ("heun", 2)):
        calls = 0
        found = log_density(prior, x, grid(7), method=method, probes=3)
        assert found.calls == calls == 7 * each
    calls = 0
    found = log_density(prior, x[:1], method="adaptive", probes=1, tol=1e-3)
    assert found.calls == calls
    a = log_density(prior, x, grid(5, 20), probes=1).nats
    b = log_density(prior, x, grid(5, 20, schedule=VP()), probes=1).nats
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_a_network_gives_a_density_with_the_levels_it_knows():
    prior = priors.load("natural-gray")
    levels = default_grid(prior, 2)
    assert (levels[0].level, levels[-1].level) == pytest.approx(prior.card.sigma_range[::-1])
    x = torch.full((1, 1, 8, 8), 0.5, dtype=F64)
    x = x + 0.01 * torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    smooth = log_density(prior, x, default_grid(prior, 8), probes=2)
    rough = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    noise = log_density(prior, rough, default_grid(prior, 8), probes=2)
    # white noise over [0, 1] costs 8 bits a pixel in the best code of it
    assert float(smooth.bits_per_dim) < 7 < 8 < float(noise.bits_per_dim)


def test_refusals_are_one_sentence():
    prior = mixture()
    x = torch.zeros(1, 1, 3, 11, dtype=F64)
    for call, word in (
        (lambda: log_density(prior, x[..., :5]), "knows images of shape"),
        (lambda: log_density(prior, x, method="euler"), "unknown method 'euler'"),
        (lambda: log_density(prior, x, probes=0), "probes >= 1"),
        (lambda: log_density(prior, x, variance=0.0), "must be positive"),
    ):
        with pytest.raises(ValueError, match=word) as info:
            call()
        assert "\n" not in str(info.value)


# -- the frame -------------------------------------------------------------------------------------


def test_the_frame_is_left_as_it_was_entered_and_moves_as_the_flow():
    """`dz/dtau` against the flow of the mixture, by central differences."""
    prior, frame, s, e = mixture(), Frame(0.3, 0.8), 0.7, 1e-4
    y = draw(prior, 1, noise=0.7)
    torch.testing.assert_close(frame.leave(frame.enter(y, s), s), y)
    ahead, behind = (
        frame.enter(prior.flow(y, s, s * math.exp(h)), s * math.exp(h)) for h in (e, -e)
    )
    expected = frame.velocity(y, prior(y, s), s)
    torch.testing.assert_close((ahead - behind) / (2 * e), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rule", "degree"), [(HEUN, 1), (CLASSICAL, 3)])
def test_a_rule_is_exact_for_polynomials_below_its_order(rule, degree):
    for k in (degree, degree + 1):
        (end,) = step(
            lambda s, _, k=k: (torch.tensor(math.log(s) ** k, dtype=F64),),
            (torch.zeros((), dtype=F64),),
            1.0,
            math.e,
            rule,
        )
        exact = abs(float(end) - 1 / (k + 1)) < 1e-12
        assert exact == (k == degree)


def test_rk4_needs_a_variance():
    with pytest.raises(ValueError, match="variance above zero"):
        RungeKutta(variance=0.0)


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def command():
    import typer

    from restore.commands.likelihood import likelihood

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(likelihood)

    def run(*arguments):
        from typer.testing import CliRunner

        return CliRunner().invoke(app, [str(a) for a in arguments])

    return run


def test_the_command_tells_bits_of_integers_and_only_nats_of_floats(command, tmp_path):
    from restore import images

    x = torch.full((1, 1, 12, 12), 0.5) + torch.arange(12) / 255
    for name in ("flat.png", "flat.tif"):
        images.write(tmp_path / name, x, depth=8 if name.endswith("png") else "float")
    shared = ("--steps", 3, "--probes", 2, "--crop", 8)
    found = json.loads(command(tmp_path / "flat.png", *shared, "--json").stdout)
    again = json.loads(command(tmp_path / "flat.png", *shared, "--json").stdout)
    assert found == again
    assert (found["values"], found["calls"], found["prior"]) == (64, 12, "natural-gray")
    assert found["bits_per_dim"] == pytest.approx(8 - found["nats_per_dim"] / math.log(2))
    other = json.loads(command(tmp_path / "flat.tif", *shared, "--json").stdout)
    assert other["bits_per_dim"] is None
    words = command(tmp_path / "flat.png", *shared).stdout
    assert f"{found['bits_per_dim']:.3f} bits a value" in words
    for arguments, word in (
        ((tmp_path / "flat.png", "--probes", 0), "at least 1"),
        ((tmp_path / "flat.png", "--crop", 99), "too small for a part of 99"),
        ((tmp_path / "none.png",), "none.png"),
    ):
        result = command(*arguments)
        assert result.exit_code != 0
        assert word in str(result.exception)


def test_roundings_are_filled_evenly_and_an_eight_bit_value_keeps_its_cell():
    photo = Image(data=torch.tensor([0.0, 7 / 255, 1.0]).reshape(1, 1, 1, 3).repeat(1, 1, 900, 1))
    x = spread_roundings(photo, seed=0) * 256
    assert torch.equal(x.floor(), (photo.data * 255).double().round())
    u = (x - x.floor()).flatten()
    assert float(u.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * u.numel()))
    assert float(u.var()) == pytest.approx(1 / 12, rel=4 * math.sqrt(0.8 / u.numel()))
