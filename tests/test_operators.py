"""Operators: adjoints over awkward sizes, and what each of them is by definition."""

import math

import deepinv
import pytest
import torch

import operators
from operators.svd import has_svd

ANY_SIZE = [(3, 24, 24), (3, 23, 31), (1, 40, 17)]
VOLUME = (1, 7, 9, 8)
PADDED = ("valid", "reflect", "replicate", "zero")
CASES = [
    *[("denoise", s) for s in ANY_SIZE],
    *[("blur:sigma=1.5", s) for s in ANY_SIZE],
    *[("blur:sigma=1,boundary=valid", s) for s in ANY_SIZE],
    *[("blur:sigma=0.4", s) for s in ANY_SIZE],
    *[("blur:kernel=motion,length=9,angle=30", s) for s in ANY_SIZE],
    *[(f"blur:kernel=motion,angle=30,length=8,boundary={b}", ANY_SIZE[1]) for b in PADDED],
    *[(f"blur:kernel=box,width=4,boundary={b}", s) for b in PADDED for s in [*ANY_SIZE, VOLUME]],
    *[("blur:kernel=disk,radius=2.4", s) for s in [*ANY_SIZE, VOLUME]],
    *[(f"blur:kernel=disk,radius=2.4,boundary={b}", VOLUME) for b in ("zero", "reflect")],
    *[(f"blur:sigma=0.4,sigma_z=0.6,boundary={b}", VOLUME) for b in ("circular", "reflect")],
    *[(f"lens:edge_sigma=2,boundary={b}", (2, 17, 24)) for b in ("reflect", "circular")],
    *[("mask:keep=0.3,seed=3", s) for s in ANY_SIZE],
    *[("mask:box=5x7+2+3", s) for s in ANY_SIZE],
    *[("mask:lines=4,thickness=2,direction=vertical", s) for s in ANY_SIZE],
    *[(f"downsample:factor={f}", (3, f * 7, f * 8)) for f in (2, 3, 4, 8)],
    *[(f"downsample:factor=3,filter={w}", (1, 33, 27)) for w in ("bilinear", "gaussian")],
    *[(f"downsample:factor=2,filter={w}", (1, 12, 18)) for w in ("box", "lanczos")],
    *[(f"downsample:factor=3,boundary={b}", (2, 9, 15)) for b in ("symmetric", "renormalised")],
    ("downsample:factor=2", (1, 8, 10, 12)),
    ("downsample:factor=3,factor_z=2,filter=gaussian,sigma=1,boundary=symmetric", (2, 4, 9, 6)),
    *[("cs:ratio=0.3", s) for s in ANY_SIZE],
    *[("cs:ratio=0.3,kind=dense", s) for s in ANY_SIZE],
    *[(f"cs:kind={k},block=8", s) for k in ("block", "scrambled") for s in [*ANY_SIZE, VOLUME]],
    ("cs", VOLUME),
    ("mask:keep=0.3,bandwise=true", (4, 9, 8)),
    ("mask:keep=0.4", VOLUME),
    ("cs:kind=block,block=5,ratio=0.6", (2, 23, 31)),
    ("cs:kind=scrambled", VOLUME),
    *[(f"stripes:direction={d}", (5, 9, 12)) for d in ("vertical", "horizontal")],
    *[("response", s) for s in [(8, 7, 9), (31, 8, 8), (4, 3, 5, 6)]],
    *[("fusion:factor=2,channels=2", s) for s in [(5, 12, 10), (8, 8, 14)]],
    ("fusion:factor=3,boundary=symmetric", (4, 9, 15)),
    *[(f"cassi:step={k}", s) for k in (1, 2) for s in [(4, 8, 8), (5, 7, 10), (1, 6, 5)]],
    *[("ct:angles=9", s) for s in [(1, 16, 16), (2, 17, 17), (1, 13, 20)]],
    ("ct:angles=8,start=5,span=100,spacing=0.7", (1, 15, 12)),
    ("ct:angles=12,memory_budget=0", (2, 16, 16)),
    *[("ct:angles=12,geometry=fan,pixel=0.5", s) for s in [(1, 16, 16), (2, 11, 14)]],
    ("ct:angles=9,normalise=false", (1, 12, 12)),
    *[("pet:angles=8,fwhm=3", s) for s in [(1, 16, 16), (2, 11, 14)]],
    *[("mri:acceleration=3", s) for s in [(2, 24, 24), (2, 23, 31), (2, 5, 9, 8)]],
    *[("mri:pattern=poisson", s) for s in [(2, 23, 31), (2, 6, 5, 14)]],
    *[("mri:coils=3", s) for s in [(2, 24, 24), (2, 23, 31), (2, 5, 9, 8)]],
    *[("mri:coils=3,acceleration=2,pattern=poisson", s) for s in [(2, 16, 13), (2, 6, 5, 14)]],
    ("mri:coils=2,acceleration=3,pattern=uniform", (2, 15, 16)),
    *[("decolorise", s) for s in [(3, 24, 24), (3, 23, 31)]],
]
CASES += [
    *[("slices:axis=0|mask:keep=0.3", s) for s in [(2, 3, 8, 8), (1, 5, 7, 4)]],
    ("slices:axis=1,chunk=2|blur:sigma=0.4", (1, 6, 3, 7)),
    ("slices:axis=2|ct:angles=6", (2, 9, 7, 3)),
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
    # the default of CT is filtered back-projection, an approximate inverse
    options = {"method": "cg"} if getattr(physics, "dagger_tolerance", 0) is None else {}
    assert (physics.A(physics.A_dagger(y, **options)) - y).norm() <= 2e-3 * y.norm()


@ALL
def test_prox_satisfies_its_optimality_condition(spec, shape):
    physics, gamma = double(spec, shape), 3.0
    z = normal(1, *shape)
    y = physics.A(normal(1, *shape, seed=1))
    x = physics.prox_l2(z, y, gamma)
    gradient = gamma * physics.A_adjoint(physics.A(x) - y) + x - z
    assert gradient.norm() <= 1e-5 * (gamma * physics.A_adjoint(y) + z).norm()


@ALL
def test_prox_weighs_every_image_by_its_own_gamma(spec, shape):
    physics, gamma = double(spec, shape), torch.tensor([0.5, 4.0], dtype=torch.float64)
    z = normal(2, *shape)
    y = physics.A(normal(2, *shape, seed=1))
    x = physics.prox_l2(z, y, gamma)
    weight = gamma.reshape(-1, *[1] * (z.ndim - 1))
    gradient = weight * physics.A_adjoint(physics.A(x) - y) + x - z
    scale = (weight * physics.A_adjoint(y) + z).flatten(1).norm(dim=1)
    assert (gradient.flatten(1).norm(dim=1) <= 1e-5 * scale).all()


@ALL
def test_second_derivative_is_the_normal_operator(spec, shape):
    physics = double(spec, shape)
    x, v = normal(1, *shape).requires_grad_(), normal(1, *shape, seed=1)
    (slope,) = torch.autograd.grad(0.5 * physics.A(x).square().sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad((slope * v).sum(), x)
    torch.testing.assert_close(
        curvature, physics.A_adjoint(physics.A(v)), rtol=0, atol=1e-11 * (1 + v.norm())
    )


@PRECISION
@ALL
def test_svd_is_consistent_where_there_is_one(spec, shape, dtype, tol):
    physics = operators.parse(spec, shape).to(dtype)
    if not has_svd(physics):
        pytest.skip("no fast decomposition")
    form = operators.svd(physics)
    x = normal(2, *shape, dtype=dtype)
    coordinates, y = form.Vt(x), physics.A(x)
    c = normal(*coordinates.shape, seed=1, dtype=dtype)
    assert not c.is_complex()
    assert (form.s >= 0).all()
    assert coordinates.numel() <= x.numel()
    seen = (form.s > 0).expand_as(c)
    c_seen = torch.where(seen, c, 0)
    rounding = 10 * tol
    assert (form.U(form.s * coordinates) - y).norm() <= rounding * y.norm()
    assert (form.Vt(form.V(c)) - c).norm() <= rounding * c.norm()
    back = torch.where(seen, form.Ut(form.U(c_seen)), 0)
    assert (back - c_seen).norm() <= rounding * c_seen.norm()
    # adjoints of one another, so that V is orthonormal and not merely inverted
    gap = ((form.V(c) * x).sum() - (c * coordinates).sum()).abs()
    assert gap <= tol * c.norm() * x.norm()
    w = normal(*y.shape, seed=2, dtype=dtype)
    gap = ((form.U(c_seen) * w).sum() - (c_seen * form.Ut(w)).sum()).abs()
    assert gap <= tol * c_seen.norm() * w.norm()


@pytest.mark.parametrize("spec", ["blur:boundary=valid,sigma=1", "ct:angles=5", "mri:coils=2"])
def test_options_of_one_call_do_not_reach_the_next(spec):
    shape = (2, 16, 16)
    physics = double(spec, shape)
    y = physics.A(normal(1, *shape))
    before = physics.A_dagger(y)
    physics.A_dagger(y, max_iter=1, tol=0.5)
    physics.prox_l2(torch.zeros(1, *shape, dtype=torch.float64), y, 1.0, max_iter=1)
    assert torch.equal(physics.A_dagger(y), before)


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
