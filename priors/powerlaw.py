"""The Gaussian that photographs resemble when seen through heavy noise.

The power spectrum of photographs falls as `S(f) = a / f^b`. With a mean brightness and a direction
of colour this is a whole prior in a dozen numbers, exact at every noise level and image size, and
above `sigma` = 1 it denoises better than a small network. Borders are mirrored (cosine basis), so
that the left edge of an image need not match the right.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from priors.bases import Cosine
from priors.denoiser import Card, Denoiser
from priors.exact import Gaussian


@dataclass(frozen=True)
class PowerLaw:
    """The numbers of the prior, per decorrelated colour component (C of them).

    Attributes:
        colours: orthonormal rows `(C, C)` that turn channels into components.
        mean: mean of each component.
        mean_std: standard deviation of an image's mean, per component.
        amplitude: `a`, in squared image units.
        exponent: `b`; `f` is in cycles a pixel.
    """

    colours: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    mean_std: tuple[float, ...]
    amplitude: tuple[float, ...]
    exponent: tuple[float, ...]

    def variances(self, image_shape: tuple[int, ...]) -> Tensor:
        """Variances of the cosine coefficients `(C, *spatial)`, float64."""
        frequency = _frequencies(image_shape[1:])
        pixels = frequency.numel()
        components = []
        for a, b, std in zip(self.amplitude, self.exponent, self.mean_std, strict=True):
            power = a * frequency.clamp_min(1e-12) ** -b
            power.view(-1)[0] = pixels * std**2
            components.append(power)
        return torch.stack(components)

    def as_dict(self) -> dict[str, object]:
        """Plain numbers, for a file's metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: dict[str, list]) -> "PowerLaw":
        """Take back what `as_dict` gave and JSON turned into lists."""
        colours = tuple(tuple(row) for row in numbers["colours"])
        rest = {k: tuple(v) for k, v in numbers.items() if k != "colours"}
        return cls(colours=colours, **rest)


class PowerLawDenoiser(Denoiser):
    """Closed-form denoiser of the power-law prior, for images of any size.

    Args:
        card: its channels must match the number of components.
        law: the fitted numbers.

    Raises:
        ValueError: when they do not match.
    """

    def __init__(self, card: Card, law: PowerLaw) -> None:
        if card.channels != len(law.mean):
            raise ValueError(
                f"the power law has {len(law.mean)} colour components, the card {card.channels} "
                "channels; fit the law to images with as many channels."
            )
        super().__init__(card)
        self.law = law

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise images `(B, C, *spatial)`; see `Denoiser.forward`."""
        colours = torch.tensor(self.law.colours, dtype=x.dtype, device=x.device)
        components = torch.einsum("kc,bc...->bk...", colours, x)
        denoised = _components(self.law, tuple(x.shape[1:]))(components, sigma)
        return torch.einsum("kc,bk...->bc...", colours, denoised)


@lru_cache(maxsize=8)  # the last few image sizes
def _components(law: PowerLaw, image_shape: tuple[int, ...]) -> Gaussian:
    """Return the prior of the decorrelated components."""
    mean = torch.tensor(law.mean, dtype=torch.float64)
    mean = mean.reshape(-1, *[1] * (len(image_shape) - 1)).expand(image_shape)
    return Gaussian(mean, Cosine(), law.variances(image_shape))


def fit_power_law(images: Tensor) -> PowerLaw:
    """Fit the numbers to clean images `(B, C, H, W)` in [0, 1], B > 1.

    The slope is that of a straight line through the log power of rings of log-equal width, so that
    the few low frequencies count as much as the many high ones.

    Raises:
        ValueError: for a single image, and when a colour component does not vary (grey images
            stored as RGB).
    """
    x = images.double()
    centred = x - x.mean((0, 2, 3), keepdim=True)
    covariance = torch.einsum("bchw,bdhw->cd", centred, centred)
    energy, columns = torch.linalg.eigh(covariance)
    if len(x) < 2 or not bool(energy[0] > 1e-12 * energy[-1]):
        raise ValueError(
            f"a power law is fitted to several images that vary in every channel on its own, found "
            f"{tuple(x.shape)} with channel energies {[float(f'{e:.2g}') for e in energy]}; give "
            "more images, or grey ones as one channel."
        )
    colours = columns.T.flip(0)
    components = torch.einsum("kc,bchw->bkhw", colours, x)
    means = components.mean((2, 3))
    power = Cosine().analyse(components).square().mean(0)
    frequency = _frequencies(tuple(x.shape[2:])).flatten()[1:]
    ring = (4 * frequency.log2()).round().long()
    rings = ring.unique()
    log_f = torch.stack([frequency[ring == r].log().mean() for r in rings])
    amplitude, exponent = [], []
    for p in power:
        values = p.flatten()[1:]
        log_p = torch.stack([values[ring == r].mean().log() for r in rings])
        design = torch.stack([torch.ones_like(log_f), -log_f], dim=1)
        solution = torch.linalg.lstsq(design, log_p[:, None]).solution.flatten()
        amplitude.append(float(solution[0].exp()))
        exponent.append(float(solution[1]))
    return PowerLaw(
        colours=tuple(tuple(row) for row in colours.tolist()),
        mean=tuple(means.mean(0).tolist()),
        mean_std=tuple(means.std(0).tolist()),
        amplitude=tuple(amplitude),
        exponent=tuple(exponent),
    )


def _frequencies(spatial: tuple[int, ...]) -> Tensor:
    """Radial frequency of every cosine coefficient, cycles a pixel."""
    axes = [torch.arange(n, dtype=torch.float64) / (2 * n) for n in spatial]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
