"""MRI: the centred Fourier transform, sampling patterns, coils, and trajectories off the grid."""

import copy
import sys

import deepinv
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators
from operators.fourier.coils import birdcage, estimate_coil_maps
from operators.fourier.kspace import to_complex
from operators.fourier.poisson_disc import throw
from operators.fourier.sampling import centre, sampling_mask

SIZES = [(16, 16), (15, 21), (12, 17), (6, 8, 10), (5, 7, 9), (4, 9, 6)]


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def double(spec, shape):
    return operators.parse(spec, shape).to(torch.float64)


def numpy_kspace(z):
    axes = tuple(range(1, z.ndim))
    shifted = np.fft.ifftshift(z, axes)
    return np.fft.fftshift(np.fft.fftn(shifted, axes=axes, norm="ortho"), axes)


# the transform


@pytest.mark.parametrize("size", SIZES)
def test_full_mri_is_orthonormal_and_equal_to_numpy(size):
    physics = double("mri:acceleration=1", (2, *size))
    x = normal(2, 2, *size)
    y = physics.A(x)
    torch.testing.assert_close(y.norm(), x.norm())
    torch.testing.assert_close(physics.A_adjoint(y), x, atol=1e-12, rtol=0)
    expected = numpy_kspace(to_complex(x).numpy())
    np.testing.assert_allclose(to_complex(y).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spec", ["mri:acceleration=3", "mri:acceleration=3,pattern=poisson"])
def test_measured_samples_are_those_of_the_full_transform(spec, size):
    x = normal(1, 2, *size)
    full = double("mri:acceleration=1", (2, *size)).A(x)
    physics = double(spec, (2, *size))
    torch.testing.assert_close(physics.A(x), full * physics.mask, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(8, 9), (4, 6, 5)])
def test_point_in_the_middle_is_flat_and_a_shifted_one_a_plane_wave(size):
    x = torch.zeros(2, 2, *size, dtype=torch.float64)
    middle = [n // 2 for n in size]
    x[(0, 0, *middle)] = 1
    x[(1, 0, *middle[:-1], middle[-1] + 2)] = 1
    k = to_complex(double("mri:acceleration=1", (2, *size)).A(x))
    flat = torch.full(size, np.prod(size) ** -0.5, dtype=torch.complex128)
    torch.testing.assert_close(k[0], flat, atol=1e-12, rtol=0)
    cycles = (torch.arange(size[-1], dtype=torch.float64) - middle[-1]) * 2 / size[-1]
    wave = flat * torch.exp(-2j * np.pi * cycles)
    torch.testing.assert_close(k[1], wave, atol=1e-12, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    size=st.lists(st.integers(4, 13), min_size=2, max_size=3),
    coils=st.integers(1, 3),
    pattern=st.sampled_from(["random", "uniform", "poisson"]),
    acceleration=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_adjoint_of_any_size_coils_and_pattern(size, coils, pattern, acceleration, seed):
    shape = (2, *size)
    options = {"coils": coils, "pattern": pattern, "acceleration": acceleration, "seed": seed}
    for dtype, tol in [(torch.float32, 1e-6), (torch.float64, 1e-12)]:
        physics = operators.mri(shape, **options, centre_fraction=0.2).to(dtype)
        u = normal(2, *shape, dtype=dtype)
        y = physics.A(u)
        v = normal(*y.shape, seed=1, dtype=dtype)
        gap = (y.double() * v).sum() - (u.double() * physics.A_adjoint(v)).sum()
        assert gap.abs() <= tol * y.norm() * v.norm()
        torch.testing.assert_close(
            physics.A_adjoint_A(u), physics.A_adjoint(y), atol=10 * tol, rtol=10 * tol
        )


@pytest.mark.parametrize("coils", [1, 3])
@pytest.mark.parametrize("size", [(12, 17), (4, 9, 6)])
@pytest.mark.parametrize("pattern", ["random", "poisson"])
def test_equal_to_deepinv(size, coils, pattern):
    shape = (2, *size)
    ours = operators.mri(shape, coils=coils, pattern=pattern, acceleration=2)
    options = {"mask": ours.mask[0, 0], "img_size": shape, "three_d": len(size) == 3}
    theirs = deepinv.physics.MRI(**options)
    if coils > 1:
        theirs = deepinv.physics.MultiCoilMRI(**options, coil_maps=ours.coil_maps[0])
    x = normal(2, *shape, dtype=torch.float32)
    y = theirs.A(x)
    torch.testing.assert_close(ours.A(x), y, atol=2e-6, rtol=0)
    v = normal(*y.shape, dtype=torch.float32)
    torch.testing.assert_close(ours.A_adjoint(v), theirs.A_adjoint(v), atol=5e-6, rtol=0)


def test_volume_is_a_stack_of_planes_when_everything_is_read_out():
    shape = (2, 9, 6, 10)
    physics = double("mri:acceleration=3,pattern=poisson,centre_fraction=0.2", shape)
    x = normal(1, *shape)
    # undo the transform along the read-out: every position is an image of its own
    z = torch.fft.ifftshift(to_complex(physics.A(x)), dim=-2)
    z = torch.fft.fftshift(torch.fft.ifft(z, dim=-2, norm="ortho"), dim=-2)
    plane = operators.mri((2, 9, 10), mask=physics.mask[0, 0, :, 0]).to(torch.float64)
    for position in range(6):
        expected = to_complex(plane.A(x[..., position, :]))
        torch.testing.assert_close(z[..., position, :], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("coils", [1, 2])
def test_gradients_of_gradients(coils):
    physics = operators.mri((2, 4, 6), acceleration=2, coils=coils, seed=1).to(torch.float64)
    x = normal(1, 2, 4, 6).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: physics.A(x).square(), x)
    y = physics.A(x).detach().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda y: physics.A_adjoint(y).square(), y)


def test_groups_of_coils_change_nothing(monkeypatch):
    physics = operators.mri((2, 12, 10), coils=5).to(torch.float64)
    x = normal(3, 2, 12, 10)
    together = physics.A(x), physics.A_adjoint(physics.A(x)), physics.A_adjoint_A(x)
    monkeypatch.setattr(sys.modules["operators.mri"], "CACHED", 1)
    apart = physics.A(x), physics.A_adjoint(physics.A(x)), physics.A_adjoint_A(x)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-13, rtol=0)


# one coil: the decomposition


@pytest.mark.parametrize("size", [(12, 17), (4, 9, 6)])
def test_singular_values_are_the_mask_and_the_inverse_is_zero_filling(size):
    shape = (2, *size)
    physics = double("mri:pattern=poisson,acceleration=3", shape)
    form = operators.svd(physics)
    assert torch.equal(form.s.expand(1, 1, *size), physics.mask)
    x, y = normal(2, *shape), normal(2, *shape, seed=1)
    torch.testing.assert_close(form.U(form.s * form.Vt(x)), physics.A(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(form.V(form.Vt(x)), x, atol=1e-12, rtol=0)
    torch.testing.assert_close(physics.A_dagger(y), physics.A_adjoint(y), atol=1e-12, rtol=0)
    # data where there are some, the image elsewhere, in k-space
    gamma = torch.tensor([0.5, 4.0], dtype=torch.float64)
    found = physics.prox_l2(x, y, gamma)
    exact = deepinv.physics.MRI(mask=physics.mask[0, 0], three_d=len(size) == 3)
    for i in range(2):
        expected = exact.prox_l2(x[i : i + 1], y[i : i + 1], gamma[i].item())
        torch.testing.assert_close(found[i : i + 1], expected, atol=1e-12, rtol=0)


# patterns


@pytest.mark.parametrize("width", [32, 45])
def test_random_columns_have_their_acceleration_and_centre(width):
    def columns(seed):
        return sampling_mask((8, width), acceleration=4, centre_fraction=0.1, seed=seed)

    mask = columns(0)
    assert mask[0].sum() == round(width / 4)
    assert torch.equal(mask, mask[:1].expand(8, width))
    assert mask[0, centre(width, 0.1)].all()
    assert torch.equal(columns(0), mask)
    assert not torch.equal(columns(1), mask)


@pytest.mark.parametrize(("width", "step"), [(32, 4), (45, 3), (7, 7)])
def test_uniform_columns_keep_their_distance_and_pass_through_zero_frequency(width, step):
    mask = sampling_mask((4, width), pattern="uniform", acceleration=step, centre_fraction=0)
    places = mask[0].nonzero().flatten()
    assert width // 2 in places
    assert (places.diff() == step).all()
    assert places[0] < step
    assert places[-1] >= width - step
    wide = sampling_mask((4, width), pattern="uniform", acceleration=step, centre_fraction=0.3)
    assert wide[0, centre(width, 0.3)].all()
    assert (wide >= mask).all()


@pytest.mark.parametrize(("size", "acceleration"), [((40, 56), 6.5), ((30, 9, 41), 3), ((9, 8), 2)])
def test_poisson_disc_has_its_acceleration_and_centre(size, acceleration):
    def plane(seed):
        mask = sampling_mask(
            size, pattern="poisson", acceleration=acceleration, centre_fraction=0.2, seed=seed
        )
        if len(size) == 3:
            assert torch.equal(mask, mask[:, :1].expand(size))
        return mask[:, 0] if len(size) == 3 else mask

    mask = plane(0)
    assert mask.sum() == round(mask.numel() / acceleration)
    assert mask[centre(size[0], 0.2)][:, centre(size[-1], 0.2)].all()
    assert torch.equal(plane(0), mask)
    assert not torch.equal(plane(1), mask)


def distances(places):
    return torch.cdist(places, places).fill_diagonal_(torch.inf)


def test_thrown_samples_keep_their_distance_and_leave_no_room():
    row, column = np.mgrid[:40, :30]
    radius = 1.5 + 0.1 * column
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(0)).numpy()
    taken = throw(radius, order)
    places = torch.tensor(np.stack((row.flat[taken], column.flat[taken]), 1)).double()
    near = torch.tensor(radius.flat[taken])
    assert (distances(places) >= torch.minimum(near[:, None], near)).all()
    grid = torch.tensor(np.stack((row.ravel(), column.ravel()), 1)).double()
    assert (torch.cdist(grid, places) < near).any(1).all()
    assert np.array_equal(taken, order[np.isin(order, taken)])


def test_poisson_disc_spreads_and_thins_out():
    options = {"acceleration": 10, "centre_fraction": 0.1}
    mask = sampling_mask((80, 80), pattern="poisson", **options)
    t = torch.arange(80) / 40 - 1
    rho = torch.hypot(t[:, None], t)
    shares = [mask[(rho >= r) & (rho < r + 0.2)].mean().item() for r in (0.2, 0.4, 0.6, 0.8)]
    assert shares == sorted(shares, reverse=True)
    outside = (rho > 0.5) & (mask > 0)
    nearest = distances(outside.nonzero().double()).amin(1)
    # random samples of this density have neighbours side by side
    assert nearest.min() >= 2
    scattered = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    scattered = (rho > 0.5) & (scattered < outside.sum() / (rho > 0.5).sum())
    assert distances(scattered.nonzero().double()).amin(1).min() == 1


def test_mask_of_ones_own(tmp_path):
    plane = (normal(6, 10) > 0).to(torch.uint8)
    plane[3, 5] = 1
    x = normal(1, 2, 6, 4, 10, dtype=torch.float32)
    np.save(tmp_path / "mask.npy", plane.numpy())
    from_file = operators.parse(f"mri:file={tmp_path / 'mask.npy'}", (2, 6, 4, 10))
    assert torch.equal(from_file.mask[0, 0], plane[:, None].expand(6, 4, 10).float())
    volume = operators.mri((2, 6, 4, 10), mask=plane[:, None].expand(6, 4, 10).bool())
    torch.testing.assert_close(volume.A(x), from_file.A(x))


def test_new_mask_is_used_from_then_on():
    physics = operators.mri((2, 8, 12), coils=2)
    mask = torch.zeros(8, 12)
    mask[2] = 1
    other = operators.mri((2, 8, 12), mask=mask, coils=2)
    x = normal(1, 2, 8, 12, dtype=torch.float32)
    torch.testing.assert_close(physics.A(x, mask=mask.expand(1, 2, 8, 12)), other.A(x))
    torch.testing.assert_close(physics.A(x), other.A(x))
    fresh = operators.mri((2, 8, 12), coils=2)
    fresh.load_state_dict(physics.state_dict())
    torch.testing.assert_close(fresh.A(x), other.A(x))
    torch.testing.assert_close(copy.deepcopy(physics).A(x), other.A(x))


# coils


@pytest.mark.parametrize(("size", "coils"), [((20, 15), 5), ((6, 9, 8), 3), ((5, 8, 9), 12)])
def test_coil_maps_have_unit_sum_of_squares_and_make_a_full_scan_orthonormal(size, coils):
    maps = birdcage(size, coils)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(size))
    physics = double(f"mri:acceleration=1,coils={coils}", (2, *size))
    x = normal(1, 2, *size)
    torch.testing.assert_close(physics.A_adjoint(physics.A(x)), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(physics.A_adjoint_A(x), x, atol=1e-6, rtol=0)


def test_middle_of_a_volume_sees_the_coils_of_an_image_and_more_coils_form_rings():
    torch.testing.assert_close(birdcage((7, 10, 9), 6)[:, 3], birdcage((10, 9), 6))
    loudest = birdcage((8, 6, 6), 16).abs().amax((-2, -1)).argmax(1)
    assert (loudest[0::2] < 4).all()
    assert (loudest[1::2] >= 4).all()


def test_coil_maps_stay_complex_in_double_precision():
    maps = torch.complex(normal(3, 8, 9), normal(3, 8, 9, seed=1)).to(torch.complex64)
    physics = operators.mri((2, 8, 9), coil_maps=maps).to(torch.float64)
    assert physics.coil_maps.dtype == torch.complex128
    torch.testing.assert_close(physics.coil_maps[0], maps.to(torch.complex128))
    x = normal(1, 2, 8, 9)
    other = maps.flip(0)
    expected = operators.mri((2, 8, 9), coil_maps=other).to(torch.float64).A(x)
    torch.testing.assert_close(physics.A(x, coil_maps=other), expected)


def phantom(n):
    from skimage.data import shepp_logan_phantom
    from skimage.transform import resize

    t = torch.linspace(-1, 1, n)
    magnitude = torch.from_numpy(resize(shepp_logan_phantom(), (n, n), anti_aliasing=True)).float()
    z = torch.polar(magnitude, 1.5 * t[:, None] * t + t[:, None])
    return torch.stack((z.real, z.imag))[None]


def unexplained(maps, coil_images):
    """Share of the coil images' energy that no single image explains through the maps."""
    unit = maps / maps.abs().square().sum(0).sqrt()
    image = (unit.conj() * coil_images).sum(0)
    return (
        (coil_images - unit * image).abs().square().sum() / coil_images.abs().square().sum()
    ).item()


def test_estimated_coil_maps_explain_the_data_nearly_as_well_as_the_true_ones():
    pytest.importorskip("sigpy")
    n, x = 48, phantom(48)
    physics = operators.mri((2, n, n), coils=6, acceleration=1.5, centre_fraction=0.5, noise=0.002)
    maps = estimate_coil_maps(operators.measure(physics, x, seed=0))
    assert maps.shape == (6, n, n)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(n, n))
    true = physics.coil_maps[0]
    coil_images = true * to_complex(x)
    assert unexplained(maps, coil_images) < 1e-4
    swapped = unexplained(true.roll(1, 0), coil_images)
    assert swapped > 0.1
    again = operators.mri((2, n, n), coil_maps=maps, acceleration=1.5, centre_fraction=0.5)
    assert again.coil_maps.shape == (1, 6, n, n)


# off the grid


def direct_sums(points, x):
    z = to_complex(x)
    grid = [torch.arange(n, dtype=torch.float64) - n // 2 for n in x.shape[2:]]
    r = torch.stack(torch.meshgrid(*grid, indexing="ij")).flatten(1)
    waves = torch.exp(-2j * torch.pi * (points @ r))
    return z.flatten(1).to(torch.complex128) @ waves.T / z[0].numel() ** 0.5


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 12, 15), {"shots": 7}),
        ((2, 11, 14), {"trajectory": "spiral", "shots": 3, "golden": True}),
        ((2, 6, 7, 8), {"shots": 9}),
    ],
)
def test_trajectories_measure_the_sums_by_definition(shape, options):
    pytest.importorskip("finufft")
    physics = operators.noncartesian(shape, normalise=False, **options)
    assert physics.points.abs().max() <= 0.5
    x = normal(2, *shape)
    expected = direct_sums(physics.points, x)
    for dtype, tol in [(torch.float32, 2e-5), (torch.float64, 1e-10)]:
        y = to_complex(physics.to(dtype).A(x.to(dtype))).to(torch.complex128)
        assert (y - expected).norm() <= tol * expected.norm()


@pytest.mark.parametrize("coils", [1, 3])
@pytest.mark.parametrize("trajectory", ["radial", "spiral"])
def test_trajectories_have_an_exact_adjoint_unit_norm_and_gradients(trajectory, coils):
    pytest.importorskip("finufft")
    shape = (2, 11, 14)
    for dtype, tol in [(torch.float32, 1e-6), (torch.float64, 1e-12)]:
        physics = operators.noncartesian(shape, trajectory=trajectory, shots=9, coils=coils)
        physics = physics.to(dtype)
        u = normal(2, *shape, dtype=dtype).requires_grad_()
        y = physics.A(u)
        v = normal(*y.shape, seed=1, dtype=dtype)
        (vjp,) = torch.autograd.grad(y, u, v)
        torch.testing.assert_close(vjp, physics.A_adjoint(v), atol=10 * tol, rtol=0)
        gap = (y.double() * v).sum() - (u.double() * vjp).sum()
        assert gap.abs() <= tol * y.norm() * v.norm()
        gram = physics.A_adjoint_A(u)
        torch.testing.assert_close(gram, physics.A_adjoint(y), atol=10 * tol, rtol=0)
    matrix = physics.A(torch.eye(308).double().reshape(-1, *shape)).flatten(1)
    norm = torch.linalg.matrix_norm(matrix, ord=2).item()
    assert (norm == pytest.approx(1, rel=1e-4)) if coils == 1 else (0.5 < norm <= 1)
    small = operators.noncartesian((2, 3, 4), trajectory=trajectory, shots=2, coils=coils)
    small, x = small.to(torch.float64), normal(1, 2, 3, 4).requires_grad_()
    # threads add in the order in which they come: sums of tens of numbers near 1 differ by rounding
    assert torch.autograd.gradgradcheck(lambda x: small.A(x).square(), x, nondet_tol=1e-12)


@pytest.mark.parametrize("size", [(9, 8), (4, 5, 6)])
def test_grid_as_a_trajectory_is_cartesian(size):
    pytest.importorskip("finufft")
    grid = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in size]
    points = torch.stack(torch.meshgrid(*grid, indexing="ij"), -1).flatten(0, -2)
    x = normal(1, 2, *size)
    physics = operators.noncartesian((2, *size), trajectory=points, coils=3).to(torch.float64)
    expected = double("mri:acceleration=1,coils=3", (2, *size)).A(x)
    torch.testing.assert_close(physics.A(x), expected.flatten(3), atol=2e-6, rtol=0)
    maps = birdcage(size, 2)
    expected = operators.mri((2, *size), acceleration=1, coil_maps=maps).to(torch.float64).A(x)
    found = physics.A(x, coil_maps=maps)
    torch.testing.assert_close(found, expected.flatten(3), atol=2e-6, rtol=0)
    torch.testing.assert_close(physics.A_adjoint_A(x), physics.A_adjoint(found), atol=1e-9, rtol=0)


@pytest.mark.filterwarnings("ignore:Samples will be rescaled")
def test_trajectories_agree_with_deepinv():
    pytest.importorskip("mrinufft")
    theirs = deepinv.physics.NonCartesianMRI(
        (16, 20), num_shots=8, num_samples_per_shot=30, in_out=True
    )
    points = torch.from_numpy(theirs.samples.reshape(-1, 2).astype(np.float64))
    ours = operators.noncartesian((2, 16, 20), trajectory=points, normalise=False)
    x = normal(1, 2, 16, 20, dtype=torch.float32)
    # mri-nufft divides by the root of twice as many pixels along every axis
    torch.testing.assert_close(ours.A(x) / 2, theirs.A(x)[:, :, 0], atol=2e-5, rtol=0)


# refusals


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((1, 8, 8), {}, "expected 2"),
        ((2, 8, 32), {"acceleration": 8, "centre_fraction": 0.5}, "lower centre_fraction"),
        ((2, 8, 32), {"acceleration": 0.5}, "acceleration is 0.5"),
        ((2, 9, 9), {"pattern": "poisson", "acceleration": 40, "centre_fraction": 0.5}, "16 of 81"),
        ((2, 8, 32), {"pattern": "uniform", "acceleration": 2.5}, "expected a whole number"),
        ((2, 8, 32), {"pattern": "uniform", "acceleration": 33}, "from 1 to 32"),
        ((2, 8, 32), {"pattern": "poison"}, "did you mean 'poisson'"),
        ((2, 8, 32), {"coils": 0}, "coils is 0"),
        ((2, 8, 32), {"coil_maps": torch.ones(2, 8, 8) + 0j}, r"expected \(N, 8, 32\)"),
        ((2, 8, 32), {"coil_maps": torch.ones(2, 8, 32)}, "expected finite complex"),
        ((2, 8, 32), {"coil_maps": torch.full((2, 8, 32), torch.nan + 0j)}, "expected finite"),
        ((2, 8, 32), {"mask": torch.full((8, 32), 0.5)}, "values besides 0 and 1"),
        ((2, 8, 32), {"mask": torch.ones(32, 8)}, r"shape \(32, 8\) but the image is 8x32"),
        ((2, 8, 32), {"mask": torch.zeros(8, 32)}, "measures no sample"),
        ((2, 4, 8, 32), {"mask": torch.ones(8, 32)}, "phase encodings are 4x32"),
        ((2, 8, 32), {"mask": torch.ones(8, 32), "file": "mask.png"}, "expected one"),
        ((2, 8, 32), {"mask": torch.eye(8, 32).expand(2, 8, 32).cumsum(0) > 1}, "2 patterns"),
    ],
)
def test_mri_refusals(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        operators.mri(shape, **options)


def test_grey_mask_file_is_refused(tmp_path):
    from skimage import io

    plane = np.arange(64, dtype=np.uint8).reshape(8, 8)
    io.imsave(tmp_path / "grey.png", plane, check_contrast=False)
    with pytest.raises(ValueError, match="64 grey values"):
        operators.mri((2, 8, 8), file=tmp_path / "grey.png")


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((1, 8, 8), {}, "expected 2"),
        ((2, 8, 8), {"trajectory": "radical"}, "did you mean 'radial'"),
        ((2, 8, 8), {"shots": 0}, "shots is 0"),
        ((2, 8, 8, 8), {"trajectory": "spiral"}, "write slices:axis=0"),
        ((2, 8, 8), {"trajectory": torch.zeros(5, 3)}, r"expected \(S, 2\)"),
        ((2, 8, 8), {"trajectory": torch.ones(5, 2)}, "beyond 0.5"),
    ],
)
def test_noncartesian_refusals(shape, options, sentence):
    pytest.importorskip("finufft")
    with pytest.raises(ValueError, match=sentence):
        operators.noncartesian(shape, **options)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "finufft", None)
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    with pytest.raises(ValueError, match=r"needs the package finufft, .*`pip install finufft"):
        operators.parse("noncartesian", (2, 8, 8))
    y = operators.mri((2, 32, 32), coils=2, acceleration=1).A(torch.ones(1, 2, 32, 32))
    with pytest.raises(ValueError, match=r"needs the package sigpy, .*`pip install sigpy"):
        estimate_coil_maps(y + 1)


@pytest.mark.parametrize(
    ("acceleration", "options", "shape", "sentence"),
    [
        (4, {}, (1, 2, 2, 32, 32), "were not measured"),
        (1, {"calibration": 40}, (1, 2, 2, 32, 32), "k-space only 32x32"),
        (1, {"calibration": 4}, (1, 2, 2, 32, 32), "kernel is 6"),
        (1, {}, (2, 2, 2, 32, 32), "one image at a time"),
    ],
)
def test_coil_maps_are_not_estimated_from_too_little(acceleration, options, shape, sentence):
    mask = sampling_mask((32, 32), acceleration=acceleration)
    with pytest.raises(ValueError, match=sentence):
        estimate_coil_maps(normal(*shape) * mask, **options)
