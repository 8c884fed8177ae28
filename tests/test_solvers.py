"""Solvers against exact posteriors, fixed points and the recursions of their papers."""

import math

import deepinv
import pytest
import torch

import operators
import priors
import restore
from operators.linalg import dot
from priors import Dirac, Gaussian, GaussianMixture
from priors.bases import Hartley
from priors.schedules import DDPM
from restore.bench.posterior import bias_and_ratio
from restore.lanczos import lanczos_root
from restore.problem import stream
from restore.solvers import available
from restore.solvers.daps import DAPS
from restore.solvers.ddnm import DDNM
from restore.solvers.ddrm import DDRM
from restore.solvers.dds import DDS
from restore.solvers.diffpir import DiffPIR
from restore.solvers.diffusion_mbir import DiffusionMBIR
from restore.solvers.dps import DPS
from restore.solvers.flowchef import FlowChef
from restore.solvers.mmps import MMPS
from restore.solvers.moment_ladder import MomentLadder
from restore.solvers.pigdm import PiGDM
from restore.solvers.posterior_mean import PosteriorMean
from restore.solvers.psld import PSLD
from restore.solvers.red_diff import WEIGHTINGS, REDDiff
from restore.solvers.replacement import Replacement
from restore.solvers.stsl import STSL
from restore.solvers.twisted_smc import TwistedSMC
from restore.spectrum import RadialSpectrum

F64 = torch.float64
CHEAP = {
    "moment-ladder": MomentLadder(levels=3, sweeps=1),
    "mmps": MMPS(levels=4),
    "twisted-smc": TwistedSMC(levels=3, min_particles=6, restart_levels=3),
    "red-diff": REDDiff(steps=5),
    "diffpir": DiffPIR(steps=5),
    "dps": DPS(steps=5),
    "pigdm": PiGDM(steps=5),
    "daps": DAPS(levels=3, ode_steps=2, langevin_steps=10),
    "ddrm": DDRM(steps=5),
    "ddnm": DDNM(steps=5),
    "posterior-mean": PosteriorMean(),
    "dds": DDS(steps=5),
    "diffusion-mbir": DiffusionMBIR(steps=5),
    "psld": PSLD(steps=5),
    "stsl": STSL(steps=5, inner=2),
    "flowchef": FlowChef(steps=5),
    "replacement": Replacement(steps=5),
}


def scalar_prior(variance, count=1, mean=0.0, value_range=(-1.0, 1.0)):
    """`count` independent pixels of one variance, in the papers' range [-1, 1]."""
    shape = (1, 1, count)
    variances = torch.full(shape, variance, dtype=F64)
    return Gaussian(torch.full(shape, mean), Hartley(), variances, value_range=value_range)


def identity(shape, noise):
    return operators.denoise(shape, noise=noise).to(F64)


def nothing_observed(shape):
    zero = torch.zeros((1, *shape), dtype=F64)
    return deepinv.physics.Inpainting(shape, mask=zero).to(F64)


def measured(shape, value):
    return torch.full((1, *shape), value, dtype=F64)


@pytest.fixture(scope="module")
def blurred():
    """A small correlated prior, a blurred measurement of it, and the exact posterior."""
    prior = Gaussian.power_law((1, 16, 16))
    operator = operators.parse("blur:sigma=1", (1, 16, 16), noise=0.05).to(F64)
    truth = prior.sample(1, torch.Generator().manual_seed(5))
    y = operators.measure(operator, truth, seed=77)
    return prior, operator, y, prior.posterior(y, operator, 0.05)


# -- what every solver promises ----------------------------------------------------------------


@pytest.fixture
def posed(name, blurred):
    """A problem for each solver: six numbers for the one that weighs every measurement."""
    prior, _, y, truth = blurred
    if "identity" in CHEAP[name].requires:
        return prior, identity((1, 16, 16), 0.05), y, truth
    if name != "twisted-smc":
        return blurred
    operator = operators.mask(tuple(y.shape[1:]), keep=6 / y[0].numel(), noise=0.1).to(F64)
    return prior, operator, operators.measure(operator, prior.mean[None] + 0.1, seed=2), truth


def test_the_cheap_table_covers_every_solver():
    """But for those of cubes, which need bands and have tests of their own."""
    assert set(CHEAP) == {name for name, s in available().items() if s.restores != "cubes"}


@pytest.mark.parametrize("name", CHEAP)
def test_samples_do_not_depend_on_the_batch_around_them(name, posed):
    prior, operator, y, _ = posed
    solver = CHEAP[name]
    # rounding depends on the batch, and conjugate gradients amplify it up to their own tolerance
    close = {"rtol": 0, "atol": 1e-4}
    four = solver(y, operator, prior, samples=4, seed=0, batch_size=4).samples
    for batch_size in (1, 2):
        again = solver(y, operator, prior, samples=4, seed=0, batch_size=batch_size).samples
        torch.testing.assert_close(again, four, **close)
    if not solver.joint:
        eight = solver(y, operator, prior, samples=8, seed=0).samples
        torch.testing.assert_close(eight[3], four[3], **close)
    again = solver(y, operator, prior, samples=1, seed=1).samples[0]
    assert torch.equal(again, four[0]) == solver.repeats


@pytest.mark.parametrize("spec", ["blur:sigma=2", "mask:keep=0.3", "downsample:factor=2"])
@pytest.mark.parametrize("seed", [0, 5])
def test_a_network_gives_the_same_image_in_every_batch(spec, seed):
    """In float32, with the shipped network, where rounding has the most to say."""
    truth = torch.rand((1, 3, 6, 5), generator=torch.Generator().manual_seed(1))
    truth = torch.nn.functional.interpolate(truth, scale_factor=8, mode="bicubic").clamp(0, 1)
    operator = operators.parse(spec, truth.shape[1:], noise=0.02)
    y = operators.measure(operator, truth, seed=2)
    prior = priors.load("natural")

    def samples(batch_size):
        found = restore.solve(
            y, operator, prior, MomentLadder(), samples=4, seed=seed, batch_size=batch_size
        )
        return found.samples

    four = samples(4)
    for batch_size in (1, 2):
        torch.testing.assert_close(samples(batch_size), four, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CHEAP)
def test_images_of_a_batch_do_not_touch_each_other(name, posed):
    prior, operator, y, _ = posed
    other = y.flip(-1) * 0.3
    together = CHEAP[name](torch.cat([y, other]), operator, prior, samples=2)
    alone = CHEAP[name](other, operator, prior, samples=2)
    torch.testing.assert_close(together.samples[:, 1:], alone.samples, rtol=0, atol=1e-4)
    torch.testing.assert_close(together.misfit[1:], alone.misfit, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", CHEAP)
def test_the_callers_tensors_stay_as_they_were(name, posed):
    prior, operator, y, _ = posed
    before = y.clone()
    CHEAP[name](y, operator, prior)
    assert torch.equal(y, before)
    assert not y.requires_grad


@pytest.mark.parametrize("name", CHEAP)
def test_every_estimate_is_reported_and_every_call_counted(name, posed):
    prior, operator, y, _ = posed
    calls = 0

    class Counting(Gaussian):
        def forward(self, x, sigma, **kwargs):
            nonlocal calls
            calls += len(x)
            return super().forward(x, sigma, **kwargs)

    counting = Counting(prior.mean, prior.basis, prior.variances)
    seen = []
    result = CHEAP[name](y, operator, counting, callback=seen.append)
    assert [s.index for s in seen] == list(range(CHEAP[name].length))
    assert torch.equal(seen[-1].x, result.samples[0])
    assert result.cost.forwards == pytest.approx(calls)


@pytest.mark.parametrize("name", CHEAP)
def test_a_diverging_solver_says_so_within_ten_steps(name, posed):
    prior, operator, y, _ = posed

    class Explosive(Gaussian):
        def forward(self, x, sigma, **kwargs):
            return 1e3 * x

    solver = {"red-diff": REDDiff(lr=1e3), "dps": DPS(steps=50, clip=False)}.get(name, CHEAP[name])
    bad = Explosive(prior.mean, prior.basis, prior.variances)
    result = solver(y, operator, bad)
    assert result.status == "diverged"
    assert int(result.remedy.split("step ")[1].split(";")[0]) <= 10
    assert bool(torch.isfinite(result.samples).all())


@pytest.mark.parametrize("name", CHEAP)
def test_a_known_image_comes_back_from_a_point_mass_prior(name):
    x = torch.rand((1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=F64)
    exact = ("replacement", "diffusion-mbir")  # they copy what was measured
    noise = 0.0 if name in exact else 0.05
    spec = "denoise" if "identity" in CHEAP[name].requires else "mask:keep=0.5"
    operator = operators.parse(spec, (1, 8, 8), noise=noise).to(F64)
    y = operators.measure(operator, x[None], seed=2)
    patient = {
        "red-diff": REDDiff(steps=400, lr=0.05, lam=100.0),
        "daps": DAPS(levels=3, sigma_min=0.01, langevin_steps=10),  # its last level is its spread
    }
    solver = patient.get(name, CHEAP[name])
    result = solver(y, operator, Dirac(x[None]))
    # what MMPS leaves is the noise of its last level
    torch.testing.assert_close(result.samples[0, 0], x, rtol=0, atol=0.03)


# -- refusals ----------------------------------------------------------------------------------


def test_refusals_are_one_sentence_and_come_before_the_first_call(blurred):
    prior, operator, y, _ = blurred

    class Untouchable(Gaussian):
        def forward(self, x, sigma, **kwargs):
            raise AssertionError("called before the check")

    untouched = Untouchable(prior.mean, prior.basis, prior.variances)
    silent = operators.parse("blur:sigma=1", (1, 16, 16)).to(F64)

    def noisy(sigma):
        physics = operators.parse("denoise", (1, 16, 16))
        physics.noise_model = deepinv.physics.GaussianNoise(sigma)
        return physics.to(F64)

    cases = [
        (y * math.nan, operator, {}, "NaN"),
        (y, silent, {}, "noise level above zero"),
        (y, operator, {"samples": 0}, "at least 1"),
        (y.repeat(1, 3, 1, 1), operator, {}, "image"),
        (y.to(torch.int64), operator, {}, "float"),
        (y.to(torch.complex64), operator, {}, "float"),
        (y[:0], operator, {}, "batch dimension"),
        (y[..., :12, :12], operator, {}, r"built for images \(1, 16, 16\)"),
        (y, noisy(-0.1), {}, "noise level is -0.1"),
        (y, noisy(math.nan), {}, "noise level is nan"),
        (y, operator, {"batch_size": 0}, "batch_size is 0"),
        (y, operator, {"samples": 1.5}, "samples is 1.5"),
        (y, operator, {"seed": 1.5}, "seed is 1.5"),
        (y, operator, {"init": y * math.nan}, "init has 256"),
        (y, operator, {"init": y[..., :12, :12]}, "do not fit"),
        (y, operator, {"init": y.repeat(2, 1, 1, 1)}, "do not fit"),
    ]
    for measurement, physics, kwargs, word in cases:
        with pytest.raises(ValueError, match=word) as info:
            restore.solve(measurement, physics, untouched, "mmps", **kwargs)
        assert "\n" not in str(info.value)


def test_things_of_another_kind_are_refused(blurred):
    prior, operator, y, _ = blurred
    for arguments, word in (
        ((y.numpy(), operator, prior), "a ndarray, expected a torch tensor"),
        ((y, "blur", prior), "a str, expected a deepinv physics"),
        ((y, operator, None), "the prior is None"),
        ((y, operator, prior, None), "the solver is None"),
        ((y, operator, prior, MMPS), "the class MMPS"),
    ):
        with pytest.raises(TypeError, match=word):
            restore.solve(*arguments)


def test_an_operator_without_adjoint_is_told_apart_from_a_bad_measurement(blurred):
    prior, _, y, _ = blurred
    squared = deepinv.physics.Physics(A=lambda x, **kw: x**2)
    with pytest.raises(ValueError, match="needs a linear operator"):
        restore.solve(y, squared, prior, "mmps")
    with pytest.raises(ValueError, match="give init"):
        restore.solve(y, squared, prior, REDDiff(steps=3))


def test_an_operator_the_solver_cannot_use_is_refused_with_one_that_can(blurred):
    prior, _, y, _ = blurred
    squared = deepinv.physics.Physics(A=lambda x, **kw: x**2)
    squared.A_dagger = lambda y, **kw: y.clamp_min(0).sqrt()
    with pytest.raises(ValueError, match=r"needs a linear operator.*solver 'red-diff' can use it"):
        restore.solve(y, squared, prior, "mmps")
    assert restore.solve(y**2, squared, prior, REDDiff(steps=3)).samples.shape == (1, *y.shape)


def test_unknown_solver_names_the_nearest(blurred):
    prior, operator, y, _ = blurred
    with pytest.raises(ValueError, match="did you mean 'red-diff'"):
        restore.solve(y, operator, prior, "red-dif")


@pytest.mark.parametrize(
    "make",
    [
        lambda: MMPS(levels=1),
        lambda: MomentLadder(sigma_min=2.0),
        lambda: REDDiff(weighting="linar"),
        lambda: DPS(steps=0),
        lambda: DiffPIR(zeta=2.0),
    ],
)
def test_impossible_constants_are_refused(make):
    with pytest.raises(ValueError, match=r"found|unknown"):
        make()


# -- exact posteriors --------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [MMPS(), MomentLadder()], ids=lambda s: s.name)
def test_gaussian_posterior_is_reached(solver, blurred):
    prior, operator, y, exact = blurred
    n = 512
    samples = solver(y, operator, prior, samples=n, batch_size=n).samples[:, 0]
    square, ratio = bias_and_ratio(samples, exact.mean, exact.std)
    variance = exact.std.square().flatten()
    effective = float(variance.sum() ** 2 / variance.square().sum())
    chance = 3 * math.sqrt(2 / effective) / n  # three standard errors of the squared bias
    assert square < 0.04**2 + chance
    assert ratio == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    "solver", [MMPS(tol=1e-6, max_iter=40), MomentLadder()], ids=lambda s: s.name
)
def test_scalar_reference_values(solver):
    """Prior N(0, c), A = 1, y = 0.8, sigma_y = 0.3: mean and variance c y / (c + 0.09), ..."""
    for c in (0.1, 1.0):
        prior = scalar_prior(c, 4000)
        y = measured((1, 1, 4000), 0.8)
        samples = solver(y, identity((1, 1, 4000), 0.3), prior).samples.flatten()
        mean, variance = c * 0.8 / (c + 0.09), c * 0.09 / (c + 0.09)
        assert float(samples.mean()) == pytest.approx(
            mean, abs=4 * math.sqrt(variance / 4000) + 0.01
        )
        assert float(samples.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / 4000) + 0.02)


def test_unobserved_pixel_follows_its_neighbour():
    """Two pixels of correlation 0.9, one seen to be 1: the other has mean 0.9, variance 0.19."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64)
    prior = Gaussian.dense(torch.zeros(1, 1, 2), covariance, value_range=(-1, 1))
    mask = torch.tensor([[[[1.0, 0.0]]]], dtype=F64)
    noise = operators.GaussianNoise(0.01)
    operator = deepinv.physics.Inpainting((1, 1, 2), mask=mask, noise_model=noise).to(F64)
    y = torch.tensor([[[[1.0, 0.0]]]], dtype=F64)
    n = 4000
    for solver in (MMPS(), MomentLadder()):
        hidden = solver(y, operator, prior, samples=n, batch_size=n).samples[:, 0, 0, 0, 1]
        assert float(hidden.mean()) == pytest.approx(0.9, abs=0.03)
        assert float(hidden.var()) == pytest.approx(0.19, rel=0.07)


def test_ladder_does_not_depend_on_its_levels():
    """For a Gaussian prior any ladder gives the posterior: two rungs, or repeated ones."""
    prior = Gaussian.power_law((1, 16, 16))
    operator = operators.parse("mask:keep=0.5", (1, 16, 16), noise=0.05).to(F64)
    y = operators.measure(operator, prior.sample(1, torch.Generator().manual_seed(3)), seed=9)
    exact = prior.posterior(y, operator, 0.05)
    for ladder in (MomentLadder(levels=4, sweeps=0), MomentLadder(levels=6, sweeps=4)):
        precise = MomentLadder(
            levels=ladder.levels, sweeps=ladder.sweeps, lanczos=12, max_iter=30, tol=1e-6
        )
        samples = precise(y, operator, prior, samples=256, batch_size=256).samples[:, 0]
        square, ratio = bias_and_ratio(samples, exact.mean, exact.std)
        assert square < 0.03**2
        assert ratio == pytest.approx(1, abs=0.02)


def test_ladder_survives_a_denoiser_whose_jacobian_is_not_symmetric(blurred):
    prior, operator, y, exact = blurred
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn((1, 1, 5, 5), generator=generator, dtype=F64) / 5

    class Imperfect(Gaussian):
        """An exact denoiser with an error of a tenth, as a network has it."""

        def forward(self, x, sigma, **kwargs):
            s = min(float(sigma), 0.3)
            error = torch.nn.functional.conv2d((x - 0.5) / (float(sigma) + 0.2), kernel, padding=2)
            return super().forward(x, sigma) + 0.1 * s * torch.tanh(error)

    imperfect = Imperfect(prior.mean, prior.basis, prior.variances)
    for solver in (MomentLadder(), MMPS()):
        samples = solver(y, operator, imperfect, samples=64, batch_size=64).samples[:, 0]
        square, ratio = bias_and_ratio(samples, exact.mean, exact.std)
        assert math.sqrt(max(square, 0)) < 1
        assert 0.5 < ratio < 2


def test_lanczos_root_keeps_the_total_variance_and_finds_few_eigenvalues_exactly():
    generator = torch.Generator().manual_seed(0)
    n = 12
    columns = torch.linalg.qr(torch.randn((n, n), generator=generator, dtype=F64))[0]
    z = torch.randn((5, 1, 1, n), generator=generator, dtype=F64)
    for values, steps, exact in [
        (torch.linspace(0.01, 1, n, dtype=F64), 2, False),
        (torch.tensor([0.2, 0.9, 0.5], dtype=F64).repeat(4), 3, True),
    ]:
        J = columns @ torch.diag(values) @ columns.T
        root, _ = lanczos_root(lambda v, J=J: v @ J, z, steps)
        torch.testing.assert_close(dot(root, root), dot(z, z @ J), rtol=1e-10, atol=0)
        if exact:
            square_root = columns @ torch.diag(values.sqrt()) @ columns.T
            torch.testing.assert_close(root, z @ square_root, rtol=0, atol=1e-10)


def test_spectrum_is_learnt_from_one_probe_and_holds_at_every_level():
    shape = (2, 3, 32, 24)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    probe = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    white = Gaussian(torch.zeros(shape[1:]), Hartley(), torch.full(shape[1:], 0.04))
    # frequencies 1 and sqrt 2 share a ring, and their powers differ by a factor of two
    for prior, bound in ((white, 1e-9), (Gaussian.power_law(shape[1:]), 1 / 3)):

        def J(v, s, prior=prior):
            return prior(v + prior.mean, s) - prior.mean

        spectrum = RadialSpectrum(shape, x)
        spectrum.update([(x, J(x, 0.3))], 0.3)
        for s in (0.05, 0.3, 2.0):
            expected = s**2 * J(probe, s)
            error = spectrum.filter(probe, spectrum.power(s)) - expected
            assert float(error.norm() / expected.norm()) < bound


@pytest.mark.parametrize("spec", ["blur:sigma=1", "downsample:factor=4", "denoise"])
def test_closed_form_preconditioner_inverts_the_models_system(spec):
    """Where A keeps stationarity, M^-1 M = 1 for the spectrum's own covariance."""
    shape = (2, 3, 32, 24)
    operator = operators.parse(spec, shape[1:], noise=0.1).to(F64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=F64)
    spectrum = RadialSpectrum(shape, x)
    spectrum.update([(x, 0.1 * x + 0.05 * x.roll(1, -1) + 0.05 * x.roll(-1, -1))], 0.3)
    gram = operator.gram_spectrum(spectrum.power(0.3))
    v = torch.randn(operator.A(x).shape, generator=generator, dtype=F64)
    Mv = operator.A(spectrum.filter(operator.A_adjoint(v), spectrum.power(0.3))) + 0.01 * v
    torch.testing.assert_close(spectrum.filter(Mv, 1 / (gram + 0.01)), v, rtol=0, atol=1e-5)


# -- RED-diff: the facts of its analysis --------------------------------------------------------


def red_fixed_point(c, a, y, m, lam, level):
    """Minimiser of (y - a mu)^2 / 2 + lam R (mu - m)^2 / 2, R = s^2 / (c + s^2)."""
    R = level**2 / (c + level**2)
    return (a * y + lam * R * m) / (a**2 + lam * R)


def test_red_diff_gradient_is_the_denoising_residual():
    """With the linear weighting lambda_t (eps_hat - eps) = lambda (mu - D), to rounding."""
    schedule = DDPM()
    generator = torch.Generator().manual_seed(0)
    prior = scalar_prior(0.5, 6, 0.1)
    mu = torch.randn((1, 1, 1, 6), generator=generator, dtype=F64)
    eps = torch.randn((1, 1, 1, 6), generator=generator, dtype=F64)
    for t in (0, 10, 500, 999):
        alpha, sigma, s = schedule.alpha(t), schedule.sigma(t), schedule.level(t)
        x_t = alpha * mu + sigma * eps
        D = prior(x_t / alpha, s.item())
        eps_hat = (x_t - alpha * D) / sigma
        torch.testing.assert_close(s * (eps_hat - eps), mu - D, rtol=0, atol=1e-10)


def test_red_diff_descending_follows_its_exact_recursion():
    """SGD on N(m, c): the mean over chains obeys M <- (1 - eta h) M + eta (a y + lam R m)."""
    c, y, m, lam, eta, count = 0.5, 0.8, 0.1, 0.25, 0.1, 20000
    prior = scalar_prior(c, count, m)
    solver = REDDiff(steps=1000, lr=eta, lam=lam, reduction="sum", optimiser="sgd")
    levels = DDPM().level(torch.arange(999, -1, -1)).tolist()
    for a, expected in ((1.0, 0.79905), (0.0, 0.1000)):
        if a:
            operator, measurement = identity((1, 1, count), 0.3), measured((1, 1, count), y)
            M, V = y, 0.0  # starts at A^+ y
        else:
            operator = nothing_observed((1, 1, count))
            measurement, M, V = measured((1, 1, count), 0.0), 0.0, 0.0
        for s in levels:
            R = s**2 / (c + s**2)
            h = a**2 + lam * R
            M = (1 - eta * h) * M + eta * (a * y + lam * R * m)
            V = (1 - eta * h) ** 2 * V + eta**2 * lam**2 * s**2 * c**2 / (c + s**2) ** 2
        mu = solver(measurement, operator, prior).samples.flatten()
        assert float(mu.mean()) == pytest.approx(M, abs=5 * math.sqrt(V / count) + 1e-9)
        assert float(mu.var()) == pytest.approx(V, rel=5 * math.sqrt(2 / count))
        assert pytest.approx(expected, abs=1e-3) == M


def test_red_diff_random_times_reach_their_fixed_point():
    """Random times, small steps: mu* = (1 + lam R)^-1 (y + lam R m), R = E[s^2 / (c + s^2)]."""
    c, y, sigma_y, count = 0.5, 0.8, 0.3, 2000
    s = DDPM().level(torch.arange(1000))
    R_bar = float((s**2 / (c + s**2)).mean())
    lam = sigma_y**2 / (c * R_bar)
    assert lam == pytest.approx(0.23112, abs=2e-5)  # the weight that makes it the posterior mean
    solver = REDDiff(steps=3000, lr=0.02, lam=lam, reduction="sum", optimiser="sgd", order="random")
    mu = solver(
        measured((1, 1, count), y), identity((1, 1, count), sigma_y), scalar_prior(c, count)
    )
    posterior_mean = c * y / (c + sigma_y**2)
    assert float(mu.samples.mean()) == pytest.approx(posterior_mean, abs=0.01)


def test_red_diff_on_late_levels_reaches_the_noiseless_posterior_mean():
    """Descending and quasi-static, the prior only fills what the data leave open."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
    prior = Gaussian.dense(torch.zeros(1, 1, 2), covariance, value_range=(-1, 1))
    mask = torch.tensor([[[[1.0, 0.0]]]], dtype=F64)
    operator = deepinv.physics.Inpainting((1, 1, 2), mask=mask).to(F64)
    y = torch.tensor([[[[1.0, 0.0]]]], dtype=F64)
    solver = REDDiff(steps=1000, lr=0.2, lam=1.0, reduction="sum", optimiser="sgd")
    found = solver(y, operator, prior, samples=200, batch_size=200).samples[:, 0, 0, 0].mean(0)
    assert float(found[0]) == pytest.approx(1, abs=0.05)
    assert float(found[1]) == pytest.approx(0.8, abs=0.1)


def test_red_diff_seeks_one_mode():
    """No data, two far modes: every run ends at one of them, each about half of the time."""
    count = 200
    parts = [
        Gaussian.dense(torch.full((1, 1, 2), m), 0.01 * torch.eye(2), value_range=(-1, 1))
        for m in (-1.0, 1.0)
    ]
    solver = REDDiff(steps=1000, lr=0.1)
    blind = nothing_observed((1, 1, 2))
    found = solver(
        torch.zeros((1, 1, 1, 2), dtype=F64),
        blind,
        GaussianMixture([1, 1], parts),
        samples=count,
        batch_size=count,
    ).samples
    assert float(found.abs().mean()) == pytest.approx(1, abs=0.1)
    share = float((found[:, 0, 0, 0, 0] > 0).double().mean())
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(count)


def test_red_diff_without_a_prior_stays_where_the_data_are_met(blurred):
    prior, operator, _, _ = blurred
    init = prior.sample(1, torch.Generator().manual_seed(8))
    result = REDDiff(steps=20, lam=0.0)(operator.A(init), operator, prior, init=init)
    torch.testing.assert_close(result.samples[0], init, rtol=0, atol=1e-8)


def test_red_diff_weightings_are_those_of_its_code():
    s = torch.tensor([0.25, 4.0], dtype=F64)
    expected = {
        "linear": [0.25, 4],
        "sqrt": [0.5, 2],
        "square": [0.0625, 16],
        "log": [math.log(1.25), math.log(5)],
        "trunc_linear": [0.25, 1],
        "power2over3": [0.25 ** (2 / 3), 4 ** (2 / 3)],
        "const": [1, 1],
    }
    for name, values in expected.items():
        torch.testing.assert_close(WEIGHTINGS[name](s), torch.tensor(values, dtype=F64))


def test_red_diff_keeps_samples_and_images_apart(blurred):
    """Random times are each sample's own, and a mean is over one image's own measurements."""
    prior, operator, y, _ = blurred
    solver = REDDiff(steps=8, order="random", optimiser="sgd")
    four = solver(y, operator, prior, samples=4, batch_size=4).samples
    one = solver(y, operator, prior, samples=4, batch_size=1).samples
    torch.testing.assert_close(one, four, rtol=0, atol=1e-4)
    masks = torch.ones((2, 1, 16, 16), dtype=F64)
    masks[1, :, ::2] = 0
    noise = operators.GaussianNoise(0.05)

    def physics(mask):
        return deepinv.physics.Inpainting((1, 16, 16), mask=mask, noise_model=noise).to(F64)

    pair = torch.cat([y, y]) * masks
    together = REDDiff(steps=8)(pair, physics(masks), prior).samples[0, 1:]
    alone = REDDiff(steps=8)(pair[1:], physics(masks[1:]), prior).samples[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


# -- DiffPIR and DPS: known answers -------------------------------------------------------------


@pytest.mark.parametrize(
    ("lam", "zeta", "mean", "variance"),
    [(1, 0.1, 0.7468, 0.0663), (1, 1.0, 0.7362, 0.0354), (7, 0.3, 0.547, 0.299)],
)
def test_diffpir_reference_values(lam, zeta, mean, variance):
    """Prior N(0, 1), A = 1, y = 0.8, sigma_y = 0.3, 100 uniform steps: its known bias."""
    count = 40000
    solver = DiffPIR(steps=100, lam=lam, zeta=zeta, grid="uniform")
    y = measured((1, 1, count), 0.8)
    x = solver(y, identity((1, 1, count), 0.3), scalar_prior(1.0, count)).samples.flatten()
    assert float(x.mean()) == pytest.approx(mean, abs=0.012)
    assert float(x.var()) == pytest.approx(variance, rel=0.06)


def test_dps_without_data_is_ancestral_sampling():
    """zeta = 0: DDPM's chain on N(0, c) gives back nearly that law."""
    count, c = 20000, 0.3
    y = measured((1, 1, count), 0.8)
    solver = DPS(zeta=0.0, clip=False)
    x = solver(y, identity((1, 1, count), 0.3), scalar_prior(c, count)).samples.flatten()
    assert float(x.mean()) == pytest.approx(0, abs=5 * math.sqrt(c / count))
    assert float(x.var()) == pytest.approx(c, rel=0.05)


def test_dps_pull_is_the_gradient_of_the_squared_norm_over_the_norm(blurred):
    """One step from pure noise, against autograd through the whole expression in [-1, 1]."""
    prior, operator, y, _ = blurred
    alpha, sigma = DDPM().alpha(999).item(), DDPM().sigma(999).item()
    draw = torch.randn(y.shape[1:], generator=stream(4, 0), dtype=F64)
    x = draw[None].requires_grad_()
    D = 2 * prior(0.5 + x / (2 * alpha), sigma / (2 * alpha)) - 1
    norm = (2 * y - 1 - (2 * operator.A((D + 1) / 2) - 1)).norm()
    (gradient,) = torch.autograd.grad(norm.square() / norm.detach(), x)

    def one_step(**kwargs):
        solver = DPS(steps=1, clip=False, **kwargs)
        return 2 * solver(y, operator, prior, seed=4).samples[0] - 1

    pull = one_step(zeta=0.0) - one_step(zeta=0.7)
    torch.testing.assert_close(pull, 0.7 * gradient, rtol=1e-6, atol=1e-9)
    half = one_step(zeta=0.0) - one_step(zeta=0.7, norm="code")
    torch.testing.assert_close(half, pull / 2, rtol=1e-6, atol=1e-9)
