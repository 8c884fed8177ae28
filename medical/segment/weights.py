"""Networks of tumour masks as files: how they are written, named and brought back, offline."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from medical.segment.intensity import CHANNELS, Intensity
from medical.segment.network import MaskNetwork
from medical.segment.segmenter import Segmenter
from operators.files import write_tensors
from priors import Card
from priors.shelf import Shelf, sha256

SHELF = Shelf(
    Path(__file__).parent / "weights", "segmenter", "segmenter", "`restore train segment`"
)


def available() -> dict[str, Card]:
    """Name -> card of every segmenter that ships."""
    return dict(SHELF.cards)


def load(name: str | Path) -> Segmenter:
    """Load a segmenter, offline.

    Args:
        name: a name of `available()`, or the path of a safetensors file of `save`.

    Returns:
        It, in evaluation mode, float32, on the CPU, its parameters frozen.

    Raises:
        ValueError: for an unknown name, or a file that is damaged or not of this kind.
        FileNotFoundError: for a path that does not exist.
    """
    path, _ = SHELF.find(name)
    about, tensors = SHELF.read(path)
    with SHELF.rebuilding(path):
        return replace(_rebuilt(path.stem, about, tensors), sha256=sha256(path))


def save(path: str | Path, segmenter: Segmenter) -> None:
    """Write a segmenter as one file, float16, atomically; an existing file is replaced."""
    about = {
        "kind": SHELF.kind,
        "network": segmenter.network.config,
        "predicts": segmenter.predicts,
        "spacing": segmenter.spacing,
        "window": segmenter.window,
        "channels": CHANNELS,
        "intensity": asdict(segmenter.intensity),
        "trained": dict(segmenter.trained),
    }
    tensors = {k: v.detach().cpu().half() for k, v in segmenter.network.state_dict().items()}
    write_tensors(Path(path), tensors, {"restore": json.dumps(about)})


def _rebuilt(name: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Segmenter:
    if tuple(about["channels"]) != CHANNELS:
        raise ValueError(f"channels {about['channels']}, expected {CHANNELS}")
    network = MaskNetwork(**about["network"])
    network.load_state_dict(tensors)
    ranges = {key: (float(low), float(high)) for key, (low, high) in about["intensity"].items()}
    return Segmenter(
        name=name,
        network=network.eval().requires_grad_(False),
        predicts=about["predicts"],
        spacing=float(about["spacing"]),
        window=int(about["window"]),
        intensity=Intensity(**ranges),
        trained=about["trained"],
    )
