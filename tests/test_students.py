"""Students: jumps, reflow and consistency held against trajectories that are known exactly."""

import math

import pytest
import torch
from flows import MIXTURE, levels, mixture
from safetensors import safe_open
from torch import nn

import operators
import priors
import restore
from priors import ProductMixture
from priors.denoiser import Card
from priors.powerlaw import PowerLaw, PowerLawDenoiser
from priors.schedules import EDM, VP
from priors.shelf import sha256
from priors.training import Recipe, fit
from priors.weights import SHELF as PRIORS
from restore import students
from restore.bench import students as bench
from restore.samplers import grid as grids
from restore.samplers.adams import Adams
from restore.samplers.ddim import DDIM
from restore.students import reflow
from restore.students.consistency import consistency_loss, gap, pseudo_huber
from restore.students.files import SHELF
from restore.students.flow_map import FlowMap, jump_with
from restore.students.gaussian import gaussian_average, gaussian_flow, gaussian_start
from restore.students.student import LEVELS, Student, walk
from restore.students.trajectories import Trajectories, jump_loss, trace

LAW = PowerLaw(
    colours=((1.0,),), mean=(0.47,), mean_std=(0.15,), amplitude=(2e-4,), exponent=(2.3,)
)
WIDTHS = (4, 8, 8, 8)
HIGH = 1.5


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=rng(seed), dtype=torch.float64)


def tiny():
    network = FlowMap(LAW, WIDTHS, 1)
    generator = rng(3)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=generator) / math.sqrt(2 * p[0].numel())
    card = Card(name="tiny", channels=1, extra={"teacher": "natural-gray"})
    return Student(card, network, HIGH).eval().requires_grad_(False)


# -- the Gaussian in closed form ---------------------------------------------------------------


def test_the_flow_of_the_power_law_solves_its_ode():
    """A fine DDIM run converges to it with order one; halving the step halves the error."""
    x = gaussian_start(LAW, randn(2, 1, 16, 16), 5.0)
    teacher, errors = PowerLawDenoiser(Card(name="law", channels=1), LAW), []
    for n in (200, 400):
        grid = grids.build("lambda", EDM(), n, 5.0, 0.2)
        end = DDIM()(teacher, x, grid, clean=False)
        errors.append(float((end - gaussian_flow(LAW, x, 5.0, 0.2)).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] < 0.01


def test_noise_arrives_with_the_law_of_noisy_images():
    """Pure noise from infinity is the limit of the flow, and has variance c + level^2."""
    z = randn(1, 1, 16, 16)
    far = gaussian_flow(LAW, 1e7 * z, 1e7, HIGH)
    assert torch.allclose(gaussian_start(LAW, z, HIGH), far, atol=1e-5)
    flat = gaussian_start(LAW, torch.zeros(1, 1, 8, 8, dtype=torch.float64), HIGH)
    assert torch.allclose(flat, torch.full_like(flat, LAW.mean[0]))


@pytest.mark.parametrize(("start", "end"), [(1.5, 0.0), (0.3, 0.29), (40.0, 0.01)])
def test_the_averaged_image_of_the_gaussian_makes_its_jump(start, end):
    x = 0.5 + start * randn(2, 1, 16, 16)
    t, u = (torch.tensor(v, dtype=torch.float64) for v in (start, end))
    average = gaussian_average(LAW, x, t, u)
    jumped = (u / t) * x + (1 - u / t) * average
    assert torch.allclose(jumped, gaussian_flow(LAW, x, start, end), atol=1e-12)


# -- jumps -------------------------------------------------------------------------------------


def test_segments_close_and_a_jump_of_no_length_changes_nothing():
    student = tiny()
    x = gaussian_start(LAW, randn(2, 1, 32, 32), 20.0)
    once = student.jump(x, 20.0, 2.0)
    assert torch.allclose(student.jump(student.jump(x, 20.0, 5.0), 5.0, 2.0), once, atol=1e-12)
    through = student.jump(student.jump(x, 20.0, HIGH), HIGH, 0.3)
    assert torch.allclose(student.jump(x, 20.0, 0.3), through, atol=1e-12)
    assert torch.allclose(student.jump(x, 0.5, 0.5 - 1e-9), x, atol=1e-7)
    y, same = x.float(), torch.tensor([0.5, 0.5])
    assert torch.equal(jump_with(student.network, y, same, same), y)
    for start, end in ((0.5, 0.5), (0.1, 0.2), (1.0, -0.1), (math.inf, 1.0)):
        with pytest.raises(ValueError, match="a jump goes from a level to a lower one"):
            student.jump(x, start, end)


def test_the_exact_jump_closes_its_segments():
    """What a student imitates: f(f(x, t -> u), u -> w) = f(x, t -> w)."""
    prior = mixture(rotated=True)
    x = 3.0 * randn(2, 1, 3, 11)
    once = prior.flow(x, 3.0, 0.1)
    assert torch.allclose(prior.flow(prior.flow(x, 3.0, 0.7), 0.7, 0.1), once, atol=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0])
def test_exact_jumps_with_fresh_noise_keep_the_marginals(gamma):
    """Kolmogorov-Smirnov distance of n = 3300 values; 1.95 / sqrt(n) is exceeded once in 1000."""
    prior = mixture()
    generator = rng(1)
    x = prior.sample(100, generator)
    x = x + 3.0 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    fresh = iter(randn(300, 1, 3, 11, seed=2).split(100))
    x = walk(prior.flow, x, (3.0, 1.0, 0.3, 0.05), gamma=gamma, noise=lambda like: next(fresh))
    x = prior.cdf(x.flatten(), 0.05).sort().values
    n = len(x)
    grid = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert n == 3300
    assert float((x - grid).abs().max()) < 1.95 / math.sqrt(n)


def test_walks_that_do_not_fall_are_refused():
    x = randn(1, 1, 3, 11)
    for bad in ((1.0,), (1.0, 1.0), (0.5, 1.0), (1.0, -0.5)):
        with pytest.raises(ValueError, match="falling levels"):
            walk(mixture().flow, x, bad)
    with pytest.raises(ValueError, match="gamma"):
        walk(mixture().flow, x, (1.0, 0.5), gamma=1.5)
    with pytest.raises(ValueError, match="draws noise"):
        walk(mixture().flow, x, (1.0, 0.5), gamma=0.5)


# -- the network -------------------------------------------------------------------------------


def test_a_student_begins_as_ddim_with_its_teacher():
    teacher = priors.load("natural-gray").network
    student = FlowMap.from_teacher(teacher, LAW, (32, 64, 128, 256), 1).eval()
    x = (0.5 + 0.7 * randn(2, 1, 32, 32)).float()
    t, u = torch.tensor([0.7, 0.4]), torch.tensor([0.2, 0.0])
    with torch.no_grad():
        assert torch.allclose(student(x, t, u), teacher(x, t), atol=1e-6)


def test_a_narrower_student_begins_near_its_teacher():
    """Nearer than the noisy image by far, though a quarter of the coarsest channels is gone."""
    teacher = priors.load("natural-gray").network
    student = FlowMap.from_teacher(teacher, LAW, (32, 64, 128, 192), 1).eval()
    x = 0.5 + 0.2 * torch.randn(2, 1, 32, 32, generator=rng())
    with torch.no_grad():
        there = teacher(x, 0.2)
        assert float((student(x, 0.2, 0.0) - there).std()) < 0.2 * float((x - there).std())


def test_draws_are_the_same_in_every_batch():
    student = tiny()
    three = student.draw(3, (1, 32, 32), calls=2, seed=5)
    assert torch.equal(student.draw(1, (1, 32, 32), calls=2, seed=5), three[:1])
    assert not torch.equal(student.draw(1, (1, 32, 32), calls=2, seed=6), three[:1])
    fresh = student.draw(2, (1, 32, 32), calls=2, seed=5, gamma=1.0)
    assert torch.equal(student.draw(1, (1, 32, 32), calls=2, seed=5, gamma=1.0), fresh[:1])
    assert not torch.equal(fresh, three[:2])
    assert student.draw(1, (1, 20, 27), calls=1).shape == (1, 1, 20, 27)
    chosen = student.draw(1, (1, 32, 32), levels=LEVELS[2], seed=5)
    assert torch.equal(chosen, three[:1])


def test_every_number_of_calls_is_that_number_of_network_calls():
    student = tiny()
    count = 0

    def counted(*_):
        nonlocal count
        count += 1

    student.network.register_forward_hook(counted)
    for calls in LEVELS:
        count = 0
        student.draw(2, (1, 32, 32), calls=calls)
        assert count == calls


def test_a_student_is_refused_where_a_denoiser_is_needed():
    student = tiny()
    assert not student.is_denoiser
    operator = operators.parse("denoise", (1, 32, 32), noise=0.1)
    y, sentence = torch.zeros(1, 1, 32, 32), r"^'tiny' is a student: [^\n]* 'natural-gray'\.$"
    with pytest.raises(TypeError, match=sentence):
        restore.solve(y, operator, student)
    grid = grids.build("edm", EDM(), 4, 1.0, 0.1)
    with pytest.raises(TypeError, match=sentence):
        DDIM()(student, y, grid)
    with pytest.raises(ValueError, match="draws in 1 to 4 calls, found 9"):
        student.draw(1, (1, 32, 32), calls=9)
    with pytest.raises(ValueError, match="found count 1 and shape"):
        student.draw(1, (3, 32, 32))


# -- files -------------------------------------------------------------------------------------


def test_a_saved_student_draws_the_same(tmp_path):
    student = tiny()
    student.network.half().float()  # what float16 keeps
    students.save(tmp_path / "one.safetensors", student)
    read = students.load(tmp_path / "one.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["one.safetensors"]
    assert read.card.extra["teacher"] == "natural-gray"
    for calls in (1, 4):
        ours, theirs = (s.draw(1, (1, 32, 32), calls=calls) for s in (student, read))
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_files_that_are_no_students_are_refused(tmp_path):
    path = tmp_path / "one.safetensors"
    students.save(path, tiny())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        students.load(path)
    with pytest.raises(ValueError, match="does not say how to rebuild a student"):
        students.load(PRIORS.folder / "natural-gray.safetensors")
    with pytest.raises(ValueError, match="did you mean 'natural-gray-student'"):
        students.load("natural-grey-student")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        students.load(tmp_path / "two.safetensors")
    students.save(path, tiny())
    with pytest.raises(ValueError, match="does not say how to rebuild a prior"):
        priors.load(path)


# -- trajectories ------------------------------------------------------------------------------


def exact_average(x, start, end):
    """`G` of the mixture, whose jumps are known."""
    prior, out = mixture(), []
    for one, t, u in zip(x.double(), start.tolist(), end.tolist(), strict=True):
        out.append((prior.flow(one[None], t, u) - u / t * one) / (1 - u / t))
    return torch.cat(out)


def test_the_jump_loss_vanishes_for_the_exact_jump_alone():
    prior, at = mixture(), (3.0, 1.0, 0.4, 0.1, 0.0)
    x = 3 * randn(6, 1, 3, 11)
    points = torch.stack([prior.flow(x, at[0], s) if s < at[0] else x for s in at], 1)
    loss = jump_loss([Trajectories(points, at)], 40)
    # targets are float32 of size 3, divided by the expected error, which is 0.034 at least
    assert float(loss(exact_average, rng())) < 1e-4
    assert float(loss(lambda x, t, u: exact_average(x, t, 0 * u), rng())) > 0.1


def test_traces_hold_every_point_and_the_clean_end():
    prior, x = mixture(), 3 * randn(2, 1, 3, 11)
    grid = grids.build("lambda", EDM(), 200, 3.0, 0.05)
    found = trace(prior, x, grid, DDIM())
    assert found.points.shape == (2, 202, 1, 3, 11)
    assert found.levels[-1] == 0
    assert found.levels[0] == pytest.approx(3.0)
    # each point is near the exact one: DDIM's error of order 1 / 200 times the spread of the prior
    for k in (50, 200):
        exact = prior.flow(x, 3.0, found.levels[k])
        assert float((found.points[:, k] - exact).abs().max()) < 0.05
    assert torch.equal(found.points[:, -1], prior(found.points[:, -2], found.levels[-2]))
    with pytest.raises(ValueError, match="as many falling levels"):
        Trajectories(found.points, found.levels[1:])


# -- consistency -------------------------------------------------------------------------------


def test_neighbours_disagree_by_the_square_of_the_step():
    """With the exact jump, a DDIM step of the teacher leaves a gap of order h^2."""
    prior, h = mixture(), torch.tensor([0.1, 0.05, 0.025], dtype=torch.float64)

    def jump(x, start, end):
        return prior.flow(x, float(start), float(end))

    x, gaps = prior.flow(3 * randn(1, 1, 3, 11), 3.0, 0.8), []
    for step in h.tolist():
        t, s, u = (torch.tensor([v], dtype=torch.float64) for v in (0.8, 0.8 - step, 0.05))
        gaps.append(float(gap(jump, prior, x, t, s, u).square().mean().sqrt()))
    slope = torch.tensor(gaps).log().diff() / h.log().diff()
    assert slope.tolist() == pytest.approx([2, 2], abs=0.15)


class Affine(nn.Module):
    """`G = a x + b` with its own a and b at every level; end levels are not looked at."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels
        self.a, self.b = (nn.Parameter(torch.zeros(len(levels))) for _ in range(2))

    def forward(self, x, start, end):
        i = (start[:, None] - self.levels).abs().argmin(1)
        return self.a[i][:, None, None, None] * x + self.b[i][:, None, None, None]


@pytest.mark.parametrize("averaged", [False, True])
def test_consistency_training_finds_the_teachers_ddim_run(averaged):
    """For a Gaussian the minimum is known: the map of DDIM through all levels that remain."""
    mean, c = 0.4, 0.3
    at = torch.tensor([1.0, 0.6, 0.3, 0.1])

    def teacher(y, s):
        s = s.reshape(-1, 1, 1, 1)
        return mean + c**2 / (c**2 + s**2) * (y - mean)

    def patches(generator):
        return mean + c * torch.randn((64, 1, 2, 2), generator=generator)

    network, target = Affine(at), Affine(at) if averaged else None
    loss = consistency_loss(teacher, patches, at, target=target)
    recipe = Recipe(steps=700, lr=0.02, warmup=1, ema=0.9, bfloat16=False)
    list(fit(network, loss, recipe, target=target))
    x = torch.tensor([-0.5, 1.3]).reshape(2, 1, 1, 1)
    for i in range(3):
        y = x
        for s, u in zip(at[i:-1], at[i + 1 :], strict=True):
            y = u / s * y + (1 - u / s) * teacher(y, s)
        found = jump_with(network, x, at[i].expand(2), at[-1].expand(2))
        assert torch.allclose(found, y, atol=0.02)


def test_consistency_to_any_end_descends_on_a_student():
    student = tiny()
    prior = PowerLawDenoiser(Card(name="law", channels=1), LAW)

    def patches(generator):
        return gaussian_start(LAW, torch.randn((8, 1, 32, 32), generator=generator), 0.0)

    network = student.network.requires_grad_(True)
    loss = consistency_loss(prior, patches, levels(8, -0.4, 3.0), any_end=True)
    run = fit(network, loss, Recipe(steps=40, lr=5e-3, warmup=5, ema=0.9, bfloat16=False))
    values = [p.loss for p in run]
    assert sum(values[-10:]) < 0.6 * sum(values[:10])
    with pytest.raises(ValueError, match="falling levels > 0"):
        consistency_loss(prior, patches, (1.0, 0.5, 0.0))


def test_pseudo_huber_is_the_norm_far_and_a_parabola_near():
    far, near = torch.full((1, 100), 3.0), torch.full((1, 100), 1e-5)
    assert float(pseudo_huber(far)) == pytest.approx(30, rel=1e-3)
    c = 0.00054 * 10
    assert float(pseudo_huber(near.double())) == pytest.approx(1e-8 / (2 * c), rel=1e-3)


# -- fit ---------------------------------------------------------------------------------------


def test_the_target_is_the_running_average_also_after_resuming(tmp_path):
    recipe = Recipe(steps=6, warmup=1, ema=0.5, bfloat16=False)
    at = torch.tensor([1.0, 0.5])

    def loss_of(target):
        def loss(network, generator):
            x = torch.rand((3, 1, 1, 1), generator=generator)
            goal = 1 + target(x, at[:1].expand(3), at[1:])
            return (network(x, at[:1].expand(3), at[1:]) - goal).square().mean()

        return loss

    def run(path, network, target):
        return fit(network, loss_of(target), recipe, checkpoint=path, every=3, target=target)

    whole, halves = Affine(at), Affine(at)
    losses = [p.loss for p in run(tmp_path / "whole", whole, Affine(at))]
    target = Affine(at)
    first = run(tmp_path / "halves", halves, target)
    begun = [next(first).loss for _ in range(3)]
    assert not torch.equal(target.a, halves.a)
    assert float(target.a.abs().max()) > 0
    first.close()
    rest = [p.loss for p in run(tmp_path / "halves", Affine(at), Affine(at))]
    assert begun + rest == losses


# -- reflow ------------------------------------------------------------------------------------


def quantiles():
    """Noises `(401, 1, 1)` and where the exact flow of the mixture takes them."""
    u = torch.linspace(0.01, 0.99, 401, dtype=torch.float64)
    z = torch.special.ndtri(u).reshape(-1, 1, 1)
    prior = ProductMixture(*MIXTURE, (1, 1))
    return z, prior.flow(1e7 * z, 1e7, 0.0), prior


def monotone_velocity(z, x):
    """Velocity of the pairs' straight lines, between which it is interpolated."""

    def velocity(x_t, t):
        lines = ((1 - t[0]) * x + t[0] * z).flatten()
        assert bool((lines.diff() > 0).all())  # they never cross
        right = torch.searchsorted(lines, x_t.flatten().contiguous()).clamp(1, len(lines) - 1)
        w = (x_t.flatten() - lines[right - 1]) / (lines[right] - lines[right - 1])
        return torch.lerp((z - x).flatten()[right - 1], (z - x).flatten()[right], w).reshape(
            z.shape
        )

    return velocity


def test_euler_errors_before_and_after_reflow():
    z, x, prior = quantiles()
    curved, straight = reflow.velocity_of(prior), monotone_velocity(z, x)
    errors = [float((reflow.euler(curved, z, n) - x).abs().max()) for n in (1, 2, 4, 8, 16)]
    assert errors == pytest.approx([1.89, 0.71, 0.50, 0.33, 0.20], abs=0.005)
    for n in (1, 3):
        assert float((reflow.euler(straight, z, n) - x).abs().max()) < 1e-12
    mean = sum(w * m for w, m in zip(*MIXTURE[:2], strict=True))
    assert reflow.euler(curved, z, 1).flatten().tolist() == pytest.approx([mean] * 401, abs=1e-6)


def test_straightness_is_zero_once_rectified():
    z, x, prior = quantiles()
    assert reflow.straightness(monotone_velocity(z, x), z, x) < 1e-24
    assert reflow.straightness(reflow.velocity_of(prior), z, x) > 0.01


def test_reflow_pairs_follow_the_teacher():
    z, x, prior = quantiles()
    grid = grids.build("lambda", EDM(), 400, 1e3, 1e-3)
    found = reflow.pairs(prior, z, grid, DDIM())
    assert float((found - x).abs().max()) < 0.03  # DDIM, order one, 29 steps an e-fold
    coarse = reflow.pairs(prior, z, grids.build("lambda", EDM(), 200, 1e3, 1e-3), DDIM())
    ratio = float((coarse - x).abs().max() / (found - x).abs().max())
    assert ratio == pytest.approx(2, abs=0.2)


class LinearVelocity(nn.Module):
    """`v = (a + b t) x + (c + d t)`, rational in t where the exact one is."""

    def __init__(self, std):
        super().__init__()
        self.std = std
        self.slope, self.shift = (nn.Parameter(torch.zeros(())) for _ in range(2))

    def forward(self, x, t):
        t = t.reshape(-1, 1, 1, 1)
        across = (1 - t) * self.std + t
        return (self.slope * x + self.shift) / across


def test_one_euler_step_is_exact_for_a_gaussian_after_one_reflow():
    """Images m + c z: v = ((1 - c) x_t - m) / ((1 - t) c + t), which the loss finds."""
    m, c = 0.4, 0.3
    z = randn(500, 1, 2, 2).float()
    x = m + c * z
    network = LinearVelocity(c)
    recipe = Recipe(steps=600, lr=0.05, warmup=1, ema=0.9, bfloat16=False)
    list(fit(network, reflow.reflow_loss(z, x, 64), recipe))
    assert float(network.slope.detach()) == pytest.approx(1 - c, abs=1e-3)
    assert float(network.shift.detach()) == pytest.approx(-m, abs=1e-3)
    with torch.no_grad():
        assert torch.allclose(reflow.euler(network, z, 1), x, atol=1e-2)

    def denoise(y, s):
        return m + c**2 / (c**2 + s.reshape(-1, 1, 1, 1) ** 2) * (y - m)

    before = reflow.euler(reflow.velocity_of(denoise), z.double(), 1)
    assert torch.allclose(before, torch.full_like(before, m), atol=1e-5)


def test_rectified_diffusion_makes_one_ddim_step_exact():
    """A network that knows `eps = z` on every path: nothing of this needs the straight line."""
    z, x, _ = quantiles()
    schedule = VP()

    def denoise(y, s):
        t = schedule.time(s)
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        lines = (alpha * x + sigma * z).flatten()
        right = torch.searchsorted(lines, (alpha * y).flatten()).clamp(1, len(lines) - 1)
        w = (alpha * y.flatten() - lines[right - 1]) / (lines[right] - lines[right - 1])
        eps = torch.lerp(z.flatten()[right - 1], z.flatten()[right], w).reshape(y.shape)
        return y - s * eps

    grid = grids.build("time", schedule, 1, 100.0, 0.01)
    start = grid[0].alpha * x + grid[0].sigma * z
    assert float((DDIM()(denoise, start, grid) - x).abs().max()) < 1e-9


@pytest.mark.parametrize("kind", ["flow", "eps", "x0", "v"])
def test_the_reflow_loss_vanishes_for_the_pairs_own_prediction(kind):
    z, x, _ = quantiles()
    schedule = None if kind == "flow" else VP()
    seen = []

    def oracle(x_t, t):
        seen.append((x_t, t))
        alpha, sigma = (schedule.alpha(t), schedule.sigma(t)) if schedule else (1 - t, t)
        alpha, sigma = (v.double().reshape(-1, 1, 1) for v in (alpha, sigma))
        n = (alpha * x.flatten() + sigma * z.flatten() - x_t).abs().argmin(2).flatten()
        parts = {"flow": z[n] - x[n], "eps": z[n], "x0": x[n], "v": alpha * z[n] - sigma * x[n]}
        return parts[kind]

    loss = reflow.reflow_loss(z, x, 20, kind=kind, schedule=schedule)
    assert float(loss(oracle, rng())) < 1e-12
    assert float(loss(lambda x_t, t: oracle(x_t, t) + 0.1, rng())) == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(ValueError, match="did you mean 'flow'"):
        reflow.reflow_loss(z, x, 20, kind="flo")


@pytest.mark.parametrize("a", [0.0, 4.0])
def test_times_have_the_stated_density(a):
    """Mean and mean square of e^(at) + e^(a(1-t)) over [0, 1], five standard errors of 20000."""
    t = reflow.draw_times(20000, rng(), a=a).double()
    s = torch.linspace(0, 1, 100001, dtype=torch.float64)
    p = torch.exp(a * s) + torch.exp(a * (1 - s))
    p = p / p.sum()
    mean, square = float((p * s).sum()), float((p * s**2).sum())
    spread = math.sqrt(float((p * s**4).sum()) - square**2)
    assert float(t.mean()) == pytest.approx(mean, abs=5 * math.sqrt(square - mean**2) / 141)
    assert float(t.square().mean()) == pytest.approx(square, abs=5 * spread / 141)


# -- the one that ships ------------------------------------------------------------------------

SHIPPED = "natural-gray-student"


@pytest.fixture(scope="module")
def race():
    """Paired rms distances of 16 images, and the images: what the teacher makes in 24 calls."""
    student = students.load(SHIPPED)
    teacher = priors.load("natural-gray")
    z = bench.noise(16, (1, 32, 32), 7)
    truth = bench.teach(student, teacher, z, Adams(k=2), 24, HIGH)
    images = {f"student {n}": student.draw(16, (1, 32, 32), calls=n, seed=7) for n in (1, 2, 4)}
    images |= {
        f"{sampler.name} {n}": bench.teach(student, teacher, z, sampler, n, HIGH)
        for sampler in bench.SAMPLERS
        for n in (2, 4)
    }
    return {k: (x - truth).square().flatten(1).mean(1).sqrt() for k, x in images.items()}


def beats(one, other):
    """At least 14 of 16 images, which chance alone would do once in 478 times."""
    return int((one < other).sum()) >= 14


def test_the_shipped_student_is_nearer_its_teacher_than_the_teacher_in_as_few_calls(race):
    two_m = bench.SAMPLERS[1].name
    assert beats(race["student 1"], race["ddim 2"])
    assert beats(race["student 2"], race["ddim 4"])
    assert beats(race["student 2"], race[f"{two_m} 2"])
    assert beats(race["student 4"], race["ddim 4"])
    assert float((race["student 4"] / race[f"{two_m} 4"]).log().mean()) < 0


def test_the_shipped_file_is_what_its_card_says():
    card = students.available()[SHIPPED]
    path = SHELF.folder / f"{SHIPPED}.safetensors"
    assert path.stat().st_size <= 4e6
    assert sha256(path) == card.sha256
    about, tensors = SHELF.read(path)
    teacher = priors.available()[str(card.extra["teacher"])]
    assert about["teacher_sha256"] == card.extra["teacher_sha256"] == teacher.sha256
    with safe_open(path, framework="pt") as file:
        assert {file.get_tensor(k).dtype for k in file.keys()} == {torch.float16}
    assert all(bool(t.isfinite().all()) for t in tensors.values())


def test_shipped_draws_are_images():
    """Clean, within the range, and neither one grey nor noise."""
    x = students.load(SHIPPED).draw(8, (1, 32, 32), calls=4)
    assert float(((x > -0.1) & (x < 1.1)).float().mean()) > 0.99
    assert 0.03 < float(x.std((1, 2, 3)).mean()) < 0.3
    rough = x.diff(dim=3).square().mean() / (2 * x.var((1, 2, 3)).mean())
    assert float(rough) < 0.3  # 1 for white noise


# -- the bench ---------------------------------------------------------------------------------


def test_distances_of_laws_are_zero_at_home_and_grow():
    x, y = (0.5 + 0.2 * randn(40, 1, 32, 32, seed=i) for i in (0, 1))
    assert bench.distances(x, x) == (0, 0, 0)
    near, far = bench.distances(x, y), bench.distances(x, 0.5 + 0.4 * (y - 0.5))
    assert all(0 < a < b for a, b in zip(near, far, strict=True))
    # noise of 0.4 times the std has 0.4^2 of the power: 20 log10(1 / 0.4) = 7.96 dB
    assert far[2] == pytest.approx(7.96, abs=0.3)


def test_the_bench_compares_at_equal_noise(monkeypatch):
    monkeypatch.setattr(bench, "REFERENCE_CALLS", 12)
    student = tiny()
    rows = list(bench.run(student, count=3, calls=(1, 12)))
    same = [r for r in rows if (r.method, r.start, r.calls) == ("adams-2", "closed", 12)]
    assert same[-1].paired == 0
    assert {r.start for r in rows} == {"closed", "high"}
    assert all(math.isnan(r.paired) == ("noise" in r.method) for r in rows)
    high = next(r for r in rows if r.method == "ddim" and r.start == "high" and r.calls == 1)
    assert high.paired > 0.5  # one denoising at level 40 is nearly the mean of all images
    assert bench.table(rows).row_count == len(rows)


def test_crops_are_held_out_photographs():
    x = bench.crops(20, (1, 32, 32))
    assert x.shape == (20, 1, 32, 32)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    assert len({float(v) for v in x.mean((1, 2, 3))}) == 20
