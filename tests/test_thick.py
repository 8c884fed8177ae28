"""Thick slices and missing slices: what volumes are measured with across their slices."""

import pytest
import torch

import operators

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("factor", "thickness"), [(1, 1), (2, 2), (3, 3), (4, 4), (4, 1), (5, 2)])
def test_a_slice_is_the_mean_of_the_voxels_in_its_middle(axis, factor, thickness):
    size = [5, 6, 7]
    size[axis] = 3 * factor
    physics = operators.thick((2, *size), factor=factor, thickness=thickness, axis=axis).to(F64)
    x = normal(2, 2, *size)
    y = physics.A(x)
    gap = (factor - thickness) // 2
    for i in range(3):
        voxels = x.narrow(2 + axis, i * factor + gap, thickness)
        torch.testing.assert_close(y.select(2 + axis, i), voxels.mean(2 + axis))
    assert y.shape[2 + axis] == 3
    w = normal(*y.shape, seed=1)
    torch.testing.assert_close((y * w).sum(), (x * physics.A_adjoint(w)).sum())
    torch.testing.assert_close(physics.A(physics.A_dagger(y)), y)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("thick:factor=4", (1, 8, 6, 7)),
        ("thick:factor=3,axis=1", (2, 5, 9, 4)),
        ("thick:factor=2,axis=2,thickness=1", (1, 3, 4, 6)),
        ("mask:slices=1", (1, 3, 5, 5)),
        ("mask:slices=0-2+5,axis=2", (2, 4, 3, 7)),
        ("slices:vary=seed|mask:keep=0.4", (1, 5, 6, 7)),
        ("slices:vary=seed,axis=2|mri:acceleration=2", (2, 5, 6, 7)),
        ("slices:vary=start,step=7.5|ct:angles=3", (1, 4, 7, 8)),
    ],
)
def test_the_doctor_finds_nothing(spec, shape):
    report = operators.check(operators.parse(spec, shape), shape)
    assert report.ok, str(report)


def test_differentiable_twice():
    physics = operators.thick((1, 4, 2, 2), factor=2).to(F64)
    x = normal(1, 1, 4, 2, 2).requires_grad_()
    y = normal(1, 1, 2, 2, 2).requires_grad_()
    for call, argument in ((physics.A, x), (physics.A_adjoint, y)):
        assert torch.autograd.gradcheck(call, argument)
        assert torch.autograd.gradgradcheck(lambda z, call=call: call(z) ** 2, argument)


def test_missing_slices_are_zero_and_have_no_noise():
    physics = operators.parse("mask:slices=1+3-4,axis=1", (1, 2, 6, 3), noise=0.1)
    y = operators.measure(physics, torch.ones(1, 1, 2, 6, 3), seed=0)
    missing = (y == 0).all(4).all(2).flatten().tolist()
    assert missing == [False, True, False, True, True, False]
    assert torch.equal(physics.mask, operators.mask((1, 2, 6, 3), slices=[1, 3, 4], axis=1).mask)


def test_every_slice_its_own_option():
    shape = (1, 4, 8, 8)
    masks = operators.parse("slices:vary=seed,step=2|mask:keep=0.5,seed=3", shape).operators
    for i, one in enumerate(masks):
        alone = operators.mask((1, 8, 8), keep=0.5, seed=3 + 2 * i)
        assert torch.equal(one.mask, alone.mask)
    views = operators.parse("slices:vary=start,step=7.5|ct:angles=3", shape).operators
    for i, one in enumerate(views):
        alone = operators.ct((1, 8, 8), angles=3, start=7.5 * i)
        assert tuple(one.geometry.angles) == tuple(alone.geometry.angles)
    physics = operators.parse("slices:vary=seed|mri", (2, 4, 8, 8), noise=0.1)
    assert operators.noise_sigma(physics) == pytest.approx(0.1)


def test_the_clean_shape_is_told():
    assert operators.image_shape_from("thick:factor=4", (1, 3, 5, 6)) == (1, 12, 5, 6)
    assert operators.image_shape_from("thick:factor=2,axis=2", (1, 3, 5, 6)) == (1, 3, 5, 12)
    assert operators.image_shape_from("mask:slices=2", (1, 3, 5, 6)) == (1, 3, 5, 6)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("thick:factor=3", "8 voxels across the slices, which 3 does not divide; crop it to 6"),
        ("thick:factor=9", "choose a smaller factor"),
        ("thick:factor=4,thickness=5", "thickness is 5"),
        ("thick:axis=3", "axis is 3"),
        ("mask:slices=8", "slices is 8, expected a whole number from 0 to 7"),
        ("mask:slices=7-9", "slices is 8, expected a whole number from 0 to 7"),
        ("mask:slices=0-7", "keeps no pixel"),
        ("mask:slices=one", "expected numbers such as 5, 5-8 or 5-8"),
        ("mask:slices=1,keep=0.5", "keep and slices"),
        ("slices:vary=sed|mask", "did you mean 'seed'"),
        ("slices:vary=bandwise|mask", "not a number"),
        ("slices:vary=seed,step=0.5|mask", "cannot grow by 0.5"),
        ("slices:vary=ratio,step=0.1|cs:ratio=0.2", "slice 1 measures"),
    ],
)
def test_mistakes_are_named(spec, sentence):
    with pytest.raises(ValueError, match=sentence):
        operators.parse(spec, (1, 8, 6, 6))


def test_flat_images_have_neither():
    for spec in ("thick:factor=2", "mask:slices=1"):
        with pytest.raises(ValueError, match="takes volumes"):
            operators.parse(spec, (1, 8, 8))
    with pytest.raises(ValueError, match="ready-made operators have no options"):
        operators.slices((1, 4, 8, 8), operator=operators.denoise((1, 8, 8)), vary="seed")


@pytest.mark.parametrize("spec", ["slices|ct:angles=4", "slices:axis=1|mri", "mask:slices=2"])
def test_gram_without_the_measurement_is_the_same(spec):
    shape = (2, 5, 6, 7)
    physics, x = operators.parse(spec, shape).to(F64), normal(3, *shape)
    torch.testing.assert_close(physics.A_adjoint_A(x), physics.A_adjoint(physics.A(x)))
