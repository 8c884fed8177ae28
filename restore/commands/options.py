"""Options that commands share, and what is refused of them."""

import math
from pathlib import Path
from typing import Annotated

import typer

Operator = Annotated[str, typer.Option(metavar="SPEC", help="For example blur:sigma=2.")]
Noise = Annotated[
    float, typer.Option(metavar="S", help="Std of Gaussian noise where black is 0 and white is 1.")
]
Output = Annotated[Path, typer.Option("-o", "--out", help="File to write.")]
Solver = Annotated[str | None, typer.Option(help="See `restore solvers`.")]
Prior = Annotated[str | None, typer.Option(help="Name (see `restore priors`) or safetensors file.")]
Samples = Annotated[int, typer.Option(help="Posterior samples; their mean is the result.")]
Seed = Annotated[int, typer.Option(help="Same seed, same image.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default cuda where there is.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar, no words.")]
AsJson = Annotated[bool, typer.Option("--json", help="Numbers as JSON on standard output.")]


def refuse_numbers(samples: int, noise: float | None, batch_size: int | None = None) -> None:
    """Refuse counts and noise levels that cannot be meant.

    Raises:
        ValueError: below 1, negative, infinite.
    """
    if samples < 1:
        raise ValueError(f"--samples is {samples}, expected at least 1.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"--batch-size is {batch_size}, expected at least 1.")
    if noise is not None and not (0 <= noise < math.inf):
        raise ValueError(
            f"--noise is {noise:g}, expected a std of at least 0 where black is 0 and white is 1 "
            "(divide a level out of 255 by 255)."
        )


def read_shape(text: str) -> tuple[int, ...]:
    """Read `CxHxW` or `CxDxHxW`.

    Raises:
        ValueError: anything else.
    """
    parts = text.lower().split("x")
    if len(parts) not in (3, 4) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(
            f"--shape is '{text}', expected CxHxW, for example 3x256x256, or CxDxHxW of a volume."
        )
    return tuple(map(int, parts))
