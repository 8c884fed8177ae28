"""Train the networks that ship, and their rivals, on phantoms.

    python -m medical.segment.recipe all run/

goes on where an earlier call stopped, and writes `run/NAME.safetensors` for every name of `PLANS`:
the diffusion that ships, the plain network of the same size, and each of the two on one scan alone.
All see the same phantoms for the same number of steps of the same batches. One thread. Users train
on patients of their own with `restore train segment`, which is the same run.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from medical.segment import weights
from medical.segment.intensity import Intensity
from medical.segment.patches import Case
from medical.segment.phantoms import phantom
from medical.segment.training import Plan, Training
from priors.training import Recipe

PHANTOMS = 2000  # seeds 0 to 1999; the bench begins at 100 000
RECIPE = Recipe(steps=6000, lr=2e-3, cooldown=0.7)
PLANS = {
    "petct": Plan(recipe=RECIPE),
    "plain": Plan(family="plain", recipe=RECIPE),
    "pet-only": Plan(modalities="pet", recipe=RECIPE),
    "ct-only": Plan(modalities="ct", recipe=RECIPE),
}


def cases(count: int = PHANTOMS, *, first: int = 0) -> list[Case]:
    """Phantoms of 32 voxels of 4 mm."""
    intensity = Intensity()
    return [Case.of(phantom(seed), intensity) for seed in range(first, first + count)]


def train(name: str, out: Path, seen: list[Case], *, seed: int = 0) -> Path:
    """Train one of `PLANS`; nothing is done where its weights are there."""
    path = out / f"{name}.safetensors"
    if path.exists():
        return path
    plan = PLANS[name]
    plan = replace(plan, recipe=replace(plan.recipe, seed=seed))
    training = Training(plan, seen)
    checkpoint, loss = out / f"{name}.run.safetensors", 1.0
    with tqdm(total=plan.recipe.steps, desc=name, mininterval=30) as bar:
        for done in training.run(checkpoint):
            loss += 0.01 * (done.loss - loss)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(done.step - bar.n)
    weights.save(path, training.segmenter(name, data=f"{len(seen)} phantoms", seed=seed))
    checkpoint.unlink(missing_ok=True)
    return path


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("name", choices=[*PLANS, "all"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    seen = cases()
    for name in PLANS if args.name == "all" else (args.name,):
        train(name, args.out, seen, seed=args.seed)


if __name__ == "__main__":
    main()
