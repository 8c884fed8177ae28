"""Solver schedules are the dedicated solvers; searches find better ones, the same ones twice."""

import json
import math
from dataclasses import replace

import pytest
import torch
from flows import error, lam_grid, mixture, slope, start, time_grid

from priors import Card, Gaussian
from priors.bases import Dense
from priors.schedules import EDM
from restore.samplers import grid as grids
from restore.samplers.adams import Adams
from restore.samplers.ddim import DDIM
from restore.samplers.dpm_solver import DPMSolver
from restore.samplers.dpm_solver_pp import DPMSolverPP2S, DPMSolverPPM
from restore.samplers.grid import Grid
from restore.samplers.solver_schedule import (
    Rule,
    SolverSchedule,
    single_rules,
    uniform_rules,
)
from restore.search.levels import Places, Trials, search_levels, usual_levels
from restore.search.objectives import exact, gaussian_flow, paired
from restore.search.rules import Genome, search_solver, usual_rules
from restore.search.stored import Searched, load
from restore.search.tune import tune

HIGH, LOW = math.exp(4.5), math.exp(-2.5)
PRIOR = mixture()
U = torch.linspace(0.045, 0.955, 33, dtype=torch.float64)  # quantiles between those of `start`


def objective(clean=False, held_out=False, prior=PRIOR):
    x = start(prior, grids.from_levels(EDM(), (HIGH, LOW)))
    if held_out:  # at this level the distribution is a Gaussian up to 1e-3 of a quantile
        x = (torch.special.ndtri(U) * HIGH).reshape(x.shape)
    return exact(prior, x, high=HIGH, low=LOW, clean=clean)


# --- the engine ----------------------------------------------------------------------------------


def halved(coarse: Grid, places) -> Grid:
    """The grid with the inner points of a one-step method as points of its own."""
    points = [coarse[0]]
    for i in range(coarse.steps):
        points += [coarse.between(i, r) for r in places] + [coarse[i + 1]]
    return Grid(coarse.schedule, tuple(point.t for point in points))


DPM3 = (  # u1; u2 from the start by both; the end from the start, without u1
    Rule(prediction="noise"),
    Rule(order=2, prediction="noise", back=1),
    Rule(order=2, prediction="noise", back=2),
)
POINTS = {
    "ddim": (DDIM(), uniform_rules(9), ()),
    "ddim in noise": (DDIM(), uniform_rules(9, prediction="noise"), ()),
    "2m": (DPMSolverPPM(k=2), uniform_rules(9, 2, weights="midpoint"), ()),
    "3m": (
        DPMSolverPPM(k=3),
        (Rule(), Rule(order=2, weights="midpoint"), *[Rule(order=3)] * 7),
        (),
    ),
    **{
        f"adams {k} {p}": (Adams(k=k, prediction=p), uniform_rules(9, k, prediction=p), ())
        for k in (2, 3, 4)
        for p in ("data", "noise")
    },
    "2s": (DPMSolverPP2S(), single_rules(18), (1 / 2,)),
    "dpm-2": (DPMSolver(k=2), single_rules(18, prediction="noise"), (1 / 2,)),
    "dpm-3": (DPMSolver(k=3), DPM3 * 9, (1 / 3, 2 / 3)),
}


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("make", [lam_grid, time_grid])
def test_the_engine_is_every_dedicated_solver(name, make):
    solver, rules, inner = POINTS[name]
    coarse = make(9)
    x = start(PRIOR, coarse)
    end = solver(PRIOR, x, coarse, clean=False)
    mine = SolverSchedule(rules=rules)(PRIOR, x, halved(coarse, inner), clean=False)
    # unequal steps of a time grid make weights of order 4 as large as 50
    assert float((mine - end).abs().max()) < (1e-12 if make is lam_grid else 1e-11)


def test_rules_of_the_same_order_may_differ():
    # what `low` and `midpoint` leave out, they leave out: not even close to rounding error
    ends = {}
    for weights in ("exact", "low", "midpoint"):
        grid = lam_grid(9)
        sampler = SolverSchedule(rules=uniform_rules(9, 3, weights=weights))
        ends[weights] = sampler(PRIOR, start(PRIOR, grid), grid, clean=False)
    for one, other in (("exact", "low"), ("exact", "midpoint"), ("low", "midpoint")):
        assert float((ends[one] - ends[other]).abs().max()) > 1e-3


@pytest.mark.parametrize(("order", "weights", "theory"), [(3, "exact", 3), (3, "low", 2)])
def test_orders_of_the_engine(order, weights, theory):
    class Uniform:
        def __call__(self, prior, x, grid, *, clean):
            rules = uniform_rules(grid.steps, order, weights=weights)
            return SolverSchedule(rules=rules)(prior, x, grid, clean=clean)

    assert slope(Uniform(), lam_grid, (64, 128, 256)) == pytest.approx(theory, abs=0.15)


def test_each_step_obeys_its_own_rule():
    # two steps by hand: DDIM, then Adams of the noise
    grid = lam_grid(2)
    rules = (Rule(), Rule(order=2, prediction="noise"))
    x = start(PRIOR, grid)
    first = DDIM()(PRIOR, x, Grid(grid.schedule, grid.times[:2]), clean=False)
    a, b, c = grid.points
    eps = [
        (state - at.alpha * PRIOR(state / at.alpha, at.level)) / at.sigma
        for state, at in ((x, a), (first, b))
    ]
    h, before = c.lam - b.lam, b.lam - a.lam
    bent = (math.expm1(h) / h - 1) / h * h / before  # phi_2 of the step, per step before
    mean = math.expm1(h) / h * eps[1] + bent * (eps[1] - eps[0])
    hand = c.alpha / b.alpha * first - c.sigma * h * mean
    mine = SolverSchedule(rules=rules)(PRIOR, x, grid, clean=False)
    assert float((mine - hand).abs().max()) < 1e-12


def test_schedules_do_not_depend_on_the_variables():
    from priors.schedules import VP

    rules = (Rule(), Rule(order=2, prediction="noise"), Rule(order=2, back=1), Rule(order=4))
    ends = []
    for schedule in (VP(), EDM()):
        grid = lam_grid(4, schedule, noisy=-3.0)
        x = start(PRIOR, grid)
        ends.append(SolverSchedule(rules=rules)(PRIOR, x, grid, clean=False) / grid[-1].alpha)
    assert float((ends[0] - ends[1]).abs().max()) < 1e-9


def test_impossible_rules_are_refused_in_one_sentence():
    for call, words in (
        (lambda: Rule(order=5), "order is 5"),
        (lambda: Rule(weights="exat"), "did you mean 'exact'"),
        (lambda: SolverSchedule(rules=()), "at least one rule"),
        (lambda: SolverSchedule(rules=(Rule(order=2),)), "step 1 of a schedule has 1 evaluations"),
        (lambda: SolverSchedule(rules=(Rule(), Rule(back=2))), "found order 1 and back 2"),
        (lambda: error(SolverSchedule(rules=(Rule(),)), lam_grid(2)), "grid of as many steps"),
        (lambda: SolverSchedule(rules=uniform_rules(5)).steps_within(5), "takes 6 network calls"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert SolverSchedule(rules=uniform_rules(5)).steps_within(9) == 5


# --- objectives ----------------------------------------------------------------------------------


def test_a_gaussian_flow_is_where_many_small_steps_lead():
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))[0]
    variances = torch.tensor([2.0, 0.5, 0.01, 0.0], dtype=torch.float64).reshape(1, 2, 2)
    prior = Gaussian(torch.full((1, 2, 2), 0.3), Dense(q), variances)
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=generator) * 9
    grid = grids.uniform_lambda(EDM(), 400, 9.0, 0.01)
    end = Adams(k=3)(prior, x, grid, clean=False)
    # order 3: errors of a few h^3 = (6.8 / 400)^3 = 5e-6
    assert float((end - gaussian_flow(prior, x, 9.0, 0.01)).abs().max()) < 2e-5


@pytest.mark.parametrize("clean", [False, True])
def test_the_paired_objective_agrees_with_the_exact_one(clean):
    known = objective(clean)
    long = paired(PRIOR, known.starts, high=HIGH, low=0.01 if clean else LOW, clean=clean)
    # a hundredth of the errors that a search tells apart, 0.02 and more
    assert float((long.truth - known.truth).abs().max()) < 5e-4
    levels = Places.of(known, 5).levels(torch.linspace(0.2, 0.9, 5 if clean else 4).numpy())
    assert long(DDIM(), levels) == pytest.approx(known(DDIM(), levels), abs=5e-4)


def test_a_divergent_sampler_scores_infinity():
    wild = replace(objective(), denoise=lambda y, s: y * math.nan)
    assert wild(DDIM(), (HIGH, 1.0, LOW)) == math.inf
    with pytest.raises(ValueError, match="every candidate"):
        search_levels(wild, DDIM(), 2, population=5, generations=1)


def test_objectives_refuse_a_prior_without_a_flow():
    class Blind(torch.nn.Module):
        card = Card(name="blind")

    with pytest.raises(ValueError, match="prior 'blind' does not know its flow"):
        exact(Blind(), torch.zeros(1, 1, 2, 2), high=2.0, low=1.0)


# --- searches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("free", [False, True])
def test_places_are_levels_and_back(free):
    places = Places(5, 90.0, 0.1, free)
    vector = torch.rand(places.size, generator=torch.Generator().manual_seed(1)).double().numpy()
    levels = places.levels(vector)
    assert len(levels) == 6
    assert levels[0] == pytest.approx(90)
    assert levels[-1] >= 0.1 * (1 - 1e-12)
    assert free or levels[-1] == pytest.approx(0.1)
    assert places.vector(levels) == pytest.approx(sorted(vector), abs=1e-12)
    together = places.levels(vector * 0 + 0.5)  # equal places still fall
    grids.from_levels(EDM(), together)
    for usual in usual_levels(places).values():
        assert places.levels(places.vector(usual)) == pytest.approx(usual, rel=1e-9)


@pytest.mark.parametrize(("steps", "gain"), [(4, 1.4), (6, 1.35)])
def test_searched_ddim_grids_beat_the_usual_ones(steps, gain):
    # .327 -> .221 at four steps and .218 -> .148 at six are known from an independent search
    seen, unseen = objective(), objective(held_out=True)
    found, baseline = search_levels(seen, DDIM(), steps, population=20, generations=10)
    usual = usual_levels(Places(steps, HIGH, LOW, free=False))
    named = ("lambda", "edm", "vp time")
    for one in (seen, unseen):
        best = min(one(DDIM(), usual[f"{name} to {LOW:.3g}"]) for name in named)
        assert one(DDIM(), found.levels) * gain < best
        assert one(DDIM(), found.levels) < one(*baseline)
    assert found.score == seen(DDIM(), found.levels)


@pytest.mark.parametrize("seed", [0, 1])
def test_searched_solvers_beat_the_usual_ones(seed):
    seen, unseen = objective(), objective(held_out=True)
    found, baseline = search_solver(seen, 4, population=30, generations=10, seed=seed)
    # eight runs of this size gained 1.8 to 2.5 on either starts
    assert found.score * 1.5 < seen(*baseline)
    assert unseen(found.sampler, found.levels) * 1.3 < unseen(*baseline)


@pytest.mark.parametrize("search", [search_levels, search_solver])
def test_searches_repeat_themselves_and_never_lose(search):
    arguments = (DDIM(), 3) if search is search_levels else (3,)
    bests, runs = [], []
    for seed in (7, 7, 8):
        bests.append([])
        found, baseline = search(
            objective(True),
            *arguments,
            population=8,
            generations=12,
            seed=seed,
            tick=bests[-1].append,
        )
        runs.append(found)
        # even when evolution has no time for anything
        assert bests[-1] == sorted(bests[-1], reverse=True)
        assert found.score == bests[-1][-1] <= found.baseline_score == objective(True)(*baseline)
        assert found.evaluations == len(bests[-1])
    assert runs[0] == runs[1]
    assert bests[0] == bests[1]
    assert bests[0] != bests[2]


def test_trials_score_nothing_twice():
    count = 0

    def denoise(y, s):
        nonlocal count
        count += 1
        return PRIOR(y, s)

    trials = Trials(replace(objective(), denoise=denoise))
    once = trials(DDIM(), (HIGH, 1.0, LOW))
    assert trials(DDIM(), (HIGH, 1.0, LOW)) == once
    assert count == 2
    assert len(trials.history) == 1
    trials(DDIM(), (HIGH, 1.1, LOW))
    assert count == 4


def test_genomes_hold_every_usual_solver():
    places = Places(6, HIGH, LOW, free=True)
    genome, levels = Genome(places), usual_levels(places)[f"edm to {LOW:.3g}"]
    low, high = torch.tensor(genome.bounds, dtype=torch.float64).T
    for sampler in usual_rules(6).values():
        vector = torch.from_numpy(genome.vector(sampler, levels))
        assert bool(((vector >= low) & (vector <= high)).all())
        again, same = genome.solver(vector.numpy())
        assert same == pytest.approx(levels, rel=1e-9)
        grid = grids.from_levels(EDM(), levels)
        x = start(PRIOR, grid)
        ends = [one(PRIOR, x, grid, clean=False) for one in (sampler, again)]
        # the genome writes a rule of order 1 one way, which changes rounding only
        assert float((ends[0] - ends[1]).abs().max()) < 1e-12


def test_searches_refuse_what_they_cannot_do():
    for call, words in (
        (lambda: search_levels(objective(), DDIM(eta=1.0), 4), "draws noise"),
        (lambda: search_levels(objective(), DDIM(), 1), "steps is 1"),
        (lambda: search_solver(objective(), 4, population=4), "population is 4"),
        (lambda: tune(PRIOR, (1, 3, 11), calls=4, what="grd"), "did you mean 'grid'"),
        (lambda: tune(PRIOR, (1, 4, 4), calls=4), "knows images of shape"),
        (lambda: tune(PRIOR, (1, 3, 11), calls=4, high=1.0, low=0.9), "high is 1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["grid", "solver"])
def test_what_was_found_can_be_read_again(what, tmp_path):
    path = tmp_path / "found.json"
    found = tune(PRIOR, (1, 3, 11), calls=4, what=what, population=6, generations=8, progress=False)
    found.save(path)
    again = Searched.load(path)
    assert again == found
    assert again.calls == 4
    assert found.score <= found.baseline_score
    assert 0 < found.held_out < 1
    sampler, grid = load(path)
    x = start(PRIOR, grid)
    expected = found.sampler(PRIOR, x, grids.from_levels(EDM(), found.levels))
    assert torch.equal(sampler(PRIOR, x, grid), expected)
    with pytest.raises(FileExistsError):
        found.save(path)
    if what == "grid":
        assert load(path, "adams-2")[0] == Adams(k=2)
    else:
        with pytest.raises(ValueError, match="rules of its own sampler"):
            load(path, "ddim")


def test_the_verdict_is_that_of_held_out_starts():
    found = Searched(
        sampler=DDIM(),
        levels=(9.0, 1.0),
        score=0.1,
        held_out=0.3,
        baseline="edm to 1",
        baseline_score=0.2,
        baseline_held_out=0.24,
    )
    assert found.gain == pytest.approx(0.8)
    assert "no less than the 0.24 of edm to 1: search on more starts" in str(found)
    better = replace(found, held_out=math.nan)
    assert better.gain == pytest.approx(2)
    assert "error 0.1, 2.00 times less than the 0.2 of edm to 1." in str(better)


def test_damaged_files_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "found.json"
    rules = uniform_rules(2, 2)
    found = Searched(sampler=SolverSchedule(rules=rules), levels=(9.0, 1.0, 0.1), score=0.1)
    found.save(path)
    assert math.isnan(Searched.load(path).held_out)
    text, plain = path.read_text(), json.loads(path.read_text())
    bad_rule = {"order": 7, "prediction": "data", "weights": "exact", "back": 0}
    for damaged, words in (
        (text[:50], "is not a searched sampler"),
        ("[]", "its kind is not"),
        (json.dumps(plain | {"kind": "x"}), "its kind is not"),
        (json.dumps(plain | {"levels": [9.0, 9.0, 0.1]}), "levels do not fall"),
        (json.dumps(plain | {"levels": [9.0, 0.1]}), "2 rules for 1 steps"),
        (json.dumps(plain | {"rules": [plain["rules"][0], bad_rule]}), "order is 7"),
        (json.dumps(plain | {"rules": [], "sampler": "ddmi"}), "did you mean 'ddim'"),
        (json.dumps({k: v for k, v in plain.items() if k != "score"}), "lacks 'score'"),
        (json.dumps(plain | {"rules": [{"power": 1}, plain["rules"][1]]}), "power"),
    ):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=words) as refusal:
            Searched.load(path)
        assert "\n" not in str(refusal.value)
    path.write_text(text)
    card = Card(name="small", sigma_range=(0.2, 50.0))
    with pytest.raises(ValueError, match=r"9 to 0\.1 and prior 'small' knows 0\.2 to 50"):
        load(path, card=card)
    load(path, card=replace(card, sigma_range=(0.002, 50.0)))
    with pytest.raises(FileNotFoundError, match="make one with"):
        load(tmp_path / "none.json")
    with pytest.raises(ValueError, match="has no name"):
        replace(found, sampler=DDIM(eta=0.3)).as_dict()


def test_the_command_writes_a_file_and_refuses_to_overwrite(tmp_path):
    import typer
    from typer.testing import CliRunner

    from restore.commands.searching import search

    app = typer.Typer()
    app.command()(search)
    out = tmp_path / "grid.json"
    arguments = [
        *("--prior", "natural-gray", "--calls", "3", "--size", "16", "--starts", "1"),
        *("--reference", "8", "--population", "5", "--generations", "1", "-o", str(out)),
    ]
    done = CliRunner().invoke(app, [*arguments, "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(out.read_text())
    found = Searched.load(out)
    assert found.calls == 3
    assert found.objective == "paired"
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, FileExistsError)
