"""Samplers with memory and samplers of the denoised image: orders, exactness, laws."""

import math
from dataclasses import dataclass

import mpmath
import pytest
import torch
from flows import error, lam_grid, levels, mixture, slope, start, time_grid

from priors import Gaussian
from priors.bases import Dense
from priors.schedules import EDM, VP
from restore.samplers import grid as grids
from restore.samplers.adams import Adams
from restore.samplers.ddim import DDIM
from restore.samplers.deis import DEIS
from restore.samplers.dpm_solver_pp import DPMSolverPP2S, DPMSolverPPM, SDEDPMSolverPP
from restore.samplers.dpm_solver_v3 import DPMSolverV3
from restore.samplers.estimate_statistics import estimate
from restore.samplers.gaussian_adams import GaussianAdams
from restore.samplers.model_statistics import GaussianStatistics, Statistics
from restore.samplers.multistep import gauss_legendre, lagrange, quadrature
from restore.samplers.phi import adams_weights, phi
from restore.samplers.pndm import PNDM
from restore.samplers.sampler import Path

COUNTS = (64, 128, 256)


@dataclass(frozen=True)
class Constant:
    """Statistics that do not change."""

    values: tuple[float, float, float]

    def at(self, lam):
        return tuple(torch.full((len(lam),), v, dtype=torch.float64) for v in self.values)


DATA, NOISE = Constant((1.0, 0.0, 0.0)), Constant((0.0, -1.0, 0.0))


def low_grid(n):
    """From an image with little noise: where the start matters."""
    return lam_grid(n, noisy=-0.5)


def level_grid(n):
    """Even steps of level, over a range that they resolve from its first step on."""
    return grids.uniform_level(VP(), n, *levels(1, 1.0).tolist())


def gap(a, b, grid, prior=None):
    """Largest difference between two samplers from one start."""
    prior = prior or mixture()
    x = start(prior, grid)
    return float((a(prior, x, grid) - b(prior, x, grid)).abs().max())


# --- weights


def test_phi_agrees_with_many_digits():
    mpmath.mp.dps = 60
    for k in range(1, 6):
        for z in (1e-9, 1e-3, 0.3, 0.999, 1.001, 3.0, 20.0):
            for signed in (z, -z):
                value, m = (mpmath.exp(signed) - 1) / mpmath.mpf(signed), mpmath.mpf(signed)
                for j in range(1, k):
                    value = (value - 1 / mpmath.factorial(j)) / m
                # the recursion divides k - 1 roundings by |z| > 1
                assert phi(k, signed) == pytest.approx(float(value), rel=2e-14)


@pytest.mark.parametrize("form", [-1.0, 1.0])
def test_adams_weights_integrate_polynomials(form):
    h, nodes = 0.7, (0.0, -0.4, -1.3)
    u, w = gauss_legendre(40)
    for power in range(3):
        integral = float((w * torch.exp(form * (1 - u) * h) * (u * h) ** power).sum())
        weights = adams_weights(nodes, h, form=form)
        assert sum(a * n**power for a, n in zip(weights, nodes, strict=True)) == pytest.approx(
            integral, abs=1e-14
        )


def test_lagrange_polynomials_are_one_at_home_and_sum_to_one():
    nodes = (0.0, -0.3, -1.1)
    at_home = lagrange(nodes, torch.tensor(nodes, dtype=torch.float64))
    assert torch.allclose(at_home, torch.eye(3).double())
    lam, w = quadrature(-3.0, 2.0)
    assert torch.allclose(lagrange(nodes, lam).sum(0), torch.ones(40).double(), atol=1e-12)
    integral = math.exp(3) - math.exp(-2)
    assert float((w * torch.exp(-lam)).sum()) == pytest.approx(integral, rel=1e-14)


# --- order of convergence


@pytest.mark.parametrize(
    ("sampler", "make", "order"),
    [
        (DPMSolverPP2S(), lam_grid, 2),
        (DPMSolverPP2S(), time_grid, 2),
        (DPMSolverPPM(k=2), lam_grid, 2),
        (DPMSolverPPM(k=3), lam_grid, 3),
        (Adams(k=2), lam_grid, 2),
        (Adams(k=3), lam_grid, 3),
        (Adams(k=3, prediction="noise"), time_grid, 3),
        (DEIS(degree=1), lam_grid, 2),
        (DEIS(degree=1), time_grid, 2),
        (DEIS(degree=2), lam_grid, 3),
        (DEIS(degree=2), time_grid, 3),
        (PNDM(), lam_grid, 2),
        (PNDM(k=2, start="plms"), time_grid, 2),
        (GaussianAdams(k=2, mean=0.1, std=0.9), lam_grid, 2),
        (GaussianAdams(k=3, mean=0.1, std=0.9), time_grid, 3),
    ],
    ids=lambda v: getattr(v, "name", getattr(v, "__name__", v)),
)
def test_order(sampler, make, order):
    assert slope(sampler, make, (128, 256, 512)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (DPMSolverPPM(k=3), 2),
        (Adams(k=3), 2),
        (Adams(k=3, start="rk"), 3),
        (Adams(k=4, start="rk"), 4),
        (DEIS(degree=3), 2),
        (DEIS(degree=3, start="rk"), 4),
    ],
    ids=repr,
)
def test_a_first_step_of_ddim_limits_the_order_where_little_noise_is_left(sampler, order):
    assert slope(sampler, low_grid, COUNTS) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (PNDM(), 4),
        (PNDM(middle="t"), 3),
        (PNDM(start="plms"), 3),
        (PNDM(k=2, start="plms"), 2),
    ],
    ids=repr,
)
def test_order_of_pndm_on_even_levels(sampler, order):
    assert slope(sampler, level_grid, (128, 256, 512)) == pytest.approx(order, abs=0.15)


def test_half_the_third_term_leaves_the_authors_3m_at_order_two():
    """Their code divides the second difference by two once too often."""

    @dataclass(frozen=True, kw_only=True)
    class Released(Adams):
        k: int = 3

        def advance(self, path, x, t, s, past):
            full = super().advance(path, x, t, s, past)
            if len(past) < 3:
                return full
            (a, f0), (b, f1), (c, f2) = past
            bend = ((f0 - f1) / (a.lam - b.lam) - (f1 - f2) / (b.lam - c.lam)) / (a.lam - c.lam)
            h = s.lam - t.lam
            return full - s.alpha * h**3 * phi(3, -h) * bend

    assert slope(Released(), lam_grid, (128, 256, 512)) == pytest.approx(2, abs=0.15)


# --- exactness


def polynomial(degree):
    """A denoised image that depends on lam alone."""
    return lambda y, s: torch.full_like(y, (1 - math.log(s)) ** degree)


def exact_data(degree, t, s):
    """Where 0.3 at `t` ends up at `s`."""
    lam, w = quadrature(t.lam, s.lam)
    moved = float((torch.exp(lam) * (1 + lam) ** degree * w).sum())
    return s.sigma * (0.3 / t.sigma + moved)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_adams_is_exact_for_images_polynomial_in_lam(k):
    lams = torch.tensor([-1.0, -0.6, 0.1, 0.6, 1.5]).double()
    grid = grids.from_levels(VP(), torch.exp(-lams))
    x = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)
    t, s = grid[3], grid[4]
    for degree in range(k):
        D = polynomial(degree)
        past = [(p, D(x, p.level)) for p in reversed(grid.points[4 - k : 4])]
        got = float(Adams(k=k).advance(Path(D, grid), x, t, s, past))
        assert got == pytest.approx(exact_data(degree, t, s), abs=1e-13)
    # with an inner evaluation in the first step, whole runs follow a line exactly
    if k > 2:
        got = Adams(k=k, start="rk")(polynomial(1), x, grid, clean=False)
        assert float(got) == pytest.approx(exact_data(1, grid[0], s), abs=1e-13)


def test_midpoint_rules_are_not_exact_for_linear_images_and_adams_is():
    h = 0.5
    grid = grids.from_levels(VP(), torch.exp(-torch.tensor([0.0, h, 2 * h]).double()))
    path, x = Path(polynomial(1), grid), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    past = [(at, path.D(x, at)) for at in (grid[1], grid[0])]
    lam, w = quadrature(grid[1].lam, grid[2].lam)
    true = grid[2].sigma * float((torch.exp(lam) * (1 + lam) * w).sum())
    assert float(Adams(k=2).advance(path, x, grid[1], grid[2], past)) == pytest.approx(
        true, abs=1e-15
    )

    # 2S and 2M put the middle for the mean: h^2 (phi_2 - phi_1 / 2) of a unit slope is missed
    missed = grid[2].alpha * h**2 * (phi(2, -h) - phi(1, -h) / 2)
    step = grids.from_levels(VP(), torch.exp(-torch.tensor([h, 2 * h]).double()))
    assert float(DPMSolverPP2S()(polynomial(1), x, step, clean=False)) == pytest.approx(
        true - missed, abs=1e-14
    )
    first = next(DPMSolverPPM().steps(Path(polynomial(1), grid), x))
    second = float(DPMSolverPPM()(polynomial(1), x, grid, clean=False))
    left = second - grid[2].sigma / grid[1].sigma * float(first)
    assert left == pytest.approx(true - missed, abs=1e-14)
    assert missed > 8e-3 * grid[2].alpha


@pytest.mark.parametrize("variable", ["t", "level", "lam"])
def test_deis_is_exact_for_noise_polynomial_in_its_variable(variable):
    schedule = VP()
    lams = torch.tensor([-1.0, -0.6, 0.1, 0.6, 1.5]).double()
    grid = grids.from_levels(schedule, torch.exp(-lams))

    def place(lam):
        s = torch.exp(-torch.as_tensor(lam, dtype=torch.float64))
        return {"t": schedule.time(s), "level": s, "lam": -torch.log(s)}[variable]

    path, x = Path(lambda y, s: y, grid), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for degree in range(4):
        past = [(p, place(p.lam).reshape(1, 1, 1, 1) ** degree) for p in grid.points[3::-1]]
        lam, w = quadrature(grid[3].lam, grid[4].lam)
        moved = -float((torch.exp(-lam) * place(lam) ** degree * w).sum())
        got = DEIS(degree=3, variable=variable).advance(path, x, grid[3], grid[4], past)
        assert float(got) == pytest.approx(grid[4].alpha * moved, abs=1e-12)


@pytest.mark.parametrize(
    "sampler",
    [DPMSolverPP2S(), DPMSolverPPM(), Adams(), DEIS(), PNDM(), GaussianAdams(mean=2.0, std=0.0)],
    ids=lambda s: s.name,
)
def test_a_point_mass_is_reached_in_one_step(sampler):
    grid = lam_grid(1)
    x = torch.tensor([[[[0.7]]]], dtype=torch.float64)
    m = 2.0
    there = grid[1].alpha * m + grid[1].sigma * (float(x) - grid[0].alpha * m) / grid[0].sigma
    out = sampler(lambda y, s: torch.full_like(y, m), x, grid, clean=False)
    # rounding at level 90
    assert float(out) == pytest.approx(there, abs=1e-10)


# --- DPM-Solver-v3


def diagonal_gaussian():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(1, 3, 4, dtype=torch.float64, generator=generator)
    std = torch.rand(1, 3, 4, dtype=torch.float64, generator=generator) + 0.05
    prior = Gaussian(mean, Dense(torch.eye(12, dtype=torch.float64)), std**2)
    grid = lam_grid(1)
    a, b = grid[0], grid[1]
    x = a.sigma * torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=generator)
    grow = ((std**2 + b.level**2) / (std**2 + a.level**2)).sqrt()
    return prior, std, grid, x, b.alpha * (mean + grow * (x / a.alpha - mean))


def test_v3_carries_a_gaussian_exactly_in_one_step_where_ddim_does_not():
    prior, std, grid, x, there = diagonal_gaussian()

    def miss(sampler):
        return float((sampler(prior, x, grid, clean=False) - there).abs().max())

    exact = GaussianStatistics(mean=prior.mean, std=std)
    assert miss(DPMSolverV3(statistics=exact, k=1)) < 1e-12
    assert miss(DDIM()) > 0.3

    # from images; the error is that of differences of l, 0.05^2 / 6 of its third derivative
    images = prior.sample(4, torch.Generator().manual_seed(1))
    table = torch.linspace(-4.6, 2.6, 145, dtype=torch.float64)
    found = estimate(prior, images, table, per_pixel=True)
    assert float((found.l - exact.at(table)[0]).abs().max()) < 1e-12  # a diagonal Jacobian
    assert miss(DPMSolverV3(statistics=found, k=1)) < 2e-3


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("begin", ["ddim", "rk"])
def test_v3_degenerates_to_adams(k, begin):
    grid = lam_grid(9)
    data, noise = (DPMSolverV3(statistics=c, k=k, start=begin) for c in (DATA, NOISE))
    assert gap(data, Adams(k=k, start=begin), grid) < 1e-12
    assert gap(noise, Adams(k=k, prediction="noise", start=begin), grid) < 1e-12
    white = DPMSolverV3(statistics=GaussianStatistics(mean=0.3, std=0.8), k=k, start=begin)
    assert gap(white, GaussianAdams(mean=0.3, std=0.8, k=k, start=begin), grid) < 1e-12


def test_kindred_samplers_agree():
    grid = lam_grid(9)
    v3 = DPMSolverV3(statistics=NOISE, k=2)
    assert gap(DEIS(degree=1, variable="lam"), v3, grid) < 1e-12
    assert gap(DEIS(degree=3, variable="lam"), Adams(k=4, prediction="noise"), grid) < 1e-12
    assert gap(GaussianAdams(mean=0.2, std=0.0, k=3), Adams(k=3), grid) < 1e-12
    for single in (DEIS(degree=0), Adams(k=1), PNDM(k=1)):
        assert gap(single, DDIM(), grid) < 1e-12
    # 3M differs from Adams in its second step alone, which is 2M
    assert 1e-4 < gap(DPMSolverPPM(k=3), Adams(k=3), low_grid(9)) < 0.1


@pytest.fixture(scope="module")
def statistics():
    """Of the mixture, from 256 of its images."""
    prior = mixture()
    images = prior.sample(256, torch.Generator().manual_seed(5))
    table = torch.linspace(-4.6, 2.6, 73, dtype=torch.float64)
    return estimate(prior, images, table, batch_size=256)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"k": 1}, 1),
        ({"k": 2}, 2),
        ({"k": 3}, 3),
        ({"k": 3, "corrector": True}, 3),
        ({"k": 3, "pseudo": True, "corrector": True}, 2),
    ],
    ids=str,
)
def test_order_of_v3(statistics, options, order):
    sampler = DPMSolverV3(statistics=statistics, start="rk", **options)
    assert slope(sampler, low_grid, (48, 96, 192)) == pytest.approx(order, abs=0.2)


def test_v3_gains_where_steps_are_few(statistics):
    # five steps, order 2: a third of the error of 2M at least
    v3, plain = DPMSolverV3(statistics=statistics, k=2), DPMSolverPPM()
    assert error(v3, lam_grid(5)) < 2 / 3 * error(plain, lam_grid(5))


def test_statistics_are_kept_and_refused(statistics, tmp_path):
    file = tmp_path / "mixture.safetensors"
    statistics.save(file)
    again = Statistics.load(file)
    for name in ("lam", "l", "s", "b"):
        assert torch.equal(getattr(again, name), getattr(statistics, name))
    (tmp_path / "text.safetensors").write_text("nothing of the kind")
    with pytest.raises(ValueError, match="not a safetensors file"):
        Statistics.load(tmp_path / "text.safetensors")
    with pytest.raises(FileExistsError, match="exists"):
        statistics.save(file)
    with pytest.raises(ValueError, match=r"cover lam -4\.6 to 2\.6, found"):
        gap(DPMSolverV3(statistics=statistics), DDIM(), lam_grid(4, noisy=-4.8))
    with pytest.raises(ValueError, match="rising lam"):
        Statistics(lam=torch.tensor([2.0, 1.0]), l=again.l, s=again.s, b=again.b)


def test_statistics_interpolate_cubics_exactly():
    lam = torch.tensor([-2.0, -1.2, -0.9, 0.0, 0.4, 1.5], dtype=torch.float64)
    cubic = (lam**3 - 2 * lam)[:, None]
    table = Statistics(lam=lam, l=cubic, s=-cubic, b=2 * cubic)
    at = torch.linspace(-2, 1.5, 50, dtype=torch.float64)
    first, second, third = table.at(at)
    assert torch.allclose(first[:, 0], at**3 - 2 * at, atol=1e-13)
    assert torch.allclose(second, -first)
    assert torch.allclose(third, 2 * first)


# --- laws of random samplers


def variance(sampler, c, n):
    """Relative bias in variance for data N(0, c^2): the squared responses to each noise, summed."""
    grid = lam_grid(n)
    a = grid[0]
    x = torch.zeros(n + 1, 1, 1, 1, dtype=torch.float64)
    x[0] = math.sqrt(a.alpha**2 * c**2 + a.sigma**2)
    seen = iter(range(1, n + 1))

    def one_at_a_time(like):
        z = torch.zeros_like(like)
        z[next(seen)] = 1
        return z

    out = sampler(lambda y, s: c**2 / (c**2 + s**2) * y, x, grid, noise=one_at_a_time, clean=False)
    b = grid[-1]
    return float(out.square().sum()) / (b.alpha**2 * c**2 + b.sigma**2) - 1


@pytest.mark.parametrize("c", [0.3, 1.0])
@pytest.mark.parametrize("k", [1, 2])
def test_variance_of_sde_samplers_converges_with_their_order(k, c):
    sampler = SDEDPMSolverPP(k=k)
    bias = [abs(variance(sampler, c, n)) for n in (160, 320)]
    assert math.log2(bias[0] / bias[1]) == pytest.approx(k, abs=0.1)
    assert abs(variance(sampler, 0.0, 5)) < 1e-12  # a point mass, exact in law


def test_constants_of_the_variance_bias():
    assert variance(SDEDPMSolverPP(k=1), 1.0, 160) == pytest.approx(-4.2e-2, rel=0.05)
    assert variance(SDEDPMSolverPP(k=2), 1.0, 160) == pytest.approx(6.0e-4, rel=0.1)


def test_the_first_sde_sampler_is_ancestral_ddim():
    prior, grid = mixture(), lam_grid(7)
    x, ends = start(prior, grid), []
    for sampler in (SDEDPMSolverPP(k=1), DDIM(eta=1.0)):
        generator = torch.Generator().manual_seed(2)

        def noise(like, generator=generator):
            return torch.randn(like.shape, dtype=like.dtype, generator=generator)

        ends.append(sampler(prior, x, grid, noise=noise))
    assert float((ends[0] - ends[1]).abs().max()) < 1e-13


# --- use


def test_single_precision_stays_single():
    prior, grid = mixture(), grids.from_levels(EDM(), [5.0, 1.0, 0.3, 0.1])
    x = start(prior, grid)
    exact = GaussianStatistics(mean=0.1, std=0.9)
    for sampler in (
        DPMSolverPP2S(),
        DPMSolverPPM(k=3),
        Adams(k=3, start="rk"),
        DEIS(),
        PNDM(),
        GaussianAdams(),
        DPMSolverV3(statistics=exact, corrector=True),
    ):
        single = sampler(prior, x.float(), grid)
        assert single.dtype == torch.float32
        assert torch.allclose(single.double(), sampler(prior, x, grid), atol=1e-4)


def test_unknown_options_are_refused():
    for call, words in (
        (lambda: Adams(k=5), "k is 5"),
        (lambda: Adams(start="euler"), "start 'euler'"),
        (lambda: Adams(prediction="v"), "prediction 'v'"),
        (lambda: DEIS(degree=4), "degree is 4"),
        (lambda: DEIS(variable="sigma"), "variable 'sigma'"),
        (lambda: PNDM(middle="lam"), "middle 'lam'"),
        (lambda: DPMSolverPP2S(r=0.0), "r is 0"),
        (lambda: DPMSolverPPM(k=1), "k is 1"),
        (lambda: SDEDPMSolverPP(k=3), "k is 3"),
        (lambda: GaussianAdams(std=-1.0), "std is -1"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
