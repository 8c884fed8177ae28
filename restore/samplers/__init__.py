"""One integrator, one file: from noise to image in few network calls.

`available()` is the table behind `restore samplers` and every option named `sampler`.
"""

from typing import TYPE_CHECKING

from operators.validate import nearest

if TYPE_CHECKING:
    from restore.samplers.sampler import Sampler


def available() -> dict[str, "Sampler"]:
    """Name -> sampler with its paper's constants."""
    from restore.samplers.ddim import DDIM

    return {
        "ddim": DDIM(),
        "ancestral": DDIM(eta=1.0),
    }


def named(name: str) -> "Sampler":
    """Return the sampler of a name.

    Raises:
        ValueError: unknown name, telling the nearest.
    """
    known = available()
    if name not in known:
        raise ValueError(f"unknown sampler '{name}'; {nearest(name, list(known))}.")
    return known[name]
