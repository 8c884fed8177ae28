"""The shared start: what a Gaussian says it can gain, when sharing fails, and plumbing."""

import json
import math
from dataclasses import replace

import pytest
import torch
import typer
from torch import nn
from trained_toys import gaussian_prior, measured
from typer.testing import CliRunner

import restore
from operators import parse
from priors import Card
from restore import images
from restore.commands import boundary as commands
from restore.trained import weights
from restore.trained.boundary import compare, restored, search
from restore.trained.conditional import Conditional
from restore.trained.network import PairNetwork
from restore.trained.ou_ve import OUVE
from restore.trained.pair_prior import PairPrior, Trained
from restore.trained.pairs import Batch
from restore.trained.ranking import METRICS, Ranking, gradient_distance, rank_seeds
from restore.trained.resshift import ResShift
from restore.trained.start import Boundary, seeded_noise, start_noise

EXACT = Conditional(steps=30, sampler="adams-2", low=0.011)  # h = m + v^(1/2) eps to 3 %
SHORT = ResShift(steps=4, eta=0.0)


def white(v=0.01):
    return gaussian_prior(0.5, v, around="middle")


def pairs(count, side=16, v=0.01, seed=0, value=0.7):
    """Clean images of the posterior N(1/2, v) and degraded images, float32."""
    draws = torch.Generator().manual_seed(seed)
    x_0 = 0.5 + v**0.5 * torch.randn(count, 1, side, side, generator=draws)
    return Batch(x_0, torch.full_like(x_0, value))


def test_a_random_start_costs_three_decibels():
    # E|h - z|^2 = v + v |eps|^2 / d: 2 v at random, v at zero
    v, batch = 0.01, pairs(64, side=32)
    d = batch.x_0.numel()
    zero, at_random = (
        float((restored(EXACT, white(v), batch.y_0, noise) - batch.x_0).square().mean())
        for noise in (torch.zeros(1, 32, 32), seeded_noise(0, (1, 32, 32)))
    )
    assert zero == pytest.approx(v, rel=5 * math.sqrt(2 / d))  # chi-square
    # the shared start alone has |eps|^2 / 1024 within 5 sqrt(2 / 1024)
    assert at_random / zero == pytest.approx(2, abs=0.03 + 5 * math.sqrt(2 / 1024))
    norm = float(seeded_noise(0, (1, 32, 32)).square().mean())
    cross = 5 * 2 * math.sqrt(1 / d)
    assert at_random / zero == pytest.approx(1 + norm, abs=0.03 + cross)
    decibels = 10 * math.log10(at_random / zero) - 10 * math.log10((1 + norm) / 2)
    assert decibels == pytest.approx(3.0103, abs=0.1)


@pytest.mark.parametrize(("count", "expected"), [(10, 0.868), (100, 0.785)])
def test_the_best_of_many_starts_gains_what_extremes_say(count, expected):
    # |eps|^2 / d of the best of K at d = 256; the square error ranks white posteriors by it
    batch = pairs(2, v=1e-4, value=0.5)  # y_0 = m: the start forgets nothing
    found = []
    for repeat in range(8 if count == 10 else 2):
        _, ranking = search(
            replace(SHORT, steps=2),
            gaussian_prior(0.5, 1e-4),
            Batch(torch.full_like(batch.x_0, 0.5), batch.y_0),  # z = m: |eps| alone decides
            candidates=count,
            seed=1000 * repeat,
            metric="mse",
        )
        norms = [float(seeded_noise(s, (1, 16, 16)).square().mean()) for s in ranking.seeds]
        assert ranking.best == ranking.seeds[norms.index(min(norms))]
        found.append(min(norms))
    # the minimum of K scatters by some 0.04
    assert sum(found) / len(found) == pytest.approx(expected, abs=5 * 0.04 / len(found) ** 0.5)


def test_white_noise_leaves_little_to_choose():
    # 64x64 in colour: 0.07 dB for the best of 100, by the smallest |eps|^2 / d
    extreme = 1 - math.sqrt(2 / 12288) * 2.508  # mean of the largest of 100 normals
    assert extreme == pytest.approx(0.968, abs=5e-4)
    assert 10 * math.log10(2 / (1 + extreme)) == pytest.approx(0.07, abs=0.005)


class Turned(nn.Module):
    """Gaussian posteriors in 8 of 64 directions, turned for each degraded image or for none."""

    def __init__(self, turning):
        super().__init__()
        draws = torch.Generator().manual_seed(3)
        turns = torch.linalg.qr(torch.randn(128, 64, 64, generator=draws))[0]
        self.turns = turns if turning else turns[:1].expand(128, 64, 64)
        self.v = torch.where(torch.arange(64) < 8, 0.01, 1e-5)

    def turn(self, y_0):
        return self.turns[(y_0.flatten(1)[:, 0] * 1000).round().long()]

    def forward(self, z, y_0, s):
        Q, gain = self.turn(y_0), self.v / (self.v + s**2)
        return (Q @ (gain[:, None] * (Q.mT @ z.flatten(1)[..., None]))).reshape(z.shape)


def agreement(turning, size):
    """Rank correlation of the scores of 64 starts on two disjoint sets of images."""
    prior = white()
    prior.network = Turned(turning)
    means = []
    for half in range(2):
        draws = torch.Generator().manual_seed(half)
        y_0 = ((torch.arange(size) + 64 * half) / 1000)[:, None, None, None].expand(size, 1, 8, 8)
        Q = prior.network.turn(y_0)
        noise = torch.randn(size, 64, 1, generator=draws)
        x_0 = 0.5 + (Q @ (prior.network.v.sqrt()[:, None] * noise)).reshape(size, 1, 8, 8)
        solver = Conditional(steps=3, schedule_name="edm")
        means.append(search(solver, prior, Batch(x_0, y_0), metric="mse").ranking.means)
    ranks = torch.stack([m.argsort().argsort().double() for m in means])
    return float(torch.corrcoef(ranks)[0, 1])


def test_sharing_is_exact_where_the_posterior_does_not_turn():
    # scores vary by 2 tr C^2 with the start, and by 4 tr C^2 / R with the truths: 1 / (1 + 2 / R)
    many, few = agreement(False, 32), agreement(False, 2)
    assert many > 0.8  # 0.94 expected, and 64 starts
    assert few < many - 0.1  # 0.5
    # turned, starts share their norm alone: 2 (tr C)^2 / d of 6 tr C^2 / R more, 0.4 at R = 16
    assert agreement(True, 16) < 0.75


class TwoModes(nn.Module):
    """x_0 = 1/2 +- 1/4, pixel by pixel."""

    def forward(self, z, y_0, s):
        return 0.25 * torch.tanh(0.25 * z / s**2)


def test_two_modes_labelled_by_the_image_leave_nothing_to_choose():
    prior = white()
    prior.network = TwoModes()
    sign = torch.tensor([1.0, -1.0] * 4)[:, None, None, None]
    x_0 = 0.5 + 0.25 * sign.expand(8, 1, 4, 4)
    solver = Conditional(steps=6, schedule_name="edm")

    def wrong(x, truth):
        return ((x - 0.5).sign() != (truth - 0.5).sign()).double().flatten(1).mean(1)

    ranking = search(solver, prior, Batch(x_0, torch.full_like(x_0, 0.7)), metric=wrong).ranking
    assert ranking.means.tolist() == [0.5] * 64  # what is right for one image is wrong for another
    assert ranking.doubt is not None
    # labelled alike, a start can be right for all
    alike = Batch(x_0[:1].expand(8, 1, 4, 4), torch.full_like(x_0, 0.7))
    ranking = search(solver, prior, alike, metric=wrong).ranking
    assert ranking.score < 0.3  # binomial, 16 pixels: the best of 64 has about 2 wrong in 10
    assert ranking.doubt is None


def test_more_candidates_are_never_worse_and_one_is_the_plain_sampler():
    batch, prior = pairs(4), gaussian_prior()
    best = [
        search(SHORT, prior, batch, candidates=k, metric="mse").ranking.score for k in (1, 3, 9, 20)
    ]
    assert best == sorted(best, reverse=True)
    assert best[-1] < best[0]
    one = search(SHORT, prior, batch, candidates=1, seed=5)
    plain = SHORT.around(prior, batch.y_0, seed=5)[0]
    assert torch.equal(restored(SHORT, prior, batch.y_0, one.boundary.noise), plain)
    y, physics = measured(count=2)
    result = restore.solve(y.float(), physics, prior, SHORT, seed=5)
    assert torch.equal(restored(SHORT, prior, y.float(), one.boundary.noise), result.samples[0])


def test_a_start_saved_and_loaded_gives_the_same_bits(tmp_path):
    batch, prior = pairs(4), gaussian_prior()
    boundary, ranking = search(SHORT, prior, batch, candidates=6, metric="ssim")
    path = tmp_path / "start.safetensors"
    boundary.save(path)
    again = Boundary.load(path)
    assert torch.equal(again.noise, boundary.noise)
    assert torch.equal(again.noise, seeded_noise(ranking.best, (1, 16, 16)))
    assert again.about["seed"] == ranking.best
    assert again.about["constants"]["steps"] == 4
    y, physics = measured(count=2)
    y = y.float()
    used = restore.solve(y, physics, prior, replace(SHORT, boundary=str(path)), samples=2)
    assert torch.equal(used.samples[0], restored(SHORT, prior, y, boundary.noise))
    assert torch.equal(used.samples[0], used.samples[1])
    with pytest.raises(ValueError, match=r"found for constants .*; search again"):
        restore.solve(y, physics, prior, ResShift(steps=5, eta=0.0, boundary=str(path)))
    prior.card = replace(prior.card, sha256="other")
    with pytest.raises(ValueError, match="found for sha256"):
        restore.solve(y, physics, prior, replace(SHORT, boundary=str(path)))


def test_a_start_fits_other_sizes_as_it_is(tmp_path, caplog):
    boundary = Boundary(torch.arange(24.0).reshape(1, 4, 6))
    assert torch.equal(boundary.noise_for((1, 3, 5)), boundary.noise[:, :3, :5])
    assert not caplog.records
    large = boundary.noise_for((1, 9, 6))
    assert "repeated over 9x6" in caplog.text
    assert torch.equal(large[:, 4:8], boundary.noise)
    with pytest.raises(ValueError, match="was found for images of shape"):
        boundary.noise_for((3, 4, 6))


def test_zero_and_scaled_starts():
    y, physics = measured(side=16)
    prior = gaussian_prior(0.5, 0.01)
    zero, half, whole = (
        restore.solve(y, physics, prior, replace(SHORT, **changes), seed=1).samples
        for changes in ({"boundary": "zero"}, {"noise_scale": 0.5}, {})
    )
    assert float((half - (zero + whole) / 2).abs().max()) < 1e-12  # linear in the start
    assert float(zero.std()) < 1e-12


def test_a_score_does_not_depend_on_its_neighbours():
    batch, prior = pairs(20), gaussian_prior()  # more than go into one call
    together = search(SHORT, prior, batch, candidates=3, metric="gradient").ranking.scores
    alone = search(
        SHORT, prior, Batch(batch.x_0[7:8], batch.y_0[7:8]), candidates=3, metric="gradient"
    ).ranking.scores
    assert float((together[:, 7:8] - alone).abs().max()) < 1e-9


def test_halving_finds_the_same_start_for_less():
    clean = torch.full((16, 1, 16, 16), 0.5)
    batch = Batch(clean, torch.full_like(clean, 0.7))  # truths without noise: two images tell all
    full, halved = (
        search(SHORT, gaussian_prior(), batch, candidates=64, metric="mse", halving=halving).ranking
        for halving in (False, True)
    )
    tried = ~halved.scores.isnan()
    assert tried.sum(0).tolist() == [64] * 2 + [16] * 2 + [8] * 12
    assert torch.equal(halved.scores[tried], full.scores[tried])
    assert halved.order[:8] == full.order[:8]
    assert int(full.scores.isnan().sum()) == 0


def test_choosing_from_noise_gains_nothing_on_images_left_out():
    # scores that are chance: the best looks better by 2 sigma, left out by nothing
    draws = torch.Generator().manual_seed(0)
    gains, optimism, doubted = [], [], 0
    for _ in range(60):
        ranking = Ranking(tuple(range(32)), torch.randn(32, 8, generator=draws).double(), "chance")
        gains.append(ranking.gain[0])
        optimism.append(ranking.typical - ranking.score)
        doubted += ranking.doubt is not None
    error = float(torch.tensor(gains).std()) / math.sqrt(60)
    assert abs(sum(gains) / 60) < 4 * error
    # the smallest of 32 means of 8: E = 2.07 / sqrt(8)
    assert sum(optimism) / 60 == pytest.approx(2.07 / math.sqrt(8), abs=0.1)
    # and where starts differ it finds them
    real = torch.randn(32, 1, generator=draws) + 0.1 * torch.randn(32, 8, generator=draws)
    ranking = Ranking(tuple(range(32)), real.double(), "real")
    assert ranking.doubt is None
    assert ranking.gain[0] > 5 * ranking.gain[1]
    assert ranking.best == int(real.mean(1).argmin())


def test_seeds_of_any_solver_are_ranked():
    y, physics = measured(count=3)
    truth = torch.full_like(y, 0.5)
    prior = gaussian_prior()
    ranking = rank_seeds(SHORT, y, physics, prior, "mse", truth=truth, seeds=range(5))
    assert ranking.scores.shape == (5, 3)
    single = restore.solve(y, physics, prior, SHORT, seed=ranking.best).samples[0]
    assert float((single - truth).square().mean()) == pytest.approx(ranking.score, rel=1e-9)
    assert ranking.order[-1] == int(ranking.means.argmax())
    # a solver that draws noise, and a metric that knows no truth
    blind = rank_seeds(ResShift(), y, physics, prior, lambda x: x.flatten(1).std(1), seeds=range(3))
    assert blind.scores.shape == (3, 3)
    with pytest.raises(ValueError, match="give truth="):
        rank_seeds(SHORT, y, physics, prior, "mse", seeds=range(2))


def test_every_baseline_stands_in_the_table():
    batch, prior = pairs(6), gaussian_prior(0.5, 0.01)
    boundary = search(SHORT, prior, pairs(4, seed=1), candidates=4, metric="mse").boundary
    rows = {row.start: row for row in compare(SHORT, prior, batch, boundary, metric="mse")}
    assert list(rows) == [
        "random",
        "noise x 0.75",
        "noise x 0.5",
        "noise x 0.25",
        "zero",
        "mean of 8 random",
        "regression",
        "found",
    ]
    assert rows["random"].over_seeds > 0
    assert abs(rows["random"].gain) < 1e-12
    # the flow of a Gaussian is linear: the error falls with the noise, down to the mean's
    assert rows["random"].score > rows["noise x 0.5"].score > rows["zero"].score
    assert rows["zero"].psnr > rows["random"].psnr


def test_metrics_are_zero_for_the_truth_and_see_blur():
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 64, 64, generator=draws)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    for name in ("mse", "ssim", "gradient"):
        assert METRICS[name](x, x).abs().max() < 1e-12
        assert float(METRICS[name](blurred, x).min()) > 0.01
    # a turned edge is as sharp
    edge = torch.zeros(1, 1, 16, 16)
    edge[..., 8:] = 1
    assert float(gradient_distance(1 - edge, edge)) < 1e-12


@pytest.mark.parametrize(
    "solver",
    [ResShift(), OUVE(sampler="ancestral"), OUVE(sampler="reverse-diffusion")],
)
def test_solvers_that_draw_noise_are_refused_in_one_sentence(solver):
    batch, prior = pairs(2), gaussian_prior()
    for start in (
        lambda: search(solver, prior, batch),
        lambda: compare(solver, prior, batch, Boundary(torch.zeros(1, 16, 16))),
        lambda: start_noise(replace(solver, boundary="zero"), None),
    ):
        with pytest.raises(ValueError, match="draws noise on its way") as refusal:
            start()
        assert str(refusal.value).count(".") == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Boundary.load("nothing.safetensors"), "no start at"),
        (lambda: Boundary.load("zreo"), "expected random, zero or a .safetensors file"),
        (lambda: search(SHORT, gaussian_prior(), pairs(2), metric="lpips"), "'lpips' is unknown"),
        (lambda: search(SHORT, gaussian_prior(), pairs(2), candidates=0), "of at least 1"),
    ],
)
def test_bad_requests_are_refused(call, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        call()


@pytest.fixture
def folder(tmp_path):
    draws = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        small = torch.rand(1, 3, 16, 17, generator=draws)
        x = torch.nn.functional.interpolate(small, scale_factor=8, mode="bicubic").clamp(0, 1)
        images.write(tmp_path / f"{name}.png", x)
    network = PairNetwork(3, (8, 8, 16, 16), 1, 0.1).eval()
    for parameter in network.parameters():
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=draws)
    about = Trained(
        operator="blur:sigma=1",
        noise=(0.01, 0.02),
        patch=32,
        levels=(0.003, 3.0),
        spread=0.1,
        family="residual",
    )
    card = Card(name="untrained", channels=3, spatial_dims=2)
    weights.save(tmp_path / "net.safetensors", PairPrior(card, network, about))
    return tmp_path


def command(*words):
    app = typer.Typer()
    app.command()(commands.boundary)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_from_the_command_line(folder):
    out, net = folder / "start.safetensors", folder / "net.safetensors"
    words = (net, "-o", out, "--images", folder, "--candidates", 4, "--pairs", 3, "--steps", 4)
    done = command(*words, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [row["start"] for row in told["held_out"]][-1] == "found"
    assert len(told["seeds"]) == 4
    start = Boundary.load(out)
    assert start.noise.shape == (3, 32, 32)
    assert start.about["sha256"] == weights.sha256(net)
    assert start.about["held_out"] == told["held_out"]
    # made for the deterministic chain of 4 steps, which alone takes it
    physics = parse("blur:sigma=1", (3, 40, 32), noise=0.01)
    y = torch.rand(1, 3, 40, 32, generator=torch.Generator().manual_seed(1))
    solver = ResShift(steps=4, eta=0.0, boundary=str(out))
    assert restore.solve(y, physics, net, solver).samples.shape == (1, 1, 3, 40, 32)
    with pytest.raises(ValueError, match="draws noise on its way"):
        restore.solve(y, physics, net, ResShift(steps=4, boundary=str(out)))
    assert isinstance(command(*words, "--quiet").exception, FileExistsError)
    one = (net, "-o", folder / "b.safetensors", "--images", folder / "a.png", "--quiet")
    assert "two pictures" in str(command(*one).exception)
