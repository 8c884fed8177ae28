"""Slices of a volume: what one slice's operator does, slice by slice, along any axis."""

import pytest
import torch
from deepinv.physics import LinearPhysics, Physics

import operators

SHAPE = (2, 5, 6, 7)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def flat(axis):
    return tuple(n for i, n in enumerate(SHAPE) if i != axis + 1)


def masks(axis):
    return [
        operators.mask(flat(axis), keep=0.5, seed=s, noise=0.1).to(torch.float64)
        for s in range(SHAPE[axis + 1])
    ]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_every_slice_meets_the_operator(axis, chunk):
    inner = operators.blur(flat(axis), sigma=0.3).to(torch.float64)
    physics = operators.slices(SHAPE, operator=inner, axis=axis, chunk=chunk)
    x = normal(3, *SHAPE)
    y = physics.A(x)
    assert y.shape == (3, SHAPE[axis + 1], *flat(axis))
    back, inverse = physics.A_adjoint(y), physics.A_dagger(y)
    assert back.shape == inverse.shape == x.shape
    for i in range(SHAPE[axis + 1]):
        torch.testing.assert_close(y[:, i], inner.A(x.select(axis + 2, i)))
        torch.testing.assert_close(back.select(axis + 2, i), inner.A_adjoint(y[:, i]))
        torch.testing.assert_close(inverse.select(axis + 2, i), inner.A_dagger(y[:, i]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_list_gives_every_slice_its_own(axis):
    inner = masks(axis)
    physics = operators.slices(SHAPE, operator=inner, axis=axis)
    x = normal(2, *SHAPE)
    y = physics.A(x)
    for i, one in enumerate(inner):
        assert torch.equal(y[:, i], one.A(x.select(axis + 2, i)))
    assert operators.check(physics, SHAPE).ok


@pytest.mark.parametrize(
    "spec",
    [
        "slices|denoise",
        "slices:axis=1,chunk=2|mask:keep=0.4",
        "slices:axis=2|blur:sigma=0.3",
        "slices:axis=0|ct:angles=5",
        "slices:axis=2|cs:ratio=0.4",
        "slices:axis=1|mri:coils=2",
    ],
)
def test_the_doctor_finds_nothing(spec):
    report = operators.check(operators.parse(spec, SHAPE), SHAPE)
    assert report.ok, str(report)


@pytest.mark.parametrize("many", [False, True])
def test_the_proximal_map_weighs_every_volume_by_its_own_gamma(many):
    inner = masks(1) if many else masks(1)[:1]
    physics = operators.slices(SHAPE, operator=inner if many else inner[0], axis=1, chunk=3)
    z, gamma = normal(2, *SHAPE), torch.tensor([0.5, 4.0], dtype=torch.float64)
    y = physics.A(normal(2, *SHAPE, seed=1))
    both = physics.prox_l2(z, y, gamma)
    for b in range(2):
        alone = physics.prox_l2(z[b : b + 1], y[b : b + 1], gamma[b].item())
        torch.testing.assert_close(both[b : b + 1], alone)
        weight = gamma[b].item()
        gradient = weight * physics.A_adjoint(physics.A(alone) - y[b : b + 1]) + alone
        torch.testing.assert_close(gradient, z[b : b + 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_decomposition_is_that_of_the_slices(axis):
    physics = operators.parse(f"slices:axis={axis},chunk=2|mask:keep=0.4", SHAPE)
    form = operators.svd(physics.to(torch.float64))
    x = normal(2, *SHAPE)
    torch.testing.assert_close(form.U(form.s * form.Vt(x)), physics.A(x))
    c = normal(*form.Vt(x).shape)
    torch.testing.assert_close(form.Vt(form.V(c)), c)
    with pytest.raises(ValueError, match="has no fast singular value decomposition"):
        operators.svd(operators.slices(SHAPE, operator=masks(axis), axis=axis))


def test_nonlinear_slices_are_not_linear():
    class Square(Physics):
        surrogate = "none"

        def A(self, x, **_):
            return x**2

    physics = operators.slices(SHAPE, operator=Square())
    assert not isinstance(physics, LinearPhysics)
    assert physics.surrogate == "none"
    assert operators.check(physics, SHAPE).ok
    mixed = [Square(), *(operators.denoise(flat(0)) for _ in range(4))]
    assert not isinstance(operators.slices(SHAPE, operator=mixed), LinearPhysics)


@pytest.mark.parametrize("many", [False, True])
def test_noise_depends_on_the_seed_alone_and_stays_off_missing_pixels(many):
    inner = masks(0)
    physics = operators.slices(SHAPE, operator=inner if many else inner[0])
    assert operators.noise_sigma(physics) == pytest.approx(0.1)
    x = torch.zeros(3, *SHAPE, dtype=torch.float64)
    y = operators.measure(physics, x, seed=0)
    assert torch.equal(operators.measure(physics, x, seed=0), y)
    assert torch.equal(operators.measure(physics, x[:2], seed=0), y[:2])
    assert not torch.equal(operators.measure(physics, x, seed=1), y)
    assert not torch.equal(y[:, 0], y[:, 1])
    for i in range(SHAPE[1]):
        seen = (inner[i] if many else inner[0]).mask
        assert torch.equal(y[:, i] != 0, (seen != 0).expand_as(y[:, i]))
    assert [a.noise_model for a in physics.operators] == [
        a.noise_model for a in inner[: SHAPE[1] if many else 1]
    ]
    level = y[y != 0].std().item()
    assert level == pytest.approx(0.1, rel=4 / (2 * (y != 0).sum().item()) ** 0.5)


def test_noise_levels_of_volumes():
    physics = operators.parse("slices|denoise", (1, 16, 16, 16))
    physics.noise_model = operators.GaussianNoise(torch.tensor([0.1, 0.4]))
    y = operators.measure(physics, torch.zeros(2, 1, 16, 16, 16), seed=0)
    assert y.flatten(1).std(1).tolist() == pytest.approx([0.1, 0.4], rel=0.06)


def test_differentiable_twice():
    physics = operators.parse("slices:axis=1|mri:acceleration=2", (2, 2, 3, 4)).to(torch.float64)
    x = normal(1, 2, 2, 3, 4)
    assert torch.autograd.gradcheck(physics.A, x.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: physics.A(x) ** 2, x)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"axis": 3}, "axis is 3"),
        ({"chunk": 0}, "chunk is 0"),
        ({"operator": "denoize"}, "did you mean 'denoise'"),
        ({"operator": [operators.denoise((2, 6, 7))] * 3}, "3 operators for 5 slices"),
        ({"operator": operators.denoise((2, 6, 7)), "noise": 0.1}, "bring their own"),
        ({"operator": [1, 2, 3, 4, 5]}, "of type int, expected a deepinv Physics"),
        (
            {"operator": [operators.mask((2, 6, 7), noise=0.1 * i) for i in range(5)]},
            "the noise of slice 1 is not that of slice 0",
        ),
        (
            {"operator": [operators.parse(f"cs:ratio=0.{i + 1}", (2, 6, 7)) for i in range(5)]},
            r"slice 1 measures \(2, 8\) numbers but slice 0 \(2, 4\)",
        ),
    ],
)
def test_mistakes_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        operators.slices(SHAPE, **options)
    assert str(caught.value).endswith((".", "?"))


def test_only_volumes_have_slices():
    with pytest.raises(ValueError, match=r"expected \(C, D, H, W\)"):
        operators.slices((1, 8, 8))
