"""Train the networks that ship from a corpus of photographs.

    python -m restore.trained.recipe corpus.npz x4 run/

goes on where an earlier call stopped, and writes `run/x4.safetensors`. The corpus is made by
`priors.recipes.corpus`. One thread: two OpenMP threads are slower in bfloat16 on small machines.
Users train on folders of their own with `restore train`, which is the same run.
"""

import argparse
from pathlib import Path

import torch
from tqdm.auto import tqdm

from priors.recipes.natural import load_scenes
from priors.training import Recipe
from restore.trained import weights
from restore.trained.training import Plan, Training

PLANS = {
    "x4": Plan(family="residual", operator="downsample:factor=4", noise=(0.0, 0.02)),
    "deblur": Plan(
        family="residual",
        operator="blur:sigma=2",
        noise=(0.01, 0.03),
        recipe=Recipe(steps=14000),
    ),
    "cs10": Plan(
        family="idm",
        operator="cs:ratio=0.1,kind=scrambled",
        noise=(0.0, 0.0),
        batch=16,
        begin="natural-gray",
        keep="everything",
        unroll=5,
        form="oamp",
        recipe=Recipe(steps=2200, lr=6e-4, cooldown=0.8),
    ),
    "cs25": Plan(
        family="idm",
        operator="cs:ratio=0.25,kind=scrambled",
        noise=(0.0, 0.0),
        batch=16,
        begin="cs10",
        keep="everything",
        unroll=5,
        form="oamp",
        recipe=Recipe(steps=1000, lr=4e-4, cooldown=0.8),
    ),
    "x4-regression": Plan(
        family="regression",
        operator="downsample:factor=4",
        noise=(0.0, 0.02),
        recipe=Recipe(steps=12000),
    ),
}


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("name", choices=sorted(PLANS))
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    plan = PLANS[args.name]
    training = Training(plan, load_scenes(args.corpus, 1 if plan.family == "idm" else 3))
    loss = 1.0
    with tqdm(total=plan.recipe.steps, mininterval=30) as bar:
        for done in training.run(args.out / f"{args.name}.run.safetensors"):
            loss += 0.01 * (done.loss - loss)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(done.step - bar.n)
    prior = training.prior(args.name).eval().requires_grad_(False)
    weights.save(args.out / f"{args.name}.safetensors", prior)


if __name__ == "__main__":
    main()
