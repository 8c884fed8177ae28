"""A diffusion of the image itself that looks at the degraded one: SR3 and its kind.

Saharia, Ho, Chan, Salimans, Fleet, Norouzi, *Image Super-Resolution via Iterative Refinement*, IEEE
TPAMI 2023, arXiv:2104.07636.

    symbol       name here      meaning
    x            y_0            degraded image at the size sought, a second input of the network
    y_t          u              noisy image, around the middle of the range
    gamma        alpha^2        of the schedule
    f(x, y, g)   eps            noise in y_t, (u - alpha D) / sigma

Nothing drifts to the degraded image: the network turns noise into an image that fits what it sees.
The noise level is all that it is told, as in the paper, so that any schedule and any sampler will
do. Images of std 0.25 need a start from far more noise than residuals do. What starts at level s
drops the mean, of whose distance to the middle `v^(1/2) / (v + s^2)^(1/2)` remains undone where the
posterior has variance v and the walk is deterministic: 1 % at s = 7 for v of 0.07^2.

The network is trained on the image itself, every noise level alike (Karras et al. 2022), which is
the paper's noise prediction but for weights. Cost: `steps` calls of the sampler, and one.
"""

from dataclasses import dataclass
from typing import ClassVar

from operators.validate import one_of, whole
from priors.schedules import DDPM, EDM, VP, RectifiedFlow, Schedule
from priors.training import Loss
from restore.samplers import grid as grids
from restore.samplers import named
from restore.samplers.grid import GRIDS, Grid
from restore.samplers.sampler import Sampler
from restore.trained.network import PairNetwork
from restore.trained.pairs import Pairs
from restore.trained.residual import residual_loss
from restore.trained.restorer import Restorer

SCHEDULES: dict[str, type[Schedule]] = {"ddpm": DDPM, "vp": VP, "edm": EDM, "flow": RectifiedFlow}


@dataclass(frozen=True, kw_only=True)
class Conditional(Restorer):
    """Conditional diffusion; see the module's docstring.

    Args:
        steps: of the sampler, before the final denoising.
        sampler: a word of `restore.samplers.available()`; "ancestral" is the paper's.
        schedule_name: a word of `SCHEDULES`; "ddpm" is the paper's.
        spacing: of the levels, a word of `restore.samplers.grid.GRIDS`.
        high: noise level of the start, in units of the images.
        low: noise level of the last step.
    """

    name: ClassVar[str] = "conditional"
    paper: ClassVar[str] = "Saharia et al. 2021, SR3"
    cost: ClassVar[str] = "20 forwards"
    runs_around: ClassVar[str] = "middle"

    steps: int = 19
    sampler: str = "adams-2"
    schedule_name: str = "ddpm"
    spacing: str = "edm"
    high: float = 7.0
    low: float = 0.011

    def __post_init__(self) -> None:
        whole("steps", self.steps, low=1, do="raise it")
        one_of("schedule_name", self.schedule_name, list(SCHEDULES))
        one_of("spacing", self.spacing, list(GRIDS))
        _ = self.walker, self.grid  # refuse an unknown sampler, and levels out of reach

    @property
    def schedule(self) -> Schedule:
        """The schedule by its name."""
        return SCHEDULES[self.schedule_name]()

    @property
    def grid(self) -> Grid:
        """Levels from `high` to `low`."""
        return grids.build(self.spacing, self.schedule, self.steps, self.high, self.low)

    @property
    def walker(self) -> Sampler:
        """The sampler by its name."""
        return named(self.sampler)

    @classmethod
    def loss(cls, pairs: Pairs, network: PairNetwork) -> Loss:
        """Mean square error of the clean image, every level alike; see `residual_loss`."""
        return residual_loss(pairs, network, cls.runs_around)
