"""Diagnostics are right on priors known exactly, and accuse broken ones."""

import json
import math

import pytest
import torch

from priors import Dirac, Gaussian, GaussianMixture, ProductMixture
from priors.bases import Cosine, Dense
from priors.denoiser import Card, Denoiser, per_image
from priors.diagnostics import (
    circulation,
    diagnose,
    dimensions,
    effective_dimension,
    exact_asymmetry,
    homogeneity,
    jacobian_asymmetry,
    pixel_calibration,
    posterior_variance,
    residual_std,
    shrinkage_spectrum,
    sigma_check,
    spectrum,
    sure,
    tweedie_gap,
)
from priors.jacobian import dense, diagonal, generator_of, jvp, traces, vjp
from priors.networks import NoisePredictor

VARIANCE = 0.05


class Shrink(Denoiser):
    """Exact for white N(1/2, VARIANCE); `told` multiplies the sigma that it hears."""

    def __init__(self, told=1.0, gain=1.0):
        super().__init__(Card(name="shrink"))
        self.told, self.gain = told, gain

    def forward(self, x, sigma, **kwargs):
        s = self.told * per_image(sigma, x)
        return 0.5 + self.gain * VARIANCE / (VARIANCE + s**2) * (x - 0.5)


class Matrix(Denoiser):
    """`D(x) = A x` on the pixels of an image, times sigma."""

    def __init__(self, A):
        super().__init__(Card(name="matrix"))
        self.A = A

    def forward(self, x, sigma, **kwargs):
        return per_image(sigma, x) * (x.flatten(1) @ self.A.T).reshape(x.shape)


def images(n=32):
    generator = torch.Generator().manual_seed(3)
    return 0.5 + VARIANCE**0.5 * torch.randn(n, 1, 16, 16, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_errors_and_their_expectation_agree_for_the_exact_denoiser(sigma):
    exact = math.sqrt(VARIANCE * sigma**2 / (VARIANCE + sigma**2))
    bound = 5 / math.sqrt(2 * images().numel())  # five standard errors of a standard deviation
    assert residual_std(Shrink(), images(), sigma) == pytest.approx(exact, rel=bound)
    assert abs(tweedie_gap(Shrink(), images(), sigma)) < bound


def test_the_gap_tells_overconfidence_from_modesty():
    # J = g I: expected error g s^2, actual (1 - g)^2 c + g^2 s^2, equal at the exact g and at 1
    def gap(told, sigma=0.3):
        g = VARIANCE / (VARIANCE + (told * sigma) ** 2)
        actual = (1 - g) ** 2 * VARIANCE + g**2 * sigma**2
        return math.sqrt(g * sigma**2 / actual) - 1

    for told in (0.0, 0.5, 1.0, 2.0):
        assert tweedie_gap(Shrink(told), images(), 0.3) == pytest.approx(gap(told), abs=0.04)
    assert gap(2.0) < -0.1
    assert gap(0.5) > 0.1
    assert tweedie_gap(Shrink(gain=-1.0), images(), 0.3) == -1


def test_the_true_sigma_wins_and_a_wrong_scale_is_found():
    errors = sigma_check(Shrink(), images(), 0.2)
    assert errors.passed
    gain = VARIANCE / (VARIANCE + 0.4**2)
    twice = math.sqrt((1 - gain) ** 2 * VARIANCE + gain**2 * 0.2**2)
    assert errors.twice == pytest.approx(twice, rel=0.04)
    assert not sigma_check(Shrink(told=0.5), images(), 0.2).passed
    assert not sigma_check(Shrink(told=2.0), images(), 0.2).passed


def test_noise_repeats_with_the_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    assert residual_std(Shrink(), images(), 0.2, 0) == residual_std(Shrink(), images(), 0.2, 0)
    assert residual_std(Shrink(), images(), 0.2, 0) != residual_std(Shrink(), images(), 0.2, 1)
    assert tweedie_gap(Shrink(), images(), 0.2, 0) == tweedie_gap(Shrink(), images(), 0.2, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_independent_of_images_drawn_from_the_same_seed():
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(4, 1, 16, 16, generator=generator, dtype=torch.float64)
    # D = 1/2 + 2 (x - 1/2) errs by (x_0 - 1/2) + 2 n: the squares add only without correlation
    identity = residual_std(Shrink(told=0.0), white, 1.0, seed=0)
    doubled = residual_std(Shrink(told=0.0, gain=2.0), white, 1.0, seed=0)
    assert doubled**2 == pytest.approx(
        float((white - 0.5).square().mean()) + 4 * identity**2, rel=0.1
    )


def test_asymmetry_of_a_known_matrix():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(48, 48, generator=generator, dtype=torch.float64)
    x = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for weight in (0.0, 0.1, 1.0, 3.0):
        B = (A + A.T) / 2 + weight * (A - A.T) / 2
        expected = float((B - B.T).norm() / (B + B.T).norm())
        found = jacobian_asymmetry(Matrix(B), x, 0.7, probes=100, generator=generator)
        assert found.shape == (2,)
        # the mean of 100 quadratic forms in 48 dimensions is known to about 2 %
        torch.testing.assert_close(found, torch.full_like(found, expected), rtol=0.1, atol=1e-12)


def test_norms_are_per_image():
    """An image whose Jacobian vanishes twice as fast changes nothing for the other."""
    A = torch.triu(torch.ones(16, 16, dtype=torch.float64))
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor([1.0, 1e-6], dtype=torch.float64)
    found = jacobian_asymmetry(Matrix(A), x, sigma, probes=200)
    assert float(found[1] / found[0]) == pytest.approx(1, rel=0.2)


def test_networks_with_attention():
    """Fused attention has no forward-mode derivative: the diagnosis must avoid it."""

    class Attention(Denoiser):
        def __init__(self):
            super().__init__(Card(name="attention"))

        def forward(self, x, sigma, **kwargs):
            z = x.flatten(2).mT[:, None].contiguous()
            return torch.nn.functional.scaled_dot_product_attention(z, z, z)[:, 0].mT.reshape(
                x.shape
            )

    x = torch.rand(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert 0 < float(jacobian_asymmetry(Attention(), x, 0.1)) < 1


# --- small worlds that are known exactly ----------------------------------------------------------

SHAPE = (1, 8, 8)


def draw(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def subspace(d, variance=1.0, seed=0, size=64):
    """Zero-mean Gaussian on `d` random directions of 8 x 8 images."""
    columns = torch.linalg.qr(draw((size, size), seed))[0]
    variances = torch.zeros(size, dtype=torch.float64)
    variances[:d] = variance
    side = math.isqrt(size)
    shape = (1, side, side)
    return Gaussian(torch.zeros(shape), Dense(columns), variances.reshape(shape))


def mixture():
    """Two Gaussians of different images in different subspaces."""
    parts = [subspace(6, 0.2, seed=1), subspace(6, 0.2, seed=2)]
    for part, level in zip(parts, (-0.3, 0.3), strict=True):
        part.mean = torch.full(SHAPE, level, dtype=torch.float64)
    return GaussianMixture([1, 2], parts)


def pixels():
    return ProductMixture([1, 2], [0.2, 0.8], [0.05, 0.1], SHAPE, basis=Cosine())


def images_of(prior, count, seed=5):
    return prior.sample(count, torch.Generator().manual_seed(seed))


EXACT = {"gaussian": lambda: Gaussian.power_law(SHAPE), "mixture": mixture, "pixels": pixels}


class Changed(Denoiser):
    """A denoiser with something broken: what it hears, what it adds, how far it moves."""

    def __init__(self, prior, *, told=1.0, twist=None, step=1.0):
        super().__init__(prior.card)
        self.prior, self.told, self.twist, self.step = prior, told, twist, step

    def forward(self, x, sigma, **kwargs):
        D = self.prior(x, self.told * per_image(sigma, x))
        if self.twist is not None:
            D = D + (x.flatten(1) @ self.twist.T).reshape(x.shape)
        return x + self.step * (D - x)


def skew(size=64, scale=0.02, seed=7):
    A = draw((size, size), seed)
    return scale * (A - A.T)


def network(seed=0):
    net = NoisePredictor(Card(name="tiny", channels=1, spatial_dims=2), (4, 8, 8, 8), 1)
    for p in net.parameters():
        generator = torch.Generator().manual_seed(seed)
        p.data = torch.randn(p.shape, generator=generator) / math.sqrt(2 * p[0].numel())
    return net.double().eval().requires_grad_(False)


# --- products with Jacobians ----------------------------------------------------------------------


def test_products_agree_with_the_whole_jacobian():
    """Of a map of known Jacobian, for several chunk sizes, one of which does not divide n."""
    A = draw((12, 12))
    x, v = draw((1, 1, 3, 4), 1), draw((1, 1, 3, 4), 2)

    def f(z):
        return (z.flatten(1) @ A.T).reshape(z.shape) ** 2

    J = 2 * (A @ x.flatten())[:, None] * A
    for chunk in (5, 12, 64):
        torch.testing.assert_close(dense(f, x, chunk=chunk), J)
    torch.testing.assert_close(jvp(f, x, v).flatten(), J @ v.flatten())
    torch.testing.assert_close(vjp(f, x, v).flatten(), J.T @ v.flatten())
    with pytest.raises(ValueError, match=r"one image, found 2; take them in turn\.$"):
        dense(f, torch.cat([x, x]))


def test_the_diagonal_is_exact_on_small_images_and_unbiased_on_others():
    A = draw((2 * 20, 2 * 20), 3)

    def f(z):
        return (z.flatten(1) @ A.T).reshape(z.shape)

    x = draw((3, 2, 4, 5))
    found = diagonal(f, x, generator_of(0), stride=5)
    torch.testing.assert_close(found, A.diagonal().reshape(1, 2, 4, 5).expand_as(x))
    generator = generator_of(1)
    many = torch.stack([diagonal(f, x, generator, stride=2) for _ in range(200)])
    # its variance: squares of the entries of its own lattice, minus its own
    index = torch.arange(40).reshape(2, 4, 5)
    variance = torch.zeros(40, dtype=torch.float64)
    for c in range(2):
        for i in range(2):
            for j in range(2):
                own = index[c, i::2, j::2].flatten()
                block = A[own][:, own]
                variance[own] = block.square().sum(0) - block.diagonal().square()
    z = (many.mean(0) - found).reshape(3, 40) / (variance / 200).sqrt()
    assert float(z.abs().max()) < 5
    spread = many.var(0).reshape(3, 40).mean(0) / variance
    # kurtosis of sums of signs is below three: a variance of 600 is known to 2 / sqrt(1200)
    assert float((spread - 1).abs().max()) < 5 * 2 / math.sqrt(1200)


def test_trace_and_its_standard_error():
    A = draw((64, 64), 4)
    x = draw((2, 1, 8, 8))
    prior = Matrix(A)
    mean, error = effective_dimension(prior, x, 0.5, probes=400)
    # v^T A v has variance sum over i < j of (A_ij + A_ji)^2
    S = A + A.T
    std = 0.5 * float((S.square().sum() - S.diagonal().square().sum()) / 2) ** 0.5
    torch.testing.assert_close(error, torch.full_like(error, std / 20), rtol=0.2, atol=0)
    assert float((mean - 0.5 * A.trace()).abs().max()) < 5 * std / 20
    assert traces(lambda z: prior(z, 0.5), x, 3, generator_of(0)).shape == (2, 3)


# --- conservative ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_exact_priors_have_no_curl_and_a_twist_is_found(name, sigma):
    prior = EXACT[name]()
    x = images_of(prior, 2) + sigma * draw((2, *SHAPE), 8)
    assert exact_asymmetry(prior, x[:1], sigma) < 1e-10
    assert float(jacobian_asymmetry(prior, x, sigma).max()) < 1e-10
    # what 8 points do not resolve of a smooth field on a small circle
    assert circulation(prior, x, sigma, radius=0.01 * sigma) < 1e-6
    broken = Changed(prior, twist=skew())
    assert exact_asymmetry(broken, x[:1], sigma) > 0.1
    assert float(jacobian_asymmetry(broken, x, sigma).min()) > 0.1
    assert circulation(broken, x, sigma, radius=0.01 * sigma) > 0.1


def test_probes_and_loops_estimate_the_exact_asymmetry():
    J = 0.2 * draw((64, 64), 6)
    J += J.T + 3 * skew()
    J -= J.trace() / 64 * torch.eye(64, dtype=torch.float64)  # the part that no loop sees
    x = draw((4, *SHAPE))
    exact = exact_asymmetry(Matrix(J), x[:1], 1.0)
    assert exact == pytest.approx(float((J - J.T).norm() / (J + J.T).norm()), rel=1e-10)
    # 4 x 100 loops: two root mean squares of 400 normal numbers
    found = circulation(Matrix(J), x, 1.0, planes=100)
    assert found == pytest.approx(exact, rel=5 * math.sqrt(2 / 800))
    # of a linear map the radius does not matter
    wide = circulation(Matrix(J), x, 1.0, planes=100, radius=50.0)
    assert wide == pytest.approx(found, rel=1e-6)


# --- spectrum -------------------------------------------------------------------------------------


def test_spectrum_of_a_gaussian_is_its_wiener_gain():
    prior, sigma = Gaussian.power_law(SHAPE), 0.1
    x = draw((1, *SHAPE))
    found = shrinkage_spectrum(prior, x, sigma)
    gain = prior.variances / (prior.variances + sigma**2)
    assert found.complete
    torch.testing.assert_close(found.values, gain.flatten().sort(descending=True)[0])
    V = found.vectors.flatten(1)
    torch.testing.assert_close(V @ V.T, torch.eye(64, dtype=torch.float64))
    for k in (0, 10, 63):
        e = found.vectors[k][None]
        torch.testing.assert_close(jvp(lambda z: prior(z, sigma), x, e), found.values[k] * e)
    torch.testing.assert_close(found.coefficients(x), V @ x.flatten())


def test_iteration_finds_the_leading_part_of_the_spectrum(monkeypatch):
    net = network()
    x = torch.rand((1, 1, 16, 16), generator=torch.Generator().manual_seed(0)).double()
    whole = shrinkage_spectrum(net, x, 0.2, 5)
    monkeypatch.setattr(spectrum, "DENSE", 100)
    part = shrinkage_spectrum(net, x, 0.2, 5)
    assert not part.complete
    assert not torch.equal(part.vectors, whole.vectors)
    torch.testing.assert_close(part.values, whole.values, rtol=1e-8, atol=1e-10)
    overlap = (part.vectors.flatten(1) * whole.vectors.flatten(1)).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=1e-6, atol=0)


def test_the_basis_adapts_to_the_image():
    """Near a component of a mixture the leading vectors span that component's subspace."""
    prior = mixture()
    for part in prior.components:
        x = part.sample(1, torch.Generator().manual_seed(0)) + 0.05 * draw((1, *SHAPE))
        V = shrinkage_spectrum(prior, x, 0.05, 6).vectors.flatten(1)
        own, others = (
            float((V @ p.basis.columns[:, :6]).square().sum() / 6)
            for p in (part, *(q for q in prior.components if q is not part))
        )
        assert own > 0.999
        assert others < 0.4  # of two random 6-dimensional spaces in 64: 6 / 64


def test_homogeneity_tells_blind_from_told_and_from_biased():
    x = 0.5 + 0.3 * draw((3, 1, 32, 32))
    blind = Matrix(draw((1024, 1024)) / 32)  # times sigma: of degree one in x, two jointly
    assert float(homogeneity(blind, x, 0.3).linear.max()) < 1e-12
    torch.testing.assert_close(homogeneity(blind, x, 0.3).scale, torch.ones(3).double())
    told = homogeneity(network(), x, 0.3)
    assert float(told.scale.max()) < 1e-12
    assert float(told.linear.min()) > 1e-4
    biased = homogeneity(Gaussian.power_law((1, 32, 32)), x, 0.3)
    assert float(biased.linear.min()) > 0.01
    assert float(biased.scale.min()) > 0.01


# --- dimension ------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [3, 17, 64])
def test_dimension_of_a_subspace(d):
    prior = subspace(d)
    clean, sigma = images_of(prior, 200), 1e-3
    found = dimensions(prior, clean, sigma, probes=64)
    for name in ("trace", "residual", "error", "slope"):
        value = getattr(found, name)
        assert abs(value.mean - d) < 5 * value.error + 1e-4 * d, name
    assert found.trace.mean == pytest.approx(d, rel=1e-3 if d == 64 else 0.02)
    assert found.size == 64


def test_dimension_of_point_masses_is_zero_until_they_merge():
    atoms = draw((4, *SHAPE))
    prior = Dirac(atoms)
    low, high = (dimensions(prior, atoms, sigma) for sigma in (0.1, 4.0))
    assert low.trace.mean == pytest.approx(0, abs=1e-6)
    assert low.slope.mean == pytest.approx(0, abs=1e-6)
    assert 0.1 < high.trace.mean < 3  # four points span three directions


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_three_dimensions_agree_for_exact_priors_only(name, sigma):
    prior = EXACT[name]()
    clean = images_of(prior, 400)
    good = dimensions(prior, clean, sigma)
    assert abs(good.ratio.mean - 1) < 5 * good.ratio.error
    assert abs(good.trace.mean - good.residual.mean) < 5 * math.hypot(
        good.trace.error, good.residual.error
    )
    # a step s makes n - s (n - t) of t = tr J, and n - (2 s - s^2) (n - t) of the error
    for step in (0.6, 1.4):
        bad = dimensions(Changed(prior, step=step), clean, sigma)
        removed = 64 - good.trace.mean
        expected = (64 - step * removed) / (64 - (2 * step - step**2) * removed)
        tolerance = 5 * math.hypot(bad.ratio.error, good.ratio.error)
        assert abs(bad.ratio.mean - expected) < tolerance
        if removed > 20:  # enough is taken for noise to take too much or too little of it
            assert abs(bad.ratio.mean - 1) > tolerance
        # Stein: holds for any denoiser
        stein = 2 * bad.trace.mean - bad.error.mean
        error = math.hypot(bad.residual.error, 2 * bad.trace.error, bad.error.error)
        assert abs(bad.residual.mean - stein) < 5 * error


@pytest.mark.parametrize("told", [0.5, 1.0, 2.0])
def test_sure_estimates_the_error_of_any_denoiser(told):
    prior = pixels()
    clean, sigma = images_of(prior, 300), 0.2
    denoiser = Changed(prior, told=told, twist=skew())
    noisy = clean + sigma * draw(clean.shape, 9)
    error = (denoiser(noisy, sigma) - clean).square().flatten(1).mean(1)
    difference = sure(denoiser, noisy, sigma) - error
    assert abs(float(difference.mean())) < 5 * float(difference.std()) / math.sqrt(300)
    assert float(difference.std()) / math.sqrt(300) < 0.1 * float(error.mean())


# --- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_posterior_variance_of_a_gaussian(sigma):
    prior = Gaussian.power_law(SHAPE)
    found = posterior_variance(prior, draw((1, *SHAPE)), sigma, stride=8)
    variances = prior.variances * sigma**2 / (prior.variances + sigma**2)
    # a stationary prior: every pixel has the mean of the spectrum
    torch.testing.assert_close(found, torch.full_like(found, float(variances.mean())))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_pixels_of_exact_priors_are_calibrated(name, sigma):
    prior = EXACT[name]()
    clean = images_of(prior, 200)
    good = pixel_calibration(prior, clean, sigma, stride=8)
    assert good.senseless == 0
    assert abs(good.chi_square - 1) < 5 * good.chi_square_error
    assert good.chi_square_error < 0.1
    if name == "gaussian":  # elsewhere the posterior of a pixel is not Gaussian
        for level, share in good.covers.items():
            # 200 independent images, at least
            assert abs(share - level) < 5 * math.sqrt(level * (1 - level) / 200)
    predicted, actual = zip(*good.reliability, strict=True)
    assert sum(p**2 for p in predicted) == pytest.approx(sum(a**2 for a in actual), rel=0.2)


def test_overconfident_and_modest_pixels_are_found():
    prior, sigma = pixels(), 0.5
    clean = images_of(prior, 100)
    meek = pixel_calibration(Changed(prior, step=0.6), clean, sigma, stride=8)
    bold = pixel_calibration(Changed(prior, step=1.2), clean, sigma, stride=8)
    assert meek.chi_square < 1 - 5 * meek.chi_square_error
    assert meek.covers[0.8] > 0.85
    assert bold.chi_square > 1 + 5 * bold.chi_square_error
    assert bold.covers[0.8] < 0.75
    senseless = pixel_calibration(Changed(prior, step=1.6), clean, sigma, stride=8)
    assert senseless.senseless == 1
    assert senseless.chi_square == math.inf
    assert set(senseless.covers.values()) == {0.0}


def test_noise_of_the_probes_does_not_pass_for_overconfidence():
    """Coarse probing: one estimate forms the groups, the other predicts them."""
    prior, sigma = subspace(4, size=256), 0.3
    clean = images_of(prior, 100)
    found = pixel_calibration(prior, clean, sigma, stride=4)
    assert found.senseless == 0
    assert abs(found.chi_square - 1) < 5 * found.chi_square_error
    # with one estimate in both roles the lowest group is mostly noise, below zero
    noisy = clean + sigma * draw(clean.shape, 11)
    variance = posterior_variance(prior, noisy, sigma, stride=4).flatten().sort()[0]
    assert float(variance[: len(variance) // 10].mean()) < 0


# --- the whole diagnosis --------------------------------------------------------------------------


def verdict(diagnosis, about):
    return next(v for v in diagnosis.verdicts if v.about == about)


@pytest.mark.parametrize("name", EXACT)
def test_exact_priors_are_acquitted(name):
    prior = EXACT[name]()
    found = diagnose(prior, images_of(prior, 60), (0.3, 0.05), stride=8)
    assert found.ok, [v.sentence for v in found.verdicts]
    assert [level.sigma for level in found.levels] == [0.05, 0.3]
    assert found.image_shape == SHAPE
    assert verdict(found, "memory").ok is None
    json.dumps(found.as_dict())


@pytest.mark.parametrize(
    ("about", "broken"),
    [
        ("symmetry", {"twist": skew()}),
        ("noise level", {"told": 0.4}),
        ("noise level", {"told": 2.5}),
        ("expected error", {"step": 0.6}),
        ("expected error", {"step": 1.3}),
        ("error of pixels", {"step": 0.6}),
        ("error of pixels", {"step": 1.3}),
    ],
)
def test_broken_priors_are_accused_of_what_is_broken(about, broken):
    prior = pixels()
    clean = images_of(prior, 60)
    found = diagnose(Changed(prior, **broken), clean, (0.5,), stride=8)
    assert verdict(found, about).ok is False
    assert not found.ok
    if "twist" not in broken:
        assert verdict(found, "symmetry").ok


def test_the_error_is_called_by_its_name():
    prior = pixels()
    clean = images_of(prior, 60)
    bold = diagnose(Changed(prior, step=1.3), clean, (0.5,), stride=8)
    meek = diagnose(Changed(prior, step=0.6), clean, (0.5,), stride=8)
    deaf = diagnose(Changed(prior, told=0.4), clean, (0.5,), stride=8)
    assert verdict(bold, "expected error").sentence.startswith("Overconfident at sigma 0.5:")
    assert verdict(meek, "expected error").sentence.startswith("Too modest at sigma 0.5:")
    assert "Told twice" in verdict(deaf, "noise level").sentence


def test_one_image_will_do_and_two_runs_are_one():
    prior = pixels()
    one = diagnose(prior, images_of(prior, 1), (0.5,), stride=8)
    assert math.isnan(one.levels[0].gap_error)
    again = diagnose(prior, images_of(prior, 1), (0.5,), stride=8)
    other = diagnose(prior, images_of(prior, 1), (0.2,), seed=1, stride=8)
    assert str(one) == str(again) != str(other)


def test_impossible_diagnoses_are_refused():
    prior = pixels()
    with pytest.raises(ValueError, match="knows images of shape"):
        diagnose(prior, torch.zeros(2, 1, 9, 9))
    for sigmas in ((), (0.1, 0.0), (math.inf,), (-1.0,)):
        with pytest.raises(ValueError, match=r"expected positive numbers; correct these\.$"):
            diagnose(prior, images_of(prior, 2), sigmas)
    with pytest.raises(ValueError, match="of one image"):
        shrinkage_spectrum(prior, images_of(prior, 2), 0.1)
