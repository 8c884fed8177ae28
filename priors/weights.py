"""Weights that ship: files, their cards, and loading them without a network connection.

A weight is one safetensors file: the network's tensors in float16 and, in the file's metadata, the
few numbers that rebuild the rest (widths, blocks, handover, power law). What a person must know
(licence, sources, training, hash, measured quality) stands in `weights/cards.toml`.
"""

import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from priors.denoiser import Card, Denoiser
from priors.networks import Handover, NoisePredictor
from priors.powerlaw import PowerLaw, PowerLawDenoiser

FOLDER = Path(__file__).parent / "weights"
HANDOVER = (0.4, 1.0)


def available() -> dict[str, Card]:
    """Name -> card of every prior that `load` knows by name."""
    return dict(_cards())


def load(name: str | Path) -> Denoiser:
    """Load a prior, offline.

    Args:
        name: a name of `available()`, or the path of a safetensors file written by `save_network`.

    Returns:
        The prior in evaluation mode, float32, on the CPU, its parameters frozen.

    Raises:
        ValueError: for an unknown name, or a file that is damaged or not of this kind.
        FileNotFoundError: for a path that does not exist.
    """
    if str(name) in _cards():
        path = FOLDER / f"{name}.safetensors"
        card = _cards()[str(name)]
        if (found := sha256(path)) != card.sha256:
            raise ValueError(
                f"weights of prior '{name}' have sha256 {found[:12]}..., expected "
                f"{card.sha256[:12]}...; the file was changed or cut short: install again."
            )
        return _read(path, card)
    path = Path(name)
    if path.suffix != ".safetensors":
        near = get_close_matches(str(name), list(_cards()), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(_cards())}."
        raise ValueError(f"unknown prior '{name}'; {hint}")
    if not path.exists():
        raise FileNotFoundError(f"no weights at '{path}'; give a safetensors file or a known name.")
    return _read(path, None)


def save_network(
    path: Path, network: NoisePredictor, law: PowerLaw, widths: tuple[int, ...], blocks: int
) -> None:
    """Write a trained network and its high-noise partner as one file, float16, atomically."""
    rebuild = {
        "kind": "noise-predictor",
        "channels": network.card.channels,
        "widths": list(widths),
        "blocks": blocks,
        "handover": list(HANDOVER),
        "power_law": law.as_dict(),
    }
    tensors = {k: v.detach().half() for k, v in network.net.state_dict().items()}
    write_tensors(path, tensors, {"restore": json.dumps(rebuild)})


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file so that it is either whole or absent."""
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(plain, temporary, dict(metadata or {}))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


def _read(path: Path, card: Card | None) -> Denoiser:
    """Rebuild the prior that a file describes."""
    try:
        with safe_open(path, framework="pt") as file:
            rebuild = json.loads((file.metadata() or {}).get("restore", "{}"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"'{path.name}' is not a readable safetensors file: {error}.") from None
    if rebuild.get("kind") != "noise-predictor":
        raise ValueError(
            f"'{path.name}' does not say how to rebuild its network; expected a file written by "
            "priors.save_network."
        )
    card = card or Card(
        name=path.stem, channels=rebuild["channels"], spatial_dims=2, sha256=sha256(path)
    )
    network = NoisePredictor(card, tuple(rebuild["widths"]), rebuild["blocks"])
    network.net.load_state_dict(tensors)
    law = PowerLaw(**{k: _tuples(v) for k, v in rebuild["power_law"].items()})
    low, high = rebuild["handover"]
    prior = Handover(card, network, PowerLawDenoiser(card, law), low, high)
    prior = prior.to(memory_format=torch.channels_last)
    return prior.eval().requires_grad_(False)


def _tuples(value: object) -> object:
    """Lists of JSON back to the tuples of a frozen dataclass."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
