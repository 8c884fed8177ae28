"""DPM-Solver++: exponential integrators of the denoised image, and their random relatives.

Lu, Zhou, Bao, Chen, Li, Zhu, *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion
Probabilistic Models*, arXiv:2211.01095: 2S is algorithm 1, 2M algorithm 2, SDE-1 and SDE-2M are
SDE-DPM-Solver++ there. With `h` the length of a step in `lam`,

    ODE    x' = (sigma' / sigma) x + alpha' (1 - e^-h) D~
    SDE    x' = (sigma' / sigma) e^-h x + alpha' (1 - e^-2h) D~ + sigma' sqrt(1 - e^-2h) z

    symbol    name here       meaning
    D~        D               denoised image in the middle of the step, extrapolated from the last
                              two (2M) or evaluated on the way (2S); the newest in steps of order 1
    r         r               place of 2S's inner call in lam, in (0, 1]
    h_n-1     before          length of the step before

2M takes the middle for the mean, which leaves `phi_2 / phi_1 - 1/2` of a linear change: neither 2M
nor 2S is exact for an image that moves linearly in `lam`; `adams.Adams` is, up to degree k - 1.

**3M** is not in the paper but in the authors' code. It adds a third term, with half the weight that
the second derivative needs there, and so has order 2; here the term is whole and the order 3.

All are exact in one step for a point mass, the SDE in law; SDE-1 is DDIM with eta = 1. For Gaussian
data the variance of their samples converges with order 1 (SDE-1) and 2 (SDE-2M).

Cost: one call a step; 2S two. No step is special at the end: the last denoising is of order 1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from operators.validate import number, whole
from restore.samplers.phi import phi
from restore.samplers.sampler import Path, Sampler, noise_in, transfer


@dataclass(frozen=True, kw_only=True)
class DPMSolverPP2S(Sampler):
    """DPM-Solver++ 2S, without memory; see the module's docstring.

    Args:
        r: place of the inner call.
    """

    name: ClassVar[str] = "dpm++-2s"
    paper: ClassVar[str] = "Lu et al. 2022, DPM-Solver++, algorithm 1"
    order: ClassVar[str] = "2"

    r: float = 0.5

    def __post_init__(self) -> None:
        number("r", self.r, above=0, high=1, do="1/2 is the paper's")

    def calls(self, steps: int) -> int:
        """Two calls a step."""
        return 2 * steps

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Denoise here and on the way, move along the line through both."""
        for i, (t, s) in enumerate(pairwise(path.grid.points)):
            inner = path.grid.between(i, self.r)
            D = path.D(x, t)
            u = transfer(x, t, inner, noise_in(x, D, t))
            D = D + (path.D(u, inner) - D) / (2 * self.r)
            x = transfer(x, t, s, noise_in(x, D, t))
            yield x


@dataclass(frozen=True, kw_only=True)
class DPMSolverPPM(Sampler):
    """DPM-Solver++ 2M and 3M; see the module's docstring.

    Args:
        k: 2 or 3, evaluations that a step combines and order.
    """

    paper: ClassVar[str] = "Lu et al. 2022, DPM-Solver++, algorithm 2"
    memory: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("dpm++-2m", "dpm++-3m")

    k: int = 2

    def __post_init__(self) -> None:
        whole("k", self.k, low=2, high=3, do="choose one")

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return f"dpm++-{self.k}m"

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of convergence."""
        return "2" if self.k == 2 else "3, 2 from low noise"

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Extrapolate the image from the last k and move along it."""
        past: list[Tensor] = []
        for i, (t, s) in enumerate(pairwise(path.grid.points)):
            past = [path.D(x, t), *past][: self.k]
            D, h = past[0], path.grid.h(i)
            if len(past) == 2:
                r = path.grid.h(i - 1) / h
                D = D + (past[0] - past[1]) / (2 * r)
            if len(past) == 3:
                r0, r1 = path.grid.h(i - 1) / h, path.grid.h(i - 2) / h
                # divided differences; slope and half the second derivative at t, per step
                near, far = (past[0] - past[1]) / r0, (past[1] - past[2]) / r1
                bend = (near - far) / (r0 + r1)
                slope = near + r0 * bend
                D = D + (phi(2, -h) * slope + 2 * phi(3, -h) * bend) / phi(1, -h)
            x = transfer(x, t, s, noise_in(x, D, t))
            yield x


@dataclass(frozen=True, kw_only=True)
class SDEDPMSolverPP(Sampler):
    """SDE-DPM-Solver++ 1 and 2M; see the module's docstring.

    Args:
        k: 1 or 2, evaluations that a step combines.
    """

    paper: ClassVar[str] = "Lu et al. 2022, SDE-DPM-Solver++"
    random: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("dpm++-sde-1", "dpm++-sde-2m")

    k: int = 2

    def __post_init__(self) -> None:
        whole("k", self.k, low=1, high=2, do="choose one")

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return "dpm++-sde-1" if self.k == 1 else "dpm++-sde-2m"

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of convergence."""
        return f"{self.k} in variance, Gaussian data"

    @property
    def memory(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether a step uses earlier evaluations."""
        return self.k > 1

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Move along the image in the middle of the step, renew part of the noise."""
        last = None
        for i, (t, s) in enumerate(pairwise(path.grid.points)):
            new, h = path.D(x, t), path.grid.h(i)
            D = new
            if self.k == 2 and last is not None:
                D = new + h / (2 * path.grid.h(i - 1)) * (new - last)
            share, last = -math.expm1(-2 * h), new
            x = s.sigma / t.sigma * math.exp(-h) * x + s.alpha * share * D
            x = x + s.sigma * math.sqrt(share) * path.noise(x)
            yield x
