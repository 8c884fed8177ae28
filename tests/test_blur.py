"""Blur: kernels, and convolution by its definition under every boundary."""

import math

import deepinv
import numpy as np
import pytest
import torch
from scipy import ndimage

import operators
from operators.convolution import CircularBlur
from operators.kernels import disk_kernel, gaussian_kernel, motion_kernel, outer, separate
from operators.lens import radial_weights
from operators.separable import Separable

F64 = torch.float64
MODES = {"reflect": "mirror", "replicate": "nearest", "zero": "constant", "circular": "wrap"}


def normal(*shape, seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64).to(dtype)


def spread(*size):
    kernel = normal(*size).abs()
    return kernel / kernel.sum()


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7])
def test_gaussian_kernel_has_unit_sum_and_its_variance(sigma):
    kernel = gaussian_kernel(sigma)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-12)
    t = torch.arange(len(kernel), dtype=F64) - len(kernel) // 2
    # sampling a Gaussian keeps its variance once it is a pixel wide
    if sigma >= 1:
        assert (kernel.sum(0) * t**2).sum().item() == pytest.approx(sigma**2, rel=2e-3)


def test_motion_along_a_row_is_a_box():
    torch.testing.assert_close(motion_kernel(5, 0), torch.full((1, 5), 0.2, dtype=F64))
    torch.testing.assert_close(motion_kernel(5, 90), torch.full((5, 1), 0.2, dtype=F64))


@pytest.mark.parametrize("angle", [0.0, 17.0, 45.0, 90.0, 135.0, -60.0])
def test_motion_has_its_direction(angle):
    kernel = motion_kernel(21, angle)
    assert kernel.sum().item() == pytest.approx(1)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    row = torch.arange(kernel.shape[0], dtype=F64) - kernel.shape[0] // 2
    column = torch.arange(kernel.shape[1], dtype=F64) - kernel.shape[1] // 2
    xx = (kernel.sum(0) * column**2).sum()
    yy = (kernel.sum(1) * row**2).sum()
    xy = (kernel * column * -row[:, None]).sum()
    direction = math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) % 180
    assert min(abs(direction - angle % 180), 180 - abs(direction - angle % 180)) < 1.5


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("radius", [4.0, 7.3])
def test_disk_has_the_spread_of_a_round_aperture(radius, dims):
    kernel = disk_kernel(radius, dims)
    assert kernel.sum().item() == pytest.approx(1)
    torch.testing.assert_close(kernel, kernel.flip(0).movedim(0, -1))
    profile = kernel.flatten(1).sum(1)
    t = torch.arange(len(profile), dtype=F64) - len(profile) // 2
    # the variance along a diameter is r^2 / (dims + 2)
    assert (profile * t**2).sum().item() == pytest.approx(radius**2 / (dims + 2), rel=0.05)
    torch.testing.assert_close(disk_kernel(0.3, dims), torch.ones([1] * dims, dtype=F64))


def test_products_are_recognised():
    taps = (spread(3), spread(4), spread(2))
    for found, expected in zip(separate(outer(taps)), taps, strict=True):
        torch.testing.assert_close(found, expected)
    assert separate(disk_kernel(2.0)) is None
    assert isinstance(
        operators.blur((1, 9, 9), kernel=outer(taps[:2]), boundary="reflect"), Separable
    )


@pytest.mark.parametrize("size", [(3, 3), (2, 3), (4, 6), (9, 11), (1, 1), (15, 12)])
def test_circular_blur_is_a_product_of_fourier_transforms(size):
    kernel, shape = spread(*size), (2, 15, 12)
    physics = operators.blur(shape, kernel=kernel)
    x = normal(1, *shape)
    padded = torch.zeros(shape[1:], dtype=F64)
    padded[: size[0], : size[1]] = kernel
    padded = padded.roll((-(size[0] // 2), -(size[1] // 2)), (0, 1))
    expected = torch.fft.ifft2(torch.fft.fft2(x) * torch.fft.fft2(padded)).real
    torch.testing.assert_close(physics.A(x), expected, rtol=0, atol=1e-13)
    theirs = deepinv.physics.BlurFFT(img_size=shape, filter=kernel[None, None])
    # deepinv's filter_fft puts the centre of an even kernel a pixel earlier
    if size[0] % 2 and size[1] % 2:
        torch.testing.assert_close(physics.A(x), theirs.A(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [(2, 3), (9, 8), (3, 2, 4)])
def test_valid_blur_is_the_inside_of_a_full_convolution(size):
    from scipy.signal import convolve

    kernel, shape = spread(*size), (1, 15, 12, 11)[: 1 + len(size)]
    physics = operators.blur(shape, kernel=kernel, boundary="valid")
    x = normal(1, *shape)
    expected = convolve(x[0, 0].numpy(), kernel.numpy(), mode="valid", method="direct")
    np.testing.assert_allclose(physics.A(x)[0, 0].numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize("size", [(3, 5), (4, 2), (9, 9), (3, 2, 4), (5, 3, 3)])
def test_blur_is_that_of_scipy(boundary, size):
    kernel, shape = spread(*size), (2, 9, 12, 10)[: 1 + len(size)]
    x = normal(1, *shape)
    y = operators.blur(shape, kernel=kernel, boundary=boundary).A(x)
    for plane, blurred in zip(x[0], y[0], strict=True):
        expected = ndimage.convolve(plane.numpy(), kernel.numpy(), mode=MODES[boundary])
        # scipy centres an even kernel at K // 2 too, after turning it around
        np.testing.assert_allclose(blurred.numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("boundary", MODES)
def test_gaussian_volume_is_blurred_axis_by_axis(boundary):
    shape = (1, 17, 23, 18)
    x = normal(1, *shape)
    y = operators.blur(shape, sigma=1.5, sigma_z=0.7, boundary=boundary).A(x)[0, 0]
    expected = x[0, 0].numpy()
    for axis, sigma in enumerate((0.7, 1.5, 1.5)):
        taps = gaussian_kernel(sigma).sum(0).numpy()
        expected = ndimage.convolve1d(expected, taps, axis=axis, mode=MODES[boundary])
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("boundary", ["circular", "valid", "reflect", "replicate"])
@pytest.mark.parametrize("spec", ["sigma=1", "kernel=box,width=4", "kernel=disk,radius=2"])
@pytest.mark.parametrize("shape", [(1, 13, 12), (1, 11, 12, 13)])
def test_constants_stay(boundary, spec, shape):
    physics = operators.parse(f"blur:{spec},boundary={boundary}", shape)
    y = physics.A(torch.full((1, *shape), 0.7, dtype=F64))
    torch.testing.assert_close(y, torch.full_like(y, 0.7), rtol=0, atol=1e-14)


@pytest.mark.parametrize("boundary", ["circular", "valid", "reflect", "replicate"])
@pytest.mark.parametrize("size", [(5, 3), (4, 6), (3, 4, 5)])
def test_blur_agrees_with_deepinv(boundary, size):
    kernel, shape = spread(*size), (2, 12, 15, 13)[: 1 + len(size)]
    x = normal(2, *shape)
    theirs = deepinv.physics.Blur(filter=kernel[None, None], padding=boundary)
    ours = operators.blur(shape, kernel=kernel, boundary=boundary)
    y = ours.A(x)
    torch.testing.assert_close(y, theirs.A(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(ours.A_adjoint(y), theirs.A_adjoint(y), rtol=0, atol=1e-13)


def test_a_circular_blur_fits_every_size_and_its_gram_spectrum_with_it():
    physics = operators.blur((1, 16, 16), kernel=spread(4, 3))
    for size in [(16, 16), (9, 20)]:
        power = torch.fft.fft2(normal(1, 1, *size)).abs().square()
        v = normal(1, 1, *size, seed=1)
        C = torch.fft.ifft2(power * torch.fft.fft2(physics.A_adjoint(v))).real
        expected = torch.fft.ifft2(physics.gram_spectrum(power) * torch.fft.fft2(v)).real
        torch.testing.assert_close(physics.A(C), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel", [gaussian_kernel(2.5), spread(6, 5), motion_kernel(9, 25.0)])
def test_circular_inverses_are_those_of_the_decomposition(kernel):
    physics = operators.blur((1, 24, 23), kernel=kernel).to(F64)
    z, y = normal(2, 1, 24, 23), physics.A(normal(2, 1, 24, 23, seed=1))
    general = super(CircularBlur, physics)
    torch.testing.assert_close(physics.A_dagger(y), general.A_dagger(y), rtol=0, atol=1e-9)
    gamma = torch.tensor([0.3, 20.0], dtype=F64)
    expected = general.prox_l2(z, y, gamma)
    torch.testing.assert_close(physics.prox_l2(z, y, gamma), expected, rtol=0, atol=1e-12)


def test_the_kernel_of_a_circular_blur_stays():
    with pytest.raises(ValueError, match=r"build another with operators\.blur"):
        operators.blur((1, 16, 16), sigma=1).update_parameters(filter=torch.ones(1, 1, 3, 3))


def test_kernel_from_file(tmp_path):
    from skimage import io

    plane = np.zeros((5, 3), dtype=np.uint8)
    plane[1, 2], plane[3, 0] = 200, 50
    io.imsave(tmp_path / "k.png", plane, check_contrast=False)
    np.save(tmp_path / "k.npy", plane / 250)
    for name in ("k.png", "k.npy"):
        kernel = operators.blur((1, 9, 9), file=tmp_path / name).filter[0, 0]
        torch.testing.assert_close(kernel, torch.from_numpy(plane / 250).float())
    volume = np.arange(1.0, 25).reshape(2, 3, 4)
    np.save(tmp_path / "v.npy", volume)
    kernel = operators.blur((1, 9, 9, 9), file=tmp_path / "v.npy").filter[0, 0]
    torch.testing.assert_close(kernel, torch.from_numpy(volume / 300).float())
    with pytest.raises(ValueError, match=r"shape \(5, 3\), expected a real volume"):
        operators.blur((1, 9, 9, 9), file=tmp_path / "k.npy")
    with pytest.raises(ValueError, match="cannot be read as"):
        operators.blur((1, 9, 9, 9), file=tmp_path / "k.png")
    with pytest.raises(FileNotFoundError, match="none"):
        operators.blur((1, 9, 9, 9), file=tmp_path / "none.npy")


def test_the_clean_shape_follows_from_the_blurred_one(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((2, 3, 4)))
    for spec, shape in [
        ("sigma=1", (2, 30, 40)),
        ("sigma=1,sigma_z=0.5", (1, 20, 30, 40)),
        ("kernel=box,width=4", (1, 9, 8, 10)),
        ("kernel=motion,length=7", (1, 9, 9)),
        (f"file={tmp_path / 'v.npy'}", (1, 9, 8, 10)),
    ]:
        for boundary in ("circular", "valid", "reflect", "zero"):
            full = f"blur:{spec},boundary={boundary}"
            y = operators.parse(full, shape).A(torch.zeros(1, *shape))
            assert operators.image_shape_from(full, tuple(y.shape[1:])) == shape


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((3, 12, 40), {}, r"17x17 pixels but the image only 12x40"),
        ((1, 4, 40, 40), {"sigma": 1}, r"9x9x9 voxels but the image only 4x40x40"),
        ((1, 400, 400, 400), {"sigma": 100}, "801x801x801 voxels"),
        ((1, 40, 40), {"sigma_z": 1.0}, "sigma_z is 1.0 but the image is flat"),
        ((1, 9, 9, 9), {"sigma_z": -1.0, "sigma": 0.5}, "sigma_z is -1.0, expected a number"),
        ((1, 9, 9, 9), {"kernel": "motion"}, "motion blurs flat images but the image is a volume"),
        ((1, 9, 9), {"kernel": "disc"}, "did you mean 'disk'"),
        ((1, 9, 9), {"kernel": "box", "width": 0}, "width is 0, expected a whole number"),
        ((1, 9, 9), {"kernel": "disk", "radius": 0}, "radius is 0, expected a number"),
        ((1, 9, 9), {"boundary": "symmetric"}, "boundary 'symmetric' is unknown"),
        ((1, 9, 9), {"kernel": torch.ones(2, 2, 2)}, r"expected a real plane \(K, L\)"),
    ],
)
def test_refusals(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        operators.blur(shape, **options)


# lens


@pytest.mark.parametrize("size", [(16, 24), (15, 15), (1, 9)])
def test_rings_of_a_lens_share_every_pixel(size):
    weights = radial_weights(size, 4)
    torch.testing.assert_close(weights.sum(0), torch.ones(size, dtype=F64))
    assert weights[-1, 0, 0] == 1
    assert weights[0].argmax() in (
        size[0] // 2 * size[1] + size[1] // 2,
        (size[0] - 1) // 2 * size[1] + (size[1] - 1) // 2,
    )


def test_a_lens_is_its_gaussian_in_the_centre_and_in_the_corner():
    shape = (2, 41, 41)
    lens = operators.lens(shape, sigma=0.6, edge_sigma=2.0, levels=3)
    x = normal(1, *shape, dtype=torch.float32)
    y = lens.A(x)
    for sigma, place in [(0.6, (..., 20, 20)), (2.0, (..., 0, 0)), (2.0, (..., 40, 0))]:
        expected = operators.blur(shape, sigma=sigma, boundary="reflect").A(x)
        torch.testing.assert_close(y[place], expected[place], rtol=0, atol=1e-5)
    ones = torch.ones(1, *shape)
    torch.testing.assert_close(lens.A(ones), ones, rtol=0, atol=1e-5)


@pytest.mark.parametrize("boundary", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [(17, 17), (18, 24), (23, 31), (40, 19)])
def test_the_adjoint_of_a_lens_is_exact(boundary, size):
    lens = operators.lens((1, *size), edge_sigma=2.0, boundary=boundary).to(F64)
    x, v = normal(2, 1, *size), normal(2, 1, *size, seed=1)
    gap = (lens.A(x) * v).sum() - (x * lens.A_adjoint(v)).sum()
    assert gap.abs() <= 1e-12 * lens.A(x).norm() * v.norm()


def test_lens_refusals():
    with pytest.raises(ValueError, match=r"widest kernel is 25x25 pixels but the image only 20x40"):
        operators.lens((1, 20, 40))
    with pytest.raises(ValueError, match="levels is 1, expected a whole number"):
        operators.lens((1, 40, 40), levels=1)
    with pytest.raises(ValueError, match="edge_sigma is 0"):
        operators.lens((1, 40, 40), edge_sigma=0)
