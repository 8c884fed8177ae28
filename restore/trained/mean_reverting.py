"""Mean-reverting diffusion (IR-SDE), and MR Sampler, which restores with it in few calls.

Luo, Gustafsson, Zhao, Sjölund, Schön, *Image Restoration with Mean-Reverting Stochastic
Differential Equations*, ICML 2023, arXiv:2301.11699. Li, Fang, Zhao, Lu, Yang, Xu, *MaRS: A Fast
Sampler for Mean Reverting Diffusion based on ODE and SDE Solvers*, ICLR 2025, arXiv:2502.07856.

    dx = theta_t (mu - x) dt + g_t dw,    g_t^2 = 2 theta_t sigma_inf^2

    symbol               name here       meaning
    mu                   y_0             the degraded image
    integral of theta    reversion       alpha_t = e^-reversion
    lambda, sigma_inf    sigma_inf       noise around mu in the end:
                                         sigma_t^2 = sigma_inf^2 (1 - alpha_t^2)
    x*_{t-1}             -               likeliest state before, given x_t and x_0

`x - mu` is an ordinary diffusion, so that MR Sampler is an exponential integrator of it:
`samplers.adams` for the ODE, `samplers.mr_sampler` for the SDE. The posterior sampling of IR-SDE's
authors is DDIM with eta = 1, and `mr-sde-1` of the data. Where the table's own steps are taken,
Euler-Maruyama is IR-SDE's sampler.

All deterministic samplers, and `mr-sde` with data, are exact for a point mass in one step. For
Gaussian posteriors of std up to 0.05, 5 calls of `mr-ode-2` come as near in law as 100 of
Euler-Maruyama on the table; up to 0.1, as 20. The start `mu + sigma_inf z` drops `end` = 0.5 % of
the residual; the mean of the samples keeps that share of it, times the gain of the flow.

**Predictions.** A network that predicts noise, image or velocity says the same; `FromPrediction`
brings one to the form of this package. What is integrated, image or noise, is another choice: an
error in the noise grows by `e^h` over a step that is `h` long in `lam`, one in the image does not.
With one evaluation a step, both are DDIM.

Cost: one network call a step.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operators.validate import number, one_of, whole
from priors.denoiser import per_image
from priors.training import Loss, Network
from restore.problem import Problem
from restore.samplers import grid as grids
from restore.samplers.adams import Adams
from restore.samplers.ddim import DDIM
from restore.samplers.grid import Grid
from restore.samplers.mr_sampler import MRSamplerSDE
from restore.samplers.sampler import Path, Sampler
from restore.trained.network import PairNetwork
from restore.trained.pairs import Pairs
from restore.trained.restorer import Restorer
from restore.trained.reverting import CosineReverting


@dataclass(frozen=True, kw_only=True)
class EulerMaruyama(Sampler):
    """IR-SDE's own sampler: Euler steps of the reverse SDE, or of its ODE.

    Args:
        sigma_inf: of the schedule.
        ode: follow the probability flow.
    """

    name: ClassVar[str] = "euler-maruyama"
    paper: ClassVar[str] = "Luo et al. 2023, IR-SDE"
    order: ClassVar[str] = "1, in law"

    sigma_inf: float
    ode: bool = False

    @property
    def random(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether it draws noise."""
        return not self.ode

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Step by theta dt, the change of the reversion."""
        for t, s in pairwise(path.grid.points):
            d = math.log(s.alpha / t.alpha)
            drift = self.sigma_inf**2 * d / t.sigma * path.eps(x, t)
            x = (1 + d) * x - (1 if self.ode else 2) * drift
            if not self.ode:
                x = x + self.sigma_inf * math.sqrt(2 * d) * path.noise(x)
            yield x


SAMPLERS = (
    "mr-ode-1",
    "mr-ode-2",
    "mr-sde-1",
    "mr-sde-2",
    "posterior",
    "euler-maruyama",
    "euler",
)


@dataclass(frozen=True, kw_only=True)
class MeanReverting(Restorer):
    """Mean-reverting diffusion; see the module's docstring.

    Args:
        steps: network calls; 20 in MR Sampler's paper, the table's T for IR-SDE's own samplers.
        sampler: a word of `SAMPLERS`.
        prediction: what `mr-` samplers integrate, "data" or "noise".
        spacing: of the points, a word of `samplers.grid.GRIDS`. The papers' is "time"; "lambda",
            another of MR Sampler's, is several times nearer in law where calls are few.
        last: "step" ends at time 0 with the little noise that it has, as MR Sampler does;
            "denoise" ends at time 1 and returns the image expected there, and is the only way where
            time 0 is clean.
        sigma_inf: see `CosineReverting`, like the rest.
        table: T.
        end: share of the residual at T.
        clean: whether time 0 is clean.
    """

    name: ClassVar[str] = "mean-reverting"
    paper: ClassVar[str] = "Luo et al. 2023, IR-SDE; Li et al. 2025, MR Sampler"
    cost: ClassVar[str] = "20 forwards"

    steps: int = 20
    sampler: str = "mr-ode-2"
    prediction: Literal["data", "noise"] = "data"
    spacing: str = "lambda"
    last: Literal["step", "denoise"] = "step"
    sigma_inf: float = 50 / 255
    table: int = 100
    end: float = 0.005
    clean: bool = False

    def __post_init__(self) -> None:
        one_of("sampler", self.sampler, SAMPLERS)
        one_of("prediction", self.prediction, ("data", "noise"))
        one_of("spacing", self.spacing, list(grids.GRIDS))
        one_of("last", self.last, ("step", "denoise"))
        low = 1 if self.last == "step" else 2
        whole("steps", self.steps, low=low, do="20 is the paper's")
        whole("table", self.table, low=2, do="100 is the paper's")
        number("sigma_inf", self.sigma_inf, above=0, do="50/255 is usual")
        number("end", self.end, above=0, high=0.5, do="0.005 is the papers'")
        if self.clean and self.last == "step":
            raise ValueError(
                "no step leads to a clean image: clean=True needs last='denoise', found 'step'."
            )

    @property
    def schedule(self) -> CosineReverting:
        """See `CosineReverting`."""
        return CosineReverting(self.sigma_inf, self.table, self.end, self.clean)

    @property
    def grid(self) -> Grid:
        """From T to time 0, or to time 1 in one step less."""
        time, steps = (0.0, self.steps) if self.last == "step" else (1.0, self.steps - 1)
        ends = (self.schedule.level(t) for t in (float(self.table), time))
        return grids.build(self.spacing, self.schedule, steps, *map(float, ends))

    @property
    def walker(self) -> Sampler:
        """The sampler of the name."""
        known: dict[str, Sampler] = {
            "mr-ode-1": Adams(k=1, prediction=self.prediction),
            "mr-ode-2": Adams(k=2, prediction=self.prediction),
            "mr-sde-1": MRSamplerSDE(k=1, prediction=self.prediction),
            "mr-sde-2": MRSamplerSDE(k=2, prediction=self.prediction),
            "posterior": DDIM(eta=1.0),
            "euler-maruyama": EulerMaruyama(sigma_inf=self.sigma_inf),
            "euler": EulerMaruyama(sigma_inf=self.sigma_inf, ode=True),
        }
        return known[self.sampler]

    @property
    def length(self) -> int:
        """One estimate a call."""
        return self.steps

    def first_point(self, problem: Problem, y_0: Tensor, noise: Tensor) -> Tensor:
        """Noise of the stationary law."""
        return self.sigma_inf * noise

    def walk(self, problem: Problem, noise: Tensor) -> Iterator[Tensor]:
        """Walk; where the last call makes a step, no denoising follows it."""
        return islice(super().walk(problem, noise), self.length)

    @classmethod
    def loss(cls, pairs: Pairs, network: PairNetwork) -> Loss:
        """Build IR-SDE's loss: mean absolute error of the likeliest state before.

        Given `x_t` both it and the reverse step are `e^d w - 2 sinh(d) (sigma_inf^2 / sigma) eps`
        for `w = x_t - mu` and `d = theta_t dt`, of the true noise and the network's. The paper has
        Euler's reverse step in place of this exact one; a network trained so would add a share
        d / 4 of `w / sigma` to the noise, to make up for Euler. In units of `sigma_inf`.
        """
        schedule = cls().schedule

        def loss(call: Network, generator: torch.Generator) -> Tensor:
            x_0, y_0 = pairs(generator)
            t = torch.randint(1, schedule.steps + 1, (len(x_0),), generator=generator).double()
            d = schedule.reversion(t) - schedule.reversion(t - 1)
            weight = (2 * torch.sinh(d) * schedule.sigma_inf / schedule.sigma(t)).float()
            s = schedule.level(t).float()
            z = x_0 - y_0 + per_image(s, x_0) * torch.randn(x_0.shape, generator=generator)
            z, y_0, x_0, s, weight = (v.to(network.device) for v in (z, y_0, x_0, s, weight))
            z = z.contiguous(memory_format=torch.channels_last)
            noise_error = (call(z, y_0, s) + y_0 - x_0) / per_image(s, z)
            return (per_image(weight, z) * noise_error).abs().mean()

        return loss
