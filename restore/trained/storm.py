"""StoRM: predict, then regenerate.

Lemercier, Richter, Welker, Gerkmann, *StoRM: A Diffusion-Based Stochastic Regeneration Model for
Speech Enhancement and Dereverberation*, IEEE/ACM TASLP 2023, arXiv:2212.11851.

    symbol       name here      meaning
    D_theta(y)   better         clean image predicted from the degraded one
    s_phi        network        sees the noisy image, the prediction and the degraded image
    alpha        weight         share of the prediction's loss in training

The prediction removes most of what is wrong and cannot invent; the diffusion around it brings back
the detail that a prediction blurs. What is left to diffuse is small, so that few steps do, and a
start at the prediction forgets next to nothing of it. Any diffusion around the degraded image will
do as `inner`; the paper's is OU-VE.

Where the weights hold a predictor, it predicts. Other weights predict by themselves: their network
under overwhelming noise is a regression, and `E[x_0 | x_0 + s n, y_0]` serves a diffusion around
any image. For a deterministic sampler this is `inner` from a start that does not forget.

If the predictor is the identity, this is `inner` itself; if it is perfect, noise is removed from
the clean image and nothing else.

A prediction is better on images it was trained on than on others, and the diffusion then meets
smaller residuals in training than in use. Two things are done about it: crops are degraded afresh,
so that no pair comes twice, and in training the prediction is mixed with the degraded image by a
random share up to `_WEAKENED`. Neither replaces predictions on images held out.

Cost: that of `inner`, and one forward. PSNR is that of the prediction at best, as of any sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from operators.validate import number, one_of
from priors import Card
from priors.denoiser import per_image
from priors.schedules import Schedule
from priors.training import Loss, Network
from restore.problem import Problem
from restore.samplers.grid import Grid
from restore.samplers.sampler import Sampler
from restore.trained.network import PairNetwork
from restore.trained.pair_prior import PairPrior, Trained
from restore.trained.pairs import Pairs
from restore.trained.residual import LEVELS, log_uniform
from restore.trained.restorer import Restorer

_WEAKENED = 0.3


@dataclass(frozen=True, kw_only=True)
class StoRM(Restorer):
    """StoRM; see the module's docstring.

    Args:
        inner: the diffusion: a word of `restore.trained.families()`, or a solver.
    """

    name: ClassVar[str] = "storm"
    paper: ClassVar[str] = "Lemercier et al. 2023, StoRM"
    cost: ClassVar[str] = "11 forwards"

    inner: str | Restorer = "ou-ve"

    def __post_init__(self) -> None:
        if isinstance(self.inner, str):
            one_of("inner", self.inner, _around_images())
        elif self.inner.name not in _around_images():
            raise ValueError(
                f"storm regenerates around a prediction, which '{self.inner.name}' does not; "
                f"choose one of {', '.join(_around_images())}."
            )

    @property
    def diffusion(self) -> Restorer:
        """The diffusion that regenerates."""
        from restore.trained import diffusions

        return diffusions()[self.inner]() if isinstance(self.inner, str) else self.inner

    @property
    def schedule(self) -> Schedule:
        """That of the diffusion."""
        return self.diffusion.schedule

    @property
    def grid(self) -> Grid:
        """That of the diffusion."""
        return self.diffusion.grid

    @property
    def walker(self) -> Sampler:
        """That of the diffusion."""
        return self.diffusion.walker

    @property
    def length(self) -> int:
        """That of the diffusion."""
        return self.diffusion.length

    def walk(self, problem: Problem, noise: Tensor) -> Iterator[Tensor]:
        """Walk around the prediction as the diffusion does."""
        prior = problem.prior
        assert isinstance(prior, PairPrior)
        if prior.predictor is None:
            self._check_place(prior)
            problem = replace(problem, prior=regenerating(prior))
        return self.diffusion.walk(problem, noise)

    @classmethod
    def network(
        cls, channels: int, widths: tuple[int, int, int, int], blocks: int, spread: float
    ) -> "Regenerator":
        """Build both networks."""
        return Regenerator(channels, widths, blocks, spread)

    @classmethod
    def loss(cls, pairs: Pairs, network: PairNetwork, *, weight: float = 0.5) -> Loss:
        """Errors of the prediction and of the diffusion around it, both of unit scale.

        The diffusion's gradient reaches the predictor too, through its image and its residual. The
        diffusion's error is that of `residual_loss`, so that any `inner` may use it.

        Args:
            pairs: source of clean and degraded images.
            network: both networks, a `Regenerator`.
            weight: share of the prediction's error in [0, 1]; 1 trains the predictor alone.
        """
        number("weight", weight, low=0, high=1, do="choose within")
        low, high = (network.spread * end for end in LEVELS)

        def loss(call: Network, generator: torch.Generator) -> Tensor:
            # predict
            x_0, y_0 = (v.to(network.device) for v in pairs(generator))
            zeros = torch.zeros_like(x_0).contiguous(memory_format=torch.channels_last)
            better = y_0 + call(zeros, y_0, high)
            predicted = (better - x_0).square().mean() / network.spread**2
            # weaken, as a prediction of images never seen is weaker
            kept = 1 - _WEAKENED * torch.rand(len(x_0), generator=generator)
            better = y_0 + per_image(kept, x_0) * (better - y_0)
            # regenerate
            s = log_uniform(len(x_0), low, high, generator).to(x_0)
            n = torch.randn(x_0.shape, generator=generator).to(x_0)
            u_0 = x_0 - better
            z = (u_0 + per_image(s, u_0) * n).contiguous(memory_format=torch.channels_last)
            _, _, c_out = network.scales(z, s)
            error = (call(z, torch.cat([better, y_0], 1), s) - u_0) / c_out
            return weight * predicted + (1 - weight) * error.square().mean()

        return loss

    @classmethod
    def assemble(cls, card: Card, network: PairNetwork, trained: Trained) -> PairPrior:
        """Take the two networks apart."""
        assert isinstance(network, Regenerator)
        first, second = network.apart()
        predictor = PairPrior(card, first, replace(trained, family="regression"))
        return PairPrior(card, second, replace(trained, sees=2), predictor)


class Regenerator(PairNetwork):
    """The two networks of StoRM in one: trained together, kept in one checkpoint.

    Args:
        channels: of the images.
        widths: see `PairNetwork`.
        blocks: see `PairNetwork`.
        spread: std of the residual `x_0 - y_0`; that of the prediction is smaller, and unknown.
    """

    def __init__(
        self, channels: int, widths: tuple[int, int, int, int], blocks: int, spread: float
    ) -> None:
        super().__init__(channels, widths, blocks, spread, seen=2)
        self.predictor = PairNetwork(channels, widths, blocks, spread)

    def forward(self, z: Tensor, y_0: Tensor, s: float | Tensor) -> Tensor:
        """Call the predictor on the degraded image alone, the diffusion on both images."""
        if y_0.shape[1] == self.channels:
            return self.predictor(z, y_0, s)
        return super().forward(z, y_0, s)

    def apart(self) -> tuple[PairNetwork, PairNetwork]:
        """Return predictor and diffusion, with the same parameters."""
        diffusion = PairNetwork(
            self.channels, self.widths, self.blocks, self.spread, self.middle, self.seen
        )
        diffusion.net = self.net
        return self.predictor, diffusion


class Around(nn.Module):
    """A network trained around the degraded image, seen from another one.

    Args:
        network: `network(z, y_0, s)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, seen: Tensor, s: float | Tensor) -> Tensor:
        """Estimate `x_0 - better` from it plus noise, `better` and `y_0` being seen."""
        better, y_0 = seen.chunk(2, dim=1)
        moved = better - y_0
        return self.network(z + moved, y_0, s) - moved


def regenerating(prior: PairPrior) -> PairPrior:
    """Return a network that predicts by itself and runs around its prediction."""
    both = replace(prior.trained, sees=2)
    return PairPrior(prior.card, Around(prior.network), both, predictor=prior)


def _around_images() -> list[str]:
    from restore.trained import diffusions

    known = diffusions().items()
    return [name for name, kind in known if kind.runs_around == "degraded" and kind is not StoRM]
