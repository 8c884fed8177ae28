"""IDM: compressed sensing by a sampler of three steps, tuned end to end.

Chen, Zhang, Yu, Zhang, *Invertible Diffusion Models for Compressed Sensing*, IEEE TPAMI 2025,
arXiv:2403.17006, and its released code.

    symbol             name here       meaning
    T                  steps           3 evaluations of one noise network
    abar_t             abar            learned, (1/2)^t at first
    x_T                first           sqrt(abar_T) A^T y, no noise
    v_t                mix             share of the second stream, learned, 1/2 at first
    eps                noise           estimate of the noise network, which sees A^T y and A^T A
                                       at every layer (`restore.trained.injected`)

For t = T, ..., 1, with the second stream h, which starts as a copy of the first:

    x_0 <- (p - sqrt(1 - abar_t) eps(p)) / sqrt(abar_t)
    x_0 <- x_0 - A^T (A x_0 - y)                              DDNM's projection
    S   <- sqrt(abar_{t-1}) x_0 + sqrt(1 - abar_{t-1}) eps
    p, h <- (1 - v_t) S + v_t h, p                            can be run backwards

and the result is `p + c h`. It is a regression in the form of a sampler: nothing is drawn, and
every sample is the same. All weights, and abar, v and c, descend the mean absolute error of the
result; gradients take the memory of no step (`restore.trained.reversible`).

Against the paper: the start has the right mean (`restore.trained.unrolled`; "adjoint" is the
paper's), abar and v cannot leave (0, 1), and the result is projected once more where there is no
noise, which cannot raise its error. With noise, or where `A A^T` is not the identity, the
projection becomes `x_0 - w_t A^T (A x_0 - y) / |A|^2` with learned w_t. The noise network is this
package's own prior to begin with (2.3 million weights; the paper's is Stable Diffusion's, 115
million). The released code measures groups of pixels from all over the image, `kind=scrambled`,
which is easier than blocks of neighbours; numbers of one do not compare with those of the other.

The networks that ship for compressed sensing take other steps, `form="oamp"`, those of orthogonal
approximate message passing. Untrained they are already better than the paper's after what training
a small machine affords: at 10 %, mean of seven photographs, five steps of message passing give 27.0
dB at once, three steps of the paper's 23.4 dB after 700 steps of the optimiser.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.validate import whole
from priors import Card
from priors.training import Loss, Network
from restore.problem import Problem
from restore.trained.family import TrainedSolver
from restore.trained.normal import Normal
from restore.trained.pair_prior import PairPrior, Trained
from restore.trained.pairs import Pairs
from restore.trained.unrolled import Unrolled


@dataclass(frozen=True, kw_only=True)
class IDM(TrainedSolver):
    """Invertible diffusion model; see the module's docstring.

    Args:
        steps: T, those of the network. All other constants are learned.
    """

    name: ClassVar[str] = "idm"
    paper: ClassVar[str] = "Chen et al. 2025, IDM"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian")
    cost: ClassVar[str] = "3 forwards"
    posterior: ClassVar[str] = "none: one estimate, all samples are equal"
    runs_around: ClassVar[str] = "nothing"

    steps: int = 3

    def __post_init__(self) -> None:
        whole("steps", self.steps, low=1, do="raise it")

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Walk through the network."""
        network = unrolled(problem.prior)
        if network.steps != self.steps:
            raise ValueError(
                f"idm has steps={self.steps} and its network {network.steps}; leave steps out."
            )
        normal = Normal(problem.operator, problem.y[:1], problem.shape[1:])
        # one by one: the last bit of a convolution depends on the size of the batch
        walks = [network.walk(normal.of(y)) for y in problem.y.split(1)]
        for estimates in zip(*walks, strict=True):
            problem.count.forwards += 1
            yield torch.cat(estimates)

    @classmethod
    def network(
        cls, channels: int, widths: tuple[int, int, int, int], blocks: int, spread: float
    ) -> Unrolled:
        """Build the unrolled network."""
        return Unrolled.of(channels, widths, blocks)

    @classmethod
    def loss(cls, pairs: Pairs, network: Any) -> Loss:
        """Mean absolute error of the result."""

        def loss(call: Network, generator: torch.Generator) -> Tensor:
            x_0, y, operator = pairs.measured(generator)
            normal = Normal(operator, y, tuple(x_0.shape[1:]))
            return (call(normal.to(network.device)) - x_0.to(network.device)).abs().mean()

        return loss

    @classmethod
    def assemble(cls, card: Card, network: Any, trained: Trained) -> PairPrior:
        """Make what restores of what was trained."""
        return PairPrior(card, network, trained)


def unrolled(prior: object) -> Unrolled:
    """Return the network of a prior that `restore train idm` made.

    Raises:
        ValueError: another prior.
    """
    network = getattr(prior, "network", None)
    if not isinstance(network, Unrolled):
        name = getattr(getattr(prior, "card", None), "name", type(prior).__name__)
        raise ValueError(f"'{name}' is no unrolled network; use weights of `restore train idm`.")
    return network
