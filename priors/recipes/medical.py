"""Train `ct` or `mr` from a corpus of scans, starting from `natural-gray`.

    python -m priors.recipes.scans unpacked scans.npz
    python -m priors.recipes.heads unpacked heads.npz
    python -m priors.recipes.medical ct run/ scans.npz heads.npz --photographs corpus.npz
    python -m priors.recipes.medical mr run/ scans.npz --photographs corpus.npz

trains on one thread, goes on where an earlier call stopped, and writes `run/ct.safetensors` in
float16. Scans are few: starting from a denoiser of photographs, and keeping one photograph in every
batch, saves most of the training and keeps the prior sane on what no scan of the corpus shows.
Held-out patients are never read here.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from priors.denoiser import Card
from priors.networks import Handover, NoisePredictor
from priors.patches import Patches
from priors.powerlaw import fit_power_law
from priors.recipes.natural import BLOCKS, WIDTHS, load_scenes, run_and_save
from priors.recipes.scan_patches import ScanPatches
from priors.recipes.scans import catalogue
from priors.training import Recipe
from priors.weights import load

START = "natural-gray"
SCANS, PHOTOGRAPHS = 7, 1  # patches of each in a batch
SIGMAS = ((0.50, 5 / 255, 70 / 255), (0.20, 0.002, 0.3), (0.30, 0.3, 3.0))
HANDOVER = (1.5, 3.0)  # later than for photographs: slices are large, and dark around the patient
SYNTHETIC: dict[str, tuple[float, tuple[float, float]]] = {
    "heads-colin27": (0.30, (1.0, 1.6)),
    "heads-mni152": (0.30, (1.0, 1.6)),
    "ellipses": (0.05, (1.0, 2.0)),
}
"""Share and factors, as in `scans.toml`, of what `priors.recipes.heads` makes."""


def load_stacks(paths: Iterable[Path], modality: str, role: str) -> dict[str, list[Tensor]]:
    """Read the slices of a modality and role as `{scan: [(N, H, W) per axis]}`."""
    stacks: dict[str, list[Tensor]] = {}
    for path in paths:
        with np.load(path, allow_pickle=False) as corpus:
            for name in sorted(corpus.files):
                kind, part, scan, _axis = name.split("/")
                if (kind, part) == (modality, role):
                    stacks.setdefault(scan, []).append(torch.from_numpy(corpus[name]))
    return stacks


def scan_patches(paths: Iterable[Path], modality: str, *, size: int, batch: int) -> ScanPatches:
    """Build the source of training patches of a modality from corpus files."""
    entries = [e for e in catalogue()[0] if (e["modality"], e["role"]) == (modality, "train")]
    drawn: dict[str, tuple[float, tuple[float, float]]] = {
        e["id"]: (e["share"], tuple(e["reduce"])) for e in entries
    }
    drawn |= SYNTHETIC
    stacks = load_stacks(paths, modality, "train")
    large = {
        name: kept
        for name, axes in stacks.items()
        if (kept := [s for s in axes if min(s.shape[1:]) >= size])
    }
    shares = {name: share for name, (share, _) in drawn.items()}
    reduce = {name: factors for name, (_, factors) in drawn.items()}
    return ScanPatches(large, shares, reduce, modality=modality, size=size, batch=batch)


def start(name: str) -> NoisePredictor:
    """Return a network with the weights of the prior for photographs, under another name."""
    network = NoisePredictor(Card(name=name, channels=1), WIDTHS, BLOCKS)
    parent = load(START)
    assert isinstance(parent, Handover)
    assert isinstance(parent.network, NoisePredictor)
    network.net.load_state_dict(parent.network.net.state_dict())
    return network.to(memory_format=torch.channels_last)


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("name", choices=("ct", "mr"))
    parser.add_argument("out", type=Path)
    parser.add_argument("corpora", type=Path, nargs="+")
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=24000)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)

    scans = scan_patches(args.corpora, args.name, size=64, batch=SCANS)
    photographs = Patches(load_scenes(args.photographs, 1), batch=PHOTOGRAPHS)
    large = scan_patches(args.corpora, args.name, size=128, batch=1)
    law = fit_power_law(large.plain(1000, torch.Generator().manual_seed(0)))

    def patches(generator: torch.Generator) -> Tensor:
        return torch.cat([scans(generator), photographs(generator)])

    recipe = Recipe(steps=args.steps, lr=args.lr, sigmas=SIGMAS)
    run_and_save(start(args.name), patches, law, recipe, args.out, handover=HANDOVER)


if __name__ == "__main__":
    main()
