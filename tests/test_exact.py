"""Closed-form priors against dense algebra, quadrature, autograd and chance."""

import math

import numpy as np
import pytest
import torch
from deepinv.physics import LinearPhysics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn, idctn

import operators
from priors import Dirac, Gaussian, GaussianMixture
from priors.bases import Cosine, Dense, Hartley

F64 = torch.float64
SIZES = [(8,), (1,), (4, 5), (7, 1), (6, 6), (3, 4, 5)]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def positive(n, seed=0, floor=0.01):
    root = random(n, n, seed=seed)
    return root @ root.T / n + floor * torch.eye(n, dtype=F64)


def matrix(linear, shape):
    """Dense matrix of a linear map on images of `shape` `(C, *spatial)`."""
    n = math.prod(shape)
    return linear(torch.eye(n, dtype=F64).reshape(n, *shape)).reshape(n, -1).T


def gaussian(kind, shape=(2, 3, 4)):
    """A Gaussian in each basis, and its covariance matrix from the basis' own matrix."""
    mean, n = random(*shape, seed=1), math.prod(shape)
    if kind == "dense":
        covariance = positive(n)
        return Gaussian.dense(mean, covariance), covariance
    basis = Hartley() if kind == "hartley" else Cosine()
    variances = random(*shape, seed=2).square()
    variances[0, 0] = 0  # directions without variance are allowed
    B = matrix(basis.synthesise, shape)
    return Gaussian(mean, basis, variances), B @ torch.diag(variances.flatten()) @ B.T


KINDS = pytest.mark.parametrize("kind", ["dense", "hartley", "cosine"])


def physics_of(A, shape):
    return LinearPhysics(
        A=lambda x, **_: x.flatten(1) @ A.T,
        A_adjoint=lambda y, **_: (y @ A).reshape(-1, *shape),
    )


def assert_sampled(samples, mean, covariance):
    """Sample mean and covariance within five standard errors, in every direction."""
    x = samples.flatten(1)
    n, (values, columns) = len(x), torch.linalg.eigh(covariance)
    z = (x - mean.flatten()) @ columns
    alive = values > 1e-12 * values[-1]
    assert not bool((z[:, ~alive].abs() > 1e-5).any())
    z = z[:, alive] / values[alive].sqrt()
    assert float(z.mean(0).abs().max()) < 5 / math.sqrt(n)
    error = z.T @ z / n - torch.eye(z.shape[1], dtype=F64)
    assert float(error.abs().max()) < 5 * math.sqrt(2 / n)


# -- bases -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("basis", [Hartley(), Cosine()])
def test_bases_are_orthonormal(basis, size):
    shape = (2, *size)
    B = matrix(basis.synthesise, shape)
    eye = torch.eye(len(B), dtype=F64)
    torch.testing.assert_close(B.T @ B, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix(basis.analyse, shape), B.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_cosine_is_scipys_dct(size):
    x = random(2, 3, *size)
    axes = tuple(range(2, x.ndim))
    for ours, theirs in ((Cosine().analyse, dctn), (Cosine().synthesise, idctn)):
        expected = theirs(x.numpy(), axes=axes, norm="ortho")
        np.testing.assert_allclose(ours(x).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(8,), (4, 5), (3, 4, 5)])
def test_hartley_diagonalises_stationary_covariances(size):
    """A circular convolution with a symmetric kernel, power `s`, is `s` on the coefficients."""
    x = random(2, 1, *size)
    power = torch.fft.fftn(random(1, *size, seed=1), dim=tuple(range(1, x.ndim - 1))).abs()
    axes = tuple(range(2, x.ndim))
    expected = torch.fft.ifftn(power * torch.fft.fftn(x, dim=axes), dim=axes).real
    found = Hartley().synthesise(power * Hartley().analyse(x))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_dense_basis():
    columns = torch.linalg.qr(random(12, 12))[0]
    B = matrix(Dense(columns).synthesise, (1, 3, 4))
    torch.testing.assert_close(B, columns)
    x = random(2, 1, 3, 4)
    torch.testing.assert_close(Dense(columns).synthesise(Dense(columns).analyse(x)), x)


# -- Gaussian ----------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 20.0])
def test_denoiser_is_the_matrix_formula(kind, sigma):
    prior, C = gaussian(kind)
    x, m = random(3, 2, 3, 4, seed=5), prior.mean.flatten()
    gain = torch.linalg.solve(C + sigma**2 * torch.eye(24, dtype=F64), C)
    expected = m + (x.flatten(1) - m) @ gain
    torch.testing.assert_close(prior(x, sigma).flatten(1), expected, rtol=1e-8, atol=1e-8)


@KINDS
def test_jacobian_is_the_posterior_covariance(kind):
    """`sigma^2 J = C - C (C + sigma^2)^-1 C`, symmetric and positive semi-definite."""
    prior, C = gaussian(kind)
    x, sigma = random(1, 2, 3, 4, seed=5), 0.4
    J = torch.autograd.functional.jacobian(lambda v: prior(v, sigma), x).reshape(24, 24)
    torch.testing.assert_close(J, J.T, rtol=0, atol=1e-12)
    assert float(torch.linalg.eigvalsh(J)[0]) > -1e-12
    S = C - C @ torch.linalg.solve(C + sigma**2 * torch.eye(24, dtype=F64), C)
    torch.testing.assert_close(sigma**2 * J, S, rtol=0, atol=1e-10)


@KINDS
def test_limits_of_sigma(kind):
    prior, C = gaussian(kind)
    x = prior.mean + prior.covariance(random(2, 2, 3, 4, seed=5))  # where the prior lives
    for sigma in (1e-9, 0.0):
        torch.testing.assert_close(prior(x, sigma), x, rtol=0, atol=1e-9)
    far = prior.mean.expand_as(x)
    torch.testing.assert_close(prior(x, 1e9), far, rtol=0, atol=1e-9)
    torch.testing.assert_close(matrix(prior.covariance, (2, 3, 4)), C, rtol=0, atol=1e-10)


@KINDS
def test_sigma_per_image_equals_one_at_a_time(kind):
    prior, _ = gaussian(kind)
    mixture = GaussianMixture([1, 2], [prior, Gaussian.dense(-prior.mean, positive(24, 9))])
    x, sigma = random(3, 2, 3, 4), torch.tensor([0.01, 0.5, 7.0], dtype=F64)
    for model in (prior, mixture):
        alone = torch.cat([model(x[i : i + 1], float(sigma[i])) for i in range(3)])
        torch.testing.assert_close(model(x, sigma), alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model(x, sigma.reshape(3, 1, 1, 1)), alone)


@KINDS
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_log_density_and_its_score(kind, sigma):
    """The density is torch's, its gradient the score `(D - x) / sigma^2` (Tweedie)."""
    prior, C = gaussian(kind)
    x = random(3, 2, 3, 4, seed=5).requires_grad_()
    law = torch.distributions.MultivariateNormal(
        prior.mean.flatten(), C + sigma**2 * torch.eye(24, dtype=F64)
    )
    log_p = prior.log_prob(x, sigma)
    torch.testing.assert_close(log_p, law.log_prob(x.flatten(1)))
    (score,) = torch.autograd.grad(log_p.sum(), x)
    torch.testing.assert_close(score, (prior(x, sigma) - x) / sigma**2, rtol=1e-8, atol=1e-8)


@KINDS
def test_samples_have_the_law(kind):
    prior, C = gaussian(kind)
    samples = prior.sample(20000, torch.Generator().manual_seed(3))
    assert samples.dtype == F64
    assert_sampled(samples, prior.mean, C)
    again = prior.sample(20000, torch.Generator().manual_seed(3))
    assert torch.equal(samples, again)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9), (1, 16), (1, 4, 5, 6)])
def test_power_law_has_its_spectrum_and_pixel_std(shape):
    prior = Gaussian.power_law(shape, mean=0.4, std=0.2)
    C = matrix(prior.covariance, shape)
    torch.testing.assert_close(C.diagonal().sqrt(), torch.full((len(C),), 0.2, dtype=F64))
    # the power at frequency f is f^T C f for the plane wave f
    axes = [torch.arange(n, dtype=F64) for n in shape[1:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    powers = {}
    for k in (0, 1, 2):  # along the last axis
        wave = torch.polar(torch.ones(shape[1:], dtype=F64), 2 * math.pi * k * grid[-1] / shape[-1])
        v = wave.flatten() / math.sqrt(wave.numel())
        block = C[: len(v), : len(v)].to(v.dtype)
        powers[k] = float((v.conj() @ block @ v).real)
    assert powers[0] == pytest.approx(powers[1], rel=1e-10)
    assert powers[2] == pytest.approx(powers[1] / 4, rel=1e-10)
    # stationary: shifting the image shifts its covariance
    x = random(1, *shape)
    shifted = prior.covariance(x.roll(2, -1))
    torch.testing.assert_close(shifted, prior.covariance(x).roll(2, -1), rtol=0, atol=1e-12)
    if shape[0] > 1:  # channels are independent
        n = len(C) // shape[0]
        assert float(C[:n, n:].abs().max()) < 1e-12


def test_caller_decides_the_dtype():
    prior = Gaussian.power_law((1, 8, 8))
    mixture = GaussianMixture([1, 1], [prior, prior])
    for model in (prior, mixture, Dirac(random(2, 1, 8, 8))):
        for dtype in (torch.float32, F64):
            assert model(torch.zeros(2, 1, 8, 8, dtype=dtype), 0.1).dtype == dtype
        single = model(random(1, 1, 8, 8).float(), 0.3)
        torch.testing.assert_close(
            single.double(), model(random(1, 1, 8, 8), 0.3), rtol=0, atol=1e-5
        )


def test_bad_gaussians_are_refused():
    mean = torch.zeros(1, 2, 2)
    for variances in (torch.ones(3), -torch.ones(4), torch.full((4,), math.nan)):
        with pytest.raises(ValueError, match="4 numbers >= 0"):
            Gaussian(mean, Hartley(), variances)
    for covariance in (-torch.eye(4), torch.eye(4) + torch.eye(4).roll(1, 0)):
        with pytest.raises(ValueError, match="symmetric and positive"):
            Gaussian.dense(mean, covariance)
    rank_one = torch.ones(4, 4)  # rounding below zero is not an error
    assert Gaussian.dense(mean, rank_one).variances.sum() == pytest.approx(4)


# -- posterior of a Gaussian -------------------------------------------------------------------

SHAPE = (1, 3, 4)


@pytest.fixture(params=[5, 12, 20], ids=lambda m: f"{m} rows")
def measured(request):
    """A prior, its covariance, an operator with fewer to more rows than pixels, a measurement."""
    C = positive(12, seed=1)
    prior = Gaussian.dense(random(*SHAPE, seed=2), C)
    A = random(request.param, 12, seed=3)
    return prior, C, A, physics_of(A, SHAPE), random(1, request.param, seed=4)


@pytest.mark.parametrize("sigma_y", [0.05, 1.0])
def test_posterior_is_the_textbook_formula(measured, sigma_y):
    """In information form, which our code does not use."""
    prior, C, A, physics, y = measured
    found, m = prior.posterior(y, physics, sigma_y), prior.mean.flatten()
    S = torch.linalg.inv(torch.linalg.inv(C) + A.T @ A / sigma_y**2)
    mean = m + S @ A.T @ (y[0] - A @ m) / sigma_y**2
    torch.testing.assert_close(found.matrix, A)
    torch.testing.assert_close(found.mean.flatten(), mean, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.std.flatten(), S.diagonal().sqrt(), rtol=1e-6, atol=1e-7)
    law = torch.distributions.MultivariateNormal(
        A @ m, A @ C @ A.T + sigma_y**2 * torch.eye(len(A), dtype=F64)
    )
    assert found.log_evidence == pytest.approx(float(law.log_prob(y[0])), rel=1e-8)


@pytest.mark.parametrize("sigma_y", [0.1, 0.0])
def test_posterior_samples_have_the_law(measured, sigma_y):
    prior, C, A, physics, y = measured
    K = C @ A.T @ torch.linalg.pinv(A @ C @ A.T + sigma_y**2 * torch.eye(len(A)), hermitian=True)
    found = prior.posterior(y, physics, sigma_y)
    samples = found.sample(20000, torch.Generator().manual_seed(3))
    S = C - K @ A @ C
    if float(S.diagonal().max()) < 1e-9:  # noiseless and complete: one image
        torch.testing.assert_close(samples, found.mean.expand_as(samples), rtol=0, atol=1e-5)
    else:
        assert_sampled(samples, found.mean, (S + S.T) / 2)


def test_noiseless_posterior_is_the_limit_and_fits_exactly():
    C, A = positive(12, seed=1), random(5, 12, seed=3)
    prior, y = Gaussian.dense(random(*SHAPE, seed=2), C), random(1, 5, seed=4)
    physics, m = physics_of(A, SHAPE), prior.mean.flatten()
    found = prior.posterior(y, physics, 0.0)
    K = C @ A.T @ torch.linalg.inv(A @ C @ A.T)
    torch.testing.assert_close(found.gain, K, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.mean.flatten(), m + K @ (y[0] - A @ m))
    torch.testing.assert_close(found.std.flatten(), (C - K @ A @ C).diagonal().sqrt())
    samples = found.sample(50, torch.Generator().manual_seed(3))
    torch.testing.assert_close(physics.A(samples), y.expand(50, -1), rtol=0, atol=1e-9)
    near = prior.posterior(y, physics, 1e-5)
    torch.testing.assert_close(near.mean, found.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(near.std, found.std, rtol=0, atol=1e-6)


def test_denoising_posterior_is_the_denoiser():
    prior, y, sigma = Gaussian.power_law((1, 6, 5)), random(1, 1, 6, 5), 0.2
    found = prior.posterior(y, operators.denoise((1, 6, 5)).to(F64), sigma)
    torch.testing.assert_close(found.mean, prior(y, sigma)[0])


def test_impossible_posteriors_are_refused():
    prior, physics = Gaussian.power_law((1, 4, 4)), operators.denoise((1, 4, 4))
    with pytest.raises(ValueError, match="one measurement"):
        prior.posterior(torch.zeros(2, 1, 4, 4), physics, 0.1)
    for sigma_y in (-0.1, math.nan):
        with pytest.raises(ValueError, match="sigma_y >= 0"):
            prior.posterior(torch.zeros(1, 1, 4, 4), physics, sigma_y)
    with pytest.raises(ValueError, match="without noise the evidence"):
        Dirac(torch.zeros(1, 1, 4, 4)).posterior(torch.zeros(1, 1, 4, 4), physics, 0.0)


# -- mixtures ----------------------------------------------------------------------------------


def one_dimensional():
    parts = [(0.2, -1.0, 0.05), (0.5, 0.3, 0.2), (0.3, 1.5, 0.01)]
    components = [Gaussian.dense(torch.full((1, 1), m), torch.full((1, 1), c)) for _, m, c in parts]
    x0 = torch.linspace(-6, 6, 200001, dtype=F64)
    density = sum(w * normal(x0, m, c) for w, m, c in parts)
    return GaussianMixture([w for w, _, _ in parts], components), x0, density


def normal(x, mean, variance):
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 3.0])
def test_mixture_denoiser_is_the_integral(sigma):
    """`E[x_0 | x] = int x_0 p(x_0) N(x; x_0, s^2) / int p(x_0) N(x; x_0, s^2)` in one dimension."""
    mixture, x0, density = one_dimensional()
    x = torch.linspace(-2.5, 2.5, 11, dtype=F64)
    likelihood = normal(x[:, None], x0, sigma**2) * density
    expected = (likelihood * x0).sum(1) / likelihood.sum(1)
    found = mixture(x.reshape(-1, 1, 1), sigma).flatten()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), sigma=st.floats(0.2, 2.0))
def test_mixture_denoiser_is_the_integral_in_the_plane(seed, sigma):
    means, C = 0.5 * random(3, 1, 2, seed=seed), [positive(2, seed + k, 0.05) for k in range(3)]
    mixture = GaussianMixture(
        [1.0, 2.0, 3.0], [Gaussian.dense(m, c) for m, c in zip(means, C, strict=True)]
    )
    axis = torch.linspace(-8, 8, 401, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    density = sum(
        w * torch.distributions.MultivariateNormal(m[0], c).log_prob(grid).exp()
        for w, m, c in zip((1, 2, 3), means, C, strict=True)
    )
    x = random(1, 1, 2, seed=seed + 1)
    p = density * torch.exp(-(grid - x[0]).square().sum(1) / (2 * sigma**2))
    expected = (p[:, None] * grid).sum(0) / p.sum()
    torch.testing.assert_close(mixture(x, sigma).flatten(), expected, rtol=0, atol=1e-5)


def test_responsibilities_are_bayes():
    mixture, _, _ = one_dimensional()
    x, sigma = torch.tensor([[[-1.0]], [[0.4]], [[9.0]]], dtype=F64), 0.3
    found = mixture.responsibilities(x, sigma)
    parts = [(0.2, -1.0, 0.05), (0.5, 0.3, 0.2), (0.3, 1.5, 0.01)]
    joint = torch.stack([w * normal(x.flatten(), m, c + sigma**2) for w, m, c in parts])
    torch.testing.assert_close(found, joint / joint.sum(0))


def test_mixture_jacobian_is_symmetric_positive():
    mixture = GaussianMixture(
        [1.0, 3.0],
        [Gaussian.dense(random(1, 2, 3, seed=k), positive(6, seed=k)) for k in range(2)],
    )
    for seed in range(5):
        x = random(1, 1, 2, 3, seed=10 + seed)
        J = torch.autograd.functional.jacobian(lambda v: mixture(v, 0.5), x).reshape(6, 6)
        torch.testing.assert_close(J, J.T, rtol=0, atol=1e-10)
        assert float(torch.linalg.eigvalsh(J)[0]) > -1e-10


@pytest.mark.parametrize("a", [1.0, 0.3])
@pytest.mark.parametrize("sigma_y", [0.05, 0.5])
def test_mixture_posterior_is_the_integral(a, sigma_y):
    """Mean, std, weights and samples for `y = a x_0 + n` by quadrature."""
    mixture, x0, density = one_dimensional()
    y = torch.tensor([[0.35]], dtype=F64)
    physics = LinearPhysics(
        A=lambda x, **_: a * x.flatten(1), A_adjoint=lambda y, **_: a * y.reshape(-1, 1, 1)
    )
    found = mixture.posterior(y, physics, sigma_y)
    p = density * normal(y, a * x0, sigma_y**2).flatten()
    p = p / p.sum()
    mean = float((p * x0).sum())
    std = math.sqrt(float((p * (x0 - mean) ** 2).sum()))
    assert float(found.mean) == pytest.approx(mean, abs=1e-8)
    assert float(found.std) == pytest.approx(std, abs=1e-8)
    parts = [(0.2, -1.0, 0.05), (0.5, 0.3, 0.2), (0.3, 1.5, 0.01)]
    masses = torch.stack(
        [
            (w * normal(x0, m, c) * normal(y, a * x0, sigma_y**2).flatten()).sum()
            for w, m, c in parts
        ]
    )
    torch.testing.assert_close(found.weights, masses / masses.sum())
    samples = found.sample(20000, torch.Generator().manual_seed(3)).flatten()
    assert abs(float(samples.mean()) - mean) < 5 * std / math.sqrt(20000)
    low = float((p * (x0 < mean)).sum())
    share = float((samples < mean).double().mean())
    assert abs(share - low) < 5 * math.sqrt(low * (1 - low) / 20000)


def test_mixture_samples_come_in_the_right_shares():
    mixture, _, _ = one_dimensional()
    x = mixture.sample(20000, torch.Generator().manual_seed(3)).flatten()
    mean = 0.2 * -1 + 0.5 * 0.3 + 0.3 * 1.5
    second = 0.2 * (1 + 0.05) + 0.5 * (0.09 + 0.2) + 0.3 * (2.25 + 0.01)
    std = math.sqrt(second - mean**2)
    assert abs(float(x.mean()) - mean) < 5 * std / math.sqrt(20000)
    share = float((x > 1.3).double().mean())
    tail = sum(
        w * 0.5 * math.erfc((1.3 - m) / math.sqrt(2 * c))
        for w, m, c in [(0.2, -1.0, 0.05), (0.5, 0.3, 0.2), (0.3, 1.5, 0.01)]
    )
    assert abs(share - tail) < 5 * math.sqrt(tail * (1 - tail) / 20000)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_residual_is_uncorrelated_with_the_noisy_image(sigma):
    """`E[x_0 - D | x] = 0`: regressing the residual on features of `x` finds nothing."""
    gauss = Gaussian.power_law((1, 2, 2), mean=0.0, std=1.0)
    mixture = GaussianMixture(
        [1.0, 2.0],
        [Gaussian.dense(random(1, 2, 2, seed=k), positive(4, seed=k)) for k in range(2)],
    )
    n = 20000
    for prior in (gauss, mixture, Dirac(sigma * random(3, 1, 2, 2))):
        generator = torch.Generator().manual_seed(4)
        x0 = prior.sample(n, generator)
        x = x0 + sigma * torch.randn(x0.shape, generator=generator, dtype=F64)
        residual = (x0 - prior(x, sigma)).flatten(1)
        z = x.flatten(1) / x.std()
        features = torch.cat([torch.ones(n, 1, dtype=F64), z, z**2, torch.sin(3 * z)], dim=1)
        products = features[:, :, None] * residual[:, None, :]
        t = products.mean(0) / (products.std(0) / math.sqrt(n)).clamp_min(1e-12)
        assert float(t.abs().max()) < 4.5
        biased = (residual + 0.05 * residual.std() * z)[:, None, :] * features[:, :, None]
        assert float((biased.mean(0) / (biased.std(0) / math.sqrt(n))).abs().max()) > 4.5


def test_bad_mixtures_are_refused():
    small, large = Gaussian.power_law((1, 2, 2)), Gaussian.power_law((1, 4, 4))
    for weights, parts in (([1], [small, small]), ([], []), ([1, 0], [small, small])):
        with pytest.raises(ValueError, match="as many weights > 0"):
            GaussianMixture(weights, parts)
    with pytest.raises(ValueError, match="one shape"):
        GaussianMixture([1, 1], [small, large])


# -- point masses ------------------------------------------------------------------------------


def test_one_point_mass_is_the_answer_to_everything():
    atom = random(1, 1, 4, 4)
    prior = Dirac(atom)
    x = random(3, 1, 4, 4, seed=1).requires_grad_()
    for sigma in (1e-6, 0.3, 1e6):
        denoised = prior(x, sigma)
        torch.testing.assert_close(denoised, atom.expand(3, -1, -1, -1), rtol=0, atol=1e-14)
        assert float(torch.autograd.grad(denoised.sum(), x)[0].abs().max()) < 1e-12
    posterior = prior.posterior(random(1, 1, 4, 4), operators.denoise((1, 4, 4)).to(F64), 0.2)
    torch.testing.assert_close(posterior.mean, atom[0])
    assert float(posterior.std.max()) == 0
    assert torch.equal(prior.sample(2, torch.Generator()), atom.expand(2, -1, -1, -1))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_point_masses_are_weighted_by_a_softmax(sigma):
    """Weights `softmax(log w - |x - a|^2 / 2 sigma^2)`, as deepinv's minimum-error denoiser."""
    from deepinv.models import MMSE

    atoms, x = random(6, 1, 4, 4), random(3, 1, 4, 4, seed=1)
    squares = (x[:, None] - atoms[None]).square().sum((2, 3, 4))
    for weights in (None, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]):
        w = torch.tensor(weights or [1.0] * 6, dtype=F64)
        share = torch.softmax(w.log() - squares / (2 * sigma**2), dim=1)
        expected = torch.einsum("bk,k...->b...", share, atoms)
        torch.testing.assert_close(Dirac(atoms, weights)(x, sigma), expected)
    reference = MMSE(atoms, device=torch.device("cpu"), dtype=F64)
    torch.testing.assert_close(Dirac(atoms)(x, sigma), reference(x, sigma))


def test_cards_say_what_they_are():
    atoms = torch.zeros(2, 3, 4, 5)
    card = Dirac(atoms).card
    assert (card.name, card.image_shape, card.channels, card.exact) == ("dirac", (3, 4, 5), 3, True)
    assert "found (1, 4, 5)" in (Dirac(atoms).refuse((1, 1, 4, 5)) or "")
    part = Gaussian.dense(torch.zeros(1, 2), torch.eye(2), value_range=(-1, 1))
    assert part.card.value_range == GaussianMixture([1], [part]).card.value_range == (-1, 1)


# -- marginals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "dirac"])
def test_cdf_is_that_of_the_samples(kind):
    shape, n = (1, 2, 3), 40_000
    parts = [Gaussian.dense(random(*shape, seed=k), positive(6, seed=k)) for k in range(3)]
    prior = {
        "gaussian": parts[0],
        "mixture": GaussianMixture([1.0, 2.0, 3.0], parts),
        "dirac": Dirac(random(7, *shape, seed=9), [1.0, 2.0, 1.0, 3.0, 1.0, 1.0, 1.0]),
    }[kind]
    physics = operators.mask(shape, keep=0.5, noise=0.8).to(F64)
    y = physics.A(random(1, *shape, seed=5))
    posterior = prior.posterior(y, physics, 0.8)
    samples = posterior.sample(n, torch.Generator().manual_seed(1))
    for x in (posterior.mean, posterior.mean + 0.7 * posterior.std):
        share = (samples <= x).double().mean(0)
        p = posterior.cdf(x)
        assert float(((share - p).abs() - 4.5 * (p * (1 - p) / n).sqrt()).max()) < 1e-9
    mean_error = (samples.mean(0) - posterior.mean).abs() / (posterior.std / math.sqrt(n))
    assert float(mean_error.max()) < 4.5
    assert float((samples.std(0) / posterior.std - 1).abs().max()) < 0.05


def test_point_masses_take_any_likelihood():
    prior = Dirac(random(4, 1, 2, 2), [1.0, 1.0, 2.0, 4.0])
    flat = prior.reweighted(torch.zeros(4, dtype=F64))
    torch.testing.assert_close(flat.weights, torch.tensor([1, 1, 2, 4], dtype=F64) / 8)
    sure = prior.reweighted(torch.tensor([0.0, 0.0, 1e4, 0.0], dtype=F64))
    torch.testing.assert_close(sure.mean, prior.atoms[2])
    with pytest.raises(ValueError, match="as many weights > 0 as atoms, found 2 weights and 4"):
        Dirac(prior.atoms, [1.0, 2.0])
