"""The posterior bench: it recognises the truth, and it would notice an error."""

import json
import math

import pytest
import torch

from restore import cli
from restore.bench import peers, posterior, scores
from restore.bench.cli import posterior_table, summary_table
from restore.bench.families import FAMILIES
from restore.bench.figure import error_against_cost
from restore.bench.problems import glyphs, small_gaussian

CASE = FAMILIES["gaussian 16x16"]["blur"](0)
POISSON = FAMILIES["data set 8x8"]["Poisson, 5 counts"](0)


def draw(case, n, seed=0):
    return case.posterior.sample(n, torch.Generator().manual_seed(seed))


def covariance(case):
    """Posterior covariance `(n, n)` from the matrices that the exact posterior is made of."""
    unit = torch.eye(256, dtype=torch.float64).reshape(-1, 1, 16, 16)
    before = case.posterior.prior.covariance(unit).reshape(256, 256)
    return before - case.posterior.gain @ case.posterior.cross.T


def test_exact_sampler_is_as_good_as_its_statistics():
    for row in posterior.run([], priors=["gaussian 16x16"], n=16, problems=3):
        case = FAMILIES[row.prior][row.task](0)
        spectrum = torch.linalg.eigvalsh(covariance(case))
        dimensions = spectrum.sum() ** 2 / spectrum.square().sum()
        # squared bias: std sqrt(2 / d) / n a problem; ratio: std sqrt(1 / (2 d n)) a problem
        square = float((2 / dimensions).sqrt()) / (16 * math.sqrt(3))
        assert row.bias**2 < 4 * square
        assert abs(row.ratio - 1) < 4 * float((1 / (2 * dimensions * 16)).sqrt()) / math.sqrt(3)


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("n", [20, 200])
def test_exact_samples_cover_what_they_say(n, level):
    found = [scores.coverage(draw(CASE, n, seed), CASE.posterior, level) for seed in range(8)]
    mean, spread = torch.tensor(found).mean(), torch.tensor(found).std()
    # the interval between order statistics is unbiased up to the interpolation between two of them
    assert abs(float(mean) - level) < 4 * float(spread) / math.sqrt(8) + 0.25 / n


def test_narrow_and_shifted_samples_are_noticed():
    exact = draw(CASE, 200)
    mean, std = CASE.posterior.mean, CASE.posterior.std
    narrow, shifted = mean + 0.8 * (exact - mean), exact + 0.3 * std
    assert scores.bias_and_ratio(narrow, mean, std)[1] == pytest.approx(0.8, abs=0.02)
    assert scores.bias_and_ratio(shifted, mean, std)[0] == pytest.approx(0.09, abs=0.03)
    assert scores.coverage(narrow, CASE.posterior, 0.9) < 0.85
    assert scores.std_error(narrow, std) > 2.5 * scores.std_error(exact, std)
    one, two = draw(CASE, 200, 1), draw(CASE, 200, 2)
    floor = scores.sliced_wasserstein(one, two, std)
    assert scores.sliced_wasserstein(shifted, one, std) > 1.5 * floor
    assert scores.sliced_wasserstein(one, one, std) == 0


def test_sliced_wasserstein_of_a_shift_is_known():
    """A shift by v moves the projection on a direction d by <d, v>: on average known."""
    x = draw(CASE, 50)
    v = 0.7 * torch.ones_like(x[0])
    expected = 0.7 * 16 * math.sqrt(2 / (math.pi * 256))  # E|<d, v>| for d uniform on the sphere
    found = scores.sliced_wasserstein(x + v, x, torch.ones_like(v))
    assert found == pytest.approx(expected, rel=4 * math.sqrt(math.pi / 2 - 1) / math.sqrt(128))


def test_modes_are_counted():
    samples = draw(POISSON, 4000)
    weights = POISSON.posterior.weights
    # total variation of n exact draws: mean below sum sqrt(w (1 - w) / (2 pi n))
    floor = float((weights * (1 - weights) / (2 * math.pi * 4000)).sqrt().sum())
    assert scores.mode_error(samples, POISSON.posterior) < 3 * floor + 1e-3
    only = POISSON.posterior.atoms[weights.argmax()].expand(100, -1, -1, -1)
    assert scores.mode_error(only, POISSON.posterior) == pytest.approx(1 - float(weights.max()))


def test_poisson_posterior_prefers_the_truth():
    hits, model = 0, glyphs()
    for seed in range(12):
        case = FAMILIES["data set 8x8"]["Poisson, 5 counts"](seed)
        truth = model.sample(1, torch.Generator().manual_seed(seed))
        index = int((model.atoms - truth).square().flatten(1).sum(1).argmin())
        hits += float(case.posterior.weights[index])
    # the mean probability of the truth is the mean of sum of squared weights, far above 1 / 120
    assert hits / 12 > 0.3


def test_command(capsys, tmp_path):
    run = ["bench", "posterior", "--prior", "gaussian 16x16", "--solver", "moment-ladder"]
    picture = tmp_path / "bench.png"
    words = [*run, "-n", "16", "--problems", "2", "--json", "-o", str(picture)]
    assert cli.main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2 * len(FAMILIES["gaussian 16x16"])
    assert all(row["n"] == 16 and row["problems"] == 2 for row in rows)
    for exact, solver in zip(rows[::2], rows[1::2], strict=True):
        assert (exact["solver"], solver["solver"]) == ("exact sampler", "moment-ladder")
        assert exact["forwards"] == 0 < solver["forwards"]
        assert solver["error"] < 0.3
        assert exact["modes"] is None
    assert picture.stat().st_size > 10_000
    back = [
        posterior.Row(**{k: math.nan if v is None else v for k, v in row.items()}) for row in rows
    ]
    assert posterior_table(back).row_count == len(rows)
    summary = posterior.summary(back)
    assert [row["solver"] for row in summary] == ["exact sampler", "moment-ladder"]
    assert summary_table(summary).row_count == 2
    assert len(error_against_cost(summary).axes) == 1


def test_other_libraries_run_and_the_best_of_the_grid_is_the_best(monkeypatch):
    one = {"mask 50 %": FAMILIES["gaussian 16x16"]["mask 50 %"]}
    monkeypatch.setitem(FAMILIES, "gaussian 16x16", one)
    chosen = [p for p in peers.available() if p.method in ("DiffPIR", "DDRM")]
    if not chosen:
        pytest.skip("no other library is installed")
    rows = list(posterior.run([], priors=["gaussian 16x16"], peers=chosen, n=16, problems=1))
    for peer in chosen:
        mine = [row for row in rows if row.solver == peer.name]
        defaults = [row.error for row in mine if row.setting == "defaults"]
        best = [row.error for row in mine if row.setting.startswith("best of grid")]
        assert len(defaults) == len(best) == 1
        assert sum(best) <= sum(defaults)
        assert all(row.forwards > 0 for row in mine)


def test_other_libraries_leave_the_generator_alone():
    (peer, *_) = [p for p in peers.available() if p.method == "DiffPIR"]
    state = torch.random.get_rng_state()
    one = peer(CASE.y, CASE.operator, small_gaussian(), samples=2, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    two = peer(CASE.y, CASE.operator, small_gaussian(), samples=2, seed=0)
    assert torch.equal(one.samples, two.samples)
