"""Cheaper calls: a wrapper changes what it says, and the choice follows the measurements."""

import json
import math
import shutil

import pytest
import torch
from torch import nn

import priors
from priors import Card, Denoiser, Gaussian, Tiled
from priors.adapters import from_deepinv
from priors.faster import (
    available,
    bfloat16,
    channels_last,
    compiled,
    deep_cache,
    fastest,
    int8,
    threads,
)
from priors.faster.calibrate import candidates_for
from priors.faster.compiled import has_compiler
from priors.faster.int8 import _Int8Conv, has_int8
from priors.faster.layout import is_channels_last
from priors.faster.leaves import leaves
from priors.jacobian import jvp, vjp
from priors.networks import Handover, NoisePredictor
from restore import cli, filework, images
from restore.bench import faster as bench

SIZE = (40, 44)  # 44 is padded to 48
LEVELS = (0.3, 0.25, 0.2, 0.15, 0.1, 0.08)
needs_int8 = pytest.mark.skipif(not has_int8(), reason="no 8-bit kernels in this torch")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def predictor(channels=1, seed=0):
    network = NoisePredictor(Card(name="tiny", channels=channels), (4, 6, 8, 12), 1)
    for i, p in enumerate(network.parameters()):
        p.data = random(*p.shape, seed=seed + i) / p[0].numel() ** 0.5
    return network.eval().requires_grad_(False)


def pair(seed=0):
    """A network below 0.5, a closed form above 1."""
    network, gaussian = predictor(seed=seed), Gaussian.power_law((1, *SIZE))
    return Handover(network.card, network, gaussian, 0.5, 1.0).eval()


def calls(prior, x, levels=LEVELS):
    with torch.no_grad():
        return [prior(x, s) for s in levels]


class Counting:
    """A backend of torch.compile that compiles nothing and counts graphs and calls."""

    def __init__(self):
        self.graphs, self.calls = 0, 0

    def __call__(self, graph, inputs):
        self.graphs += 1

        def run(*arguments):
            self.calls += 1
            return graph(*arguments)

        return run


# -- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "atol"),
    [
        (channels_last, 1e-6),
        (lambda p: threads(p, 1), 1e-6),
        (lambda p: deep_cache(p, every=1), 0),
    ],
)
def test_float32_wrappers_change_only_rounding(wrap, atol):
    prior, x = pair(), random(2, 1, *SIZE)
    wrapped = wrap(prior)
    for s in (*LEVELS, 0.7, 3.0, torch.tensor([0.1, 0.6])):
        (expected,) = calls(prior, x, [s])
        (found,) = calls(wrapped, x, [s])
        torch.testing.assert_close(found, expected, rtol=0, atol=atol * float(x.abs().max()))


@pytest.mark.parametrize("name", sorted({*available()} - {"compiled"}))
def test_the_prior_stays_and_the_card_tells(name):
    entry, prior, x = available()[name], pair(), random(1, 1, *SIZE)
    if name == "int8" and not has_int8():
        pytest.skip("no 8-bit kernels")
    before, weights = calls(prior, x), {k: v.clone() for k, v in prior.state_dict().items()}
    wrapped = entry.wrap(prior, 1) if name == "threads" else entry.wrap(prior)
    assert type(wrapped) is type(prior)
    assert wrapped.card.name == prior.card.name
    assert wrapped.card.extra["faster"][0].startswith(name)
    assert "faster" not in prior.card.extra
    calls(wrapped, x)
    for old, new in zip(before, calls(prior, x), strict=True):
        assert torch.equal(old, new)
    assert all(torch.equal(weights[k], v) for k, v in prior.state_dict().items())


def test_closed_forms_have_nothing_to_wrap():
    for wrap in (bfloat16, channels_last, lambda p: threads(p, 1), deep_cache):
        with pytest.raises(ValueError, match=r"without a network|noise predictor"):
            wrap(Gaussian.power_law((1, 8, 8)))


def test_above_the_handover_nothing_is_rounded():
    prior, x = pair(), random(1, 1, *SIZE)
    assert torch.equal(*calls(bfloat16(prior), x, [2.0]), *calls(prior, x, [2.0]))


def test_threads_come_back_even_after_an_error():
    class Fails(nn.Module):
        def forward(self, x, s):
            raise RuntimeError(torch.get_num_threads())

    before = torch.get_num_threads()
    wrapped = threads(from_deepinv(Fails(), card=Card(name="fails")), before + 1)
    with pytest.raises(RuntimeError, match=str(before + 1)):
        wrapped(random(1, 1, 8, 8), 0.1)
    assert torch.get_num_threads() == before


# -- bfloat16 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [True, False])
def test_bfloat16_errs_as_eight_bits_do(edges):
    prior, x = predictor(), random(1, 1, *SIZE)
    for s, expected, found in zip(
        LEVELS, calls(prior, x), calls(bfloat16(prior, edges=edges), x), strict=True
    ):
        error = ((found - expected).norm() / (x - expected).norm()).item()
        # one rounding errs by at most 2^-9 and by 2^-9 / sqrt(3) in the root mean square; 16
        # layers with rounded input and weights add up to sqrt(32) of these, or 32 at the worst
        assert 2**-12 < error < 32 * 2**-9, s
        assert found.dtype == torch.float32


def test_edges_in_float32_matter_at_low_noise_and_keep_the_promise():
    prior = priors.load("natural-gray")
    clean = leaves((1, 1, 96, 96))
    for s in (0.002, 0.01, 0.1):
        y = clean + s * random(*clean.shape)
        outs = [one(y, s) for one in (prior, bfloat16(prior), bfloat16(prior, edges=False))]
        plain, edges, throughout = (float((o - clean).square().mean().log10()) for o in outs)
        assert 10 * (edges - plain) < 0.05
        if s == 0.002:
            assert throughout - plain > 2 * abs(edges - plain)


def test_the_dtype_of_the_image_comes_back():
    prior = bfloat16(predictor())
    assert calls(prior, random(1, 1, *SIZE).double())[0].dtype == torch.float64


def test_derivatives_through_bfloat16():
    prior, x, v = pair(), random(2, 1, *SIZE), random(2, 1, *SIZE, seed=1)
    expected = vjp(lambda z: prior(z, 0.2), x, v)
    found = vjp(lambda z: bfloat16(prior)(z, 0.2), x, v)
    error = float((found - expected).norm() / (v - expected).norm())
    assert 0 < error < 0.1  # forward and backward rounding, and ReLUs that switch at zero
    (slope,) = (jvp(lambda z: bfloat16(prior)(z, 0.2), x, v),)
    torch.testing.assert_close((slope * v).sum(), (v * found).sum(), rtol=0.05, atol=0.5)


def test_channels_last_knows_when_it_is_done():
    prior = predictor()
    assert not is_channels_last(prior)
    assert is_channels_last(channels_last(prior))
    assert is_channels_last(priors.load("natural-gray"))
    assert not is_channels_last(prior)


# -- compiled ----------------------------------------------------------------------------------


def test_one_graph_for_twenty_levels():
    backend, prior, x = Counting(), pair(), random(2, 1, *SIZE)
    torch._dynamo.reset()
    wrapped = compiled(prior, backend=backend)
    levels = torch.logspace(-2.5, -0.4, 20)
    for i, s in enumerate(levels):
        level = (float(s), s, s.expand(2), s.expand(2).reshape(2, 1, 1, 1))[i % 4]
        y = x.contiguous(memory_format=torch.channels_last) if i % 2 else x
        assert torch.equal(*calls(wrapped, y, [level]), *calls(prior, y, [level]))
    assert backend.graphs == 1
    assert backend.calls == 40  # two images a level, one by one


def test_derivatives_pass_by_what_is_compiled():
    backend, prior = Counting(), pair()
    wrapped, x, v = compiled(prior, backend=backend), random(1, 1, *SIZE), random(1, 1, *SIZE)
    for product in (vjp, jvp):
        expected = product(lambda z: prior(z, 0.2), x, v)
        assert torch.equal(product(lambda z: wrapped(z, 0.2), x, v), expected)
    assert backend.calls == 0
    wrapped(x, 0.2)  # gradients enabled, but nothing asks for one
    assert backend.calls == 1


def test_no_compiler_no_compiling(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        compiled(predictor())
    words = " ".join(candidates_for(predictor(), pays=True))
    assert "compiled" not in words


def test_a_network_with_a_memory_is_not_compiled():
    with pytest.raises(ValueError, match="cannot be compiled"):
        compiled(deep_cache(predictor()), backend=Counting())


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_compiled_for_real():
    prior, x = channels_last(predictor()), random(1, 1, *SIZE)
    torch._dynamo.reset()
    for wrap, rtol in ((lambda p: p, 1e-5), (bfloat16, 2**-6)):
        wrapped = compiled(wrap(prior))
        for found, expected in zip(calls(wrapped, x), calls(prior, x), strict=True):
            assert float((found - expected).norm() / (x - expected).norm()) < rtol


# -- deep cache --------------------------------------------------------------------------------


def watched(prior):
    """Count how often the coarsest level runs."""
    runs = []
    network = prior.network if isinstance(prior, Handover) else prior
    network.net.m_body.register_forward_hook(lambda *_: runs.append(1))
    return prior, runs


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_key_calls_are_the_plain_network_bit_for_bit(depth):
    prior, x = pair(), random(2, 1, *SIZE)
    for wrap in (lambda p: p, bfloat16):
        expected = calls(wrap(prior), x)
        found = calls(deep_cache(wrap(prior), every=1, depth=depth), x)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("every", "keys"), [(1, 6), (2, 3), (3, 2), (6, 1)])
def test_the_coarse_levels_run_on_key_calls_only(every, keys):
    prior, runs = watched(pair())
    calls(
        deep_cache(prior, every=every),
        random(2, 1, *SIZE) * 0.1,
        [0.3 - 0.02 * i for i in range(6)],
    )
    assert len(runs) == 2 * keys  # two images, one by one


def test_what_is_kept_belongs_to_its_image():
    prior, x = predictor(), random(3, 1, *SIZE) * 0.1
    together = deep_cache(prior)
    alone = [deep_cache(prior) for _ in x]
    for s in (0.2, 0.15):
        (found,) = calls(together, x + s, [s])
        expected = torch.cat([calls(a, x[i : i + 1] + s, [s])[0] for i, a in enumerate(alone)])
        assert torch.equal(found, expected)


def test_a_call_between_sees_the_new_image():
    prior, x = predictor(), random(1, 1, *SIZE) * 0.1
    wrapped = deep_cache(prior)
    (first,) = calls(wrapped, x, [0.2])
    assert torch.equal(*calls(wrapped, x, [0.2]), first)  # the same question, the same answer
    moved = x + 0.05 * random(1, 1, *SIZE, seed=1)
    wrapped = deep_cache(prior)
    calls(wrapped, x, [0.2])
    (between,), (plain,) = calls(wrapped, moved, [0.19]), calls(prior, moved, [0.19])
    assert not torch.equal(between, plain)
    assert float((between - plain).norm()) < float(((moved - plain) - (x - first)).norm())


@pytest.mark.parametrize(
    ("x", "s"),
    [
        (random(1, 1, *SIZE) * 0.1, 0.2),  # fewer images
        (random(2, 1, 40, 48) * 0.1, 0.2),  # another size, of the same size after padding
        (random(2, 1, *SIZE).double() * 0.1, 0.2),
        (random(2, 1, *SIZE) * 0.1, 0.21),  # a new run, from high to low
        (random(2, 1, *SIZE) * 0.1, 0.09),  # a leap
        (random(2, 1, *SIZE) * 0.1 + 0.5, 0.2),  # another image
        (random(2, 1, *SIZE) * 0.1, torch.tensor([0.2, 0.3])),
    ],
)
def test_stale_features_are_thrown_away(x, s):
    prior, runs = watched(predictor())
    wrapped = deep_cache(prior, every=100)
    calls(wrapped, random(2, 1, *SIZE) * 0.1, [0.2])
    runs.clear()
    (found,) = calls(wrapped, x, [s])
    assert len(runs) == len(x)
    assert torch.equal(found, *calls(prior, x, [s]))


def test_deep_cache_refuses_derivatives_tiles_and_impossible_numbers():
    wrapped, x = deep_cache(pair()), random(1, 1, *SIZE)
    with pytest.raises(ValueError, match="no derivative"):
        wrapped(x.requires_grad_(), 0.1)
    assert wrapped(x, 2.0).requires_grad  # the closed form above the handover has one
    network = predictor()
    with pytest.raises(ValueError, match="tile by tile"):
        deep_cache(Tiled(network, 96))
    for wrong in ({"every": 0}, {"depth": 4}):
        with pytest.raises(ValueError, match="every >= 1"):
            deep_cache(network, **wrong)


# -- int8 --------------------------------------------------------------------------------------


@needs_int8
@pytest.mark.parametrize("signed", [True, False])
def test_a_rounded_convolution_errs_by_the_twelfth_law(signed):
    layer = nn.Conv2d(16, 8, 3, padding=1)
    layer.weight.data, layer.bias.data = random(8, 16, 3, 3, seed=1), random(8, seed=2)
    x = torch.rand(4, 16, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5 * signed
    with torch.no_grad():
        error = (_Int8Conv(layer)(x) - layer(x))[..., 1:-1, 1:-1]
        step_x = (x.max().clamp_min(0) - x.min().clamp_max(0)) / 255
        step_w = layer.weight.abs().amax((1, 2, 3)) / 127
        variance = layer.weight.square().sum((1, 2, 3)) * step_x**2 / 12
        variance = variance + 16 * 9 * x.square().mean() * step_w**2 / 12
    # weights are few: their part of a channel's variance is known to some sqrt(2 / 144)
    found = error.square().mean().sqrt() / variance.mean().sqrt()
    assert abs(float(found) - 1) < 0.15


@needs_int8
def test_int8_is_near_and_refuses_derivatives():
    prior, x = pair(), random(1, 1, *SIZE)
    wrapped = int8(prior)
    for found, expected in zip(calls(wrapped, x), calls(prior, x), strict=True):
        # 14 layers, each with two roundings of some 1/255 of the range or 1/100 of the std
        assert 1e-4 < float((found - expected).norm() / (x - expected).norm()) < 0.01 * 28
    with pytest.raises(ValueError, match="no derivative"):
        wrapped(x.requires_grad_(), 0.1)


# -- the choice --------------------------------------------------------------------------------


class Clock:
    """Seconds that only fakes spend."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Fake(Denoiser):
    """Shrinks as it should, plus an error, and takes a stated time."""

    def __init__(self, clock, cost, error=0.0):
        super().__init__(Card(name="fake"))
        self.clock, self.cost, self.error, self.slopes = clock, cost, error, 0

    def forward(self, x, sigma, **_):
        self.clock.now += self.cost
        self.slopes += x.requires_grad
        return x / (1 + float(sigma) ** 2) + self.error


def choose(clock, candidates, **options):
    plain = Fake(clock, 1.0)
    wraps = {name: lambda _, one=one: one for name, one in candidates.items()}
    return plain, fastest(
        plain, (1, 8, 8), candidates=wraps, clock=clock, **({"budget": 1e9} | options)
    )


def test_the_fast_and_true_one_is_chosen_and_the_false_one_is_not():
    clock = Clock()
    fast, wrong = Fake(clock, 0.5), Fake(clock, 0.1, error=0.05)
    candidates = {"wrong": wrong, "fast": fast, "slower": Fake(clock, 0.9)}
    _, choice = choose(clock, candidates)
    rows = {row.name: row for row in choice.rows}
    assert choice.prior is fast
    assert choice.chosen.name == "fast"
    assert rows["fast"].ratio == pytest.approx(2)
    assert rows["fast"].loss_db == 0
    assert rows["wrong"].ratio == pytest.approx(10)
    assert rows["wrong"].loss_db > 0.05
    assert "more than 0.05 dB" in rows["wrong"].note
    tolerant = choose(clock, candidates, tolerance_db=100)[1]
    assert tolerant.prior is wrong


def test_small_gains_and_losses_leave_the_prior_alone():
    clock = Clock()
    plain, choice = choose(clock, {"a": Fake(clock, 0.97), "b": Fake(clock, 2.0)})
    assert choice.prior is plain
    _, choice = choose(clock, {"simple": Fake(clock, 0.5), "involved": Fake(clock, 0.49)})
    assert choice.chosen.name == "simple"


def test_what_fails_is_told_and_passed_over():
    class Broken(Fake):
        def forward(self, x, sigma, **_):
            raise RuntimeError("no such kernel\nand a long trace")

    clock = Clock()
    _, choice = choose(clock, {"broken": Broken(clock, 0.1), "fast": Fake(clock, 0.5)})
    rows = {row.name: row for row in choice.rows}
    assert rows["broken"].note == "failed: no such kernel"
    assert choice.chosen.name == "fast"
    record = choice.as_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["name"] == "fast"
    assert record["tried"][1]["ratio"] is None


def test_the_budget_ends_the_search():
    clock = Clock()
    late = Fake(clock, 0.1)
    _, choice = choose(clock, {"slow": Fake(clock, 20.0), "late": late}, budget=30.0)
    assert {row.name: row.note for row in choice.rows}["late"] == "not tried: out of time"
    # ten plain calls, six of "slow", one round of both
    assert clock.now <= 10 + 6 * 20 + 21


@pytest.mark.parametrize("derivatives", [False, True])
def test_derivatives_are_timed_where_they_are_needed(derivatives):
    clock = Clock()
    fast = Fake(clock, 0.5)
    choose(clock, {"fast": fast}, derivatives=derivatives)
    assert bool(fast.slopes) == derivatives


def test_candidates_suit_what_is_to_come():
    prior = channels_last(predictor())
    assert list(candidates_for(prior, pays=False)) == ["bfloat16"]
    assert "channels-last + bfloat16" in candidates_for(predictor(), pays=False)
    assert list(candidates_for(prior, pays=True, derivatives=True)) == ["bfloat16"]
    assert "bfloat16 + one thread" in candidates_for(prior, pays=False, one_thread=True)
    for name in candidates_for(prior, pays=True, one_thread=True):
        assert "cache" not in name
        assert "int8" not in name


def test_on_a_real_network():
    prior, x = pair(), random(1, 1, *SIZE)
    choice = fastest(prior, (1, *SIZE), rounds=1)
    assert choice.chosen.loss_db <= 0.05
    (found,), (expected,) = calls(choice.prior, x, [0.1]), calls(prior, x, [0.1])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)
    with pytest.raises(ValueError, match="expects 1 channel"):
        fastest(prior, (3, *SIZE))
    with pytest.raises(ValueError, match="rounds >= 1"):
        fastest(prior, (1, *SIZE), rounds=0)


def test_leaves_look_like_an_image():
    for shape in ((1, 3, 48, 64), (1, 1, 12, 16, 20)):
        x = leaves(shape, -1, 1)
        assert x.shape == shape
        assert -1 <= float(x.min()) < -0.2 < 0.2 < float(x.max()) <= 1
        assert torch.equal(x, leaves(shape, -1, 1))


# -- the command line and the bench ------------------------------------------------------------


@pytest.fixture
def picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images.write("y.png", leaves((1, 1, 32, 40)))
    return ["image", "y.png", "-o", "x.png", "--operator", "denoise", "--noise", "0.1"]


def test_fast_is_recorded(picture, tmp_path):
    assert cli.main([*picture, "--samples", "1", "--quiet", "--fast"]) == 0
    record = json.loads((tmp_path / "x.png.json").read_text())["provenance"]
    assert record["prior"]["name"] == "natural-gray"
    assert record["faster"]["loss_db"] <= 0.05
    assert record["faster"]["tried"][0]["name"] == "plain"


@pytest.mark.parametrize(("solver", "derivatives"), [("moment-ladder", True), ("diffpir", False)])
def test_the_choice_knows_what_the_solver_asks(picture, monkeypatch, solver, derivatives):
    seen = {}

    def fake(prior, shape, **options):
        seen.update(options, shape=shape)
        raise ValueError("enough seen.")

    monkeypatch.setattr(filework, "fastest", fake)
    with pytest.raises(ValueError, match="enough seen"):
        cli.main([*picture, "--fast", "--solver", solver, "--samples", "3"])
    assert seen["derivatives"] == derivatives
    assert seen["shape"] == (1, 32, 40)
    assert seen["calls"] == 3 * filework.solver_named(solver)[0].length


def test_the_bench_measures_against_plain():
    known = {
        bench.PLAIN: lambda prior: prior,
        "bfloat16": bfloat16,
        "deep-cache": deep_cache,
    }
    clean = bench.photograph(1, 48)
    assert clean.shape == (1, 1, 48, 48)
    rows = {row.name: row for row in bench.run(predictor(), clean, rounds=1, known=known)}
    plain = rows[bench.PLAIN]
    assert (plain.ratio, plain.processor, plain.derivative) == (1, 1, 1)
    assert set(plain.losses) == {0.0}
    assert any(rows["bfloat16"].losses)
    assert math.isnan(rows["deep-cache"].derivative)
    assert "threads" in bench.circumstances()
