"""`restore likelihood`: how probable a prior finds a photograph."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from restore.images import Image


def likelihood(
    source: Annotated[Path, typer.Argument(metavar="IMAGE", help="PNG, JPEG or TIFF.")],
    prior: Annotated[
        str | None, typer.Option(help="Name (see `restore priors`) or safetensors file.")
    ] = None,
    crop: Annotated[int | None, typer.Option(help="Use the middle of so many pixels.")] = None,
    probes: Annotated[int, typer.Option(help="Random signs for the trace.")] = 4,
    steps: Annotated[int, typer.Option(help="Steps over the noise levels, four calls each.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the probes and of what fills the roundings.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; by default cuda where there is.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Numbers as JSON on standard output.")
    ] = False,
) -> None:
    """Bits that an image costs under a prior.

    The density of the prior's images with noise of its lowest level, at the image, along the
    probability flow. Integers are spread evenly over their rounding, so that the bits bound the
    length of a code for the file. An estimate by random probes; more of them are more precise.
    """
    if probes < 1 or steps < 1:
        raise ValueError(
            f"--probes and --steps must be at least 1, found {probes} and {steps}; raise them."
        )
    from restore.console import print_json, say

    found = measure(
        source, prior=prior, crop=crop, probes=probes, steps=steps, seed=seed, device=device
    )
    if as_json:
        print_json(found)
        return
    spread = "" if probes < 2 else f" +- {found['std_error_per_dim']:.2g}"
    bits = "" if found["bits_per_dim"] is None else f"{found['bits_per_dim']:.3f} bits a value: "
    say(
        f"{bits}log density {found['nats_per_dim']:.3f}{spread} nats a value over "
        f"{found['values']} values, under '{found['prior']}' with noise {found['level']:g}; "
        f"{found['calls']} calls."
    )


def measure(
    source: Path,
    *,
    prior: str | None = None,
    crop: int | None = None,
    probes: int = 4,
    steps: int = 20,
    seed: int = 0,
    device: str | None = None,
) -> dict[str, Any]:
    """Log density of a file, and the bits of a value where the file holds integers.

    Args:
        source: PNG, JPEG or TIFF.
        prior: by default the shipped one for the image's channels.
        crop: side of the middle part that is used; the whole image by default.
        probes: random signs for the trace.
        steps: of the solve.
        seed: of the probes and of the numbers that fill the roundings.
        device: by default "cuda" where there is one.

    Raises:
        ValueError, OSError: one sentence on what does not fit and what to do.
    """
    import priors
    from restore import images
    from restore.filework import PRIOR_FOR_CHANNELS, _middle, usable_device
    from restore.samplers.log_density import default_grid, log_density

    photo = images.read(source)
    name = PRIOR_FOR_CHANNELS[photo.data.shape[1]] if prior is None else prior
    place = usable_device(device)
    model = priors.load(name).to(place)
    x = _middle(spread_roundings(photo, seed), crop, source).to(place)
    low, high = model.card.value_range
    found = log_density(
        model, low + (high - low) * x, default_grid(model, steps), probes=probes, seed=seed
    )
    nats, n = float(found.nats_per_dim), x.numel()
    whole = None if photo.depth == "float" else photo.depth - math.log2(high - low)
    return {
        "image": source.name,
        "prior": name,
        "level": found.level,
        "values": n,
        "bits_per_dim": None if whole is None else whole - nats / math.log(2),
        "nats_per_dim": nats,
        "std_error_per_dim": float(found.std_error) / n,
        "calls": found.calls,
        "probes": probes,
        "steps": steps,
        "seed": seed,
    }


def spread_roundings(photo: "Image", seed: int) -> "Tensor":
    """Spread integers k of b bits evenly over `[k, k + 1) / 2^b`; floats stay as they are.

    A density of such numbers bounds the code length of the integers (Theis, van den Oord, Bethge
    2016, arXiv:1511.01844, section 3.1).
    """
    import torch

    from priors.jacobian import generator_of

    x = photo.data.double()
    if photo.depth == "float":
        return x
    u = torch.rand(x.shape, generator=generator_of(seed + 1), dtype=torch.float64)
    return ((2**photo.depth - 1) * x + u) / 2**photo.depth
