"""Every band to [0, 1] and back; alike in noise where that is not told."""

from dataclasses import dataclass

import torch
from torch import Tensor

from restore.cubes.cube import Cube

_APART = 4.0  # most by which a band is widened or held back to even the noise


@dataclass(frozen=True)
class Scale:
    """`u = (x - low) / width`, band by band.

    Attributes:
        low: own units `(C,)`.
        width: own units `(C,)`, above 0.
    """

    low: Tensor
    width: Tensor

    def to_unit(self, x: Tensor) -> Tensor:
        """Own units to [0, 1], `(C, H, W)`."""
        return (x - self.low[:, None, None]) / self.width[:, None, None]

    def to_own(self, u: Tensor) -> Tensor:
        """Back."""
        return u * self.width[:, None, None] + self.low[:, None, None]

    def pick(self, bands: Tensor) -> "Scale":
        """That of some bands."""
        return Scale(self.low[bands], self.width[bands])


def of_ranges(cube: Cube) -> Scale:
    """Lowest value of every band to 0, highest to 1; a band of one value has width 1."""
    seen = cube.seen
    low = torch.where(seen, cube.data, torch.inf).amin((1, 2))
    high = torch.where(seen, cube.data, -torch.inf).amax((1, 2))
    width = high - low
    empty = ~torch.isfinite(low)
    low = torch.where(empty, 0, low)
    return Scale(low, torch.where(torch.isfinite(width) & (width > 0), width, 1))


def of_noise(cube: Cube, good: Tensor) -> Scale:
    """Ranges widened about their middles, so that the noise of all bands becomes alike.

    Solvers take noise for white. A band noisier than others, for its range, fills less of [0, 1]
    and so counts less (the whitening of Zhuang, Bioucas-Dias 2018). No band is changed by more
    than a factor of 16; without enough whole pixels to tell, ranges stay as they are.

    Args:
        cube: any.
        good: which bands are of use, boolean `(C,)`.
    """
    ranges = of_ranges(cube)
    found = band_noise(ranges.to_unit(cube.data)[good], cube.seen[good])
    if found is None:
        return ranges
    middle = found.median()
    noise = found.clamp(middle / _APART, middle * _APART)
    factor = torch.ones(len(good), dtype=ranges.width.dtype)
    factor[good] = (noise / noise.min()).to(factor)
    width = ranges.width * factor
    return Scale(ranges.low - (width - ranges.width) / 2, width)


def band_noise(u: Tensor, seen: Tensor) -> Tensor | None:
    """Noise std of every band: what linear regression on all others leaves of it.

    Bioucas-Dias, Nascimento, *Hyperspectral Subspace Identification*, IEEE TGRS 46, 2008, section
    II; unbiased for the number of bands.

    Args:
        u: `(C, H, W)`.
        seen: where there is a value.

    Returns:
        `(C,)`, or None where fewer whole pixels than twice the bands leave nothing to tell.
    """
    whole = seen.flatten(1).all(0)
    n, bands = int(whole.sum()), len(u)
    if n < 2 * bands + 2:
        return None
    Y = u.flatten(1)[:, whole].double()
    Y = Y - Y.mean(1, keepdim=True)
    gram = Y @ Y.T
    ridge = 1e-9 * gram.diagonal().mean() * torch.eye(bands, dtype=gram.dtype)
    left = 1 / torch.linalg.inv(gram + ridge).diagonal()
    return (left / (n - bands)).clamp_min(0).sqrt()
