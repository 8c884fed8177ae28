"""What is wrong with a cube: bands missing, dead or mostly noise, pixels without values."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.cubes.cube import Cube
from restore.cubes.scale import of_ranges

_FAR = 5.0  # times the median share of noise
_MOSTLY = 0.5  # share of noise in a band's std


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        missing: bands without any value, numbered from 0.
        dead: bands of one value.
        noisy: bands that are mostly noise while others are not.
        gaps: entries without a value in the other bands.
        pixels: pixels without a value in any of the other bands.
    """

    missing: tuple[int, ...]
    dead: tuple[int, ...]
    noisy: tuple[int, ...]
    gaps: int
    pixels: int

    @property
    def lost(self) -> tuple[int, ...]:
        """Bands that hold nothing of the scene."""
        return tuple(sorted((*self.missing, *self.dead)))

    def sentences(self) -> list[str]:
        """What to tell."""
        told = {
            "without any value": self.missing,
            "of one value only": self.dead,
            "mostly noise": self.noisy,
        }
        lines = [
            f"{_count(len(bands), 'band')} {what}: {_numbers(bands)}."
            for what, bands in told.items()
            if bands
        ]
        if self.gaps:
            lines.append(f"{_count(self.gaps, 'entry', 'entries')} without a value.")
        if self.pixels:
            lines.append(f"{_count(self.pixels, 'pixel')} without a value in any band.")
        return lines


def examine(cube: Cube) -> Findings:
    """Look at every band.

    Raises:
        ValueError: no value at all.
    """
    seen = cube.seen
    if not bool(seen.any()):
        raise ValueError("the cube holds no value at all; check what its file says is missing.")
    some = seen.flatten(1).any(1)
    low = torch.where(seen, cube.data, torch.inf).amin((1, 2))
    high = torch.where(seen, cube.data, -torch.inf).amax((1, 2))
    dead = some & (low == high)
    alive = some & ~dead
    noisy = torch.zeros_like(alive)
    if int(alive.sum()) > 2:
        share = noise_share(cube)[alive]
        bad = (share > _MOSTLY) & (share > _FAR * share.median())
        noisy[torch.nonzero(alive)[bad, 0]] = True
    gaps = ~seen[alive]
    return Findings(
        missing=_where(~some),
        dead=_where(dead),
        noisy=_where(noisy),
        gaps=int(gaps.sum()),
        pixels=int(gaps.all(0).sum()) if bool(alive.any()) else 0,
    )


def noise_share(cube: Cube) -> Tensor:
    """Std of the noise over that of all, band by band `(C,)`, from neighbours in the plane.

    Immerkaer, *Fast Noise Variance Estimation*, CVIU 64, 1996: a difference of two Laplacians
    sees noise and little of the scene; the median stands for its mean against edges.
    """
    u = of_ranges(cube).to_unit(cube.data)
    seen = cube.seen
    count = seen.sum((1, 2)).clamp_min(1)
    mean = torch.where(seen, u, 0).sum((1, 2)) / count
    whole = torch.where(seen, u, mean[:, None, None])
    kernel = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
    sharp = F.conv2d(whole[:, None], kernel[None, None])[:, 0].abs()
    noise = sharp.flatten(1).median(1).values / 0.6745 / 6
    std = torch.where(seen, u - mean[:, None, None], 0).square().sum((1, 2)) / count
    return noise / std.sqrt().clamp_min(1e-6)


def fill_bands(data: Tensor, bands: tuple[int, ...], wavelengths: tuple[float, ...] | None) -> None:
    """Replace bands, in place, by what lies between their neighbours in the spectrum."""
    at = torch.tensor(wavelengths or range(len(data)), dtype=torch.float64)
    good = [i for i in range(len(data)) if i not in bands]
    order = sorted(good, key=lambda i: float(at[i]))
    for band in bands:
        below = [i for i in order if at[i] <= at[band]]
        above = [i for i in order if at[i] > at[band]]
        a, b = (below or above)[-1 if below else 0], (above or below)[0 if above else -1]
        share = 0.0 if a == b else float((at[band] - at[a]) / (at[b] - at[a]))
        data[band] = torch.lerp(data[a], data[b], share)


def _where(flags: Tensor) -> tuple[int, ...]:
    return tuple(torch.nonzero(flags)[:, 0].tolist())


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _numbers(bands: tuple[int, ...]) -> str:
    """People count bands from 1."""
    shown = ", ".join(str(band + 1) for band in bands[:12])
    return shown + (", ..." if len(bands) > 12 else "")
