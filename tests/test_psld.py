"""PSLD and the latent priors: fixed points, the pixel problem behind a linear decoder, refusals."""

import math

import deepinv
import pytest
import torch
from toys import F64, columns, dense, first_of_pairs, linear_latent, matrix_operator, pairs

import operators
import restore
from priors import Adapter, Card, Dirac, Gaussian, Latent
from priors.schedules import DDPM, Discrete
from restore.gain import squared_norm
from restore.problem import Problem, stream
from restore.solvers import available
from restore.solvers.dps import DPS
from restore.solvers.flowchef import FlowChef
from restore.solvers.psld import PSLD
from restore.solvers.stsl import STSL
from restore.space import Space

ONE = torch.ones((1, 1, 1, 1), dtype=F64)  # |A|^2


def problem(y, operator, prior, shape, samples=1):
    """What a solver sees, for tests of its parts."""
    ones = [1] * (y.ndim - 1)
    return Problem(
        y=y.repeat(samples, *ones),
        operator=operator,
        prior=prior,
        shape=(samples * len(y), *shape),
        sigma_y=torch.full((samples * len(y), *ones), 0.1, dtype=F64),
        streams=[stream(0, i) for i in range(samples)],
        observed=torch.ones_like(y).repeat(samples, *ones),
    )


@pytest.fixture(scope="module")
def linear():
    """A linear autoencoder 3 -> 6, a prior on its latents, and an operator with A A^T = 1."""
    W = columns(6, 3)
    latents = dense(torch.diag(torch.tensor([1.0, 0.5, 0.2], dtype=F64)))
    A = columns(6, 2, seed=1).T
    return W, latents, A, linear_latent(latents, W, (1, 1, 6))


# -- PSLD ---------------------------------------------------------------------------------------


def test_the_pull_is_the_gradient_of_both_norms(linear):
    W, _, A, prior = linear
    y = torch.tensor([0.6, -0.3], dtype=F64)
    task = problem(y.reshape(1, 1, 2, 1), matrix_operator(A, (1, 1, 6)), prior, (1, 1, 6))
    space = Space(task)
    z = torch.tensor([0.2, -0.4, 0.7], dtype=F64)
    _, pull = PSLD(omega=0.7, gamma=0.4).pull(task, space, z.reshape(1, 1, 1, 3), ONE)
    z = z.requires_grad_()
    glued = W.T @ (A.T @ y + W @ z - A.T @ A @ W @ z)
    loss = 0.7 * (A @ W @ z - y).norm() + 0.4 * (glued - z).norm()
    torch.testing.assert_close(pull.flatten(), torch.autograd.grad(loss, z)[0])


def test_latents_of_an_image_that_fits_are_a_fixed_point(linear):
    """y = A W z*: every term has zero gradient there, for PSLD and for STSL."""
    _, _, A, prior = linear
    operator = matrix_operator(A, (1, 1, 6))
    z = torch.tensor([0.2, -0.4, 0.7], dtype=F64).reshape(1, 1, 1, 3)
    task = problem(operator.A(prior.decode(z)), operator, prior, (1, 1, 6))
    space = Space(task)
    assert not PSLD(gamma=0.0).pull(task, space, z, ONE)[1].any()  # the norm's kink
    # the gluing norm's kink is missed by rounding, its square's minimum is not
    both = STSL(eta=0.0, gamma=0.5, step="constant")

    def gradient(z):
        x_t, alpha, sigma = z.clone(), 1.0, 1e-9  # where D = z
        return both.gradient(task, space, x_t, alpha, sigma, ONE)

    assert float(gradient(z).abs().max()) < 1e-9
    assert float(gradient(z + 0.1).abs().max()) > 1e-3


def test_for_a_mask_on_pixels_both_weights_add():
    """With identity encoder and decoder and A A^T = 1 the gluing norm is the data norm."""
    operator, y = first_of_pairs(3)
    a = PSLD(steps=30, omega=1.1, gamma=0.0)(y, operator, pairs(0.9, 3), samples=2).samples
    b = PSLD(steps=30, omega=0.8, gamma=0.3)(y, operator, pairs(0.9, 3), samples=2).samples
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda lam: PSLD(steps=20, gamma=0.0),
        lambda lam: STSL(steps=6, inner=2, eta=0.5, lam=lam, step="constant"),
        lambda lam: STSL(steps=6, inner=2, eta=0.5, lam=lam, step="constant", start="noise"),
    ],
    ids=["psld", "stsl", "stsl from noise"],
)
def test_the_latent_problem_is_a_pixel_problem(make, linear):
    """(W, A) on latents and (1, A W) on pixels: identical trajectories for shared seeds."""
    W, latents, A, prior = linear
    y = torch.tensor([0.6, -0.3], dtype=F64).reshape(1, 1, 2, 1)
    init = torch.tensor([0.1, 0.2, -0.3], dtype=F64).reshape(1, 1, 1, 3)
    gain = float(torch.linalg.matrix_norm(A @ W, 2)) ** 2  # |A| = 1
    inside = make(0.1)(y, matrix_operator(A, (1, 1, 6)), prior, samples=2, init=prior.decode(init))
    pixels = make(0.1 * gain)(y, matrix_operator(A @ W, (1, 1, 3)), latents, samples=2, init=init)
    expected = prior.decode(pixels.samples[:, 0])
    torch.testing.assert_close(inside.samples[:, 0], expected, rtol=0, atol=1e-8)


def test_without_weights_it_is_ddim_on_the_prior():
    """omega = gamma = 0 on N(0, c): an exact map from noise to image, whose variance nears c."""
    variance = 0.3
    prior = dense(variance * torch.eye(2, dtype=F64))
    operator, y = first_of_pairs()
    solver = PSLD(steps=1000, omega=0.0, gamma=0.0)
    x = solver(y, operator, prior).samples.flatten()
    noise = torch.randn((1, 1, 2), generator=stream(0, 0), dtype=F64).flatten()
    ratio = x / noise
    torch.testing.assert_close(ratio[0], ratio[1], rtol=1e-9, atol=0)
    assert float(ratio[0]) ** 2 == pytest.approx(variance, rel=0.03)


def test_one_step_of_psld_is_one_of_dps_in_norm_form():
    """From pure noise to the end in one step both subtract omega grad |y - A D|."""
    operator, y = first_of_pairs(2)
    prior = pairs(0.5, 2)
    a = PSLD(steps=1, omega=0.7, gamma=0.0)(y, operator, prior).samples
    b = DPS(steps=1, zeta=0.7, norm="code", clip=False)(y, operator, prior).samples
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_its_spread_is_not_the_posteriors():
    """The known weakness: steps of fixed length fit noise of any size; sigma_y enters nowhere."""
    kwargs = {"samples": 3}
    quiet, y = first_of_pairs(4, noise=0.01)
    loud, _ = first_of_pairs(4, noise=1.0)
    a = PSLD(steps=25)(y, quiet, pairs(0.9, 4), **kwargs).samples
    b = PSLD(steps=25)(y, loud, pairs(0.9, 4), **kwargs).samples
    assert torch.equal(a, b)


def test_a_point_mass_prior_gives_its_point():
    x = torch.rand((1, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=F64)
    operator = deepinv.physics.Denoising(noise_model=operators.GaussianNoise(0.1))
    result = PSLD(steps=5)(1 - x, operator, Dirac(x))
    torch.testing.assert_close(result.samples[0], x, rtol=0, atol=1e-12)


# -- latent priors ------------------------------------------------------------------------------


def test_a_latent_prior_has_the_posterior_of_its_image_gaussian(linear):
    """x = W z: a solver that is exact on Gaussians must find W (posterior of z)."""
    W, latents, A, prior = linear
    y = torch.tensor([0.6, -0.3], dtype=F64)
    C = W @ latents.covariance(torch.eye(3, dtype=F64).reshape(3, 1, 1, 3)).reshape(3, 3) @ W.T
    K = C @ A.T @ torch.linalg.inv(A @ C @ A.T)
    solver = FlowChef(steps=3000, kappa=0.5, optimiser="gradient")
    n = 8
    x = solver(
        y.reshape(1, 1, 2, 1),
        matrix_operator(A, (1, 1, 6)),
        prior,
        samples=n,
        batch_size=n,
    ).samples.flatten(1)
    z = torch.stack([torch.randn((1, 1, 3), generator=stream(0, i), dtype=F64) for i in range(n)])
    inputs = torch.cat([z.flatten(1), torch.ones(n, 1, dtype=F64)], 1)
    found = torch.linalg.lstsq(inputs, x).solution
    torch.testing.assert_close(found[3], K @ y, rtol=0, atol=0.01)
    torch.testing.assert_close(found[:3].T @ found[:3], C - K @ A @ C, rtol=0, atol=0.01)


ON_PIXELS = [n for n, s in available().items() if not (s.latent or s.prior_free)]


@pytest.mark.parametrize("name", ON_PIXELS)
def test_solvers_of_pixels_refuse_latents_before_any_work(name, linear):
    _, _, _, prior = linear
    operator = operators.denoise((1, 2, 3), noise=0.1).to(F64)

    def untouchable(z):
        raise AssertionError("decoded before the check")

    refused = Latent(prior.denoiser, prior.encode, untouchable)
    y = torch.zeros((1, 1, 2, 3), dtype=F64)
    with pytest.raises(ValueError, match=r"latents of an autoencoder.*'stsl'") as info:
        restore.solve(y, operator, refused, name)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["psld", "stsl", "flowchef", "replacement"])
def test_counts_are_refused_by_solvers_that_fit_squares(name):
    operator = operators.denoise((1, 4, 4)).to(F64)
    operator.noise_model = operators.PoissonNoise(10.0)
    with pytest.raises(ValueError, match="needs Gaussian noise"):
        restore.solve(
            torch.ones((1, 1, 4, 4), dtype=F64), operator, Dirac(torch.ones(1, 1, 4, 4)), name
        )


def test_an_autoencoder_of_another_size_is_refused(linear):
    W, latents, _, _ = linear
    prior = linear_latent(latents, W, (1, 2, 3))
    cut = Latent(latents, prior.encode, lambda z: prior.decode(z)[..., :2])
    operator = operators.denoise((1, 2, 3), noise=0.1).to(F64)
    with pytest.raises(ValueError, match=r"turns images \(1, 2, 3\) into images \(1, 2, 2\)"):
        restore.solve(torch.zeros((1, 1, 2, 3), dtype=F64), operator, cut, PSLD(steps=2))
    tall = Latent(latents, lambda x: prior.encode(x).reshape(-1, 1, 3, 1), prior.decode)
    with pytest.raises(ValueError, match=r"of the latents: prior 'gaussian' knows images"):
        restore.solve(torch.zeros((1, 1, 2, 3), dtype=F64), operator, tall, PSLD(steps=2))


@pytest.fixture(scope="module")
def tiny():
    """A random AutoencoderKL 16x16x3 -> 8x8x4 and a small prior on its latents."""
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = diffusers.AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            scaling_factor=0.2,
        )
    shape = (4, 8, 8)
    latents = Gaussian.power_law(shape, mean=0.0, std=1.0)
    latents.card = Card(name="toy", value_range=(-1.0, 1.0))
    return autoencoder, Latent.from_diffusers(latents, autoencoder)


def test_an_autoencoder_of_diffusers_is_scaled_as_its_pipelines_do(tiny):
    autoencoder, prior = tiny
    x = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = autoencoder.encode(2 * x - 1).latent_dist.mean
        torch.testing.assert_close(prior.encode(x), 0.2 * z)
        image = (autoencoder.decode(z).sample + 1) / 2
        torch.testing.assert_close(prior.decode(prior.encode(x)), image)
        assert prior.encode(x.double()).dtype == F64
    assert prior.card.channels == 3
    assert prior.card.value_range == (0, 1)


@pytest.mark.parametrize(
    "solver", [PSLD(steps=3), STSL(steps=3, inner=1), FlowChef(steps=4)], ids=lambda s: s.name
)
def test_latent_solvers_run_through_a_real_autoencoder(solver, tiny):
    _, prior = tiny
    operator = operators.denoise((3, 16, 16), noise=0.1)
    truth = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    y = operators.measure(operator, truth, seed=0)
    pair = restore.solve(y, operator, prior, solver, samples=2, seed=0)
    assert pair.samples.shape == (2, 2, 3, 16, 16)
    assert bool(pair.samples.isfinite().all())
    alone = restore.solve(y[1:], operator, prior, solver, samples=1, seed=0)
    torch.testing.assert_close(alone.samples[0], pair.samples[0, 1:], rtol=0, atol=1e-4)


def test_the_gradient_passes_through_decoder_and_network(tiny):
    """One PSLD step from noise against autograd through the whole expression."""
    autoencoder, prior = tiny
    operator = operators.denoise((3, 16, 16)).to(F64)
    y = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=F64)
    alpha, sigma = DDPM().alpha(999).item(), DDPM().sigma(999).item()
    noise = torch.randn((4, 8, 8), generator=stream(0, 0), dtype=F64)[None].requires_grad_()
    autoencoder.double()
    try:
        x = PSLD(steps=1, gamma=0.3)(y, operator, prior).samples[0]
        D = prior.denoiser(noise / alpha, sigma / alpha)
        image = prior.decode(D)
        glue = prior.encode(image + (y - image)) - D  # A is the identity
        loss = (2 * (image - y)).norm() + 0.3 * glue.norm()
        expected = prior.decode(D - torch.autograd.grad(loss, noise)[0])
    finally:
        autoencoder.float()
    torch.testing.assert_close(x, expected.detach(), rtol=0, atol=1e-9)


def test_a_module_without_a_scaling_factor_is_no_autoencoder(linear):
    with pytest.raises(ValueError, match="expected an AutoencoderKL"):
        Latent.from_diffusers(linear[1], torch.nn.Conv2d(3, 4, 3))


def test_a_text_conditioned_network_is_wrapped_as_the_docstring_says(tiny):
    """A random UNet2DConditionModel with one fixed prompt, behind the autoencoder."""
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=6,
            attention_head_dim=4,
        )
        scheduler = diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        )
    prompt = torch.zeros((1, 5, 6))

    def call(net, z, t):
        return net(z, t, prompt.expand(len(z), -1, -1), return_dict=False)[0]

    table = Discrete(tuple(scheduler.alphas_cumprod.tolist()))
    card = Card(name="toy", value_range=(-1.0, 1.0))
    denoiser = Adapter(unet, table, "eps", card=card, call=call)
    prior = Latent.from_diffusers(denoiser, tiny[0])
    operator = operators.denoise((3, 16, 16), noise=0.1)
    y = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    result = restore.solve(y, operator, prior, STSL(steps=2, inner=1), samples=1)
    assert bool(result.samples.isfinite().all())
    assert math.isfinite(result.cost.forwards)


# -- the norm of an operator --------------------------------------------------------------------


def test_squared_norm_is_each_images_own():
    weights = torch.tensor([1.0, 2.0], dtype=F64).reshape(2, 1, 1, 1)
    A = columns(4, 4)
    A = A @ torch.diag(torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=F64)) @ columns(4, 4, 2).T

    def forward(x, **_):
        return weights * (x.flatten(1) @ A.T).reshape(x.shape)

    def adjoint(y, **_):
        return (weights * y).flatten(1).matmul(A).reshape(y.shape)

    operator = deepinv.physics.LinearPhysics(A=forward, A_adjoint=adjoint)
    task = problem(torch.zeros((2, 1, 1, 4), dtype=F64), operator, dense(torch.eye(4)), (1, 1, 4))
    found = squared_norm(task).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, 4.0], dtype=F64), rtol=1e-9, atol=0)


def test_squared_norm_of_what_sees_nothing_or_is_not_linear_is_one():
    zero = matrix_operator(torch.zeros(2, 4), (1, 1, 4))
    task = problem(torch.zeros((1, 1, 2, 1), dtype=F64), zero, dense(torch.eye(4)), (1, 1, 4))
    assert float(squared_norm(task)) == 1
    task.operator = deepinv.physics.Physics(A=lambda x, **_: 3 * x**2)
    assert float(squared_norm(task)) == 1
