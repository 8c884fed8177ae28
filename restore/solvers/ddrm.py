"""DDRM: denoising diffusion restoration in the singular vectors of the operator.

Kawar, Elad, Ermon, Song, *Denoising Diffusion Restoration Models*, NeurIPS 2022, arXiv:2201.11793,
equations 7 and 8.

    symbol        name here     meaning
    V^T x_t       x             the state, in VE variables x_t / alpha_t
    ybar          y_bar         S^-1 U^T y, the measurement in the coordinates of the image
    x_theta,t     D             the denoiser at x_t
    sigma_t       s, s_next     noise level now and next
    sigma_y/s_i   noise         noise of y_bar, coordinate by coordinate

Every coordinate is a scalar problem. Where nothing is measured it follows DDIM; where the
measurement is noisier than the next level it is pulled towards it; elsewhere it is replaced by the
measurement, noised to the level. What the coordinates do not reach has singular value 0. Without
noise the last step replaces as well, so that `A x = y` on all that is measured; the released code
there returns the denoised image.

Its samples are those of its own chain, not of the posterior: the mean of a Gaussian prior comes out
biased, the spread too small. Constants are those of images in [-1, 1]. Cost: one forward a step,
no derivative of the network.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from restore.problem import Problem
from restore.solver import Solver


@dataclass(frozen=True, kw_only=True)
class DDRM(Solver):
    """Denoising diffusion restoration models; see the module's docstring.

    Args:
        steps: levels visited of the DDPM schedule's 1000, evenly in time.
        eta: share of fresh noise, where nothing or little is measured.
        eta_b: weight of the measurement where it is less noisy than the level.
    """

    name: ClassVar[str] = "ddrm"
    paper: ClassVar[str] = "Kawar et al. 2022, denoising diffusion restoration models"
    requires: ClassVar[tuple[str, ...]] = ("linear", "svd", "gaussian")
    cost: ClassVar[str] = "20 forwards"
    posterior: ClassVar[str] = "heuristic: narrower than the posterior"

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        if not (1 <= self.steps <= 1000 and 0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise ValueError(
                "ddrm needs 1 <= steps <= 1000, eta and eta_b in [0, 1], found "
                f"{self.steps}, {self.eta}, {self.eta_b}."
            )

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Go down the levels, coordinate by coordinate."""
        levels = problem.ddpm_levels(self.steps)
        return reverse(problem, levels, problem.denoise, eta=self.eta, eta_b=self.eta_b)


def reverse(
    problem: Problem,
    levels: Sequence[float],
    denoise: Callable[[Tensor, float], Tensor],
    *,
    eta: float,
    eta_b: float,
) -> Iterator[Tensor]:
    """The chain from the first level down to no noise, with any denoiser.

    Args:
        problem: a linear one whose operator has a singular value decomposition.
        levels: noise levels, falling.
        denoise: `x_theta,t` of a state and its level.
        eta: share of fresh noise, where nothing or little is measured.
        eta_b: weight of the measurement where it is less noisy than the level.

    Yields:
        The denoiser at every level, and at the last one the state itself.
    """
    svd = problem.svd()
    seen = svd.s > 0
    a = torch.where(seen, svd.s, 1)
    y_bar = svd.Ut(problem.y) / a
    noise = problem.sigma_y.reshape(-1, *[1] * (a.ndim - 1)) / a
    if problem.state:  # a killed run goes on
        (x,) = problem.state["x"]
    else:
        x = problem.middle + levels[0] * problem.noise()
        z = svd.Vt(x - problem.middle) / levels[0]
        fresh = (levels[0] ** 2 - noise**2).clamp_min(0).sqrt()
        x = x + svd.V(torch.where(seen & (noise < levels[0]), y_bar + fresh * z - svd.Vt(x), 0))
    for s, s_next in list(pairwise([*levels, 0.0]))[problem.done :]:
        D, eps = denoise(x, s), problem.noise()
        free = D + (1 - eta**2) ** 0.5 * s_next / s * (x - D) + eta * s_next * eps
        theta, z = svd.Vt(D), svd.Vt(eps)
        # less noisy than the level: the measurement, noised
        fresh = (s_next**2 - eta_b**2 * noise**2).clamp_min(0).sqrt()
        replaced = (1 - eta_b) * theta + eta_b * y_bar + fresh * z
        # noisier: pulled
        pull = (1 - eta**2) ** 0.5 * s_next * (y_bar - theta) / noise.clamp_min(1e-12)
        pulled = theta + pull + eta * s_next * z
        x_bar = torch.where(s_next < noise, pulled, replaced)
        x = free + svd.V(torch.where(seen, x_bar - svd.Vt(free), 0))
        problem.state["x"] = [x]
        yield D if s_next > 0 else x
