"""A slice of a head at many echo times, and the relaxation times that its signal tells.

    S(TE) = B sum_k f_k rho_k exp(-TE / T2_k)

The head is `medical.phantoms.HEAD`; f_k are shares of tissues in a voxel, so that edges hold a
mixture, and B is the smooth field of a receive coil. Relaxation times of white and grey matter are
those at 3 T (Stanisz et al. 2005, Magn. Reson. Med. 54: 69 and 99 ms), and vary within a tissue as
they do in life. Signals are real parts after the phase is taken out, so that their noise is
Gaussian; that of magnitudes is Rician and lifts what is dark.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medical.phantoms import HEAD, LESION, render

_HEIGHT = 6.0  # of the slice, mm: ventricles, deep grey matter
_THICK = 4.0  # mm
_VARIES = 0.06  # std of T2 within a tissue, relative
_GRAIN = 8.0  # mm over which it does
_TIMES = (10.0, 400.0)  # ms, of the grid that a fit searches
_FINE = 0.004  # its step, relative


class Tissue(NamedTuple):
    """Share of water that is seen, and T2 in ms."""

    rho: float
    T2: float


_OF = {  # by what a T1-weighted image of the phantom shows
    900.0: Tissue(0.9, 68),  # fat
    500.0: Tissue(0.7, 40),  # scalp
    450.0: Tissue(0.5, 50),  # marrow of the skull
    140.0: Tissue(1.0, 400),  # fluid
    470.0: Tissue(0.82, 99),  # grey matter
    650.0: Tissue(0.7, 69),  # white matter
    380.0: Tissue(0.4, 45),  # calcified
    330.0: Tissue(0.85, 150),  # lesion
}
_BRAIN = (470.0, 650.0, 330.0)


@dataclass(frozen=True)
class Scan:
    """What a perfect scanner would see.

    Attributes:
        signal: `(1, C, H, W)` in [0, 1], anterior up, the patient's right at the left.
        times: `(C,)` echo times, ms.
        T2: `(H, W)` ms, fitted to `signal` as it is to what is measured.
        brain: where there is brain and nearly nothing else, boolean `(H, W)`.
    """

    signal: Tensor
    times: Tensor
    T2: Tensor
    brain: Tensor


def scan(*, echoes: int = 16, spacing: float = 10.0, pixel: float = 1.75, seed: int = 0) -> Scan:
    """The slice, about 168x203 mm.

    Args:
        echoes: C.
        spacing: ms between echoes, and to the first.
        pixel: side, mm.
        seed: of the variation within tissues.
    """
    size = tuple(8 * round(mm / pixel / 8) for mm in (168.0, 203.0))
    affine = np.diag([pixel, pixel, _THICK, 1.0])
    affine[:3, 3] = [-pixel * (size[0] - 1) / 2, -pixel * (size[1] - 1) / 2, _HEIGHT]
    tissues = (*HEAD, replace(LESION, centre=(*LESION.centre[:2], _HEIGHT)))
    generator = torch.Generator().manual_seed(seed)
    times = spacing * torch.arange(1, echoes + 1)
    grain = _smooth((size[1], size[0]), _GRAIN / pixel, generator)
    signal, brain = torch.zeros(echoes, size[1], size[0]), torch.zeros(size[1], size[0])
    for kind, (rho, T2) in _OF.items():
        painted = [(tissue, float(tissue.mr == kind)) for tissue in tissues]
        # rows from front to back, columns from right to left
        share = torch.from_numpy(render(painted, affine, (*size, 1)))[..., 0].T.flip(0, 1)
        decay = torch.exp(-times[:, None, None] / (T2 * (1 + _VARIES * grain)))
        signal += rho * share * decay
        brain += share * (kind in _BRAIN)
    signal *= 1 + 0.1 * _smooth((size[1], size[0]), 60.0 / pixel, generator).clamp(-2, 2)
    signal = (signal / signal.max())[None]
    return Scan(signal, times, relaxation(signal, times), brain > 0.95)


def relaxation(signal: Tensor, times: Tensor) -> Tensor:
    """T2 of one exponential, of most likelihood under white noise: `(H, W)` ms.

    The amplitude has a closed form and T2 is found on a fine grid, so that noise cannot lead the
    fit astray; there is no T2 outside the grid, 10 to 400 ms.

    Args:
        signal: `(1, C, H, W)`.
        times: `(C,)` ms.
    """
    low, high = _TIMES
    count = 1 + round(float(np.log(high / low)) / _FINE)
    grid = torch.logspace(np.log10(low), np.log10(high), count, dtype=torch.float64)
    atoms = torch.exp(-times.double() / grid[:, None])
    atoms = (atoms / atoms.norm(dim=1, keepdim=True)).to(signal.device)
    pixels = signal[0].flatten(1).double()  # neighbours on the grid are all but alike
    # in parts: all products at once would take more memory than any cube
    found = [grid[(atoms @ part).argmax(0)] for part in pixels.split(4096, dim=1)]
    return torch.cat(found).reshape(signal.shape[2:]).to(signal)


def _smooth(size: tuple[int, int], scale: float, generator: torch.Generator) -> Tensor:
    """White noise under a Gaussian of a std of `scale` pixels, of unit std."""
    white = torch.randn(size, generator=generator)
    f2 = torch.fft.fftfreq(size[0])[:, None] ** 2 + torch.fft.rfftfreq(size[1]) ** 2
    field = torch.fft.irfft2(
        torch.fft.rfft2(white) * torch.exp(-2 * (np.pi * scale) ** 2 * f2), s=size
    )
    field = field - field.mean()
    return field / field.std()
