"""Nonlinear operators: invariances, inverses where they exist, and useful starts."""

import io

import numpy as np
import pytest
import torch

import operators

F64 = torch.float64
SPECS = [
    "hdr",
    "saturate:exposure=3",
    "phase",
    "phase:masks=2,oversampling=1.5",
    "phase:intensity=true",
    "jpeg:quality=30",
]


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("shape", [(3, 12, 16), (1, 9, 11), (3, 7, 10)])
@pytest.mark.parametrize("spec", SPECS)
def test_the_doctor_is_content(spec, shape):
    report = operators.check(operators.parse(spec, shape), shape)
    assert report.ok, str(report)


@pytest.mark.parametrize("spec", SPECS)
def test_twice_differentiable_and_a_start_of_the_right_shape(spec):
    physics = operators.parse(spec, (1, 8, 8)).to(F64)
    # black everywhere, the hardest place for a magnitude
    x = torch.zeros(2, 1, 8, 8, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad((physics.A(x) - 0.3).square().sum(), x, create_graph=True)
    assert bool(slope.isfinite().all())
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert bool(curvature.isfinite().all())
    start = physics.A_dagger(physics.A(rand(2, 1, 8, 8)))
    assert start.shape == x.shape
    assert start.dtype == F64
    assert bool(start.isfinite().all())


# phase retrieval


@pytest.mark.parametrize("intensity", [False, True])
@pytest.mark.parametrize("masks", [0, 3])
def test_magnitudes_keep_the_energy(masks, intensity):
    x = rand(2, 1, 9, 8) - 0.3
    y = operators.phase((1, 9, 8), masks=masks, intensity=intensity).to(F64).A(x)
    assert y.shape == (2, max(1, masks), 18, 16)
    power = y if intensity else y.square()
    torch.testing.assert_close(power.sum((1, 2, 3)), max(1, masks) * x.square().sum((1, 2, 3)))


def test_magnitudes_are_those_of_numpy():
    x = rand(1, 2, 6, 7)
    y = operators.phase((2, 6, 7)).to(F64).A(x)
    expected = np.abs(np.fft.fft2(x.numpy(), (12, 14), norm="ortho"))
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-13)


def test_sign_shift_and_reflection_are_invisible_without_masks():
    physics = operators.phase((1, 12, 12)).to(F64)
    x = torch.zeros(1, 1, 12, 12, dtype=F64)
    x[..., 3:8, 4:9] = rand(5, 5)
    y = physics.A(x)
    for twin in (-x, x.roll((2, -1), (2, 3)), x.flip(2, 3)):
        torch.testing.assert_close(physics.A(twin), y, rtol=0, atol=1e-12)
    coded = operators.phase((1, 12, 12), masks=2).to(F64)
    torch.testing.assert_close(coded.A(-x), coded.A(x))
    for twin in (x.roll((2, -1), (2, 3)), x.flip(2, 3)):
        assert float((coded.A(twin) - coded.A(x)).abs().max()) > 0.01


def test_field_and_back_are_adjoint():
    physics = operators.phase((2, 7, 8), masks=3).to(F64)
    x = rand(2, 2, 7, 8)
    field = physics.field(x)
    v = torch.complex(rand(*field.shape, seed=1), rand(*field.shape, seed=2))
    torch.testing.assert_close((field.conj() * v).real.sum(), (x * physics.back(v)).sum())


def likeness(x, truth):
    x, truth = x.flatten(1), truth.flatten(1)
    return (x * truth).sum(1) / (x.norm(dim=1) * truth.norm(dim=1))


@pytest.mark.parametrize("intensity", [False, True])
def test_start_from_several_masks_is_the_image(intensity):
    physics = operators.phase((3, 24, 20), masks=4, intensity=intensity).to(F64)
    x = as_tensor(photo(96, 80))[..., ::4, ::4]
    start = physics.A_dagger(physics.A(x))
    torch.testing.assert_close(start, x, rtol=0, atol=1e-3)
    y = physics.A(x)
    noisy = y + 0.05 * y.std() * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    assert float(likeness(physics.A_dagger(noisy), x)) > 0.99


def test_start_without_masks_fits_the_measurement():
    physics = operators.phase((1, 24, 20)).to(F64)
    x = as_tensor(photo(96, 80)[..., 0])[..., ::4, ::4]
    y = physics.A(x)
    flat = x.mean().expand_as(x)
    start = physics.A_dagger(y)
    assert float(start.min()) >= 0
    assert (physics.A(start) - y).norm() < 0.3 * (physics.A(flat) - y).norm()
    # an image of a batch does not depend on its neighbours
    torch.testing.assert_close(physics.A_dagger(torch.cat([2 * y, y]))[1:], start)


# clipping


def test_hdr_is_the_task_of_daps_mapped_to_unit_range():
    x = rand(1, 3, 8, 8)
    signed = 2 * x - 1
    expected = ((2 * signed).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(operators.hdr((3, 8, 8)).A(x), expected)


def test_saturation_is_the_smaller_of_exposure_and_white():
    x = rand(1, 1, 9, 9)
    y = operators.saturate((1, 9, 9), exposure=3.0).A(x)
    torch.testing.assert_close(y, torch.minimum(3 * x, torch.ones_like(x)))


@pytest.mark.parametrize("make", [operators.hdr, operators.saturate])
def test_inverse_where_nothing_was_clipped(make):
    physics = make((1, 9, 9))
    x = rand(1, 1, 9, 9)
    y = physics.A(x)
    inside = (y > 0) & (y < 1)
    assert 0 < int(inside.sum()) < 81
    back = physics.A_dagger(y)
    torch.testing.assert_close(back[inside], x[inside])
    assert bool((back[y == 1] <= x[y == 1]).all())
    torch.testing.assert_close(physics.A(back), y)


# JPEG


def photo(height, width):
    from skimage import data

    return data.astronaut()[:height, 100 : 100 + width]


def as_tensor(pixels):
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    return torch.from_numpy(planes.copy()).permute(2, 0, 1)[None].to(F64) / 255


def written_and_read(pixels, quality):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
    return as_tensor(np.asarray(Image.open(buffer)))


def rms(x):
    return 255 * float(x.square().mean().sqrt())


@pytest.mark.parametrize("quality", [10, 30, 75, 95])
@pytest.mark.parametrize("size", [(128, 128), (120, 77)])
def test_jpeg_is_that_of_pillow(size, quality):
    pixels = photo(*size)
    x, file = as_tensor(pixels), written_and_read(pixels, quality)
    y = operators.jpeg((3, *size), quality=quality).A(x)
    assert rms(y - file) < 0.5 * rms(file - x)
    assert rms(y - file) < 2
    grey = pixels[..., 1]
    x, file = as_tensor(grey), written_and_read(grey, quality)
    y = operators.jpeg((1, *size), quality=quality).A(x)
    assert rms(y - file) < 0.7  # 8-bit pixels alone account for 0.3


def test_jpeg_agrees_with_kornia_up_to_its_smooth_rounding():
    from kornia.enhance import jpeg_codec_differentiable

    x = as_tensor(photo(64, 80))
    for quality in (30, 75):
        y = operators.jpeg((3, 64, 80), quality=quality).A(x)
        theirs = jpeg_codec_differentiable(x, torch.tensor([float(quality)], dtype=F64))
        assert rms(y - theirs) < 0.5 * rms(theirs - x)


def test_best_quality_is_nearly_the_image():
    x = as_tensor(photo(40, 56)[..., 0])
    y = operators.jpeg((1, 40, 56), quality=100).A(x)
    # steps of one grey level: errors uniform in half a step either way
    assert rms(y - x) == pytest.approx(1 / 12**0.5, rel=0.05)


def test_compressing_a_compressed_grey_image_changes_little():
    physics = operators.jpeg((1, 48, 48), quality=20)
    x = as_tensor(photo(48, 48)[..., 0])
    once = physics.A(x)
    assert rms(physics.A(once) - once) < 0.2 * rms(once - x)


def test_blocks_do_not_touch_each_other():
    physics = operators.jpeg((1, 24, 24), quality=10)
    x = rand(1, 1, 24, 24)
    y = physics.A(x)
    x[..., 9, 10] = 1 - x[..., 9, 10]
    changed = (physics.A(x) != y)[0, 0].nonzero()
    assert len(changed) > 0
    assert bool(((changed >= 8) & (changed < 16)).all())


def test_derivative_is_that_without_rounding():
    """In a grey image the transform is orthonormal, so that rounding alone stood in the way."""
    physics = operators.jpeg((1, 16, 16), quality=10)
    x = (0.4 + 0.2 * rand(1, 1, 16, 16)).requires_grad_()
    v = rand(1, 1, 16, 16, seed=1)
    (slope,) = torch.autograd.grad(physics.A(x), x, v)
    torch.testing.assert_close(slope, v)
    assert "rounding" in physics.surrogate


def test_ties_fall_alike_in_every_precision():
    # a transform coefficient of exactly half a step
    x = torch.full((1, 1, 8, 8), 129 / 255, dtype=F64)
    physics = operators.jpeg((1, 8, 8), quality=50)
    torch.testing.assert_close(physics.A(x).float(), physics.A(x.float()))
    assert rms(physics.A(x) - x) == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: operators.jpeg((2, 8, 8)), "2 channels, expected 1 or 3"),
        (lambda: operators.jpeg((1, 8, 8), quality=0), "quality is 0"),
        (lambda: operators.hdr((1, 8, 8), gain=0), "gain is 0"),
        (lambda: operators.saturate((1, 8, 8), exposure=-1), "exposure is -1"),
        (lambda: operators.phase((1, 8, 8), oversampling=0.5), "oversampling is 0.5"),
        (lambda: operators.phase((1, 8, 8), masks=-1), "masks is -1"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
