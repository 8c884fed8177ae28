"""Train a student of a shipped prior: first trajectories of the teacher, then the jumps along them.

    python -m restore.students.recipe corpus.npz run/ --steps 14000

draws trajectories from the teacher (files of 2000, which a second call finds again), trains on them
on one thread, goes on where an earlier call stopped, and writes
`run/natural-gray-student.safetensors` in float16. The corpus is that of the teacher.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

import priors
from operators.files import write_tensors
from priors.denoiser import Card
from priors.networks import Handover, NoisePredictor
from priors.patches import Patches
from priors.powerlaw import PowerLaw, PowerLawDenoiser
from priors.recipes.natural import BLOCKS, load_scenes
from priors.schedules import EDM
from priors.training import Recipe, fit
from restore.samplers import grid as grids
from restore.samplers.adams import Adams
from restore.students.files import save
from restore.students.flow_map import FlowMap
from restore.students.gaussian import gaussian_start
from restore.students.student import Student
from restore.students.trajectories import Trajectories, jump_loss, trace

TEACHER, NAME = "natural-gray", "natural-gray-student"
SAMPLER = Adams(k=2)
WIDTHS = (32, 64, 128, 192)
SIZE, HIGH, LOW, POINTS = 32, 1.5, 0.01, 14
PART, SHARE_OF_PHOTOGRAPHS = 2000, 1 / 3


def starts(law: PowerLaw, patches: Patches, count: int, seed: int) -> Tensor:
    """Draw `(count, 1, SIZE, SIZE)` at level HIGH: noisy photographs, and noise carried there."""
    generator = torch.Generator().manual_seed(seed)
    photographs = round(SHARE_OF_PHOTOGRAPHS * count)
    clean = torch.cat([patches(generator) for _ in range(-(-photographs // patches.batch))])
    z = torch.randn((count, 1, SIZE, SIZE), generator=generator)
    drawn = gaussian_start(law, z[photographs:], HIGH)
    return torch.cat([clean[:photographs] + HIGH * z[:photographs], drawn])


def part(
    teacher: Handover, law: PowerLaw, patches: Patches, seed: int, folder: Path
) -> Trajectories:
    """Read or draw one file of trajectories."""
    grid = grids.build("edm", EDM(), POINTS - 1, HIGH, LOW)
    path = folder / f"trajectories-{seed:03d}.safetensors"
    if not path.exists():
        teacher.network.train()  # takes a batch as one
        x = starts(law, patches, PART, seed)
        with torch.no_grad():
            traces = [trace(teacher, some, grid, SAMPLER) for some in x.split(50)]
        write_tensors(path, {"points": torch.cat([t.points for t in traces]).half()})
    levels = (*(at.level for at in grid.points), 0.0)
    return Trajectories(load_file(path)["points"], levels)


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--parts", type=int, default=6, help=f"files of {PART} trajectories")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)

    teacher = priors.load(TEACHER)
    assert isinstance(teacher, Handover)
    assert isinstance(teacher.network, NoisePredictor)
    assert isinstance(teacher.gaussian, PowerLawDenoiser)
    law = teacher.gaussian.law
    patches = Patches(load_scenes(args.corpus, 1), size=SIZE)
    parts = [
        part(teacher, law, patches, seed, args.out)
        for seed in tqdm(range(args.parts), desc="trajectories", mininterval=30)
    ]
    student = FlowMap.from_teacher(teacher.network, law, WIDTHS, BLOCKS)
    recipe = Recipe(steps=args.steps, lr=args.lr)
    loss = jump_loss(parts, args.batch)
    run = fit(student, loss, recipe, checkpoint=args.out / f"{NAME}.run.safetensors")
    mean = 1.0
    with tqdm(total=recipe.steps, mininterval=30) as bar:
        for progress in run:
            mean += 0.01 * (progress.loss - mean)
            bar.set_postfix(loss=f"{mean:.4f}", lr=f"{progress.lr:.1e}", refresh=False)
            bar.update(progress.step - bar.n)
    about = {"teacher": TEACHER, "teacher_sha256": teacher.card.sha256}
    save(args.out / f"{NAME}.safetensors", Student(Card(name=NAME, extra=about), student, HIGH))


if __name__ == "__main__":
    main()
