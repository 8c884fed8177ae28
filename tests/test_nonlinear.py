"""Nonlinear operators: invariances, inverses where they exist, and useful starts."""

import pytest
import torch

import operators

F64 = torch.float64


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# phase retrieval


def test_magnitudes_keep_the_energy():
    x = rand(2, 1, 9, 8) - 0.3
    for masks in (0, 3):
        y = operators.phase((1, 9, 8), masks=masks).to(F64).A(x)
        assert y.shape == (2, max(1, masks), 18, 16)
        torch.testing.assert_close(
            y.square().sum((1, 2, 3)), max(1, masks) * x.square().sum((1, 2, 3))
        )


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
    one, two = (field.conj() * v).real.sum(), (x * physics.back(v)).sum()
    torch.testing.assert_close(one, two)


def test_spectral_start_finds_the_image():
    physics = operators.phase((1, 16, 16), masks=8, noise=0.0).to(F64)
    x = 0.2 + 0.6 * rand(2, 1, 16, 16)
    start = physics.A_dagger(physics.A(x))
    cosine = (start * x).sum((1, 2, 3)) / (start.flatten(1).norm(dim=1) * x.flatten(1).norm(dim=1))
    assert float(cosine.min()) > 0.9
    torch.testing.assert_close(
        start.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-6, atol=0
    )


def test_start_without_masks_is_the_mean():
    physics = operators.phase((1, 9, 8)).to(F64)
    x = rand(1, 1, 9, 8)
    start = physics.A_dagger(physics.A(x))
    torch.testing.assert_close(start, x.mean().expand_as(x))


def test_gradient_is_finite_at_dark_pixels():
    physics = operators.phase((1, 6, 6)).to(F64)
    x = torch.zeros(1, 1, 6, 6, dtype=F64, requires_grad=True)
    physics.A(x).sum().backward()
    assert bool(x.grad.isfinite().all())


# clipping


def test_hdr_is_the_task_of_daps_mapped_to_unit_range():
    x = rand(1, 3, 8, 8)
    signed = 2 * x - 1
    expected = ((2 * signed).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(operators.hdr((3, 8, 8)).A(x), expected)


@pytest.mark.parametrize("make", [operators.hdr, operators.saturate])
def test_inverse_where_nothing_was_clipped(make):
    physics = make((1, 9, 9))
    x = rand(1, 1, 9, 9)
    y = physics.A(x)
    inside = (y > 0) & (y < 1)
    back = physics.A_dagger(y)
    torch.testing.assert_close(back[inside], x[inside])
    assert bool((back[y == 1] <= x[y == 1]).all())


def test_saturation_keeps_black():
    assert float(operators.saturate((1, 2, 2), exposure=5.0).A(torch.zeros(1, 1, 2, 2)).max()) == 0


# JPEG


def smooth(*shape):
    axis = torch.linspace(0, 3, shape[-1], dtype=F64)
    down = torch.linspace(0, 2, shape[-2], dtype=F64)[:, None]
    return (0.5 + 0.3 * torch.sin(axis + down)).expand(1, *shape).clone()


def test_quality_orders_the_error():
    x = (smooth(3, 32, 48) + 0.1 * (rand(1, 3, 32, 48) - 0.5)).clamp(0, 1)
    errors = [
        float((operators.jpeg((3, 32, 48), quality=q).A(x) - x).square().mean().sqrt())
        for q in (5, 20, 60, 100)
    ]
    assert errors == sorted(errors, reverse=True)
    grey = (smooth(1, 32, 32) + 0.1 * (rand(1, 1, 32, 32) - 0.5)).clamp(0, 1)
    best = operators.jpeg((1, 32, 32), quality=100).A(grey)
    assert float((best - grey).abs().max()) < 2 / 255


def test_jpeg_agrees_with_a_real_codec():
    import io

    import numpy as np
    from PIL import Image

    x = (255 * (smooth(3, 64, 64) + 0.15 * (rand(1, 3, 64, 64) - 0.5)).clamp(0, 1)).round()
    buffer = io.BytesIO()
    array = x[0].permute(1, 2, 0).byte().numpy()
    Image.fromarray(array).save(buffer, "JPEG", quality=30, subsampling=2)
    real = torch.from_numpy(np.array(Image.open(buffer)).astype(float)).permute(2, 0, 1)[None]
    ours = 255 * operators.jpeg((3, 64, 64), quality=30).A(x / 255)
    damage = float((real - x).square().mean().sqrt())
    apart = float((ours - real).square().mean().sqrt())
    # decoders differ in how they enlarge the chroma, and rounding is smoothed
    assert apart < 0.5 * damage


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
