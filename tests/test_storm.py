"""StoRM by its identities: what a trivial and a perfect predictor turn it into."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from trained_toys import gaussian_prior, measured

import restore
from priors import Card
from priors.training import Recipe
from restore.trained import weights
from restore.trained.conditional import Conditional
from restore.trained.ou_ve import OUVE, OUVESchedule
from restore.trained.pair_prior import PairPrior, Trained
from restore.trained.pairs import Batch
from restore.trained.resshift import ResShift
from restore.trained.restorer import regress
from restore.trained.storm import Regenerator, StoRM
from restore.trained.training import Plan, Training

WIDTHS = (8, 8, 16, 16)


class Adds(nn.Module):
    """A predictor that adds a known image."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def forward(self, z, y_0, s):
        return self.image.to(y_0).expand_as(y_0)


def predictor(image):
    trained = Trained(
        operator="denoise",
        noise=(0.1, 0.1),
        patch=16,
        levels=(0.01, 1.0),
        spread=0.1,
        family="regression",
    )
    return PairPrior(Card(name="adds", channels=1, spatial_dims=2), Adds(image), trained)


def with_predictor(prior, image):
    prior.predictor = predictor(image)
    return prior


@pytest.mark.parametrize("inner", ["resshift", "ou-ve", OUVE(sampler="reverse-diffusion")])
def test_the_identity_as_predictor_leaves_the_inner_diffusion(inner):
    y, physics = measured(count=2, side=8)
    known = StoRM(inner=inner).diffusion
    plain = restore.solve(y, physics, gaussian_prior(), known, samples=2, seed=4)
    nothing = with_predictor(gaussian_prior(), torch.zeros(1))
    same = restore.solve(y, physics, nothing, StoRM(inner=inner), samples=2, seed=4)
    assert torch.equal(plain.samples, same.samples)
    assert same.cost.forwards == plain.cost.forwards + 1


def test_a_perfect_predictor_leaves_noise_removal_around_the_clean_image():
    y, physics = measured(side=8)
    x_0 = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = with_predictor(gaussian_prior(), x_0 - y)
    prior.network = Adds(torch.zeros(1))  # nothing is left to add, whatever the noise
    seen = []
    solver = StoRM(inner=OUVE(steps=6, sampler="ddim"))
    result = restore.solve(y, physics, prior, solver, callback=lambda step: seen.append(step.x))
    assert torch.equal(result.samples[0], x_0)
    grid = solver.grid
    directions = [(x - x_0) / grid[i + 1].sigma for i, x in enumerate(seen[:-1])]
    for eps in directions:  # x_0 + sigma z with one z, however alpha falls
        assert float((eps - directions[0]).abs().max()) < 1e-12
    assert float(directions[0].std()) == pytest.approx(1, abs=5 / math.sqrt(2 * 64))


@pytest.mark.parametrize("sampler", ["adams-2", "ancestral"])
def test_a_network_predicts_for_itself_as_a_start_that_does_not_forget(sampler):
    # E[x_0 | z, y_0] serves a diffusion around any image: the walk is the same but for its start
    y, physics = measured(count=2, side=8)
    prior = gaussian_prior(0.4, 0.02)
    prior.trained = Trained(**{**vars(prior.trained), "levels": (1e-4, 1.0)})
    inner = OUVE(sampler=sampler)
    storm = restore.solve(y, physics, prior, StoRM(inner=inner), seed=2)
    started = restore.solve(y, physics, prior, replace(inner, start="predicted"), seed=2)
    plain = restore.solve(y, physics, prior, inner, seed=2)
    assert float((storm.samples - started.samples).abs().max()) < 1e-12
    assert float((storm.samples - plain.samples).abs().max()) > 1e-3
    assert storm.cost.forwards == started.cost.forwards == 11


def test_the_bias_of_the_start_is_gone():
    y, physics = measured(side=64)
    prior, n = gaussian_prior(0.5, 0.025), 16 * 64 * 64
    storm = StoRM(inner=OUVE(sampler="adams-2"))
    mean = float(restore.solve(y, physics, prior, storm, samples=16).samples.mean())
    assert abs(mean - 0.5) < 5 * math.sqrt(0.025 / n) + 1e-5  # 0.036 around y_0


def pairs(generator):
    y_0 = torch.rand(4, 1, 16, 16, generator=generator)
    return Batch(y_0 + 0.1 * torch.randn(y_0.shape, generator=generator), y_0)


def gradients(weight):
    torch.manual_seed(0)
    network = Regenerator(1, WIDTHS, 1, 0.1)
    loss = StoRM.loss(pairs, network, weight=weight)
    loss(network, torch.Generator().manual_seed(0)).backward()
    halves = [list(part.net.parameters()) for part in network.apart()]
    return [sum(float(p.grad.abs().sum()) for p in half if p.grad is not None) for half in halves]


def test_the_weight_shares_the_gradient_out():
    with torch.random.fork_rng():
        predicts, regenerates = gradients(1.0)
        assert predicts > 0
        assert regenerates == 0  # the prediction alone is trained
        predicts, regenerates = gradients(0.0)
        assert predicts > 0  # the diffusion pulls at its image and its residual
        assert regenerates > 0


def test_in_training_the_prediction_is_weakened():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Regenerator(1, WIDTHS, 1, 0.1)
    shares = []

    def call(z, seen, s):
        if seen.shape[1] == 1:
            return torch.ones_like(z)  # better = y_0 + 1
        better, y_0 = seen.chunk(2, 1)
        shares.append((better - y_0).flatten(1))
        return torch.zeros_like(z)

    loss, draws = StoRM.loss(pairs, network), torch.Generator().manual_seed(0)
    for _ in range(20):
        loss(call, draws)
    kept = torch.cat(shares)
    assert float((kept - kept[:, :1]).abs().max()) < 1e-6  # one share an image
    assert 0.7 <= float(kept.min()) < 0.75  # 80 draws: missed with probability (5/6)^80
    assert 0.95 < float(kept.max()) <= 1 + 1e-6


def test_both_networks_train_save_and_restore(tmp_path):
    draws = torch.Generator().manual_seed(0)
    scenes = [torch.randint(256, (1, 128, 128), dtype=torch.uint8, generator=draws) for _ in "ab"]
    plan = Plan(
        family="storm",
        operator="denoise",
        noise=(0.1, 0.1),
        size="small",
        patch=16,
        recipe=Recipe(steps=2, warmup=1, bfloat16=False),
    )
    training = Training(plan, scenes)
    for _ in training.run(tmp_path / "run.safetensors", every=1):
        pass
    weights.save(tmp_path / "storm.safetensors", training.prior("storm"))
    prior = weights.load(tmp_path / "storm.safetensors")
    assert prior.trained.sees == 2
    assert prior.predictor is not None
    y, physics = measured(side=16)
    result = restore.solve(y.float(), physics, solver=tmp_path / "storm.safetensors")
    assert result.cost.forwards == 11
    assert result.provenance["solver"]["solver"] == "storm"
    before = regress(training.prior("storm"), y.float())
    assert float((regress(prior, y.float()) - before).abs().max()) < 2e-3  # float16


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("resshfit", "did you mean 'resshift'"),
        ("storm", "'storm' is unknown"),
        (Conditional(), "which 'conditional' does not"),
    ],
)
def test_what_cannot_regenerate_is_refused(inner, said):
    with pytest.raises(ValueError, match=said):
        StoRM(inner=inner)


def test_the_schedule_is_that_of_the_inner_diffusion():
    assert StoRM().schedule == OUVESchedule()
    assert StoRM(inner=ResShift(steps=4)).grid == ResShift(steps=4).grid
    assert StoRM(inner="resshift").length == 15
