"""All diagnostics of a prior at one noise level."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from priors.denoiser import Denoiser
from priors.diagnostics.calibration import Calibration, SigmaCheck, pixel_calibration, sigma_check
from priors.diagnostics.conservative import circulation, jacobian_asymmetry
from priors.diagnostics.dimension import Dimensions, dimensions
from priors.diagnostics.memorisation import Gap, Neighbours, generalisation_gap, neighbours
from priors.diagnostics.spectrum import homogeneity
from priors.jacobian import generator_of, normal


@dataclass(frozen=True, kw_only=True)
class Level:
    """Everything measured at one noise level; see the modules for the fields' meaning.

    Attributes:
        sigma: the noise level.
        told: errors when told half, once and twice the true sigma.
        expected: std that the denoiser expects, `sigma sqrt(max(tr J, 0) / n)`.
        gap: `expected / error - 1`, negative where it is overconfident.
        gap_error: standard error of `gap` over images, NaN for one image.
        asymmetry: of the Jacobian, root mean square over images.
        circulation: of finite loops, likewise.
        dimension: four estimates of it.
        calibration: pixel by pixel.
        linear: departure from `D = J y`.
        scale: departure from `D(a y, a sigma) = a D(y, sigma)`.
        memory: errors on training images and on others, None where those are not known.
        neighbours: nearest training images and others, likewise.
    """

    sigma: float
    told: SigmaCheck
    expected: float
    gap: float
    gap_error: float
    asymmetry: float
    circulation: float
    dimension: Dimensions
    calibration: Calibration
    linear: float
    scale: float
    memory: Gap | None = None
    neighbours: Neighbours | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"told": self.told._asdict()}


def levels(
    prior: Denoiser,
    images: Tensor,
    sigmas: Sequence[float],
    seed: int = 0,
    *,
    seen: Tensor | None = None,
    stride: int = 6,
) -> Iterator[Level]:
    """Yield what `diagnose` measures, a noise level at a time; see there."""
    for sigma in sigmas:
        noisy = images + sigma * normal(images, generator_of(seed))
        size = dimensions(prior, images, sigma, seed)
        told = sigma_check(prior, images, sigma, seed)
        gap, gap_error = _gap(size)
        straight = homogeneity(prior, noisy, sigma)
        memory = closest = None
        if seen is not None:
            memory = generalisation_gap(prior, seen, images, sigma, seed)
            closest = neighbours(prior, seen, images, sigma, seed)
        yield Level(
            sigma=sigma,
            told=told,
            expected=sigma * math.sqrt(max(size.trace.mean, 0) / size.size),
            gap=gap,
            gap_error=gap_error,
            asymmetry=_rms(jacobian_asymmetry(prior, noisy, sigma)),
            circulation=circulation(prior, noisy, sigma, planes=4),
            dimension=size,
            calibration=pixel_calibration(prior, images, sigma, seed, stride=stride),
            linear=_rms(straight.linear),
            scale=_rms(straight.scale),
            memory=memory,
            neighbours=closest,
        )


def _gap(size: Dimensions) -> tuple[float, float]:
    """Expected over actual error less one, and its standard error; no error made is no gap."""
    squared = size.ratio
    if not size.error.mean > 0 or not squared.mean > 0:
        return (-1.0 if size.error.mean > 0 else 0.0), math.nan
    return math.sqrt(squared.mean) - 1, 0.5 * squared.error / math.sqrt(squared.mean)


def _rms(x: Tensor) -> float:
    return float(torch.nan_to_num(x).double().square().mean().sqrt())
