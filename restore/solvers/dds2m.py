"""DDS2M: a hyperspectral cube from itself, by a diffusion whose denoiser is fitted on the way.

Miao, Zhang, Zhang, Tao, *DDS2M: Self-Supervised Denoising Diffusion Spatio-Spectral Model for
Hyperspectral Image Restoration*, ICCV 2023, arXiv:2303.06682, and its released code.

    symbol           name here     meaning
    theta            fit           weights of VS2M, see `restore.untrained.network`
    x_theta          x_0           what it draws; one step of Adam a level on
                                   mean (alpha_t x_theta - x_t)^2 + beta_tv TV2(x_theta)
    x_bar            average       0.98 x_bar + 0.02 x_theta, held to the range: the denoiser
    beta_1, beta_T   -             1e-4 to 5e-3, linear, T steps
    eta, eta_B       eta, eta_b    of DDRM

The chain is DDRM's (`restore.solvers.ddrm`), from the middle of the schedule: above it the paper's
network rests, and what is measured is the measurement under noise at every level, so that it can
as well be drawn there. The paper's images are in [-1, 1], where noise is twice that in [0, 1].

While the level is above the noise of the measurement, the chain holds the measurement under fresh
noise whatever the network draws; below it the network is fitted to its own average. For noise alone
it is therefore `vs2m` stopped early, to hardly another image; where entries are missing, the chain
fills them with what the network draws, which keeps it from fitting noise. The result is the last
state, never chosen by the truth.

Which of the two, how many steps and networks, on 32x32 pixels and 32 bands of a real scene under
noise of 0.1, with small networks and one seed, PSNR in dB and SAM in degrees:

    noise alone                        3 of 10 entries seen
    dds2m, 8 networks    27.56 / 5.86  dds2m, 6 networks                   24.59 /  7.38
      4 networks         26.56 / 6.45  vs2m, 6 networks, 300 steps         24.14 /  8.06
      no average         27.38 / 5.97    600 steps                         22.43 / 10.17
    vs2m, 8 networks     27.12 / 5.91    1500 steps                        19.65 / 13.14
      1000 steps         27.41 / 5.90
      3000 steps         26.18 / 6.41
      16 networks        25.68 / 6.73
      16, 600 steps      27.20 / 5.95

The released code's constants are those of `DDS2M.released(task)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from priors.schedules import DDPM
from restore.problem import Problem
from restore.solvers.ddrm import reverse
from restore.untrained.solver import UntrainedSolver

Task = Literal["denoise", "complete", "superres"]

_PAPER: dict[str, dict[str, Any]] = {
    "denoise": {"steps": 2000, "start_point": 1000, "eta": 1.0},
    "complete": {"steps": 3000, "start_point": 1500, "eta": 0.95},
    "superres": {"steps": 1000, "start_point": 500, "eta": 0.95},
}


@dataclass(frozen=True, kw_only=True)
class DDS2M(UntrainedSolver):
    """Denoising diffusion spatio-spectral model; see the module's docstring.

    Args:
        steps: T, of the schedule.
        start_point: where the network comes in, counted from the noisy end; half of T when None.
        eta: share of fresh noise, where nothing or little is measured.
        eta_b: weight of the measurement where it is less noisy than the level.
    """

    name: ClassVar[str] = "dds2m"
    paper: ClassVar[str] = "Miao et al. 2023, DDS2M"
    requires: ClassVar[tuple[str, ...]] = ("linear", "svd", "gaussian")
    cost: ClassVar[str] = "1501 steps of Adam"

    steps: int = 3000
    start_point: int | None = None
    eta: float = 0.95
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        start = self._start
        if self.steps < 2 or not 1 <= start <= self.steps:
            raise ValueError(
                "dds2m needs steps >= 2 and a start_point from 1 to steps, found "
                f"{self.steps}, {self.start_point}."
            )
        if not (0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise ValueError(
                f"dds2m needs eta and eta_b in [0, 1], found {self.eta}, {self.eta_b}."
            )

    @classmethod
    def released(cls, task: Task, **changes: Any) -> "DDS2M":
        """The constants of the released code for "denoise", "complete" or "superres".

        Raises:
            ValueError: unknown task.
        """
        if task not in get_args(Task):
            raise ValueError(f"unknown task '{task}' of dds2m; choose {', '.join(get_args(Task))}.")
        return cls(**{"rank": 10, "lr": 5e-4, **_PAPER[task], **changes})

    @property
    def length(self) -> int:
        """One estimate a level."""
        return self.steps - self._start + 1

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Go down the levels, and fit the network at each."""
        fit = self.networks(problem)
        low, high = problem.middle - problem.scale, problem.middle + problem.scale

        def denoise(x: Tensor, s: float) -> Tensor:
            alpha = (1 + (s / problem.scale) ** 2) ** -0.5
            return fit.step(
                lambda x_0: alpha * (x_0 - x),
                lambda: problem.middle + alpha * (x - problem.middle),
            )

        levels = [problem.scale * s for s in self.levels()]
        for x in reverse(problem, levels, denoise, eta=self.eta, eta_b=self.eta_b):
            yield x.clamp(low, high)

    def levels(self) -> list[float]:
        """Noise levels of images in [-1, 1] at which the network is at work, falling."""
        schedule = DDPM(steps=self.steps, beta_max=5e-3)
        return [float(schedule.level(t)) for t in range(self.steps - self._start, -1, -1)]

    @property
    def _start(self) -> int:
        return self.steps // 2 if self.start_point is None else self.start_point
