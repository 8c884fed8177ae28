"""Operators: adjoints over awkward sizes, and what each of them is by definition."""

import math

import deepinv
import numpy as np
import pytest
import torch

import operators
from operators.downsample import aligned_filter
from operators.kernels import gaussian_kernel, motion_kernel
from operators.mri import cartesian_mask

ANY_SIZE = [(3, 24, 24), (3, 23, 31), (1, 40, 17)]
CASES = [
    *[("denoise", s) for s in ANY_SIZE],
    *[("blur:sigma=1.5", s) for s in ANY_SIZE],
    *[("blur:sigma=1,boundary=valid", s) for s in ANY_SIZE],
    *[("blur:sigma=0.4", s) for s in ANY_SIZE],
    *[("blur:kernel=motion,length=9,angle=30", s) for s in ANY_SIZE],
    *[("mask:keep=0.3,seed=3", s) for s in ANY_SIZE],
    *[("mask:box=5x7+2+3", s) for s in ANY_SIZE],
    *[("mask:lines=4,thickness=2,direction=vertical", s) for s in ANY_SIZE],
    *[(f"downsample:factor={f}", (3, f * 7, f * 8)) for f in (2, 3, 4, 8)],
    *[(f"downsample:factor=3,filter={w}", (1, 33, 27)) for w in ("bilinear", "gaussian")],
    *[("cs:ratio=0.3", s) for s in ANY_SIZE],
    *[("cs:ratio=0.3,kind=dense", s) for s in ANY_SIZE],
    *[("ct:angles=9", s) for s in [(1, 16, 16), (2, 17, 17)]],
    *[("mri:acceleration=3", s) for s in [(2, 24, 24), (2, 23, 31)]],
    *[("mri:coils=3", s) for s in [(2, 24, 24), (2, 23, 31)]],
    *[("decolorise", s) for s in [(3, 24, 24), (3, 23, 31)]],
]
ALL = pytest.mark.parametrize(("spec", "shape"), CASES)
PRECISION = pytest.mark.parametrize(
    ("dtype", "tol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)]
)


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def double(spec, shape):
    return operators.parse(spec, shape).to(torch.float64)


@PRECISION
@ALL
def test_adjoint(spec, shape, dtype, tol):
    physics = operators.parse(spec, shape).to(dtype)
    u = normal(2, *shape, dtype=dtype)
    y = physics.A(u)
    v = normal(*y.shape, seed=1, dtype=dtype)
    assert y.dtype == physics.A_adjoint(v).dtype == dtype
    gap = ((y * v).sum() - (u * physics.A_adjoint(v)).sum()).abs()
    assert gap <= tol * y.norm() * v.norm()


@ALL
def test_linear_and_batch_free(spec, shape):
    physics = double(spec, shape)
    x, z = normal(3, *shape), normal(3, *shape, seed=1)
    expected = 2 * physics.A(x) - 3 * physics.A(z)
    torch.testing.assert_close(physics.A(2 * x - 3 * z), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(physics.A(x)[1:2], physics.A(x[1:2]), rtol=0, atol=1e-12)


@ALL
def test_back_propagation_is_the_adjoint(spec, shape):
    physics = double(spec, shape)
    x = normal(1, *shape).requires_grad_()
    y = physics.A(x)
    v = normal(*y.shape, seed=1).requires_grad_()
    (vjp,) = torch.autograd.grad(y, x, v)
    torch.testing.assert_close(vjp, physics.A_adjoint(v), rtol=0, atol=1e-11)
    (jvp,) = torch.autograd.grad(physics.A_adjoint(v), v, x.detach())
    torch.testing.assert_close(jvp, y, rtol=0, atol=1e-11)


@ALL
def test_pseudo_inverse_explains_the_measurement(spec, shape):
    physics = double(spec, shape)
    y = physics.A(normal(1, *shape).abs())
    assert (physics.A(physics.A_dagger(y)) - y).norm() <= 2e-3 * y.norm()


@ALL
def test_prox_satisfies_its_optimality_condition(spec, shape):
    physics, gamma = double(spec, shape), 3.0
    z = normal(1, *shape)
    y = physics.A(normal(1, *shape, seed=1))
    x = physics.prox_l2(z, y, gamma)
    gradient = gamma * physics.A_adjoint(physics.A(x) - y) + x - z
    assert gradient.norm() <= 1e-5 * (gamma * physics.A_adjoint(y) + z).norm()


@pytest.mark.parametrize("spec", ["blur:boundary=valid,sigma=1", "ct:angles=5", "mri:coils=2"])
def test_options_of_one_call_do_not_reach_the_next(spec):
    shape = (2, 16, 16)
    physics = double(spec, shape)
    y = physics.A(normal(1, *shape))
    before = physics.A_dagger(y)
    physics.A_dagger(y, max_iter=1, tol=0.5)
    physics.prox_l2(torch.zeros(1, *shape, dtype=torch.float64), y, 1.0, max_iter=1)
    assert torch.equal(physics.A_dagger(y), before)


# blur


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7])
def test_gaussian_kernel_has_unit_sum_and_its_variance(sigma):
    kernel = gaussian_kernel(sigma)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-12)
    t = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    # sampling a Gaussian keeps its variance once it is a pixel wide
    if sigma >= 1:
        assert (kernel.sum(0) * t**2).sum().item() == pytest.approx(sigma**2, rel=2e-3)


def test_motion_along_a_row_is_a_box():
    torch.testing.assert_close(motion_kernel(5, 0), torch.full((1, 5), 0.2, dtype=torch.float64))
    torch.testing.assert_close(motion_kernel(5, 90), torch.full((5, 1), 0.2, dtype=torch.float64))


@pytest.mark.parametrize("angle", [0.0, 17.0, 45.0, 90.0, 135.0, -60.0])
def test_motion_has_its_direction(angle):
    kernel = motion_kernel(21, angle)
    assert kernel.sum().item() == pytest.approx(1)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    row = torch.arange(kernel.shape[0], dtype=torch.float64) - kernel.shape[0] // 2
    column = torch.arange(kernel.shape[1], dtype=torch.float64) - kernel.shape[1] // 2
    xx = (kernel.sum(0) * column**2).sum()
    yy = (kernel.sum(1) * row**2).sum()
    xy = (kernel * column * -row[:, None]).sum()
    direction = math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) % 180
    assert min(abs(direction - angle % 180), 180 - abs(direction - angle % 180)) < 1.5


@pytest.mark.parametrize("size", [(3, 3), (2, 3), (4, 6), (9, 11)])
def test_circular_blur_is_a_product_of_fourier_transforms(size):
    kernel = normal(*size).abs()
    shape = (2, 15, 12)
    physics = operators.blur(shape, kernel=kernel).to(torch.float64)
    x = normal(1, *shape)
    padded = torch.zeros(shape[1:], dtype=torch.float64)
    padded[: size[0], : size[1]] = (kernel / kernel.sum()).float().double()
    padded = padded.roll((-(size[0] // 2), -(size[1] // 2)), (0, 1))
    expected = torch.fft.ifft2(torch.fft.fft2(x) * torch.fft.fft2(padded)).real
    torch.testing.assert_close(physics.A(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(2, 3), (9, 8)])
def test_valid_blur_is_the_inside_of_a_full_convolution(size):
    from scipy.signal import convolve2d

    kernel, shape = normal(*size).abs(), (1, 15, 12)
    physics = operators.blur(shape, kernel=kernel, boundary="valid").to(torch.float64)
    x = normal(1, *shape)
    plane = (kernel / kernel.sum()).float().double().numpy()
    expected = convolve2d(x[0, 0].numpy(), plane, mode="valid")
    np.testing.assert_allclose(physics.A(x)[0, 0].numpy(), expected, atol=1e-12)
    assert operators.image_shape_from("blur:boundary=valid,sigma=1", (1, 20, 30)) == (1, 28, 38)


def test_kernel_from_file(tmp_path):
    from skimage import io

    plane = np.zeros((5, 3), dtype=np.uint8)
    plane[1, 2], plane[3, 0] = 200, 50
    io.imsave(tmp_path / "k.png", plane, check_contrast=False)
    np.save(tmp_path / "k.npy", plane / 250)
    for name in ("k.png", "k.npy"):
        kernel = operators.blur((1, 9, 9), file=tmp_path / name).filter[0, 0]
        torch.testing.assert_close(kernel, torch.from_numpy(plane / 250).float())


def test_kernel_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"17x17 pixels but the image only 12x40"):
        operators.blur((3, 12, 40), sigma=2)


# mask


@pytest.mark.parametrize(("spec", "shape"), [c for c in CASES if c[0].startswith("mask")])
def test_masks_are_projections_shared_by_the_channels(spec, shape):
    physics = operators.parse(spec, shape)
    y = physics.A(torch.ones(1, *shape))
    assert torch.equal(physics.A(y), y)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert 0 < y.mean() < 1


def test_random_mask_keeps_the_fraction_and_follows_its_seed():
    def kept(seed):
        return operators.mask((2, 20, 30), keep=0.25, seed=seed).A(torch.ones(1, 2, 20, 30))

    assert kept(0).sum() == 2 * 150
    assert torch.equal(kept(0), kept(0))
    assert not torch.equal(kept(0), kept(1))


def test_box_and_lines_are_where_they_should_be():
    box = operators.parse("mask:box=4x6+1+2", (1, 10, 12)).A(torch.ones(1, 1, 10, 12))[0, 0]
    assert box.sum() == 120 - 24
    assert box[1:5, 2:8].sum() == 0
    middle = operators.parse("mask:box=4x6", (1, 10, 12)).A(torch.ones(1, 1, 10, 12))[0, 0]
    assert torch.equal(middle, middle.flip(0, 1))
    lines = operators.parse("mask:lines=3", (1, 9, 5)).A(torch.ones(1, 1, 9, 5))[0, 0]
    assert (lines[:, 0] == 0).nonzero().flatten().tolist() == [1, 4, 7]


def test_mask_file_must_fit_and_be_black_and_white(tmp_path):
    from skimage import io

    plane = np.zeros((6, 8), dtype=np.uint8)
    plane[2:4] = 255
    io.imsave(tmp_path / "m.png", plane, check_contrast=False)
    y = operators.mask((3, 6, 8), file=tmp_path / "m.png").A(torch.ones(1, 3, 6, 8))
    assert torch.equal(y[0, 0], torch.from_numpy(plane / 255).float())
    with pytest.raises(ValueError, match=r"6x8 pixels but the image 8x6"):
        operators.mask((3, 8, 6), file=tmp_path / "m.png")
    plane[0, 0] = 100
    io.imsave(tmp_path / "grey.png", plane, check_contrast=False)
    with pytest.raises(ValueError, match="3 grey values"):
        operators.mask((3, 6, 8), file=tmp_path / "grey.png")


@pytest.mark.parametrize(
    "options", [{"keep": 0}, {"keep": 1.5}, {"keep": math.nan}, {"keep": 0.2, "lines": 2}]
)
def test_bad_masks_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        operators.mask((1, 8, 8), **options)


# downsample


@pytest.mark.parametrize("word", ["bicubic", "bilinear", "gaussian"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_small_pixels_lie_in_the_middle_of_those_they_replace(word, factor):
    kernel = aligned_filter(word, factor).sum(0)
    t = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    assert kernel.sum().item() == pytest.approx(1)
    assert -(kernel * t).sum().item() == pytest.approx((factor - 1) / 2, abs=1e-9)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_downsampled_constant_is_the_constant(factor):
    shape = (2, factor * 6, factor * 7)
    y = double(f"downsample:factor={factor}", shape).A(torch.full((1, *shape), 0.3).double())
    torch.testing.assert_close(y, torch.full_like(y, 0.3), atol=1e-6, rtol=0)


def test_downsampling_is_that_of_image_libraries_away_from_the_border():
    x = normal(1, 1, 64, 64, dtype=torch.float32)
    y = operators.downsample((1, 64, 64), factor=4, filter="bilinear").A(x)
    expected = torch.nn.functional.interpolate(
        x, scale_factor=0.25, mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(y[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-5, rtol=0)


def test_downsampling_agrees_with_deepinv_on_the_same_filter():
    ours = operators.downsample((2, 24, 36), factor=3)
    theirs = deepinv.physics.Downsampling(
        img_size=(2, 24, 36), filter=ours.filter, factor=3, padding="circular"
    )
    x = normal(2, 2, 24, 36, dtype=torch.float32)
    torch.testing.assert_close(ours.A(x), theirs.A(x), atol=1e-5, rtol=0)
    y = normal(2, 2, 8, 12, dtype=torch.float32)
    torch.testing.assert_close(ours.A_adjoint(y), theirs.A_adjoint(y), atol=1e-5, rtol=0)


def test_indivisible_size_is_refused_with_the_crop_that_helps():
    with pytest.raises(ValueError, match=r"crop it to 20x28"):
        operators.downsample((1, 23, 30), factor=4)


# compressed sensing


@pytest.mark.parametrize("shape", [(3, 15, 20), (1, 16, 16)])
def test_structured_rows_are_orthonormal(shape):
    physics = double("cs:ratio=0.4,seed=5", shape)
    y = normal(2, shape[0], round(0.4 * shape[1] * shape[2]))
    torch.testing.assert_close(physics.A(physics.A_adjoint(y)), y, atol=1e-12, rtol=0)


def test_structured_columns_are_incoherent():
    columns = double("cs:ratio=0.25", (1, 16, 16)).A(torch.eye(256).double().reshape(-1, 1, 16, 16))
    unit = torch.nn.functional.normalize(columns[:, 0], dim=1)
    coherence = (unit @ unit.T).fill_diagonal_(0).abs().max()
    # 64 random numbers give about sqrt(2 log(256^2 / 2) / 64) = 0.57; one layer gives 0.99
    assert coherence < 0.7


def test_dense_matrix_is_refused_above_its_budget_in_bytes():
    need = 4 * 64 * 256
    options = {"kind": "dense", "ratio": 0.25}
    operators.compressed_sensing((3, 16, 16), **options, memory_budget=need)
    with pytest.raises(ValueError, match=f"needs {need} bytes"):
        operators.compressed_sensing((3, 16, 16), **options, memory_budget=need - 1)
    with pytest.raises(ValueError, match=f"needs {4 * 65536 * 262144} bytes"):
        operators.parse("cs:kind=dense", (3, 512, 512))


# CT


def test_projection_at_zero_degrees_sums_the_columns():
    physics = operators.ct((1, 16, 16), angles=4).to(torch.float64)
    x = normal(1, 1, 16, 16)
    y = physics.A(x)[0, 0, :, 0] * physics.operator_norm
    assert y.shape == (math.ceil(math.sqrt(2) * 16),)
    torch.testing.assert_close(y[y.abs() > 1e-4], x[0, 0].sum(0), atol=1e-5, rtol=0)


def test_ct_has_unit_norm_and_keeps_mass():
    physics = operators.ct((1, 24, 24), angles=12)
    report = operators.check(physics, (1, 24, 24))
    norms = [row.value for row in report.rows if row.name == "norm"]
    assert norms == pytest.approx([1, 1], abs=2e-2)
    t = torch.linspace(-1, 1, 24)
    blob = torch.exp(-8 * (t[:, None] ** 2 + (t - 0.2) ** 2))
    mass = physics.A(blob[None, None]).sum(-2)
    torch.testing.assert_close(mass, mass.mean().expand_as(mass), rtol=2e-3, atol=0)


def test_oblong_slice_is_refused():
    with pytest.raises(ValueError, match="pad it to 20x20"):
        operators.ct((1, 16, 20))


# MRI


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 15, 21)])
def test_full_mri_is_orthonormal_and_equal_to_numpy(shape):
    physics = double("mri:acceleration=1", shape)
    x = normal(2, *shape)
    y = physics.A(x)
    torch.testing.assert_close(physics.A_adjoint(y), x, atol=1e-12, rtol=0)
    image = np.fft.ifftshift((x[0, 0] + 1j * x[0, 1]).numpy())
    expected = np.fft.fftshift(np.fft.fft2(image, norm="ortho"))
    np.testing.assert_allclose((y[0, 0] + 1j * y[0, 1]).numpy(), expected, atol=1e-12)


def test_coil_maps_have_unit_sum_of_squares_and_make_a_full_scan_orthonormal():
    maps = operators.birdcage((20, 15), 5)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(20, 15))
    physics = double("mri:acceleration=1,coils=5", (2, 20, 15))
    x = normal(1, 2, 20, 15)
    torch.testing.assert_close(physics.A_adjoint(physics.A(x)), x, atol=1e-6, rtol=0)


def test_coil_maps_stay_complex_in_double_precision():
    maps = torch.complex(normal(3, 8, 9), normal(3, 8, 9, seed=1)).to(torch.complex64)
    physics = operators.mri((2, 8, 9), coil_maps=maps).to(torch.float64)
    assert physics.coil_maps.dtype == torch.complex128
    torch.testing.assert_close(physics.coil_maps[0], maps.to(torch.complex128))


@pytest.mark.parametrize("width", [32, 45])
def test_cartesian_mask_has_its_acceleration_and_centre(width):
    mask = cartesian_mask((8, width), 4, 0.1, seed=0)
    assert mask[0].sum() == round(width / 4)
    assert torch.equal(mask, mask[:1].expand(8, width))
    centre = round(0.1 * width)
    first = width // 2 - centre // 2
    assert mask[0, first : first + centre].all()
    assert not torch.equal(mask, cartesian_mask((8, width), 4, 0.1, seed=1))


def test_mri_refusals():
    with pytest.raises(ValueError, match="expected 2"):
        operators.mri((1, 8, 8))
    with pytest.raises(ValueError, match="lower centre_fraction"):
        operators.mri((2, 8, 32), acceleration=8, centre_fraction=0.5)
    with pytest.raises(ValueError, match=r"expected \(N, 8, 32\)"):
        operators.mri((2, 8, 32), coil_maps=torch.ones(2, 8, 8, dtype=torch.complex64))


# colour


def test_grey_image_keeps_its_grey():
    grey = normal(2, 1, 9, 7)
    y = double("decolorise", (3, 9, 7)).A(grey.expand(2, 3, 9, 7))
    torch.testing.assert_close(y, grey, atol=1e-6, rtol=0)


def test_decolorise_weighs_the_channels_as_luma():
    x = torch.eye(3).reshape(3, 3, 1, 1)
    y = operators.decolorise((3, 1, 1)).A(x).flatten()
    torch.testing.assert_close(y, torch.tensor([0.299, 0.587, 0.114]), atol=1e-6, rtol=0)


# noise


@pytest.mark.parametrize("spec", ["denoise", "mask:keep=0.5", "mri", "mri:coils=2"])
def test_noise_follows_the_seed_alone(spec):
    shape = (2, 16, 16)
    physics = operators.parse(spec, shape, noise=0.1)
    x = normal(4, *shape, dtype=torch.float32)
    state = torch.random.get_rng_state()
    y = operators.measure(physics, x, seed=0)
    physics(x)
    assert torch.equal(operators.measure(physics, x, seed=0), y)
    assert not torch.equal(operators.measure(physics, x, seed=1), y)
    assert torch.equal(operators.measure(physics, x[:2], seed=0), y[:2])
    assert torch.equal(torch.random.get_rng_state(), state)
    double_precision = operators.measure(physics.to(torch.float64), x.double(), seed=0)
    torch.testing.assert_close(double_precision.float(), y)


def test_noise_has_its_level_and_stays_off_missing_pixels():
    shape = (1, 64, 64)
    y = operators.measure(operators.denoise(shape, noise=0.2), torch.zeros(1, *shape), seed=0)
    assert y.std().item() == pytest.approx(0.2, rel=4 / math.sqrt(2 * 4096))
    physics = operators.mask(shape, keep=0.5, noise=0.2)
    y = operators.measure(physics, torch.zeros(1, *shape), seed=0)
    assert torch.equal(y != 0, physics.mask != 0)


def test_new_operators_repeat_themselves():
    x = torch.zeros(1, 1, 8, 8)
    first, second = (operators.denoise((1, 8, 8), noise=0.1) for _ in range(2))
    y = first(x)
    assert torch.equal(second(x), y)
    assert not torch.equal(first(x), y)


def test_measure_with_noise_that_only_knows_the_global_generator():
    physics = operators.denoise((1, 8, 8))
    physics.noise_model = deepinv.physics.GammaNoise(l=4.0)
    x = torch.ones(1, 1, 8, 8)
    state = torch.random.get_rng_state()
    y = operators.measure(physics, x, seed=3)
    assert torch.equal(operators.measure(physics, x, seed=3), y)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_noise_sigma():
    assert operators.noise_sigma(operators.denoise((1, 8, 8))) == 0.0
    assert operators.noise_sigma(operators.denoise((1, 8, 8), noise=0.1)) == pytest.approx(0.1)
    physics = operators.denoise((1, 8, 8))
    physics.noise_model = operators.GaussianNoise(torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(operators.noise_sigma(physics), torch.tensor([0.1, 0.2]))
    y = operators.measure(physics, torch.zeros(2, 1, 64, 64), seed=0)
    assert y.flatten(1).std(1).tolist() == pytest.approx([0.1, 0.2], rel=0.05)
    physics.noise_model = deepinv.physics.PoissonNoise()
    with pytest.raises(ValueError, match="PoissonNoise, expected Gaussian"):
        operators.noise_sigma(physics)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf, "much"])
def test_bad_noise_is_refused(noise):
    with pytest.raises(ValueError, match=f"noise is {noise}, expected"):
        operators.denoise((1, 8, 8), noise=noise)


@pytest.mark.parametrize("shape", [(8, 8), (1, 0, 8), (1, 8, 8.5), (2, 1, 1, 8, 8)])
@pytest.mark.parametrize("name", ["denoise", "blur", "mask", "downsample", "ct"])
def test_bad_shapes_are_refused(name, shape):
    with pytest.raises(ValueError, match="expected"):
        operators.parse(name, shape)


@pytest.mark.parametrize("name", ["blur", "downsample", "ct"])
def test_single_pixel_is_refused(name):
    with pytest.raises(ValueError, match="1x1"):
        operators.parse(name, (1, 1, 1))
