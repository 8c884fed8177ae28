"""FlowChef: steering a rectified flow with skipped gradients.

Patel, Wen, Metaxas, Yang, *Steering Rectified Flow Models in the Vector Field for Controlled Image
Generation*, ICCV 2025, arXiv:2412.00100, algorithm 1.

    symbol       name here     meaning
    x_t          -             (1 - t) x_0 + t eps, noise at t = 1
    u            u             E[eps - x_0 | x_t] = (x_t - D) / t; the paper's v is -u
    x_hat_0      x_hat         x_t - t u = D, then moved to fit the data
    s'           kappa         step on |A x_hat - y|^2 / 2, over |A|^2

The gradient is taken at `x_hat` and *not* passed through the network: on straight paths u does not
change when `x_t` is moved. The move of `x_t` and the Euler step with the same u then read

    x_hat <- x_hat - kappa A^T (A x_hat - y) / |A|^2,   x_t' = x_hat + t' u.

No term holds sigma_y: the method is for clean data, and fits the noise of others. On a Gaussian
prior it samples the exact *noiseless* posterior as steps grow, because D depends on the data only
through what they fix; 0.5 is a better kappa than the paper's there. Elsewhere nothing is
guaranteed, and the starting noise chooses the mode. Steps are stable while kappa times the gain of
D stays below 2, and near t = 1 that gain nears half the standard deviation of the images' first
principal component, which grows with their size: of photographs 48x48, 0.3 diverges, 128x128, 0.16.
The last step is not guided, as in the code, so that the result is the denoiser's.

Any denoiser drives it, by `x_0 = D`, but only a network trained as a rectified flow has paths
straightened for it; the notes of the result say when it was not. The flow starts at t = 1 - 1e-5,
or where the prior's noise levels end. The Euler step of a rectified flow is DDIM's; any sampler
without memory may take its place, moved in the same way.

For an autoencoder's latents the gradient passes through the decoder only and the step is that of a
fresh Adam, as in the paper: the sign of the gradient times `lr`.

Cost: one forward a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from priors.schedules import RectifiedFlow
from restore.gain import squared_norm
from restore.guided import suited, walk_moving
from restore.problem import Problem
from restore.solver import Solver
from restore.space import Space


@dataclass(frozen=True, kw_only=True)
class FlowChef(Solver):
    """FlowChef; see the module's docstring.

    Args:
        steps: N, Euler steps from noise to image; steps of the sampler, and the end.
        kappa: step on half the squared residual over `|A|^2`, at most 1; the paper's settings
            come to 0.08 for masks, blur and downsampling of colour images of 64x64.
        scale: the paper's own step s_g on the *mean* squared error over all entries of y, in place
            of kappa; 500 there.
        inner: gradient steps a level, all with the same u.
        guided: number of steps that are guided, all but the last by default.
        optimiser: "gradient", "adam", or "auto": adam for latents.
        lr: Adam's learning rate.
        sampler: a word of `restore samplers`; "ddim" is the paper's Euler step.
    """

    name: ClassVar[str] = "flowchef"
    paper: ClassVar[str] = "Patel et al. 2025, steering rectified flow models (FlowChef)"
    requires: ClassVar[tuple[str, ...]] = ("gaussian",)
    cost: ClassVar[str] = "200 forwards"
    posterior: ClassVar[str] = "for clean data: posterior on Gaussian priors, else heuristic"
    remedy: ClassVar[str] = "lower kappa or raise steps"
    latent: ClassVar[bool] = True

    steps: int = 200
    kappa: float = 0.08
    scale: float | None = None
    inner: int = 1
    guided: int | None = None
    optimiser: Literal["auto", "gradient", "adam"] = "auto"
    lr: float = 0.02
    sampler: str = "ddim"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.inner < 1 or not 0 <= self.kappa <= 1 or self.lr <= 0:
            raise ValueError(
                "flowchef needs steps >= 1, inner >= 1, 0 <= kappa <= 1 and lr > 0, found "
                f"{self.steps}, {self.inner}, {self.kappa}, {self.lr}."
            )
        if self.optimiser not in ("auto", "gradient", "adam"):
            raise ValueError(
                f"unknown optimiser '{self.optimiser}'; choose auto, gradient or adam."
            )
        suited(self.sampler, self.name, moves=True)

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Follow the flow from noise to image, moving its end towards the measurement."""
        space, flow = Space(problem), RectifiedFlow()
        if not isinstance(space.schedule, RectifiedFlow):
            problem.notes["flow"] = "the prior is no rectified flow; its paths bend"
        if self.scale is None:
            step = self.kappa / squared_norm(problem)
        else:
            step = 2 * self.scale / problem.y[0].numel()
        adam = self.optimiser == "adam" or (self.optimiser == "auto" and space.latent is not None)
        first = min(1 - 1e-5, float(flow.time(space.highest)))
        times = torch.linspace(first, 0, self.steps + 1, dtype=torch.float64)[:-1].tolist()
        guided = self.steps - 1 if self.guided is None else min(self.guided, self.steps - 1)
        turns = iter(range(self.steps))

        def denoise(z: Tensor, s: float) -> Tensor:
            return space.denoise(z, 1.0, s)

        def guide(z: Tensor, s: float) -> tuple[Tensor, Tensor]:
            # where the straight line from x_t ends, and that end moved towards the measurement
            D = denoise(z, s)
            return D, self._moved(space, D, step, adam=adam) if next(turns) < guided else D

        x = first * space.noise()
        run = suited(self.sampler, self.name, moves=True)
        for x_hat in walk_moving(run, guide, denoise, x, times, problem.noise, schedule=flow):
            yield space.decode(x_hat)

    def _moved(self, space: Space, x_hat: Tensor, step: Tensor | float, *, adam: bool) -> Tensor:
        if not adam:
            for _ in range(self.inner):
                x_hat = x_hat - space.data_gradient(x_hat, step)
            return x_hat
        x_hat = x_hat.clone()
        optimiser = torch.optim.Adam([x_hat], lr=self.lr)
        for _ in range(self.inner):
            x_hat.grad = space.data_gradient(x_hat, step)
            optimiser.step()
        return x_hat
