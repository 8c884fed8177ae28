"""From image to noise and back: the probability-flow ODE run the other way.

Song et al. 2021, arXiv:2011.13456, section 4.3; with DDIM's step it is DDIM inversion (Song, Meng,
Ermon 2021, arXiv:2010.02502, section 5.4).

`encode` carries an image at the last point of a grid to its first, `decode` back. Both integrate
the same ODE, so that the noise found is the image's own and a round trip returns the image up to
the integrator's error: of order p in the step for a sampler of order p. Any deterministic sampler
whose steps use no earlier evaluations will do; one with memory would have to start the way back
from another history.

The image must hold the noise of the last point: an image without noise is off by that much.
"""

from typing import NamedTuple

from torch import Tensor

from restore.samplers import named
from restore.samplers.adaptive import DPMSolverAdaptive
from restore.samplers.grid import Grid
from restore.samplers.sampler import Denoise, Sampler
from restore.samplers.time_shift import TimeShift


class RoundTrip(NamedTuple):
    """An image's noise, the image decoded from it, and how far that is from the image.

    Attributes:
        noise: `(B, C, *spatial)`, `alpha x_0 + sigma eps` of the grid's first point.
        image: like the image given, at the grid's last point.
        error: `|image - x| / |x|` of every image `(B,)`.
    """

    noise: Tensor
    image: Tensor
    error: Tensor


def encode(denoise: Denoise, x: Tensor, grid: Grid, sampler: str | Sampler = "ddim") -> Tensor:
    """Carry `x` `(B, C, *spatial)` from the grid's last point to its first.

    Args:
        denoise: `D(y, s)`; a prior will do.
        x: `alpha x_0 + sigma eps` of the last point.
        grid: falling noise, as for sampling.
        sampler: one without memory that draws no noise; "ddim" is DDIM inversion.

    Raises:
        ValueError: a sampler that is random, has memory, or does not follow the ODE both ways.
    """
    return _suited(sampler)(denoise, x, grid.reversed(), clean=False)


def decode(denoise: Denoise, x: Tensor, grid: Grid, sampler: str | Sampler = "ddim") -> Tensor:
    """Carry `x` from the grid's first point to its last; see `encode`."""
    return _suited(sampler)(denoise, x, grid, clean=False)


def round_trip(
    denoise: Denoise, x: Tensor, grid: Grid, sampler: str | Sampler = "ddim"
) -> RoundTrip:
    """Encode and decode; see `encode`."""
    noise = encode(denoise, x, grid, sampler)
    image = decode(denoise, noise, grid, sampler)
    size = x.flatten(1).norm(dim=1)
    return RoundTrip(noise, image, (image - x).flatten(1).norm(dim=1) / size)


def _suited(sampler: str | Sampler) -> Sampler:
    found = named(sampler) if isinstance(sampler, str) else sampler
    reason = (
        "draws noise"
        if found.random
        else "remembers earlier steps"
        if found.memory
        else "seeks its steps towards less noise"
        if isinstance(found, DPMSolverAdaptive)
        else "shifts the times it asks about"
        if isinstance(found, TimeShift)
        else None
    )
    if reason is not None:
        raise ValueError(f"sampler '{found.name}' {reason} and cannot be run backwards; use rk4.")
    return found
