"""Where a diffusion starts: the marginal of its first point, not pure noise.

Lin, Liu, Li, Yang, *Common Diffusion Noise Schedules and Sample Steps Are Flawed*, WACV 2024,
arXiv:2305.08891; Hu et al., *One More Step: A Versatile Plug-and-Play Module for Rectifying
Diffusion Schedule Flaws and Enhancing Low-Frequency Controls*, CVPR 2024, arXiv:2311.15744.

    symbol        name here        meaning
    x_T           returned         state at the first point, alpha_T x_0 + sigma_T eps
    alpha_T       at.alpha         not zero in most trained schedules
    z, x_T^S      z                standard normal noise
    mu, C         moments          mean and covariance of clean images

Sampling that starts from `x_T = z` forgets the image that `x_T` holds. For data `N(mu, c^2)` the
exact flow then ends with mean `mu (1 - alpha_T c / sqrt(alpha_T^2 c^2 + sigma_T^2))`: images lose
brightness, 6.8 % of it at c = 1 under Stable Diffusion's schedule. Three remedies:

    start              draws N(alpha_T mu, alpha_T^2 C + sigma_T^2 I); exact for a Gaussian, and
                       right in mean and covariance for any prior
    one_more_step      a step from no image at all (OMS, equation 9): mean exact, std slightly low
    rescale_zero_snr   a table for training whose last alpha is 0 (arXiv:2305.08891, algorithm 1);
                       sampling from it begins with `one_more_step` to the last entry before

None costs a call: at infinite noise the denoised image of a prior is `mu`.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from priors import Dirac, Gaussian, GaussianMixture, ProductMixture
from priors.bases import Cosine
from priors.denoiser import Denoiser
from priors.networks import Handover
from priors.powerlaw import PowerLaw, PowerLawDenoiser
from priors.schedules import Discrete
from restore.samplers.grid import Point


class Pixels:
    """The basis of the pixels themselves."""

    def analyse(self, x: Tensor) -> Tensor:
        """Return the image."""
        return x

    synthesise = analyse


class Coloured(Cosine):
    """Cosine basis of colour components.

    Args:
        colours: orthonormal rows `(C, C)` that turn channels into components.
    """

    def __init__(self, colours: Tensor) -> None:
        self.colours = colours

    def analyse(self, x: Tensor) -> Tensor:
        """Decorrelate channels, then transform along every spatial axis."""
        return super().analyse(torch.einsum("kc,bc...->bk...", self.colours.to(x), x))

    def synthesise(self, c: Tensor) -> Tensor:
        """Transform back."""
        return torch.einsum("kc,bk...->bc...", self.colours.to(c), super().synthesise(c))


def moments(prior: Denoiser, image_shape: tuple[int, ...]) -> Gaussian:
    """Gaussian with the mean and covariance of a prior's clean images `(C, *spatial)`.

    Point masses give the variances of their pixels only. A shipped network has those of the power
    law beside it.

    Raises:
        ValueError: for a prior that does not know them; `white` takes numbers instead.
    """
    match prior:
        case Gaussian():
            return prior
        case ProductMixture():
            return _of_product(prior, image_shape)
        case GaussianMixture():
            return _of_mixture(prior)
        case Dirac():
            shares = prior.log_weights.exp()
            mean = torch.einsum("k,k...->...", shares, prior.atoms)
            variance = torch.einsum("k,k...->...", shares, (prior.atoms - mean) ** 2)
            return Gaussian(mean, Pixels(), variance)
        case PowerLawDenoiser():
            return _of_power_law(prior.law, image_shape)
        case Handover():
            return moments(cast(Denoiser, prior.gaussian), image_shape)
    raise ValueError(
        f"the mean and variance of the images of prior '{prior.card.name}' are not known; give "
        "them as numbers."
    )


def white(image_shape: tuple[int, ...], mean: float = 0.5, std: float = 0.25) -> Gaussian:
    """Moments given as numbers: independent pixels of one mean and standard deviation."""
    level, variance = torch.tensor([mean, std**2], dtype=torch.float64)
    return Gaussian(level.expand(image_shape), Pixels(), variance.expand(image_shape))


def start(moments: Gaussian, at: Point, z: Tensor) -> Tensor:
    """Draw from the marginal of a diffusion's first point.

    Args:
        moments: of the clean images; see `moments` and `white`.
        at: the first point of the grid.
        z: standard normal noise `(N, C, *spatial)`.

    Returns:
        `x_T`, a draw of `N(alpha mean, alpha^2 C + sigma^2 I)`, shape and dtype of `z`.
    """
    std = (at.alpha**2 * moments.variances.to(z) + at.sigma**2).sqrt()
    return at.alpha * moments.mean.to(z) + moments.basis.synthesise(std * z)


def one_more_step(mean: Tensor | float, at: Point, z: Tensor) -> Tensor:
    """Step from pure noise, where alpha is 0, to the first point (OMS, equation 9).

    Args:
        mean: the denoised image of pure noise: the mean of the clean images, or of a network
            trained at alpha = 0 its answer to `z`; broadcast to `z`.
        at: the first point of the grid.
        z: standard normal noise `(N, C, *spatial)`.

    Returns:
        `x_T = alpha mean + sigma z`, shape and dtype of `z`.
    """
    return at.alpha * torch.as_tensor(mean).to(z) + at.sigma * z


def rescale_zero_snr(alphas_cumprod: Sequence[float] | Tensor) -> Tensor:
    """Shift and scale a table so that it ends in pure noise (arXiv:2305.08891, algorithm 1).

    A network trained on it must predict `v` or `x0`; `priors.predictions` refuses the noise where
    alpha is 0. Its finite part, all but the last entry, is a `priors.schedules.Discrete`.

    Args:
        alphas_cumprod: alpha^2 of every step, strictly decreasing, inside (0, 1).

    Returns:
        The new table, float64: the first entry unchanged, the last exactly 0.

    Raises:
        ValueError: for another table.
    """
    # a schedule checks its table
    table = Discrete(tuple(torch.as_tensor(alphas_cumprod, dtype=torch.float64).tolist()))
    alpha = torch.tensor(table.alphas_cumprod, dtype=torch.float64).sqrt()
    new = alpha[0] * ((alpha - alpha[-1]) / (alpha[0] - alpha[-1]))
    return new.square()


def _of_product(prior: ProductMixture, image_shape: tuple[int, ...]) -> Gaussian:
    mean = (prior.weights * prior.means).sum()
    variance = (prior.weights * (prior.variances + prior.means**2)).sum() - mean**2
    basis = prior.basis or Pixels()
    image = basis.synthesise(mean.expand(1, *image_shape))[0]
    return Gaussian(image, basis, variance.expand(image_shape))


def _of_mixture(prior: GaussianMixture) -> Gaussian:
    parts = [cast(Gaussian, part) for part in prior.components]
    means = torch.stack([part.mean for part in parts])
    shares = prior.log_weights.exp()
    mean = torch.einsum("k,k...->...", shares, means)
    units = torch.eye(mean.numel(), dtype=mean.dtype).reshape(-1, *mean.shape)
    within = torch.stack([part.covariance(units).flatten(1) for part in parts])
    apart = (means - mean).flatten(1)
    covariance = torch.einsum("k,kij->ij", shares, within)
    covariance += torch.einsum("k,ki,kj->ij", shares, apart, apart)
    return Gaussian.dense(mean, covariance)


def _of_power_law(law: PowerLaw, image_shape: tuple[int, ...]) -> Gaussian:
    colours = torch.tensor(law.colours, dtype=torch.float64)
    mean = colours.T @ torch.tensor(law.mean, dtype=torch.float64)
    mean = mean.reshape(-1, *[1] * (len(image_shape) - 1)).expand(image_shape)
    return Gaussian(mean, Coloured(colours), law.variances(image_shape))
