"""Conditional diffusion: Gaussian posteriors around mid-range, any schedule, any sampler."""

import math
from itertools import pairwise

import pytest
import torch
from trained_toys import gaussian_prior, measured

import restore
from priors.training import Recipe
from restore.trained import weights
from restore.trained.conditional import SCHEDULES, Conditional
from restore.trained.resshift import ResShift
from restore.trained.training import Plan, Training


def prior(mean=0.6, v=0.01):
    return gaussian_prior(mean, v, around="middle")


def first_order(grid, v, eta):
    """Variance of DDIM's samples, a recursion without chance in x / alpha."""
    V = grid[0].level ** 2
    for t, s in pairwise(grid.points):
        gain, ratio = v / (v + t.level**2), s.level / t.level
        fresh = eta * (1 - ratio**2)
        V = (gain + math.sqrt(1 - fresh) * ratio * (1 - gain)) ** 2 * V + fresh * s.level**2
    return (v / (v + grid[-1].level ** 2)) ** 2 * V


@pytest.mark.parametrize("sampler", ["adams-2", "heun", "dpm-solver-2", "ddim", "ancestral"])
def test_samples_have_mean_and_variance_of_the_posterior(sampler):
    y, physics = measured(side=64)
    v, solver = 0.01, Conditional(sampler=sampler, steps=60)
    result = restore.solve(y, physics, prior(0.6, v), solver, samples=16)
    n = result.samples.numel()
    # the start drops m - 1/2, of which an ODE keeps 0.1 / 7: 0.0014
    assert float(result.samples.mean()) == pytest.approx(0.6, abs=0.002 + 5 * math.sqrt(v / n))
    # the last denoising takes v / (v + s^2), and second order leaves less than 0.02 at 60 steps
    expected = v * v / (v + solver.grid[-1].level ** 2)
    if sampler in ("ddim", "ancestral"):
        expected = first_order(solver.grid, v, 1.0 if sampler == "ancestral" else 0.0)
    ratio = float(result.samples.var()) / expected
    slack = 0.0 if sampler in ("ddim", "ancestral") else 0.02
    assert ratio == pytest.approx(1, abs=slack + 5 * math.sqrt(2 / n))
    assert result.cost.forwards == solver.walker.calls(60) + 1


def test_only_the_levels_matter():
    y, physics = measured(side=8)
    drawn = [
        restore.solve(y, physics, prior(), Conditional(schedule_name=name, steps=7), seed=1).samples
        for name in SCHEDULES
    ]
    for other in drawn[1:]:  # x / alpha is the same: the start's alpha cancels in the walk
        assert float((other - drawn[0]).abs().max()) < 1e-9


def test_the_degraded_image_is_seen_and_not_a_place():
    y, physics = measured(side=8, value=0.9)
    network = prior().network
    seen = []

    def look(module, inputs):
        seen.append(inputs[1])

    model = prior()
    model.network = network
    network.register_forward_pre_hook(look)
    solver = Conditional(steps=5)
    first = next(solver.iterate(_problem(y, physics, model)))
    assert all(torch.equal(v, y) for v in seen)
    at = solver.grid[1]
    assert abs(float(first.mean()) - 0.5) < 5 * at.sigma / 8 + 0.1  # noise around the middle


def _problem(y, physics, model):
    from restore.problem import stream
    from restore.trained.restorer import unmeasured

    return unmeasured(model, y, stream(0, 0))


def test_networks_for_the_other_place_are_refused():
    y, physics = measured(side=8)
    with pytest.raises(ValueError, match="around the middle and solver 'resshift' runs around the"):
        restore.solve(y, physics, prior(), ResShift())
    with pytest.raises(ValueError, match="around the degraded and solver 'conditional'"):
        restore.solve(y, physics, gaussian_prior(), Conditional())


def test_training_takes_the_spread_of_images_and_says_so(tmp_path):
    draws = torch.Generator().manual_seed(0)
    scenes = [torch.randint(256, (1, 128, 128), dtype=torch.uint8, generator=draws) for _ in "ab"]
    plan = Plan(
        family="conditional",
        operator="denoise",
        noise=(0.1, 0.1),
        size="small",
        patch=16,
        recipe=Recipe(steps=2, warmup=1, bfloat16=False),
    )
    training = Training(plan, scenes)
    # uniform noise, a quarter of it reduced and re-exposed; its residual would have 0.1
    assert training.network.spread == pytest.approx(1 / math.sqrt(12), abs=0.08)
    for _ in training.run(None):
        pass
    weights.save(tmp_path / "mine.safetensors", training.prior("mine"))
    y, physics = measured(side=16)
    result = restore.solve(y.float(), physics, solver=tmp_path / "mine.safetensors")
    assert result.cost.forwards == 20
    assert weights.load(tmp_path / "mine.safetensors").trained.around == "middle"


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"sampler": "ddmi"}, "did you mean 'ddim'"),
        ({"schedule_name": "dppm"}, "did you mean 'ddpm'"),
        ({"high": 1e4}, "correct these"),
        ({"steps": 0}, "of at least 1"),
    ],
)
def test_impossible_constants_are_refused(constants, said):
    with pytest.raises(ValueError, match=said):
        Conditional(**constants)
