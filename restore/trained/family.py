"""What `restore train` can train: a solver that comes with a network of its own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from priors import Card
from priors.training import Loss
from restore.solver import Solver

if TYPE_CHECKING:
    from restore.trained.pair_prior import PairPrior, Trained
    from restore.trained.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class TrainedSolver(Solver):
    """Base class of restoration diffusions and unrolled ones.

    Class attributes:
        runs_around: the image that a diffusion runs around, see `Trained.around`.
    """

    paired: ClassVar[bool] = True
    likelihoods: ClassVar[tuple[str, ...]] = ("gaussian",)
    runs_around: ClassVar[str] = "degraded"
    remedy: ClassVar[str] = "check that operator and noise are those of the training"

    @classmethod
    def network(
        cls, channels: int, widths: tuple[int, int, int, int], blocks: int, spread: float
    ) -> nn.Module:
        """Build what is trained, for `channels` of images.

        Args:
            channels: of the images.
            widths: feature channels of the four scales.
            blocks: residual blocks a scale and side.
            spread: std of the residual `x_0 - y_0`.
        """
        raise NotImplementedError

    @classmethod
    def loss(cls, pairs: "Pairs", network: Any) -> Loss:
        """Return what the paper trains its network on."""
        raise NotImplementedError

    @classmethod
    def assemble(cls, card: Card, network: Any, trained: "Trained") -> "PairPrior":
        """Make what restores of what was trained."""
        raise NotImplementedError
