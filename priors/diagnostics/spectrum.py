"""What a denoiser shrinks, and by how much: the eigenvectors and eigenvalues of its Jacobian.

Near a noisy image `y` a denoiser acts as `D(y + d) = D(y) + J d`. A denoiser without additive
constants is even linear there, `D(y) = J y`, that is, shrinkage in a basis which it chose for this
very image (Mohan et al., *Robust and interpretable blind image denoising via bias-free CNNs*, 2020;
Kadkhodaie, Guth, Simoncelli, Mallat, *Generalization in diffusion models arises from
geometry-adaptive harmonic representations*, 2024, section 3):

    D(y) = sum_k lambda_k <e_k, y> e_k,   lambda_k near 1: kept, near 0: taken for noise.

`J` is replaced by its symmetric part; `diagnostics.jacobian_asymmetry` tells what that leaves out.
A small image gives the whole spectrum from its whole Jacobian, a larger one its leading part by
Lanczos iteration (ARPACK).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from priors.denoiser import Denoiser
from priors.jacobian import dense, generator_of, jvp, linearise, normal

DENSE = 1024  # entries of an image up to which the whole Jacobian is formed


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Eigenpairs of the symmetric part of a denoiser's Jacobian at one noisy image.

    Attributes:
        values: shrinkage factors `(k,)`, falling, float64.
        vectors: orthonormal images `(k, C, *spatial)`, float64.
        noisy: the image `(1, C, *spatial)` they belong to.
        sigma: its noise level.
    """

    values: Tensor
    vectors: Tensor
    noisy: Tensor
    sigma: float

    @property
    def complete(self) -> bool:
        """Whether all eigenvalues are there, not only the largest."""
        return len(self.values) == self.noisy.numel()

    def coefficients(self, image: Tensor) -> Tensor:
        """Inner products `<e_k, image>` `(k,)` with an image `(1, C, *spatial)`."""
        return self.vectors.flatten(1) @ image.double().cpu().flatten()


def shrinkage_spectrum(
    prior: Denoiser, x: Tensor, sigma: float, count: int | None = None, seed: int = 0
) -> Spectrum:
    """Decompose the symmetric part of the Jacobian at one noisy image.

    Args:
        prior: the denoiser.
        x: `(1, C, *spatial)`.
        sigma: its noise level.
        count: how many of the largest eigenvalues; by default all of an image of at most 1024
            entries and 32 of a larger one.
        seed: of the vector with which the iteration starts.

    Returns:
        See `Spectrum`.

    Raises:
        ValueError: for several images.
    """
    if len(x) != 1:
        raise ValueError(f"a spectrum is of one image, found {len(x)}; take them in turn.")
    n = x.numel()
    if n <= DENSE or (count or 0) > n // 4:
        J = dense(lambda z: prior(z, sigma), x).double().cpu()
        values, columns = torch.linalg.eigh((J + J.T) / 2)
        values, columns = values.flip(0)[: count or n], columns.flip(1)[:, : count or n]
    else:
        values, columns = _lanczos(prior, x, sigma, count or 32, seed)
    vectors = columns.T.reshape(-1, *x.shape[1:])
    return Spectrum(values=values, vectors=vectors, noisy=x, sigma=sigma)


def _lanczos(
    prior: Denoiser, x: Tensor, sigma: float, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues, falling, and eigenvectors `(n, count)`, float64."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    _, transposed = linearise(lambda z: prior(z, sigma), x)

    def product(v: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(v.reshape(x.shape)).to(x)
        both = jvp(lambda z: prior(z, sigma), x, image) + transposed(image)
        return both.double().cpu().numpy().ravel() / 2

    n = x.numel()
    start = normal(x.double(), generator_of(seed)).cpu().numpy().ravel()
    J = LinearOperator((n, n), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    # single precision products cannot settle eigenvalues further than this
    tol = 1e-10 if x.dtype == torch.float64 else 1e-4
    values, columns = eigsh(J, k=count, which="LA", v0=start, tol=tol)  # type: ignore[arg-type]
    order = np.argsort(-values)
    return torch.from_numpy(values[order].copy()), torch.from_numpy(columns[:, order].copy())


class Homogeneity(NamedTuple):
    """How far a denoiser is from Euler's relations, relative errors `(B,)`.

    Attributes:
        linear: `|J y - D| / |D|`: zero if `D(a y, sigma) = a D(y, sigma)`, a bias-free network that
            is not told sigma; shrinkage then explains the whole output.
        scale: `|J y + sigma dD/dsigma - D| / |D|`: zero if `D(a y, a sigma) = a D(y, sigma)`, a
            bias-free network that is told sigma as one more channel.
    """

    linear: Tensor
    scale: Tensor


def homogeneity(prior: Denoiser, x: Tensor, sigma: float) -> Homogeneity:
    """Test whether a denoiser is homogeneous of degree one, in the image or jointly with sigma.

    Args:
        prior: the denoiser.
        x: noisy images `(B, C, *spatial)`.
        sigma: their noise level.
    """
    level = x.new_full((len(x),), sigma)
    with torch.no_grad():
        D = prior(x, sigma)
    linear = jvp(lambda z: prior(z, sigma), x, x) - D
    slope = jvp(lambda s: prior(x, s), level, level)
    norm = _norm(D)
    return Homogeneity(_norm(linear) / norm, _norm(linear + slope) / norm)


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)
