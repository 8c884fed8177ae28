"""Eigen-images: the subspace, denoising in it, and draws that are the posterior of a Gaussian."""

import math

import pytest
import torch
from deepinv.models import Denoiser

import operators
import priors
import restore
from priors import ChannelWise, Gaussian
from restore.eigenimages import Mixed, Subspace, subspaces
from restore.metrics import band_psnr, spectral_angle
from restore.principal import principal
from restore.problem import Problem, stream
from restore.solvers.eigen import Eigen
from restore.solvers.fasthyde import FastHyDe
from restore.solvers.moment_ladder import MomentLadder

F64 = torch.float64


class Smooth(Denoiser):
    """A Gaussian prior of smooth images about grey, exact and instant, for any size."""

    def forward(self, x, sigma, **_):
        level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1)
        f2 = torch.fft.fftfreq(x.shape[-2])[:, None] ** 2 + torch.fft.rfftfreq(x.shape[-1]) ** 2
        power = (1e-5 / (f2 + 5e-4) ** 2).to(x)
        shrunk = torch.fft.rfft2(x - 0.5) * power / (power + level**2)
        return 0.5 + torch.fft.irfft2(shrunk, s=x.shape[-2:])


@pytest.fixture
def smooth():
    adapter = priors.from_deepinv(Smooth())
    adapter.card = priors.Card(name="smooth", channels=1, spatial_dims=2)
    return adapter


def mixture(bands=12, side=16, rank=3, seed=0):
    """A cube of `rank` smooth maps, `(1, C, side, side)` in about [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    spectra = torch.rand((bands, rank), generator=generator, dtype=F64)
    i = torch.arange(side, dtype=F64) / side * 2 * math.pi
    maps = [torch.cos(k * i[:, None] + m * i) for k, m in ((1, 0), (0, 1), (1, 1))[:rank]]
    return 0.5 + 0.15 * torch.einsum("cr,rhw->chw", spectra, torch.stack(maps))[None]


def any_subspace(bands=6, rank=2):
    generator = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn((bands, rank), generator=generator, dtype=F64))[0]
    return Subspace(torch.rand(bands, generator=generator, dtype=F64), basis * 3)


# -- the subspace ------------------------------------------------------------------------------


def test_eigenimages_invert_cubes():
    space = any_subspace()
    u = torch.rand((3, 2, 4, 5), generator=torch.Generator().manual_seed(0), dtype=F64)
    torch.testing.assert_close(space.eigenimages(space.cube(u)), u)
    torch.testing.assert_close(space.gains, torch.full((2,), 3.0, dtype=F64))


@pytest.mark.parametrize("batch", [1, 2])
def test_what_an_operator_measures_of_eigenimages_has_its_adjoint(batch):
    space = any_subspace()
    masks = torch.rand((batch, 6, 4, 5), generator=torch.Generator().manual_seed(1)) > 0.5
    operator = operators.mask((6, 4, 5), keep=0.5, noise=0.1).to(F64)
    operator.mask = masks.to(F64)
    mixed = Mixed(operator, space, batch - 1, batch)
    u = torch.rand((3, 2, 4, 5), generator=torch.Generator().manual_seed(0), dtype=F64)
    v = torch.rand((3, 6, 4, 5), generator=torch.Generator().manual_seed(3), dtype=F64)
    Au = mixed.A(u)
    torch.testing.assert_close(Au, masks[batch - 1] * space.mix(u))
    torch.testing.assert_close((Au * v).sum(), (u * mixed.A_adjoint(v)).sum())


@pytest.mark.parametrize("keep", [1.0, 0.4])
def test_principal_components_are_those_of_the_clean_cube(keep):
    x, sigma = mixture(side=32)[0], 0.02
    generator = torch.Generator().manual_seed(4)
    seen = torch.rand(x.shape, generator=generator, dtype=F64) < keep
    y = torch.where(seen, x + sigma * torch.randn(x.shape, generator=generator, dtype=F64), 0)
    mean, basis, std = principal(y, seen, sigma)
    assert basis.shape[1] == 3
    flat = x.flatten(1) - x.mean((1, 2))[:, None]
    true = torch.linalg.svd(flat, full_matrices=False)
    # an eigenvector turns by about sigma / (std sqrt(n share)) in each of ten directions: 0.03
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=F64), atol=1e-9, rtol=0)
    assert float((basis @ (basis.T @ true.U[:, :3]) - true.U[:, :3]).norm(dim=0).max()) < 0.1
    torch.testing.assert_close(std, true.S[:3] / 32, rtol=0.1, atol=0)
    torch.testing.assert_close(mean, x.mean((1, 2)), rtol=0, atol=0.03)


def test_uneven_gains_do_not_hide_the_spectra():
    x = mixture()
    operator = operators.stripes((12, 16, 16), dead=0.1, strength=0.3, noise=0.001).to(F64)
    y = operators.measure(operator, x, seed=1)
    problem = Problem(
        y=y,
        operator=operator,
        prior=ChannelWise(Gaussian.power_law((1, 16, 16))),
        shape=(1, 12, 16, 16),
        sigma_y=torch.full((1, 1, 1, 1), 0.001, dtype=F64),
        streams=[stream(0, 0)],
        observed=(operator.gains > 0).to(F64),
    )
    (space,) = subspaces(problem, rank=3)
    off = space.cube(space.eigenimages(x)) - x
    assert float(off.square().mean().sqrt()) < 0.01 * float(x.std())


# -- solvers -----------------------------------------------------------------------------------


def test_denoised_eigenimages_are_better_than_projected_ones(smooth):
    x, sigma = mixture(side=32), 0.1
    operator = operators.denoise((12, 32, 32), noise=sigma).to(F64)
    y = operators.measure(operator, x, seed=1)
    result = FastHyDe(rank=3)(y, operator, smooth)
    error = float((result.mean - x).square().mean())
    # a projection onto the true subspace would leave sigma^2 R / C of the noise
    assert error < 0.5 * sigma**2 * 3 / 12
    assert result.notes["rank"] == [3]
    assert result.cost.forwards == 1
    many = FastHyDe(rank=12)(y, operator, smooth)  # too many cost time only
    assert float((many.mean - x).square().mean()) < 1.5 * error


@pytest.mark.parametrize(
    "spec",
    ["mask:keep=0.4,bandwise=true", pytest.param("downsample:factor=2", marks=pytest.mark.slow)],
)
def test_draws_are_those_of_the_exact_posterior(spec):
    bands, side, rank, sigma = 8, 8, 2, 0.1
    grey = Gaussian.power_law((1, side, side), std=0.2)
    truth = mixture(bands, side, rank)
    operator = operators.parse(spec, (bands, side, side), noise=sigma).to(F64)
    y = operators.measure(operator, truth, seed=5)
    precise = MomentLadder(levels=2, sweeps=0, lanczos=8, max_iter=30, tol=1e-4)
    result = Eigen(rank=rank, ladder=precise)(y, operator, grey, samples=40)
    exact, std = exactly(y, operator, grey, rank, (1, bands, side, side), sigma)
    # the mean of 40 draws is off by std / sqrt(40), whose square is 1 / 40
    off = (result.mean - exact)[0] / std
    assert float(off.square().mean()) < 3 / 40
    assert float((result.std[0] / std).square().mean()) == pytest.approx(1, abs=0.2)


def exactly(y, operator, grey, rank, shape, sigma):
    """Posterior mean and std of the cube, given the subspace, by dense matrices."""
    problem = Problem(
        y=y,
        operator=operator,
        prior=ChannelWise(grey),
        shape=shape,
        sigma_y=torch.full((1, 1, 1, 1), sigma, dtype=F64),
        streams=[stream(0, 0)],
        observed=(operator.A(torch.ones(shape, dtype=F64)) != 0).to(F64),
    )
    (space,) = subspaces(problem, rank)
    size = (rank, *shape[2:])
    n = math.prod(size)
    units = torch.eye(n, dtype=F64).reshape(n, *size)
    M = space.mix(units).flatten(1).T
    A = operator.A(space.mix(units)).flatten(1).T
    C = grey.covariance(units.reshape(n * rank, 1, *shape[2:])).reshape(n, n)
    middle = torch.full((1, *size), 0.5, dtype=F64)
    r = (y - operator.A(space.cube(middle))).flatten()
    gain = C @ A.T @ torch.linalg.inv(A @ C @ A.T + sigma**2 * torch.eye(len(A), dtype=F64))
    mean = space.cube(middle).flatten() + M @ gain @ r
    covariance = M @ (C - gain @ A @ C) @ M.T
    return mean.reshape(shape), covariance.diagonal().clamp_min(1e-12).sqrt().reshape(shape[1:])


def test_cubes_of_a_batch_do_not_touch_each_other(smooth):
    two = torch.cat([mixture(rank=3), mixture(rank=1, seed=8)])
    operator = operators.parse("mask:keep=0.5,bandwise=true", (12, 16, 16), noise=0.03).to(F64)
    y = operators.measure(operator, two, seed=2)
    solver = Eigen(ladder=MomentLadder(levels=3, sweeps=1))
    both = solver(y, operator, smooth, samples=2)
    assert both.notes["rank"] == [3, 1]
    for b in (0, 1):
        alone = solver(y[b : b + 1], operator, smooth, samples=2)
        torch.testing.assert_close(both.samples[:, b], alone.samples[:, 0], rtol=0, atol=1e-4)
    again = solver(y, operator, smooth, samples=2, batch_size=1)
    torch.testing.assert_close(again.samples, both.samples, rtol=0, atol=1e-9)
    assert both.cost.forwards == 4


def test_an_image_of_one_channel_is_the_ladders(smooth):
    operator = operators.parse("mask:keep=0.5", (1, 16, 16), noise=0.05).to(F64)
    y = operators.measure(operator, mixture()[:, :1], seed=2)
    ladder = MomentLadder(levels=3, sweeps=1)
    ours = Eigen(ladder=ladder)(y, operator, smooth, samples=2).samples
    assert torch.equal(ours, ladder(y, operator, smooth, samples=2).samples)
    noisy = operators.denoise((1, 16, 16), noise=0.05).to(F64)
    found = FastHyDe()(y, noisy, smooth).mean
    torch.testing.assert_close(found, smooth(y, 0.05))


def test_what_does_not_fit_is_refused(smooth):
    x = mixture()
    shape = tuple(x.shape[1:])
    holes = operators.parse("mask:keep=0.5", shape, noise=0.1).to(F64)
    with pytest.raises(ValueError, match="needs an operator of noise alone"):
        FastHyDe()(x, holes, smooth)
    exact = operators.denoise(shape, noise=0.0).to(F64)
    for solver in (FastHyDe(), Eigen()):
        with pytest.raises(ValueError, match="noise level above zero"):
            solver(x, exact, smooth)
    with pytest.raises(ValueError, match="choose a grey one"):
        restore.solve(x, holes, "natural", Eigen())
    colours = operators.parse("decolorise", (3, 16, 16), noise=0.1).to(F64)
    with pytest.raises(ValueError, match="expected a cube of 3 bands"):
        Eigen()(x[:, :1], colours, smooth)
    for make in (FastHyDe, Eigen):
        with pytest.raises(ValueError, match="rank >= 1"):
            make(rank=0)
    empty = holes.mask.clone()
    empty[:, 4] = 0
    holes.mask = empty
    with pytest.raises(ValueError, match="1 of 12 bands have fewer than two values"):
        Eigen()(x * empty, holes, smooth)


# -- worked examples ---------------------------------------------------------------------------


def echoes(side=32, count=12):
    """Signal `exp(-TE / T2)` of three tissues at `count` echo times, and the map of T2 (ms)."""
    i = torch.linspace(-1, 1, side)
    radius = (i[:, None] ** 2 + i**2).sqrt()
    T2 = torch.full((side, side), 60.0)
    T2[radius < 0.8] = 90.0
    T2[(i[:, None] - 0.2) ** 2 + (i + 0.1) ** 2 < 0.12] = 150.0
    times = 12.0 * torch.arange(1, count + 1)
    return torch.exp(-times[:, None, None] / T2)[None], T2, times


def fitted_T2(x, times):
    """T2 by weighted least squares on the logarithm, pixel by pixel."""
    signal = x[0].clamp_min(1e-3)
    w, y, t = signal.square(), signal.log(), times[:, None, None]
    total = w.sum(0)
    t_0, y_0 = (w * t).sum(0) / total, (w * y).sum(0) / total
    slope = (w * (t - t_0) * (y - y_0)).sum(0) / (w * (t - t_0) ** 2).sum(0)
    return (-1 / slope.clamp_max(-1e-3)).clamp(0, 500)


def test_relaxation_times_of_a_multi_echo_scan():
    """A medical cube: twelve echoes of one slice, restored from themselves."""
    x, T2, times = echoes()
    operator = operators.denoise(tuple(x.shape[1:]), noise=0.05)
    y = operators.measure(operator, x, seed=3)
    result = restore.solve(y, operator, "natural-gray", FastHyDe())
    assert result.status == "ok"
    before = (fitted_T2(y, times) - T2).abs().median()
    after = (fitted_T2(result.mean, times) - T2).abs().median()
    # averaging over the neighbours of a pixel's own tissue, four or more, halves an error
    assert float(after) < 0.5 * float(before)


@pytest.mark.slow
def test_a_real_scene_is_restored_better_than_by_classical_methods():
    pytest.importorskip("tensorly")
    from restore.bench import cubes
    from restore.bench.cube_rivals import best_of_each

    x = cubes.indian_pines()
    # classical methods at the settings that the truth likes best; measured gains 0.8 and 1.4 dB
    for task, solver, samples, gain in (
        ("denoise", FastHyDe(), 1, 0.5),
        ("complete", Eigen(), 8, 1.0),
    ):
        spec, sigma = cubes.TASKS[task]
        operator = operators.parse(spec, tuple(x.shape[1:]), noise=sigma)
        y = operators.measure(operator, x, seed=0)
        found = restore.solve(y, operator, "natural-gray", solver, samples=samples).mean
        rivals = [cube for _, cube in best_of_each(y, operator, x)]
        best = max(float(band_psnr(cube, x, clip=False).mean()) for cube in rivals)
        assert float(band_psnr(found, x, clip=False).mean()) > best + gain
        assert float(spectral_angle(found, x)) < min(float(spectral_angle(c, x)) for c in rivals)
