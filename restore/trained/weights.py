"""Networks trained on pairs as files: how they are written, named and brought back, offline.

A safetensors file says by itself how to rebuild its network and what it was trained for, so that
users' own weights need no registry. What a person must know about those that ship (licence, data,
measured quality) stands in `weights/cards.toml`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from operators.files import write_tensors
from priors import Card
from priors.shelf import Shelf, sha256
from restore.trained.network import PairNetwork
from restore.trained.pair_prior import PairPrior, Trained
from restore.trained.unrolled import Unrolled

SHELF = Shelf(
    Path(__file__).parent / "weights", "pair-network", "trained network", "`restore train`"
)
_PREDICTOR = "predictor."


def available() -> dict[str, Card]:
    """Name -> card of every trained network that ships."""
    return dict(SHELF.cards)


def load(name: str | Path) -> PairPrior:
    """Load a network trained on pairs, offline.

    Args:
        name: a name of `available()`, or the path of a safetensors file of `save`.

    Returns:
        The network in evaluation mode, float32, on the CPU, its parameters frozen.

    Raises:
        ValueError: for an unknown name, or a file that is damaged or not of this kind.
        FileNotFoundError: for a path that does not exist.
    """
    path, card = SHELF.find(name)
    about, tensors = SHELF.read(path)
    with SHELF.rebuilding(path):
        return _rebuild(path, about, tensors, card)


def save(path: str | Path, prior: PairPrior) -> None:
    """Write a trained network as one file, float16, atomically.

    Args:
        path: the file, replaced when it exists.
        prior: its network a `PairNetwork`, or `Unrolled` around an `InjectedDRUNet`; a predictor is
            written with it.
    """
    tensors = _tensors(prior, "")
    about = _about(prior)
    if prior.predictor is not None:
        tensors |= _tensors(prior.predictor, _PREDICTOR)
        about["predictor"] = _about(prior.predictor)
    write_tensors(Path(path), tensors, {"restore": json.dumps(about)})


def _tensors(prior: PairPrior, prefix: str) -> dict[str, Tensor]:
    state = prior.network.state_dict()
    return {prefix + k: v.detach().half() for k, v in state.items()}


def _about(prior: PairPrior) -> dict[str, Any]:
    network = prior.network
    assert isinstance(network, PairNetwork | Unrolled)
    return {
        "kind": SHELF.kind,
        "trained": asdict(prior.trained),
        "value_range": list(prior.card.value_range),
        "network": network.config,
    }


def _rebuild(
    path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor], card: Card | None
) -> PairPrior:
    """Rebuild the network that a file describes, and the predictor within."""
    own = {k: v for k, v in tensors.items() if not k.startswith(_PREDICTOR)}
    inner = {k.removeprefix(_PREDICTOR): v for k, v in tensors.items() if k not in own}
    predictor = _rebuild(path, about["predictor"], inner, card) if inner else None
    config = {**about["network"], "widths": tuple(about["network"]["widths"])}
    build = Unrolled.of if about["trained"]["family"] == "idm" else PairNetwork
    network = build(**config)
    network.load_state_dict(own)
    low, high = about["value_range"]
    card = card or Card(
        name=path.stem,
        channels=config["channels"],
        spatial_dims=2,
        value_range=(low, high),
        sha256=sha256(path),
    )
    pairs = {key: tuple(about["trained"][key]) for key in ("noise", "levels")}
    trained = Trained(**{**about["trained"], **pairs})
    return PairPrior(card, network, trained, predictor).eval().requires_grad_(False)
