"""Training: it learns, it resumes to the bit, its schedule and noise levels are those stated."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from priors.denoiser import Card
from priors.networks import NoisePredictor
from priors.training import Recipe, expected_rmse, train

WIDTHS = (4, 8, 8, 8)


def tiny(seed=0, widths=WIDTHS, blocks=1):
    network = NoisePredictor(Card(name="tiny", channels=1), widths, blocks)
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=generator) / math.sqrt(2 * p[0].numel())
    return network.to(memory_format=torch.channels_last)


def discs(generator, batch=4, size=32):
    """Random discs on random grey: sharp edges, flat areas, no file needed."""
    axis = torch.arange(size, dtype=torch.float32)
    u = torch.rand(batch, 3, 5, generator=generator)
    image = u[:, 0, 0].reshape(-1, 1, 1).expand(batch, size, size)
    for i in range(3):
        cx, cy, radius, grey = (u[:, i, j].reshape(-1, 1, 1) for j in range(1, 5))
        far = (axis[None, None] - size * cx) ** 2 + (axis[None, :, None] - size * cy) ** 2
        image = torch.where(far < (size * (0.1 + 0.3 * radius)) ** 2, grey, image)
    return image[:, None].contiguous()


def rmse(network, sigma):
    generator = torch.Generator().manual_seed(123)
    clean = discs(generator, batch=16)
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
    with torch.no_grad():
        return float((network(noisy, sigma) - clean).square().mean().sqrt())


def test_a_tiny_network_learns_to_denoise():
    network = tiny()
    recipe = Recipe(steps=100, lr=1e-2, warmup=10, ema=0.9, bfloat16=False)
    history = list(train(network, discs, recipe))
    assert [p.step for p in history] == list(range(1, 101))
    assert [p.lr for p in history] == [recipe.rate(i) for i in range(100)]
    losses = torch.tensor([p.loss for p in history])
    assert float(losses[-20:].mean()) < 0.7 * float(losses[:5].mean())
    assert not network.training
    assert rmse(network, 0.2) < 0.55 * 0.2  # the noisy input has 0.2
    assert rmse(network, 0.5) < 0.45 * 0.5


@pytest.mark.parametrize("bfloat16", [False, True])
def test_resuming_goes_on_to_the_bit(tmp_path, bfloat16):
    """Weights, average, moments, step and random state after 6 steps, and after 3 and 3."""
    recipe = Recipe(steps=6, warmup=2, bfloat16=bfloat16)
    whole, halves = tiny(), tiny()
    losses = [p.loss for p in train(whole, discs, recipe, checkpoint=tmp_path / "whole")]
    run = train(halves, discs, recipe, checkpoint=tmp_path / "halves", every=3)
    first = [next(run).loss for _ in range(3)]
    run.close()  # stopped; what the network holds is lost
    halves = tiny(seed=9)
    second = list(train(halves, discs, recipe, checkpoint=tmp_path / "halves", every=3))
    assert [p.step for p in second] == [4, 5, 6]
    assert first + [p.loss for p in second] == losses
    for (name, a), (_, b) in zip(whole.named_parameters(), halves.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    one, other = load_file(tmp_path / "whole"), load_file(tmp_path / "halves")
    assert one.keys() == other.keys()
    assert {"random", "step"} < one.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_that_is_done_gives_its_result_again(tmp_path):
    recipe = Recipe(steps=2, warmup=1)
    network, later = tiny(), tiny(seed=9)
    assert len(list(train(network, discs, recipe, checkpoint=tmp_path / "run"))) == 2
    assert list(train(later, discs, recipe, checkpoint=tmp_path / "run")) == []
    for a, b in zip(network.parameters(), later.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_is_there_when_its_step_is_told(tmp_path):
    run = train(tiny(), discs, Recipe(steps=4, warmup=1), checkpoint=tmp_path / "run", every=2)
    next(run)
    assert not (tmp_path / "run").exists()
    next(run)
    assert int(load_file(tmp_path / "run")["step"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["run"]  # no temporary file left over


@pytest.mark.parametrize(
    "other", [{"widths": (4, 8, 8, 4)}, {"blocks": 2}], ids=["widths", "fewer blocks"]
)
@pytest.mark.parametrize("swap", [False, True])
def test_checkpoints_of_other_networks_are_refused(tmp_path, other, swap):
    wrote, reads = (tiny(**other), tiny()) if swap else (tiny(), tiny(**other))
    recipe = Recipe(steps=1, warmup=1)
    list(train(wrote, discs, recipe, checkpoint=tmp_path / "run"))
    before = [p.clone() for p in reads.parameters()]
    with pytest.raises(ValueError, match=r"^checkpoint 'run' is of another network: [^\n]*\.$"):
        next(train(reads, discs, recipe, checkpoint=tmp_path / "run"))
    assert all(torch.equal(a, b) for a, b in zip(before, reads.parameters(), strict=True))


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    recipe = Recipe(steps=1, warmup=1)
    list(train(tiny(), discs, recipe, checkpoint=tmp_path / "run"))
    whole = (tmp_path / "run").read_bytes()
    for size in (0, 100, len(whole) - 1):
        (tmp_path / "run").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"not a readable safetensors file [^\n]*anew\.$"):
            next(train(tiny(), discs, recipe, checkpoint=tmp_path / "run"))
    save_file({"weights": torch.zeros(3)}, tmp_path / "run")
    with pytest.raises(ValueError, match="another network"):
        next(train(tiny(), discs, recipe, checkpoint=tmp_path / "run"))


def test_learning_rate_rises_stays_and_falls():
    recipe = Recipe(steps=1000, lr=0.01, warmup=100, cooldown=0.6)
    rates = [recipe.rate(i) for i in range(1000)]
    assert rates[:100] == pytest.approx([0.01 * (i + 1) / 100 for i in range(100)])
    assert rates[100:401] == pytest.approx([0.01] * 301)
    fall = [0.005 * (1 + math.cos(math.pi * (i - 400) / 600)) for i in range(400, 1000)]
    assert rates[400:] == pytest.approx(fall)
    assert 0 < rates[-1] < 1e-6


class Watching(nn.Module):
    """One weight; records the noise levels and noise it is shown."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.sigmas, self.noisy = [], []

    def forward(self, x, sigma):
        self.sigmas.append(sigma)
        self.noisy.append(x)
        return self.gain * x


def test_noise_levels_are_the_stated_mixture():
    parts, n = ((3.0, 0.01, 0.1), (1.0, 0.5, 2.0)), 2000
    network = Watching()
    recipe = Recipe(steps=10, sigmas=parts, warmup=1, bfloat16=False)
    list(train(network, lambda g: torch.zeros(n // 10, 1, 8, 8), recipe))
    sigma = torch.cat(network.sigmas).double()
    low, high = sigma[sigma < 0.2], sigma[sigma >= 0.2]
    for values, (_, a, b) in ((low, parts[0]), (high, parts[1])):
        assert a * (1 - 1e-6) <= float(values.min()) < a * 1.1
        assert b * 0.9 < float(values.max()) <= b * (1 + 1e-6)
        u = (values / a).log() / math.log(b / a)  # uniform on [0, 1]
        assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * len(u))
        assert abs(float(u.square().mean()) - 1 / 3) < 5 * math.sqrt(4 / 45 / len(u))
    assert abs(len(low) / n - 0.75) < 5 * math.sqrt(0.75 * 0.25 / n)
    # and the noise has that level
    z = torch.cat(network.noisy) / sigma[:, None, None, None]
    assert float(z.std()) == pytest.approx(1, abs=5 / math.sqrt(2 * z.numel()))
    assert abs(float(z.mean())) < 5 / math.sqrt(z.numel())


def test_default_noise_levels_lie_within_their_bounds():
    network = Watching()
    list(train(network, lambda g: torch.zeros(500, 1, 1, 1), Recipe(steps=2, warmup=1)))
    sigma = torch.cat(network.sigmas)
    assert 0.002 <= float(sigma.min()) < 0.01
    assert 1 < float(sigma.max()) <= 1.5


def test_the_result_is_the_running_average():
    """Decay `min(ema, (1 + k) / (10 + k))` after step k, of the weights that training visited."""
    network, visited = Watching(), []
    recipe = Recipe(steps=5, warmup=1, ema=0.3, bfloat16=False)
    start = float(network.gain.detach())
    for _ in train(network, discs, recipe):
        visited.append(float(network.gain.detach()))
    average = start
    for k, weight in enumerate(visited, start=1):
        decay = min(0.3, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * weight
    found = float(network.gain.detach())
    assert found == pytest.approx(average, rel=1e-6)
    assert abs(found - visited[-1]) > 1e-5


def test_seeds_decide_and_the_global_stream_is_left_alone():
    def losses(network, seed):
        return [p.loss for p in train(network, discs, Recipe(steps=2, warmup=1, seed=seed))]

    networks = [tiny() for _ in range(3)]
    state = torch.random.get_rng_state()
    first, again, other = (losses(n, seed) for n, seed in zip(networks, (1, 1, 2), strict=True))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_expected_error_is_below_the_noise_and_grows_with_it():
    sigma = torch.logspace(-4, 1, 100, dtype=torch.float64)
    error = expected_rmse(sigma)
    assert bool((error < sigma).all())
    assert bool((error.diff() > 0).all())
    assert float(error[0] / sigma[0]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "constants",
    [
        {"steps": 0},
        {"warmup": 0},
        {"cooldown": 0.0},
        {"cooldown": 1.5},
        {"sigmas": ((1.0, 0.0, 1.0),)},
        {"sigmas": ((1.0, 0.2, 0.1),)},
        {"sigmas": ((-1.0, 0.1, 0.2),)},
    ],
)
def test_impossible_recipes_are_refused(constants):
    with pytest.raises(ValueError, match="correct these"):
        Recipe(**({"steps": 10} | constants))
