"""Small smooth scans and an exact prior of their slices, for the tests of reconstruction."""

import numpy as np
import torch
from deepinv.models import Denoiser

import priors
from medical import Volume

MM = 2.0


class Smooth(Denoiser):
    """A Gaussian prior of smooth pictures about 0.4, exact on a torus and instant, of any size."""

    def forward(self, x, sigma, **_):
        level = torch.as_tensor(sigma).reshape(-1, 1, 1, 1)
        power = self.power(x.shape[-2:])[:, : x.shape[-1] // 2 + 1]
        shrunk = torch.fft.rfft2(x - 0.4) * power / (power + level**2)
        return 0.4 + torch.fft.irfft2(shrunk, s=x.shape[-2:])

    @staticmethod
    def power(size):
        rows, columns = (torch.fft.fftfreq(n) for n in size)
        f2 = rows[:, None] ** 2 + columns**2
        return 1e-5 / (f2 + 5e-4) ** 2

    def std(self, size, sigma):
        """Of the posterior of a noisy picture, the same in every pixel."""
        power = self.power(size)
        return float((power * sigma**2 / (power + sigma**2)).mean().sqrt())


def prior():
    adapter = priors.from_deepinv(Smooth())
    adapter.card = priors.Card(name="smooth", channels=1, spatial_dims=2)
    return adapter


def waves(shape=(12, 20, 24)):
    """`(D, H, W)` in [0.1, 0.9], smooth in every direction, no two slices alike."""
    d, h, w = torch.meshgrid(*(torch.arange(n) / n for n in shape), indexing="ij")
    turns = ((1, 1, 1), (2, 1, -2), (1, 2, 1))
    return 0.5 + 0.13 * sum(torch.sin(6.2832 * (a * d + b * h + c * w)) for a, b, c in turns)


def scan(modality="CT", shape=(12, 20, 24), orientation="LAS", **options):
    """A scan of waves: CT in HU, anything else in arbitrary units from 0 to about 1000."""
    u = waves(shape)
    data = 3000 * u - 1000 if modality == "CT" else 1000 * u
    affine = np.array([[0, 0, -MM, 20], [0, -MM, 0, 30], [MM, 0, 0, -10], [0, 0, 0, 1.0]])
    units = "HU" if modality == "CT" else "a.u."
    volume = Volume(data=data[None], affine=affine, units=units, modality=modality, **options)
    return volume.reoriented(orientation)


def error(x, truth):
    """Root mean square."""
    return float((x.data - truth.data).double().square().mean().sqrt())
