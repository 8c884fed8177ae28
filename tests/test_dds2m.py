"""DDS2M: its chain with denoisers that are known, its levels, seeds, checkpoints and refusals."""

import math

import pytest
import torch

import operators
import restore
import restore.checkpoint
from operators.separable import Along
from operators.stripes import Gains
from priors import Gaussian
from restore.problem import Problem, observed_rows, stream
from restore.solvers.ddrm import reverse
from restore.solvers.dds2m import DDS2M
from restore.solvers.vs2m import FitVS2M
from restore.untrained.prior import Untrained

F64 = torch.float64
TINY = {"map_channels": (4, 4, 4), "hidden": (8,), "rank": 2}
QUICK = {"dds2m": DDS2M(steps=20, **TINY), "vs2m": FitVS2M(steps=10, **TINY)}


def cubes(count=1, shape=(8, 12, 17), rank=3):
    """Smooth maps times smooth spectra, in [0, 1]."""
    g = torch.Generator().manual_seed(4)
    i, j = torch.meshgrid(
        torch.linspace(0, 1, shape[1]), torch.linspace(0, 1, shape[2]), indexing="ij"
    )
    bands = torch.linspace(0, 1, shape[0], dtype=F64)
    u, v, w, c = torch.rand(4, count, rank, generator=g, dtype=F64)
    maps = (4 * (u[..., None, None] * i + v[..., None, None] * j) + 6 * w[..., None, None]).cos()
    spectra = (-20 * (bands - c[..., None]).square()).exp()
    x = torch.einsum("nrc,nrhw->nchw", spectra, maps)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low)


def problem(operator, y, shape, sigma):
    observed = observed_rows(operator, torch.zeros(shape, dtype=F64), y).expand_as(y)
    level = torch.full((shape[0], 1, 1, 1), sigma, dtype=F64)
    return Problem(
        y=y * observed,
        operator=operator,
        prior=Untrained(),
        shape=shape,
        sigma_y=level,
        streams=[stream(3, 0)],
        observed=observed,
    )


def states(work, levels, truth, eta=0.95, eta_b=1.0):
    """States of the chain whose denoiser knows the truth."""
    for _ in reverse(work, levels, lambda x, s: truth, eta=eta, eta_b=eta_b):
        yield work.state["x"][0]


# -- the chain with an exact denoiser --------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.1])
@pytest.mark.parametrize(
    "spec", ["denoise", "mask:keep=0.3,bandwise=true", "downsample:factor=2,boundary=symmetric"]
)
def test_a_denoiser_that_knows_the_truth_leads_to_it(spec, sigma):
    x = cubes(shape=(8, 12, 18))
    operator = operators.parse(spec, (8, 12, 18), noise=sigma).to(F64)
    y = operators.measure(operator, x, seed=1)
    levels = [s / 2 for s in DDS2M(steps=60).levels()]
    *_, last = states(problem(operator, y, tuple(x.shape), sigma), levels, x)
    torch.testing.assert_close(last, x, rtol=0, atol=1e-5)  # float64: far above rounding


@pytest.mark.parametrize(("eta", "eta_b"), [(0.95, 1.0), (1.0, 1.0), (0.3, 0.6)])
def test_the_state_is_as_noisy_as_its_level_in_every_branch(eta, eta_b):
    """Measured well, measured badly and not at all, over the noise of y and of the chain."""
    gains = torch.tensor([1.0, 0.05, 0.0], dtype=F64)[:, None, None].expand(3, 250, 400)
    operator = Gains(gains, noise_model=operators.GaussianNoise(0.02)).to(F64)
    # mid-range, where the chain starts what is not measured: with a small eta it remembers
    x = torch.full((1, 3, 250, 400), 0.5, dtype=F64)
    y = operators.measure(operator, x, seed=1)
    levels = [0.8, 0.6, 0.41, 0.39, 0.2, 0.1, 0.03, 0.01]  # the second gain's noise is 0.4
    chain = states(problem(operator, y, tuple(x.shape), 0.02), levels, x, eta, eta_b)
    bound = 4 * math.sqrt(2 / 1e5)  # standard deviations of a variance of 1e5 draws, of 21
    for s, state in zip(levels[1:], chain, strict=False):
        power = (state - x)[0].square().flatten(1).mean(1) / s**2
        assert float((power - 1).abs().max()) < bound


def test_at_the_noise_of_the_measurement_the_branches_differ_in_mean():
    """With eta = eta_b = 1: the measurement itself above, the denoiser and fresh noise below."""
    x = torch.full((1, 1, 250, 400), 0.5, dtype=F64)
    operator = operators.parse("denoise", (1, 250, 400), noise=0.1).to(F64)
    y = operators.measure(operator, x, seed=1)
    for s_next, weight in ((0.1 * (1 + 1e-9), 1.0), (0.1 * (1 - 1e-9), 0.0)):
        work = problem(operator, y, tuple(x.shape), 0.1)
        state = next(states(work, [0.3, s_next], x, eta=1.0))
        slope = float(((state - x) * (y - x)).mean() / (y - x).square().mean())
        assert abs(slope - weight) < 3 / math.sqrt(1e5) + 1e-3 * weight
        assert abs(float((state - x).square().mean()) / 0.01 - 1) < 3 * math.sqrt(2 / 1e5)


def test_noiseless_measurements_divide_nothing_by_zero():
    x = cubes(shape=(8, 12, 18))
    wrong = torch.full_like(x, 0.3)
    operator = operators.parse("mask:keep=0.3,bandwise=true", (8, 12, 18)).to(F64)
    work = problem(operator, operator.A(x), tuple(x.shape), 0.0)
    chain = list(states(work, [s / 2 for s in DDS2M(steps=30).levels()], wrong))
    assert all(bool(state.isfinite().all()) for state in chain)
    torch.testing.assert_close(operator.A(chain[-1]), operator.A(x), rtol=0, atol=1e-12)


def test_small_images_are_bicubic_ones_and_their_singular_vectors_orthonormal():
    """Keys' kernel, a = -1/2, widened by the factor, mirrored at the border."""
    factor, height, width = 2, 10, 14

    def keys(t):
        t = abs(t)
        if t < 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    def direct(n):
        matrix = torch.zeros(n // factor, n, dtype=F64)
        for i in range(n // factor):
            middle = factor * i + (factor - 1) / 2
            for j in range(-2 * factor, n + 2 * factor):
                inside = -1 - j if j < 0 else 2 * n - 1 - j if j >= n else j
                matrix[i, inside] += keys((j - middle) / factor)
        return matrix / matrix.sum(1, keepdim=True)

    operator = operators.parse(
        "downsample:factor=2,filter=bicubic,boundary=symmetric", (1, height, width)
    ).to(F64)
    svd = operators.svd(operator)
    pixels = torch.eye(height * width, dtype=F64).reshape(-1, 1, height, width)
    rows = svd.U(svd.s * svd.Vt(pixels)).flatten(1).T
    expected = torch.kron(direct(height), direct(width))
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-6)
    c = torch.eye(svd.s.numel(), dtype=F64).reshape(-1, 1, *svd.s.shape[-2:])
    eye = torch.eye(len(c), dtype=F64)
    for columns in (svd.U(c).flatten(1), svd.V(c).flatten(1)):
        torch.testing.assert_close(columns @ columns.T, eye, rtol=0, atol=1e-6)
    assert isinstance(operator.along[0], Along)


def test_levels_of_the_released_code():
    """Measured from its schedule: where the network comes in, and where sigma 0.1 is crossed."""
    found = [DDS2M(steps=T).levels() for T in (1000, 2000, 3000)]
    assert [levels[0] for levels in found] == pytest.approx([0.97, 1.66, 2.51], abs=0.01)
    below = [sum(s < 2 * 0.1 for s in levels) for levels in found]
    assert below == [108, 143, 166]
    assert [DDS2M(steps=T).length for T in (1000, 2000, 3000)] == [501, 1001, 1501]


def test_levels_are_halved_for_cubes_in_the_unit_interval():
    """After the first step with eta 1 the state is y and noise up to the level, s' / 2."""
    x = cubes(shape=(8, 64, 64))
    operator = operators.parse("denoise", (8, 64, 64), noise=0.1).to(F64)
    y = operators.measure(operator, x, seed=1)
    solver = DDS2M(steps=1000, eta=1.0, **TINY)
    work = problem(operator, y, tuple(x.shape), 0.1)
    next(solver.iterate(work))
    power = float((work.state["x"][0] - y).square().mean())
    expected = (solver.levels()[1] / 2) ** 2 - 0.1**2
    assert abs(power / expected - 1) < 3 * math.sqrt(2 / y.numel())


# -- the solvers ------------------------------------------------------------------------------


@pytest.fixture(params=QUICK)
def solver(request):
    return QUICK[request.param]


def noisy(count=1, noise=0.1):
    x = cubes(count)
    operator = operators.parse("denoise", x.shape[1:], noise=noise).to(F64)
    return operators.measure(operator, x, seed=1), operator


def test_seeds_decide_and_nothing_else_does(solver):
    y, operator = noisy()
    before = torch.get_rng_state()
    first = restore.solve(y, operator, None, solver, seed=1).samples
    again = solver(y, operator, Gaussian.power_law((8, 12, 17)), seed=1).samples
    other = solver(y, operator, seed=2).samples
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert float((first - other).abs().max()) > 1e-3


def test_a_cube_in_a_batch_comes_out_as_alone(solver):
    y, operator = noisy(count=2)
    both = solver(y, operator, samples=2, seed=1).samples
    for i in range(2):
        alone = solver(y[i : i + 1], operator, samples=2, seed=1).samples
        torch.testing.assert_close(both[:, i : i + 1], alone, rtol=0, atol=1e-9)


def test_a_killed_run_goes_on_to_the_same_cube(solver, tmp_path, monkeypatch):
    monkeypatch.setattr(restore.checkpoint, "EVERY", 0.0)
    y, operator = noisy()
    whole = solver(y, operator, seed=1).samples

    def kill(step):
        if step.index == 6:
            raise KeyboardInterrupt

    file = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        solver(y, operator, seed=1, callback=kill, checkpoint=file)
    assert file.exists()
    seen = []
    result = solver(
        y, operator, seed=1, checkpoint=file, callback=lambda step: seen.append(step.index)
    )
    assert seen[0] == 6  # the step that was not written is done again, those before are not
    assert torch.equal(result.samples, whole)


def test_noise_and_rank_are_estimated_where_they_are_not_given():
    x = cubes(2, shape=(10, 24, 26))
    operator = operators.parse("denoise", x.shape[1:]).to(F64)
    y = x + 0.1 * torch.randn(x.shape, generator=stream(5, 5), dtype=F64)
    solver = FitVS2M(steps=2, map_channels=(4,), hidden=(8,))
    notes = solver(y, operator).notes
    assert notes["rank"] == [5, 5]  # twice three, but no more than half the bands
    # 5000 of 6240 entries are noise alone: 1 % is the standard deviation
    assert all(abs(s / 0.1 - 1) < 0.04 for s in notes["sigma_y"])
    assert float(operators.noise_sigma(operator)) == 0  # the user's operator is left alone


def test_a_fitted_cube_is_nearer_than_the_measurement():
    """Three spectra of twelve bands: noise outside their span, 3/4 of it, is out of reach."""
    x = cubes(shape=(12, 16, 20))
    operator = operators.parse("denoise", x.shape[1:], noise=0.1)
    y = operators.measure(operator, x.float(), seed=1)
    options = {"rank": 3, "lr": 1e-2, "map_channels": (8, 8), "hidden": (32,)}
    for solver in (FitVS2M(steps=250, **options), DDS2M(steps=500, **options)):
        error = float((solver(y, operator).samples[0] - x).square().mean())
        assert error < 0.1**2 / 4


@pytest.mark.parametrize(
    ("shape", "words"),
    [((7, 16, 16), "7 bands"), ((16, 16, 4), "16x4 pixels"), ((8, 16, 16, 16), "3 spatial")],
)
def test_what_is_no_cube_is_refused(solver, shape, words):
    spec = "denoise" if len(shape) == 3 else "mask:keep=0.5"
    operator = operators.parse(spec, shape, noise=0.1)
    with pytest.raises(ValueError, match=words):
        solver(torch.rand(1, *shape), operator)


def test_missing_pixels_are_filled_and_missing_bands_refused(solver):
    x = cubes(shape=(8, 16, 16)).float()
    pixels, bands = torch.ones(2, 8, 16, 16)
    pixels[:, 4:9, 5] = 0
    bands[3] = 0
    operator = operators.mask((8, 16, 16), mask=pixels, noise=0.1)
    assert bool(solver(operators.measure(operator, x, seed=1), operator).samples.isfinite().all())
    operator = operators.mask((8, 16, 16), mask=bands, noise=0.1)
    with pytest.raises(ValueError, match="1 of 8 bands are measured nowhere"):
        solver(operators.measure(operator, x, seed=1), operator)


def test_nothing_is_estimated_from_what_is_no_cube():
    operator = operators.parse("cs:ratio=0.25", (8, 16, 16))
    y = operators.measure(operator, torch.rand(1, 8, 16, 16), seed=0)
    with pytest.raises(ValueError, match="give the operator its noise"):
        FitVS2M(steps=2)(y, operator)
    with pytest.raises(ValueError, match="give the solver its rank"):
        FitVS2M(steps=2, estimate_noise=False)(y, operator)


@pytest.mark.parametrize(
    "bad", [{"rank": 0}, {"lr": 0.0}, {"decay": 1.0}, {"beta_tv": -1.0}, {"map_channels": ()}]
)
@pytest.mark.parametrize("kind", [DDS2M, FitVS2M])
def test_impossible_settings_are_refused(kind, bad):
    with pytest.raises(ValueError, match=f"{kind.name} needs"):
        kind(**bad)


@pytest.mark.parametrize("bad", [{"steps": 1}, {"start_point": 0}, {"eta": 1.5}, {"eta_b": -0.1}])
def test_impossible_chains_are_refused(bad):
    with pytest.raises(ValueError, match="dds2m needs"):
        DDS2M(**bad)


def test_constants_of_the_released_code():
    assert DDS2M.released("complete").eta == 0.95
    assert DDS2M.released("denoise", rank=4).rank == 4
    with pytest.raises(ValueError, match="unknown task"):
        DDS2M.released("deblur")  # type: ignore[arg-type]


def test_solvers_with_a_prior_ask_for_it():
    y, operator = noisy()
    with pytest.raises(TypeError, match="the prior is None"):
        restore.solve(y, operator, None, "ddrm")
