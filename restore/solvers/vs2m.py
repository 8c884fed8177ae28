"""VS2M alone: an untrained network fitted to a hyperspectral cube, without a diffusion.

The network of Miao et al. 2023 (`restore.untrained.network`) in the manner of a deep image prior
(Ulyanov, Vedaldi, Lempitsky, *Deep Image Prior*, CVPR 2018, arXiv:1711.10925),

    min over theta  | A(x_theta) - y |^2,

stopped after a number of steps, with the running average of what it draws for result. Rank and
number of steps are the only regularisers. For noise alone DDS2M is this with more noise drawn anew
at every step, stopped early; its image is hardly better. Where entries are missing, many steps fit
the noise of those that are not: take fewer steps or a smaller rank there, or DDS2M.

The result is the last average: no step is chosen by looking at the truth. Any operator that can be
differentiated will do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from restore.problem import Problem
from restore.untrained.solver import UntrainedSolver


@dataclass(frozen=True, kw_only=True)
class FitVS2M(UntrainedSolver):
    """VS2M fitted to the measurement; see the module's docstring.

    Args:
        steps: of Adam.
    """

    name: ClassVar[str] = "vs2m"
    paper: ClassVar[str] = "Miao et al. 2023, the network of DDS2M without its diffusion"
    requires: ClassVar[tuple[str, ...]] = ("gaussian",)
    cost: ClassVar[str] = "1500 steps of Adam"

    steps: int = 1500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"vs2m needs steps >= 1, found {self.steps}.")

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Fit, one step at a time."""
        fit = self.networks(problem)

        def residual(x: Tensor) -> Tensor:
            return (problem.A(x) - problem.y) * problem.observed

        for _ in range(problem.done, self.steps):
            yield fit.step(residual, problem.first_guess)
