"""Weights that ship: files, their cards, and loading them without a network connection.

A weight is one safetensors file: the network's tensors in float16 and, in the file's metadata, the
few numbers that rebuild the rest (widths, blocks, handover, power law). What a person must know
(licence, sources, training, hash, measured quality) stands in `weights/cards.toml`.
"""

import hashlib
import json
import tomllib
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from operators.files import write_tensors
from priors.denoiser import Card, Denoiser
from priors.networks import Handover, NoisePredictor
from priors.powerlaw import PowerLaw, PowerLawDenoiser
from priors.tiled import Tiled

FOLDER = Path(__file__).parent / "weights"
HANDOVER = (0.8, 1.5)
OVERLAP = 64  # of tiles: a pixel sees at least 32 pixels around it, as deep as training patches


def available() -> dict[str, Card]:
    """Name -> card of every prior that `load` knows by name."""
    return dict(_cards())


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
    cards = _cards()
    if card := cards.get(str(name)):
        path = FOLDER / f"{name}.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"weights of prior '{name}' are missing; install again.")
        if (found := sha256(path)) != card.sha256:
            raise ValueError(
                f"weights of prior '{name}' have sha256 {found[:12]}..., expected "
                f"{card.sha256[:12]}...; the file was changed or cut short: install again."
            )
        return _read(path, card, tile)
    path = Path(name)
    if path.suffix != ".safetensors":
        near = get_close_matches(str(name), list(cards), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(cards) or 'none'}."
        raise ValueError(f"unknown prior '{name}' (and not a .safetensors file); {hint}")
    if not path.is_file():
        raise FileNotFoundError(f"no weights at '{path}'; give a safetensors file or a known name.")
    return _read(path, None, tile)


def save_network(
    path: str | Path, network: NoisePredictor, law: PowerLaw, widths: tuple[int, ...], blocks: int
) -> None:
    """Write a trained network and its high-noise partner as one file, float16, atomically.

    Args:
        path: the file, replaced when it exists.
        network: the trained network.
        law: power law of the images it was trained on.
        widths: of the network's four scales.
        blocks: of the network.
    """
    rebuild = {
        "kind": "noise-predictor",
        "channels": network.card.channels,
        "widths": list(widths),
        "blocks": blocks,
        "handover": list(HANDOVER),
        "power_law": law.as_dict(),
    }
    tensors = {k: v.detach().half() for k, v in network.net.state_dict().items()}
    write_tensors(Path(path), tensors, {"restore": json.dumps(rebuild)})


def sha256(path: Path) -> str:
    """Hexadecimal hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _cards() -> dict[str, Card]:
    with (FOLDER / "cards.toml").open("rb") as file:
        entries = tomllib.load(file)
    return {name: _card(name, entry) for name, entry in entries.items()}


def _card(name: str, entry: dict) -> Card:
    known = {"channels", "licence", "training_data", "sha256", "description"}
    return Card(
        name=name,
        spatial_dims=2,
        sigma_range=tuple(entry["sigma_range"]),
        extra={k: v for k, v in entry.items() if k not in known | {"sigma_range"}},
        **{k: entry[k] for k in known},
    )


def _read(path: Path, card: Card | None, tile: int | None) -> Denoiser:
    """Rebuild the prior that a file describes."""
    about, tensors = _contents(path)
    card = card or Card(
        name=path.stem, channels=about.get("channels"), spatial_dims=2, sha256=sha256(path)
    )
    try:
        network = NoisePredictor(card, tuple(about["widths"]), about["blocks"])
        network.net.load_state_dict(tensors)
        gaussian = PowerLawDenoiser(card, PowerLaw.from_dict(about["power_law"]))
        low, high = about["handover"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the tensors of '{path.name}' do not fit the network that it describes; copy it again."
        ) from error
    tiled = network if tile is None else Tiled(network, tile, overlap=OVERLAP)
    prior = Handover(tiled.card, tiled, gaussian, low, high).to(memory_format=torch.channels_last)
    return prior.eval().requires_grad_(False)


def _contents(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """Return what a file of `save_network` says about itself, and its tensors in float32."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("restore", "null")
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"'{path.name}' is not a readable safetensors file ({error}); copy it again."
        ) from None
    about = None
    with suppress(json.JSONDecodeError):
        about = json.loads(text)
    if not isinstance(about, dict) or about.get("kind") != "noise-predictor":
        raise ValueError(
            f"'{path.name}' does not say how to rebuild its network; expected a file written by "
            "priors.save_network."
        )
    return about, tensors
