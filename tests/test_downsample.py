"""Downsampling: where pixels lie, and equality with the libraries that everybody uses."""

import deepinv
import numpy as np
import pytest
import torch

import operators
from operators.downsample import CircularDownsampling, aligned_filter

F64 = torch.float64
WORDS = ("bicubic", "bilinear", "box", "lanczos", "gaussian")
BOUNDARIES = ("circular", "symmetric", "renormalised")


def normal(*shape, seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64).to(dtype)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_small_pixels_lie_in_the_middle_of_those_they_replace(word, factor):
    kernel = aligned_filter(word, factor).sum(0)
    t = torch.arange(len(kernel), dtype=F64) - len(kernel) // 2
    assert kernel.sum().item() == pytest.approx(1)
    assert -(kernel * t).sum().item() == pytest.approx((factor - 1) / 2, abs=1e-9)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", [(2, 24, 28), (1, 24, 24, 28)])
def test_constants_stay_and_ramps_stay_ramps(word, boundary, shape):
    physics = operators.downsample(shape, factor=2, filter=word, boundary=boundary)
    y = physics.A(torch.full((1, *shape), 0.3, dtype=F64))
    torch.testing.assert_close(y, torch.full_like(y, 0.3), rtol=0, atol=1e-14)
    for axis in range(2, 1 + len(shape)):
        ramp = torch.arange(shape[axis - 1], dtype=F64)
        x = ramp.reshape(-1, *[1] * (len(shape) - axis)).expand(1, *shape)
        row = physics.A(x).mean([i for i in range(1 + len(shape)) if i != axis])
        expected = 2 * torch.arange(len(row), dtype=F64) + 0.5
        torch.testing.assert_close(row[3:-3], expected[3:-3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("word", ["bicubic", "bilinear", "box", "lanczos"])
@pytest.mark.parametrize(("factor", "size"), [(2, (12, 26)), (3, (9, 30)), (4, (28, 16))])
def test_renormalised_is_pillow(word, factor, size):
    from PIL import Image

    x = normal(1, 1, *size, dtype=torch.float32)
    small = [n // factor for n in size]
    resample = {"bilinear": Image.Resampling.BILINEAR, "box": Image.Resampling.BOX}.get(
        word, getattr(Image.Resampling, word.upper())
    )
    expected = np.asarray(Image.fromarray(x[0, 0].numpy()).resize(small[::-1], resample))
    physics = operators.downsample((1, *size), factor=factor, filter=word, boundary="renormalised")
    np.testing.assert_allclose(physics.A(x)[0, 0].numpy(), expected, rtol=0, atol=1e-6)


def imresize(x, factor):
    """MATLAB's `imresize(x, 1/factor)` along rows: its documented contributions, pixel by pixel."""
    n = len(x)

    def cubic(s):
        s = abs(s)
        if s <= 1:
            return 1.5 * s**3 - 2.5 * s**2 + 1
        return -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2 if s <= 2 else 0.0

    mirrored = [*range(n), *range(n - 1, -1, -1)]
    out = np.zeros((n // factor, *x.shape[1:]))
    for i in range(n // factor):
        u = (i + 1) * factor + 0.5 * (1 - factor)  # counted from 1
        left = int(np.floor(u - 2 * factor))
        reads = range(left, left + 4 * factor + 2)
        weights = np.array([cubic((u - j) / factor) for j in reads])
        weights /= weights.sum()
        out[i] = sum(
            w * x[mirrored[(j - 1) % (2 * n)]] for w, j in zip(weights, reads, strict=True)
        )
    return out


@pytest.mark.parametrize(("factor", "size"), [(2, (12, 26)), (3, (9, 30)), (4, (8, 20))])
def test_symmetric_is_matlab(factor, size):
    x = normal(1, 2, *size)
    ours = operators.downsample((2, *size), factor=factor, boundary="symmetric").A(x)
    by_hand = imresize(imresize(x[0, 0].numpy(), factor).T, factor).T
    np.testing.assert_allclose(ours[0, 0].numpy(), by_hand, rtol=0, atol=1e-13)
    theirs = deepinv.physics.DownsamplingMatlab(factor=factor).A(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


def test_bilinear_is_that_of_torch():
    x = normal(1, 1, 64, 48)
    y = operators.downsample((1, 64, 48), filter="bilinear", boundary="renormalised").A(x)
    expected = torch.nn.functional.interpolate(
        x, scale_factor=0.25, mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_circular_agrees_with_deepinv_on_the_same_filter():
    ours = operators.downsample((2, 24, 36), factor=3)
    theirs = deepinv.physics.Downsampling(
        img_size=(2, 24, 36), filter=aligned_filter("bicubic", 3)[None, None], factor=3
    )
    x, y = normal(2, 2, 24, 36), normal(2, 2, 8, 12)
    torch.testing.assert_close(ours.A(x), theirs.A(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(ours.A_adjoint(y), theirs.A_adjoint(y), rtol=0, atol=1e-13)


@pytest.mark.parametrize("word", WORDS)
def test_volumes_are_downsampled_axis_by_axis(word):
    shape = (2, 8, 12, 16)
    options = {"filter": word, "boundary": "symmetric"}
    x = normal(1, *shape)
    y = operators.downsample(shape, factor=2, factor_z=4, **options).A(x)
    flat = operators.downsample((2, 12, 16), factor=2, **options)
    planes = torch.stack([flat.A(plane) for plane in x.unbind(2)], 2)
    matrix = operators.downsample((2, 8, 8), factor=4, **options).along[0].matrix
    torch.testing.assert_close(y, torch.einsum("ij,bcjhw->bcihw", matrix, planes))
    alone = operators.downsample(shape, factor=2, factor_z=1, **options).A(x)
    torch.testing.assert_close(alone, planes, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(2, 16, 24), (1, 10, 16, 12)])
def test_circular_inverses_are_those_of_the_decomposition(shape):
    physics = operators.downsample(shape, factor=2, filter="gaussian", sigma=1.3).to(F64)
    z, y = normal(2, *shape), physics.A(normal(2, *shape, seed=1))
    general = super(CircularDownsampling, physics)
    torch.testing.assert_close(physics.A_dagger(y), general.A_dagger(y), rtol=0, atol=1e-10)
    gamma = torch.tensor([0.3, 20.0], dtype=F64)
    expected = general.prox_l2(z, y, gamma)
    torch.testing.assert_close(physics.prox_l2(z, y, gamma), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 12, 18), (1, 6, 12, 6)])
def test_gram_spectrum_is_that_of_a_stationary_covariance(shape):
    physics = operators.downsample(shape, factor=3, filter="bilinear").to(F64)
    axes = tuple(range(2, 1 + len(shape)))
    power = torch.fft.fftn(normal(1, *shape), dim=axes).abs().square()
    v = normal(1, *physics.A(normal(1, *shape)).shape[1:])
    C = torch.fft.ifftn(power * torch.fft.fftn(physics.A_adjoint(v), dim=axes), dim=axes).real
    gram = physics.gram_spectrum(power)
    expected = torch.fft.ifftn(gram * torch.fft.fftn(v, dim=axes), dim=axes).real
    torch.testing.assert_close(physics.A(C), expected, rtol=0, atol=1e-9)


def test_the_clean_shape_follows_from_the_small_one():
    assert operators.image_shape_from("downsample:factor=3", (2, 5, 7)) == (2, 15, 21)
    spec = "downsample:factor=2,factor_z=1"
    assert operators.image_shape_from(spec, (1, 4, 5, 6)) == (1, 4, 10, 12)


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((1, 23, 30), {}, r"23x30 pixels, which 4 does not divide; crop it to 20x28"),
        ((1, 9, 8, 8), {"factor": 2}, r"9x8x8 voxels, which 2 does not divide; crop it to 8x8x8"),
        ((1, 12, 12), {}, r"the bicubic filter for factor 4 is 16x16 pixels but the image only"),
        ((1, 3, 3), {}, "smaller than factor 4"),
        ((1, 8, 8), {"factor_z": 2}, "factor_z is 2 but the image is flat"),
        ((1, 8, 8), {"sigma": 1.0}, "sigma is 1.0 but the filter bicubic; write filter=gaussian"),
        ((1, 8, 8), {"filter": "bicubi"}, "did you mean 'bicubic'"),
        ((1, 8, 8), {"boundary": "reflect"}, "choose one of circular, renormalised, symmetric"),
        ((1, 8, 8), {"filter": "gaussian", "sigma": 0.0}, r"expected a number in \[0.1, 256\]"),
    ],
)
def test_refusals(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        operators.downsample(shape, **options)
