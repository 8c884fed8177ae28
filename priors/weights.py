"""Weights that ship: files, their cards, and loading them without a network connection.

A weight is one safetensors file: the network's tensors in float16 and, in the file's metadata, the
few numbers that rebuild the rest (widths, blocks, handover, power law). What a person must know
(licence, sources, training, hash, measured quality) stands in `weights/cards.toml`.
"""

import json
from pathlib import Path

import torch

from operators.files import write_tensors
from priors.denoiser import Card, Denoiser
from priors.networks import Handover, NoisePredictor
from priors.powerlaw import PowerLaw, PowerLawDenoiser
from priors.shelf import Shelf, sha256
from priors.tiled import Tiled

SHELF = Shelf(Path(__file__).parent / "weights", "noise-predictor", "prior", "priors.save_network")
HANDOVER = (0.8, 1.5)
OVERLAP = 64  # of tiles: a pixel sees at least 32 pixels around it, as deep as training patches


def available() -> dict[str, Card]:
    """Name -> card of every prior that `load` knows by name."""
    return dict(SHELF.cards)


def load(name: str | Path, *, tile: int | None = None) -> Denoiser:
    """Load a prior, offline.

    Args:
        name: a name of `available()`, or the path of a safetensors file written by `save_network`.
        tile: side in pixels of the tiles (more than 64, by which they overlap) in which the network
            runs, for images too large for memory; take a multiple of 8. The closed-form denoiser of
            high noise is cheap and always sees the whole image.

    Returns:
        The prior in evaluation mode, float32, on the CPU, its parameters frozen.

    Raises:
        ValueError: for an unknown name, a file that is damaged or not of this kind, or a tile too
            small.
        FileNotFoundError: for a path that does not exist.
    """
    path, card = SHELF.find(name)
    return _read(path, card, tile)


def save_network(
    path: str | Path,
    network: NoisePredictor,
    law: PowerLaw,
    widths: tuple[int, ...],
    blocks: int,
    *,
    handover: tuple[float, float] = HANDOVER,
) -> None:
    """Write a trained network and its high-noise partner as one file, float16, atomically.

    Args:
        path: the file, replaced when it exists.
        network: the trained network.
        law: power law of the images it was trained on.
        widths: of the network's four scales.
        blocks: of the network.
        handover: noise levels at which the passage to the partner begins and ends.
    """
    rebuild = {
        "kind": SHELF.kind,
        "channels": network.card.channels,
        "widths": list(widths),
        "blocks": blocks,
        "handover": list(handover),
        "power_law": law.as_dict(),
    }
    tensors = {k: v.detach().half() for k, v in network.net.state_dict().items()}
    write_tensors(Path(path), tensors, {"restore": json.dumps(rebuild)})


def _read(path: Path, card: Card | None, tile: int | None) -> Denoiser:
    """Rebuild the prior that a file describes."""
    about, tensors = SHELF.read(path)
    card = card or Card(
        name=path.stem, channels=about.get("channels"), spatial_dims=2, sha256=sha256(path)
    )
    with SHELF.rebuilding(path):
        network = NoisePredictor(card, tuple(about["widths"]), about["blocks"])
        network.net.load_state_dict(tensors)
        gaussian = PowerLawDenoiser(card, PowerLaw.from_dict(about["power_law"]))
        low, high = about["handover"]
    tiled = network if tile is None else Tiled(network, tile, overlap=OVERLAP)
    prior = Handover(tiled.card, tiled, gaussian, low, high).to(memory_format=torch.channels_last)
    return prior.eval().requires_grad_(False)
