"""VS2M: a cube as a few maps times a few spectra, each the output of an untrained network.

Miao, Zhang, Zhang, Tao, *DDS2M: Self-Supervised Denoising Diffusion Spatio-Spectral Model for
Hyperspectral Image Restoration*, ICCV 2023, arXiv:2303.06682, section 3.2.

    x = sum_r  S_r (outer) e_r,     S_r = f_r(zeta),  e_r = g_r(xi)

    symbol   name here      meaning
    R        rank           number of materials
    S_r      abundances     where they are, (R, H, W): encoder-decoders of one fixed noise map zeta
    e_r      endmembers     their spectra, (R, C): perceptrons of one fixed noise vector xi

What convolutions find hard to draw is noise: fitted to a noisy cube, the sum takes on the scene
first. Nothing holds abundances above zero or their sum to one.

The R networks of a kind run side by side as one with grouped layers. As many levels as the image
has room for; any size of at least 8 pixels a side, square or not.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.untrained.layers import (
    Attention,
    Convolution,
    Dense,
    Unit,
    initialise,
    normalisation,
    side_by_side,
)

_KERNELS = (7, 7, 5, 5, 3, 3)
_SKIPS = (0, 0, 4, 4, 4, 4)  # channels that pass by the deeper levels
_ATTENTIVE = (2, 3)  # levels with attention
_REACH = 49  # side of attention's spatial kernel


@dataclass(frozen=True)
class Widths:
    """Sizes of the networks.

    Attributes:
        maps: channels of the abundance networks' levels, used from the first on.
        spectra: hidden units of the endmember networks.
    """

    maps: tuple[int, ...] = (16, 32, 64, 128, 128, 128)
    spectra: tuple[int, ...] = (128, 256, 256, 128)


def levels(height: int, width: int, most: int = len(_KERNELS)) -> int:
    """How many times the smaller side is halved: down to 4 pixels or more, at least once."""
    return max(1, min(most, int(math.log2(min(height, width))) - 3))


class Abundances(nn.Module):
    """R encoder-decoders with skip connections, noise map in, abundance map out."""

    def __init__(self, rank: int, size: tuple[int, int], widths: tuple[int, ...]) -> None:
        super().__init__()
        count = levels(*size, most=len(widths))
        self.rank, inside = rank, 1
        self.down, self.past, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.up = nn.ModuleList()
        for i, (width, kernel, skip) in enumerate(
            zip(widths[:count], _KERNELS, _SKIPS, strict=False)
        ):
            deeper = widths[i + 1] if i + 1 < count else width
            down = (Unit(rank, inside, width, kernel, halve=True), Unit(rank, width, width, kernel))
            self.down.append(nn.Sequential(*down))
            self.past.append(Unit(rank, inside, skip) if skip else nn.Identity())
            join: list[nn.Module] = [normalisation(rank * (skip + deeper))]
            if i in _ATTENTIVE:
                reach = min(_REACH, 2 * (max(size) >> i) + 1)  # more would only see zeros
                join.append(Attention(rank, skip + deeper, reach))
            self.join.append(nn.Sequential(*join))
            up = (Unit(rank, skip + deeper, width, kernel), Unit(rank, width, width))
            self.up.append(nn.Sequential(*up))
            inside = width
        self.out = Convolution(rank, widths[0], 1)

    def forward(self, zeta: Tensor) -> Tensor:
        """Draw maps `(R, H, W)` from one noise map `(H, W)`."""
        return self.out(self._level(0, zeta.expand(1, self.rank, *zeta.shape)))[0]

    def _level(self, i: int, x: Tensor) -> Tensor:
        below = self.down[i](x)
        if i + 1 < len(self.down):
            below = self._level(i + 1, below)
        parts = [F.interpolate(below, x.shape[2:], mode="bilinear", align_corners=False)]
        if not isinstance(self.past[i], nn.Identity):
            parts.insert(0, self.past[i](x))
        return self.up[i](self.join[i](side_by_side(self.rank, *parts)))


class Endmembers(nn.Module):
    """R perceptrons, noise vector in, spectrum out."""

    def __init__(self, rank: int, bands: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.rank, sizes = rank, (bands, *widths, bands)
        self.layers = nn.ModuleList(Dense(rank, a, b) for a, b in pairwise(sizes))

    def forward(self, xi: Tensor) -> Tensor:
        """Draw spectra `(R, C)` from one noise vector `(C,)`."""
        x = xi.expand(self.rank, 1, -1)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i + 1 < len(self.layers):
                x = F.relu(x) if i else F.relu6(x)
        return x[:, 0]


class VS2M(nn.Module):
    """The variational spatio-spectral module; see the module's docstring.

    Args:
        image_shape: `(C, H, W)` of the cube.
        rank: R.
        generator: draws weights and inputs; on the CPU.
        widths: sizes of the networks.
    """

    zeta: Tensor
    xi: Tensor

    def __init__(
        self,
        image_shape: tuple[int, ...],
        rank: int,
        generator: torch.Generator,
        widths: Widths | None = None,
    ) -> None:
        super().__init__()
        bands, height, width = image_shape
        chosen = widths or Widths()
        self.maps = Abundances(rank, (height, width), chosen.maps)
        self.spectra = Endmembers(rank, bands, chosen.spectra)
        initialise(self, generator)
        for name, shape in (("zeta", (height, width)), ("xi", (bands,))):
            draw = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5
            self.register_buffer(name, draw.float())

    def forward(self) -> Tensor:
        """Draw the cube `(C, H, W)`."""
        return mix(self.maps(self.zeta), self.spectra(self.xi))


def mix(abundances: Tensor, endmembers: Tensor) -> Tensor:
    """`sum_r S_r (outer) e_r` of maps `(R, H, W)` and spectra `(R, C)`: a cube `(C, H, W)`."""
    return torch.einsum("rc,rhw->chw", endmembers, abundances)
