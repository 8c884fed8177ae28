"""The prior's power spectrum, learnt from Jacobian products: a model to precondition with.

For a stationary Gaussian prior of power `c(f)` the denoiser's Jacobian at noise level `s` is
`F* diag(c / (c + s^2)) F`, so one product `J v` reveals `c`, and the same `c` holds at every `s`.
For other priors it is a rough fit, averaged over rings of equal frequency so that one probe is
enough; every sample keeps its own, so that samples stay independent of the batch around them.
"""

import math

import torch
from torch import Tensor

_SMALL, _LARGE = 1e-7, 1 - 1e-6  # a Jacobian's eigenvalues lie strictly between 0 and 1


class RadialSpectrum:
    """Radial power spectra `c(f)`, one a sample and channel of decorrelated colour.

    Args:
        shape: `(N, C, *spatial)`.
        like: gives dtype and device.
    """

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self.axes = tuple(range(2, len(shape)))
        self.spatial = shape[2:]
        radius = _radius(shape[2:]).to(like.device)
        self.ring, centres = _rings(radius)
        self.rings = len(centres)
        self.left, self.share = _between(radius, centres, like)
        self.colours = _colours(shape[1]).to(like)
        self.log_c: Tensor | None = None
        self.weight = torch.zeros((), dtype=like.dtype, device=like.device)

    def update(self, pairs: list[tuple[Tensor, Tensor]], s: float) -> None:
        """Learn from pairs `(v, J v)` met at noise level `s`; older levels count half."""
        cross = power = torch.zeros((), dtype=self.colours.dtype, device=self.colours.device)
        for v, q in pairs:
            V, Q = self._analyse(v), self._analyse(q)
            cross = cross + self._sum((V.conj() * Q).real)
            power = power + self._sum(V.abs().square())
        j = (cross / power).clamp(_SMALL, _LARGE)
        log_c = (s**2 * j / (1 - j)).log()
        weight = j * (1 - j)  # inverse error of log c
        if self.log_c is None:
            self.log_c, self.weight = log_c, weight
            return
        old = self.weight / 2
        self.log_c = (old * self.log_c + weight * log_c) / (old + weight)
        self.weight = old + weight

    def power(self, s: float) -> Tensor:
        """Spectrum `(N, C, *spatial)` of the model of `s^2 J`, the covariance at level `s`."""
        assert self.log_c is not None, "update comes first"
        log_c = torch.lerp(self.log_c[..., self.left], self.log_c[..., self.left + 1], self.share)
        gain = torch.sigmoid(log_c - 2 * math.log(s))  # c / (c + s^2)
        return s**2 * gain.reshape(*gain.shape[:2], *self.spatial)

    def filter(self, x: Tensor, spectrum: Tensor) -> Tensor:
        """Multiply images of any size by an even spectrum, in decorrelated colours.

        With `power(s)` this is the model of `s^2 J`.
        """
        mixed = torch.einsum("kc,nc...->nk...", self.colours, x)
        half = torch.fft.rfftn(mixed, dim=self.axes)
        half = half * spectrum[..., : half.shape[-1]]
        mixed = torch.fft.irfftn(half, s=x.shape[2:], dim=self.axes)
        return torch.einsum("kc,nk...->nc...", self.colours, mixed)

    def _analyse(self, x: Tensor) -> Tensor:
        mixed = torch.einsum("kc,nc...->nk...", self.colours, x)
        return torch.fft.fftn(mixed, dim=self.axes)

    def _sum(self, values: Tensor) -> Tensor:
        """Sum over rings: `(N, C, *spatial)` -> `(N, C, rings)`."""
        flat = values.flatten(2)
        total = torch.zeros((*flat.shape[:2], self.rings), dtype=flat.dtype, device=flat.device)
        return total.index_add(2, self.ring, flat)


def _radius(spatial: tuple[int, ...]) -> Tensor:
    """Frequency of every Fourier coefficient, in cycles along the longest side."""
    axes = [torch.fft.fftfreq(n, dtype=torch.float64) * max(spatial) for n in spatial]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt().flatten()


def _rings(radius: Tensor) -> tuple[Tensor, Tensor]:
    """Ring of every coefficient and the rings' mean radii: one wide up to 8, then 15 % wide."""
    edges = [0.5 + i for i in range(8)]
    while edges[-1] < float(radius.max()):
        edges.append(edges[-1] * 1.15)
    ring = torch.bucketize(radius, torch.tensor(edges, dtype=radius.dtype, device=radius.device))
    ring = torch.unique(ring, return_inverse=True)[1]  # small images leave rings empty
    count = torch.bincount(ring)
    return ring, torch.bincount(ring, weights=radius) / count


def _between(radius: Tensor, centres: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where each coefficient lies between two rings, on a logarithmic axis."""
    log_r, log_c = radius.clamp_min(0.5).log(), centres.clamp_min(0.5).log()
    if len(log_c) == 1:
        raise ValueError("a spectrum needs an image of at least two pixels along some side.")
    left = (torch.searchsorted(log_c, log_r, right=True) - 1).clamp(0, len(log_c) - 2)
    share = (log_r - log_c[left]) / (log_c[left + 1] - log_c[left])
    return left, share.clamp(0, 1).to(like)


def _colours(channels: int) -> Tensor:
    """Orthonormal rows that roughly decorrelate channels; the first is their mean (a DCT)."""
    k = torch.arange(channels, dtype=torch.float64)
    matrix = torch.cos(math.pi / channels * torch.outer(k, k + 0.5)) * math.sqrt(2 / channels)
    matrix[0] /= math.sqrt(2)
    return matrix
