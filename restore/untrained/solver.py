"""What solvers without a prior share: networks fitted to the one measurement."""

import copy
import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from deepinv.physics import Physics
from torch import Tensor

from operators import GaussianNoise, noise_sigma
from priors import Denoiser
from restore.problem import Problem, observed_rows
from restore.refusals import clean_like, refuse_values
from restore.result import Result
from restore.solver import Solver
from restore.untrained import demand, estimates
from restore.untrained.fit import Fit
from restore.untrained.network import Widths
from restore.untrained.prior import FEWEST, Untrained

# A truncated decomposition knows spectra only. Networks know space as well, and make use of weaker
# components: on a real scene 1.6 to 2 times as many gave 0.5 to 0.7 dB, 2.4 times less.
_MORE = 2
# The paper has ten. Time and memory grow with them, and of a scene with hardly any noise a hundred
# would stand out.
_MOST = 16

log = logging.getLogger("restore")


@dataclass(frozen=True, kw_only=True)
class UntrainedSolver(Solver):
    """Base of solvers that fit VS2M to a cube; see `restore.untrained.network`.

    Args:
        rank: R, number of materials; None takes twice the components worth keeping of the
            measurement without a network, see `restore.untrained.estimates`, and at most 16.
        lr: step size of Adam.
        decay: of the running average of what the network draws, at every step.
        beta_tv: weight of squared differences between neighbours in the loss.
        map_channels: of the abundance networks' levels, from the first on.
        hidden: units of the endmember networks' layers.
        estimate_noise: where the operator's noise is 0, estimate it; False takes 0 at its word.
    """

    posterior: ClassVar[str] = "none: spread over initialisations"
    prior_free: ClassVar[bool] = True
    restores: ClassVar[str] = "cubes"
    remedy: ClassVar[str] = "use more steps, a larger lr or a larger rank"

    rank: int | None = None
    lr: float = 5e-3
    decay: float = 0.98
    beta_tv: float = 0.0
    map_channels: tuple[int, ...] = (16, 32, 64, 128, 128, 128)
    hidden: tuple[int, ...] = (128, 256, 256, 128)
    estimate_noise: bool = True

    def __post_init__(self) -> None:
        numbers = (self.lr > 0, 0 <= self.decay < 1, self.beta_tv >= 0)
        if not all(numbers) or (self.rank is not None and self.rank < 1):
            raise ValueError(
                f"{self.name} needs rank >= 1 or None, lr > 0, decay in [0, 1) and beta_tv >= 0, "
                f"found {self.rank}, {self.lr}, {self.decay}, {self.beta_tv}."
            )
        widths = (*self.map_channels, *self.hidden)
        if not self.map_channels or len(self.map_channels) > 6 or not min(widths) >= 1:
            raise ValueError(
                f"{self.name} needs one to six map_channels, and widths of at least 1, found "
                f"{self.map_channels} and hidden {self.hidden}."
            )

    def __call__(
        self, y: Tensor, operator: Physics, prior: Denoiser | None = None, **options: Any
    ) -> Result:
        """Restore; `prior` is ignored, everything else as in `Solver.__call__`.

        Raises:
            ValueError: see `Solver.__call__`; also noise or rank that cannot be estimated.
        """
        if self.estimate_noise and self.lacks(operator) is None:
            operator = _with_noise(y, operator)
        return super().__call__(y, operator, Untrained(), **options)

    def networks(self, problem: Problem) -> Fit:
        """The networks of a chunk, new or as a killed run left them.

        Raises:
            ValueError: a band is measured nowhere, or the rank is to be estimated and cannot be.
        """
        _refuse_dead_bands(problem)
        ranks = self._ranks(problem)
        problem.notes["rank"] = ranks
        problem.notes["sigma_y"] = problem.sigma_y[: problem.images].flatten().tolist()
        fit = Fit(
            problem,
            ranks,
            widths=Widths(self.map_channels, self.hidden),
            lr=self.lr,
            decay=self.decay,
            beta=self.beta_tv,
        )
        many = sum(ranks) * len(problem.streams)
        demand.tell(self.name, fit.nets, many, self.length - problem.done)
        return fit

    def _ranks(self, problem: Problem) -> list[int]:
        """R of every measurement."""
        if self.rank is not None:
            return [self.rank] * problem.images
        y = problem.y[: problem.images]
        seen = problem.observed[: problem.images].expand_as(y)
        _refuse_no_cube(y, problem.shape[1], "rank", "the solver its rank")
        sigmas = problem.sigma_y.flatten().tolist()
        found = [estimates.rank(*one) for one in zip(y, seen, sigmas, strict=False)]
        wanted = [min(_MORE * count, problem.shape[1] // 2) for count in found]
        if max(wanted) > _MOST:
            log.warning(
                "%s: %d components stand out from the noise, more than %d networks hold; give a "
                "rank for more, or use fasthyde or eigen, which take them all.",
                *(self.name, max(found), _MOST),
            )
        return [min(count, _MOST) for count in wanted]


def _with_noise(y: Tensor, operator: Physics) -> Physics:
    """The operator, told its noise level where it says 0."""
    if bool((torch.as_tensor(noise_sigma(operator)) > 0).any()):
        return operator
    refuse_values("measurement", y)
    x = clean_like(y, operator, None)
    seen = observed_rows(operator, x, y).expand_as(y)
    _refuse_no_cube(y, x.shape[1], "noise", "the operator its noise")
    levels = [estimates.noise_level(one, where) for one, where in zip(y, seen, strict=True)]
    told = copy.copy(operator)
    told._modules = dict(operator._modules)  # copy.copy shares the table of submodules
    told.noise_model = GaussianNoise(torch.tensor(levels).to(y))
    return told


def _refuse_dead_bands(problem: Problem) -> None:
    """Where measurements have bands; nothing is known of the spectra there."""
    seen, bands = problem.observed, problem.shape[1]
    if seen.ndim != 4 or seen.shape[1] != bands:
        return
    dead = (~seen.bool().flatten(2).any(2)).any(0).nonzero().flatten().tolist()
    if dead:
        raise ValueError(
            f"{len(dead)} of {bands} bands are measured nowhere (the first is band {dead[0]}, "
            "counted from 0); leave them out."
        )


def _refuse_no_cube(y: Tensor, bands: int, what: str, give: str) -> None:
    if y.ndim != 4 or y.shape[1] != bands or bands < FEWEST:
        raise ValueError(
            f"the measurement has shape {tuple(y.shape)}, expected a cube of {FEWEST} bands or "
            f"more to estimate the {what} from; give {give}."
        )
