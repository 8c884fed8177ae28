"""FastHyDe: a noisy hyperspectral cube by denoising its eigen-images.

Zhuang, Bioucas-Dias, *Fast Hyperspectral Image Denoising and Inpainting Based on Low-Rank and
Sparse Representations*, IEEE J-STARS 11, 2018, arXiv:2103.06842, algorithm 1.

    symbol     name here   meaning
    E          basis       orthonormal spectra, principal components of the cube
    Z = E^T Y  u           eigen-images, in which white noise stays white
    phi        D           the denoiser, eigen-image by eigen-image, at the noise of each

The paper's denoiser is BM3D; here it is the prior, `D = E[z_r | E_r^T y]`, so that for known E the
result is the posterior mean itself, at the price of one call an eigen-image. Every eigen-image is
brought to the contrast of photographs first, see `restore.eigenimages`.

For noise alone. Where entries are missing or pixels too large, `restore.solvers.eigen` draws
eigen-images from the posterior.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from deepinv.physics import Denoising, Physics
from torch import Tensor

from priors import ChannelWise, Denoiser
from restore.eigenimages import Subspace, subspaces
from restore.problem import Problem
from restore.solver import Solver


@dataclass(frozen=True, kw_only=True)
class FastHyDe(Solver):
    """Denoised eigen-images; see the module's docstring.

    Args:
        rank: R, number of eigen-images; None takes those that stand out from noise. Too many cost
            time only.
    """

    name: ClassVar[str] = "fasthyde"
    paper: ClassVar[str] = "Zhuang and Bioucas-Dias 2018, FastHyDe, with a prior for BM3D"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian", "noise")
    cost: ClassVar[str] = "1 forward of R images"
    posterior: ClassVar[str] = "none: the posterior mean, whatever the seed"
    remedy: ClassVar[str] = "raise rank, or give the true noise level"
    restores: ClassVar[str] = "cubes"

    rank: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"fasthyde needs rank >= 1 or None, found {self.rank}.")

    @property
    def length(self) -> int:
        """One estimate."""
        return 1

    @classmethod
    def lacks(cls, operator: Physics) -> str | None:
        """Say what the operator lacks for this solver, or None."""
        if not isinstance(operator, Denoising):
            return "an operator of noise alone"
        return super().lacks(operator)

    def lift(self, prior: Denoiser, shape: tuple[int, ...]) -> Denoiser:
        """A prior of grey images, for every eigen-image."""
        return prior if shape[1] == 1 else ChannelWise(prior)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Denoise the eigen-images of every cube."""
        if problem.shape[1] == 1:
            yield problem.denoise(problem.y, problem.sigma_y.flatten())
            return
        spaces = subspaces(problem, self.rank)
        problem.notes["rank"] = [space.rank for space in spaces]
        problem.count.forwards += 1
        cubes = [
            _denoised(problem, y, float(sigma), space)
            for y, sigma, space in zip(problem.y, problem.sigma_y, spaces, strict=False)
        ]
        yield torch.stack(cubes).repeat(len(problem.streams), 1, 1, 1)


def _denoised(problem: Problem, y: Tensor, sigma: float, space: Subspace) -> Tensor:
    """The cube `(C, H, W)` of denoised eigen-images, one at a time for memory's sake."""
    assert isinstance(problem.prior, ChannelWise)
    prior = problem.prior.prior
    levels = (sigma / space.gains).tolist()
    with torch.no_grad():
        images = space.eigenimages(y[None])[0]
        clean = [prior(u[None, None], s)[0] for u, s in zip(images, levels, strict=True)]
    return space.cube(torch.cat(clean)[None])[0]
