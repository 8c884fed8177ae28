"""Students that ship, and files of students: tensors in float16 and the numbers that rebuild them.

What a person must know (teacher and its hash, licence, training, hash, how near it comes) stands in
`weights/cards.toml`.
"""

import json
from pathlib import Path

import torch

from operators.files import write_tensors
from priors.denoiser import Card
from priors.powerlaw import PowerLaw
from priors.shelf import Shelf, sha256
from restore.students.flow_map import FlowMap
from restore.students.student import Student

SHELF = Shelf(Path(__file__).parent / "weights", "flow-map", "student", "restore.students.save")


def available() -> dict[str, Card]:
    """Name -> card of every student that `load` knows by name."""
    return dict(SHELF.cards)


def load(name: str | Path) -> Student:
    """Load a student, offline.

    Args:
        name: a name of `available()`, or the path of a safetensors file written by `save`.

    Returns:
        The student in evaluation mode, float32, on the CPU, its parameters frozen.

    Raises:
        ValueError: for an unknown name, or a file that is damaged or not of this kind.
        FileNotFoundError: for a path that does not exist.
    """
    path, card = SHELF.find(name)
    about, tensors = SHELF.read(path)
    with SHELF.rebuilding(path):
        law = PowerLaw.from_dict(about["power_law"])
        network = FlowMap(law, tuple(about["widths"]), about["blocks"])
        network.net.load_state_dict(tensors)
        high = float(about["high"])
        teacher = {key: about[key] for key in ("teacher", "teacher_sha256")}
    card = card or Card(
        name=path.stem,
        channels=network.channels,
        spatial_dims=2,
        sha256=sha256(path),
        extra=teacher,
    )
    student = Student(card, network, high).to(memory_format=torch.channels_last)
    return student.eval().requires_grad_(False)


def save(path: str | Path, student: Student) -> None:
    """Write a student as one file, float16, atomically.

    Args:
        path: the file, replaced when it exists.
        student: its card's `extra` names the teacher and the teacher's sha256.
    """
    network, extra = student.network, student.card.extra
    rebuild = {
        "kind": SHELF.kind,
        "widths": list(network.widths),
        "blocks": network.blocks,
        "high": student.high,
        "power_law": network.law.as_dict(),
        "teacher": extra.get("teacher", ""),
        "teacher_sha256": extra.get("teacher_sha256", ""),
    }
    tensors = {k: v.detach().half() for k, v in network.net.state_dict().items()}
    write_tensors(Path(path), tensors, {"restore": json.dumps(rebuild)})
