"""Train `natural` (RGB) or `natural-gray` from a corpus of photographs.

    python -m priors.recipes.natural corpus.npz natural-gray run/ --steps 36000

trains on one thread (two OpenMP threads are slower in bfloat16 on small machines), goes on where
an earlier call stopped, and writes `run/natural-gray.safetensors` in float16: the network, and the
power-law Gaussian fitted to the same corpus that takes over at high noise. The corpus is made by
`priors.recipes.corpus`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from operators.spectral import LUMA
from priors.denoiser import Card
from priors.networks import NoisePredictor
from priors.patches import Patches
from priors.powerlaw import PowerLaw, fit_power_law
from priors.training import Recipe, Sampler, train
from priors.weights import HANDOVER, save_network

WIDTHS = (32, 64, 128, 256)
BLOCKS = 1
CHANNELS = {"natural": 3, "natural-gray": 1}


def load_scenes(path: Path, channels: int) -> list[Tensor]:
    """Read the corpus as uint8 tensors `(C, H, W)`."""
    with np.load(path, allow_pickle=False) as corpus:
        names = sorted(name for name in corpus.files if name.startswith("scene_"))
        scenes = [torch.from_numpy(corpus[name]).permute(2, 0, 1) for name in names]
    if channels == 3:
        return [scene.contiguous() for scene in scenes]
    luma = torch.tensor(LUMA)[:, None, None]
    return [(scene * luma).sum(0, keepdim=True).round().to(torch.uint8) for scene in scenes]


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("name", choices=sorted(CHANNELS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=36000)
    parser.add_argument("--lr", type=float, default=Recipe.lr)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)

    scenes = load_scenes(args.corpus, CHANNELS[args.name])
    patches = Patches(scenes)
    law = fit_power_law(Patches(scenes, size=128).plain(1000, torch.Generator().manual_seed(0)))
    torch.manual_seed(0)  # the only use of the global stream: the network's first weights
    network = NoisePredictor(Card(name=args.name, channels=CHANNELS[args.name]), WIDTHS, BLOCKS)
    network = network.to(memory_format=torch.channels_last)

    run_and_save(network, patches, law, Recipe(steps=args.steps, lr=args.lr), args.out)


def run_and_save(
    network: NoisePredictor,
    patches: Sampler,
    law: PowerLaw,
    recipe: Recipe,
    out: Path,
    *,
    handover: tuple[float, float] = HANDOVER,
) -> None:
    """Train, with a progress bar and checkpoints, and write `out/NAME.safetensors`.

    Args:
        network: trained in place; its card's name names the files.
        patches: the training data.
        law: power law of the images, for high noise.
        recipe: the constants.
        out: folder of the checkpoint and of the result.
        handover: see `save_network`.
    """
    name = network.card.name
    run = train(network, patches, recipe, checkpoint=out / f"{name}.run.safetensors")
    loss = 1.0  # running average; the loss is in units of what one expects
    with tqdm(total=recipe.steps, mininterval=30) as bar:
        for progress in run:
            loss += 0.01 * (progress.loss - loss)
            bar.set_postfix(loss=f"{loss:.4f}", lr=f"{progress.lr:.1e}", refresh=False)
            bar.update(progress.step - bar.n)
    path = out / f"{name}.safetensors"
    save_network(path, network, law, WIDTHS, BLOCKS, handover=handover)


if __name__ == "__main__":
    main()
