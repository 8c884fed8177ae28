"""The base of restoration diffusions: any sampler, run on `u = x - y_0` with a trained network.

Papers differ in the pair `alpha(t), sigma(t)` (`schedule`), in the sampler they walk it with, and
in the target their network is trained on. Everything else is here: bringing the measurement to a
degraded image `y_0`, refusing an operator the network was not trained for, and the walk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
from operators.linalg import proximal
from priors import Card
from priors.denoiser import per_image
from priors.schedules import Schedule
from priors.training import Loss, Network
from restore.problem import Problem, stream
from restore.samplers.grid import Grid
from restore.samplers.sampler import Path, Sampler
from restore.trained.anchor import anchor
from restore.trained.family import TrainedSolver
from restore.trained.latent import LatentPairs, on_latents
from restore.trained.network import PairNetwork
from restore.trained.pair_prior import PairPrior, Trained
from restore.trained.pairs import Pairs
from restore.trained.start import start_noise


@dataclass(frozen=True, kw_only=True)
class Restorer(TrainedSolver):
    """Base class; see the module's docstring.

    Args:
        boundary: noise of the start: "random"; "zero"; or a file of `restore boundary`, one noise
            for all images, with which every sample is the same.
        noise_scale: factor on it; below 1 gives sharpness away for a smaller error.
        consistent: fit every denoised image to the measurement too, by a step that no paper here
            takes: its error is held to be white, of the variance that a residual of one std leaves
            at that noise level, and weighed against the measurement's noise. Linear operators only.
            Means gain; every sample then fits part of the noise, so that its misfit is below 1.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    posterior: ClassVar[str] = "of the training pairs, narrowed by few steps"

    boundary: str = "random"
    noise_scale: float = 1.0
    consistent: bool = False

    @property
    def schedule(self) -> Schedule:
        """The pair `alpha(t), sigma(t)` of the residual's diffusion."""
        raise NotImplementedError

    @property
    def grid(self) -> Grid:
        """The points that are visited."""
        raise NotImplementedError

    @property
    def walker(self) -> Sampler:
        """The sampler that visits them."""
        raise NotImplementedError

    @classmethod
    def loss(cls, pairs: Pairs, network: PairNetwork) -> Loss:
        """Return what the paper trains its network on.

        By default the mean square error of the clean image, the times of the schedule alike.
        """
        schedule, times = cls().schedule, torch.tensor(cls().grid.times)

        def loss(call: Network, generator: torch.Generator) -> Tensor:
            x_0, y_0 = pairs(generator)
            t = times[torch.randint(len(times), (len(x_0),), generator=generator)]
            s = schedule.level(t).float()
            z = x_0 - y_0 + per_image(s, x_0) * torch.randn(x_0.shape, generator=generator)
            z, y_0, x_0, s = (v.to(network.device) for v in (z, y_0, x_0, s))
            z = z.contiguous(memory_format=torch.channels_last)
            return (call(z, y_0, s) + y_0 - x_0).square().mean() / network.spread**2

        return loss

    @property
    def length(self) -> int:
        """One estimate a step, and the last."""
        return self.grid.steps + 1

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Start from noise around the degraded image and walk to the clean one."""
        if isinstance(prior := problem.prior, LatentPairs):
            return self._through_latents(problem, prior)
        return self.walk(problem, start_noise(self, problem))

    def _through_latents(self, problem: Problem, prior: LatentPairs) -> Iterator[Tensor]:
        if self.consistent:
            raise ValueError(
                f"'{prior.card.name}' lives on latents, which cannot be fitted to the measurement; "
                "leave consistent out."
            )
        y_0 = anchored(problem)
        for z in self.iterate(on_latents(problem, prior, y_0)):
            with torch.no_grad():
                yield prior.decode(z)

    def walk(self, problem: Problem, noise: Tensor) -> Iterator[Tensor]:
        """Walk from a given noise of unit variance `(N, C, *spatial)`."""
        prior = problem.prior
        assert isinstance(prior, PairPrior)
        self._check_place(prior)
        y_0 = degraded(problem, prior)
        shift = prior.shift(y_0)

        def denoise(z: Tensor, s: float) -> Tensor:
            problem.count.forwards += len(z) / problem.shape[0]
            with torch.no_grad():
                u = prior.residual(z, y_0, s)
            return fitted(problem, prior, shift + u, s) - shift if self.consistent else u

        path = Path(denoise, self.grid, problem.noise)
        u = self.first_point(problem, y_0, noise)
        for step in self.walker.steps(path, u):
            u = step
            yield shift + u
        yield shift + self.finish(path, u)

    def around(
        self,
        prior: PairPrior,
        y_0: Tensor,
        *,
        samples: int = 1,
        seed: int = 0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Restore degraded images themselves, without an operator: `(samples, B, C, *spatial)`.

        `noise` `(C, *spatial)` starts all of them, in place of that of the seed. There is nothing
        to be consistent with.
        """
        solver = replace(self, consistent=False)
        drawn = []
        for i in range(samples):
            problem = unmeasured(prior, y_0, stream(seed, i))
            if noise is None:
                *_, last = solver.iterate(problem)
            else:
                *_, last = solver.walk(problem, noise.to(y_0).expand(problem.shape))
            drawn.append(last)
        return torch.stack(drawn)

    def first_point(self, problem: Problem, y_0: Tensor, noise: Tensor) -> Tensor:
        """Noise of the first point; its share of the residual is dropped, as in the papers."""
        return self.grid[0].sigma * noise

    def finish(self, path: Path, u: Tensor) -> Tensor:
        """Remove the noise of the last point."""
        return path.D(u, path.grid[-1])

    @classmethod
    def network(
        cls, channels: int, widths: tuple[int, int, int, int], blocks: int, spread: float
    ) -> PairNetwork:
        """Build what is trained; see `PairNetwork`."""
        return PairNetwork(channels, widths, blocks, spread)

    @classmethod
    def assemble(cls, card: Card, network: PairNetwork, trained: Trained) -> PairPrior:
        """Make what restores of what was trained."""
        return PairPrior(card, network, trained)

    def _check_place(self, prior: PairPrior) -> None:
        if prior.trained.around != self.runs_around:
            raise ValueError(
                f"'{prior.card.name}' was trained to run around the {prior.trained.around} and "
                f"solver '{self.name}' runs around the {self.runs_around}; use solver "
                f"'{prior.trained.family}'."
            )


def unmeasured(prior: PairPrior, y_0: Tensor, generator: torch.Generator) -> Problem:
    """Return the problem whose measurement is the degraded image itself."""
    return Problem(
        y=y_0,
        operator=operators.denoise(tuple(y_0.shape[1:])),
        prior=prior,
        shape=tuple(y_0.shape),
        sigma_y=torch.zeros_like(y_0[:, :1].flatten(1)[:, :1].reshape(-1, *[1] * (y_0.ndim - 1))),
        streams=[generator],
        observed=torch.ones_like(y_0),
    )


def anchored(problem: Problem) -> Tensor:
    """Degraded images `(N, C, *spatial)` of a problem's measurements."""
    parts = problem.y.split(problem.images)
    shape = problem.shape[1:]
    return torch.cat([anchor(y, problem.operator, shape, problem.middle) for y in parts])


def degraded(problem: Problem, prior: PairPrior) -> Tensor:
    """Degraded images `(N, C, *spatial)`, improved by the predictor where there is one."""
    y_0 = anchored(problem)
    if prior.predictor is not None:
        problem.count.forwards += 1
    return improved(prior, y_0)


def improved(prior: PairPrior, y_0: Tensor) -> Tensor:
    """Return what the network looks at: the degraded image, or what a predictor makes of it.

    Where the network looks at both, the predicted image comes first: it is the one that the
    diffusion runs around.
    """
    if prior.predictor is None:
        return y_0
    better = regress(prior.predictor, y_0)
    return better if prior.trained.sees == 1 else torch.cat([better, y_0], 1)


def fitted(problem: Problem, prior: PairPrior, x: Tensor, s: float) -> Tensor:
    """Return what fits the measurement and is near the denoised image `x` of level `s`.

    Raises:
        ValueError: for an operator that is not linear.
    """
    if not isinstance(problem.operator, LinearPhysics):
        raise ValueError(
            "consistent=True needs a linear operator, found "
            f"{type(problem.operator).__name__}; leave it out."
        )
    error = prior.trained.spread * s * (prior.trained.spread**2 + s**2) ** -0.5
    return proximal(problem, x, problem.y, problem.sigma_y.clamp_min(1e-3) ** 2 / error**2)


def regress(prior: PairPrior, y_0: Tensor) -> Tensor:
    """Clean image expected from the degraded one alone: the network under overwhelming noise."""
    seen = improved(prior, y_0)
    return prior.shift(seen) + expected(prior, seen)


def expected(prior: PairPrior, seen: Tensor) -> Tensor:
    """Residual expected from what the network looks at, one forward."""
    with torch.no_grad():
        return prior.residual(torch.zeros_like(prior.shift(seen)), seen, prior.trained.levels[1])
