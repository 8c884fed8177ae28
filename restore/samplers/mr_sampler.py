"""MR Sampler's random steps: exponential Adams for the reverse SDE, weights integrated exactly.

Li, Fang, Zhao, Lu, Yang, Xu, *MaRS: A Fast Sampler for Mean Reverting Diffusion based on ODE and
SDE Solvers*, ICLR 2025, arXiv:2502.07856. The reverse SDE of any diffusion is linear but for the
image or the noise that it holds; with `h` the length of a step in `lam`, variation of constants
leaves

    data     x' = (sigma' / sigma) e^-h x + alpha' 2h int_0^1 e^{-2 (1-u) h} D(u h) du
                  + sigma' sqrt(1 - e^-2h) z
    noise    x' = (alpha' / alpha) x - 2 sigma' h int_0^1 e^{(1-u) h} eps(u h) du
                  + sigma' sqrt(e^2h - 1) z

    symbol    name here    meaning
    k         k            evaluations that a step combines, 1 or 2

The mean-reverting diffusion is one of `x - mu`, so that nothing here knows of `mu`; the paper's
deterministic steps are `adams.Adams`.

Data with k = 1 is DDIM with eta = 1, exact in law in one step for a point mass. Data with k = 2 is
SDE-DPM-Solver++ 2M with the exact weight of the slope, `1 - (1 - e^-2h) / 2h`, in place of half
that of the value. Noise with k = 1 leaves a point mass with `(e^h + 1) / (3 - e^h)` times its noise
variance on a grid even in `lam`, and diverges from `h = log 3` on.

Cost: one call a step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.validate import whole
from restore.samplers.adams import Adams
from restore.samplers.grid import Point
from restore.samplers.multistep import Evaluation, combine
from restore.samplers.phi import adams_weights
from restore.samplers.sampler import Path


@dataclass(frozen=True, kw_only=True)
class MRSamplerSDE(Adams):
    """MR Sampler, SDE; see the module's docstring.

    Args:
        k: evaluations that a step combines, 1 or 2.
    """

    paper: ClassVar[str] = "Li et al. 2025, MR Sampler"
    random: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("mr-sde-1", "mr-sde-2")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("k", self.k, low=1, high=2, do="choose one")

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The word users type."""
        return f"mr-sde-{self.k}"

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of convergence."""
        return f"{self.k} in variance, Gaussian data"

    def advance(
        self, path: Path, x: Tensor, t: Point, s: Point, past: Sequence[Evaluation]
    ) -> Tensor:
        """Add the integral to what is left of `x`, and fresh noise."""
        h, nodes = s.lam - t.lam, [at.lam - t.lam for at, _ in past]
        if self.prediction == "data":
            moved = combine(adams_weights(nodes, h, form=-2.0), past)
            x = s.sigma / t.sigma * math.exp(-h) * x + s.alpha * 2 * h * moved
            return x + s.sigma * math.sqrt(-math.expm1(-2 * h)) * path.noise(x)
        moved = combine(adams_weights(nodes, h, form=1.0), past)
        x = s.alpha / t.alpha * x - 2 * s.sigma * h * moved
        return x + s.sigma * math.sqrt(math.expm1(2 * h)) * path.noise(x)
