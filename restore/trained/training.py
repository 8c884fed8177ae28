"""Train a restoration diffusion on images: one run, its pairs and what it holds out.

The operator degrades crops of the images as they are drawn, so that no pair is seen twice. A
checkpoint lets a stopped run go on bit for bit on the same machine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

import priors
from operators.validate import one_of, whole
from priors import Card, Denoiser
from priors.patches import Patches
from priors.training import Loss, Progress, Recipe, fit
from restore.trained import families, trainable, weights
from restore.trained.pair_prior import PairPrior, Trained
from restore.trained.pairs import Batch, Images, Measured, Pairs, residual_std, with_phase
from restore.trained.residual import LEVELS
from restore.trained.restorer import Restorer
from restore.trained.unrolled import Form, Keep, Unrolled

SIZES: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "small": ((16, 32, 64, 128), 1),  # 0.6 M parameters, 1.2 MB, an eighth of the time
    "medium": ((32, 64, 128, 256), 1),  # 2.3 M parameters, 4.6 MB
}
_HELD_OUT = 0.1  # share of the images, at least one, that is not trained on


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train.

    Attributes:
        family: a word of `restore.trained.trainable()`.
        operator: specification, as `operators.parse` reads it.
        noise: lowest and highest std of the measurements' noise.
        size: of the network, a word of `SIZES`.
        patch: side of the training crops, pixels, at most 128.
        batch: crops a step.
        begin: name or file of a prior, or of another unrolled network, from whose weights an
            unrolled one starts; at random when None.
        keep: what an unrolled network keeps for the gradient; see `Unrolled.keep`.
        unroll: T of an unrolled network.
        form: of its steps; see `Unrolled`.
        recipe: constants of the run.

    Raises:
        ValueError: an unknown word, or noise that is no interval of numbers >= 0.
    """

    family: str
    operator: str
    noise: tuple[float, float]
    size: str = "medium"
    patch: int = 64
    batch: int = 8
    begin: str | None = None
    keep: Keep = "steps and blocks"
    unroll: int = 3
    form: Form = "ddim"
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=16000))

    def __post_init__(self) -> None:
        one_of("family", self.family, list(trainable()))
        one_of("size", self.size, list(SIZES))
        whole("batch", self.batch, low=1, do="raise it")
        whole("unroll", self.unroll, low=1, do="raise it")
        one_of("keep", self.keep, get_args(Keep))
        one_of("form", self.form, get_args(Form))
        if self.begin is not None and self.family != "idm":
            raise ValueError(
                f"family '{self.family}' cannot start from prior '{self.begin}'; idm can."
            )
        low, high = self.noise
        if not 0 <= low <= high < float("inf"):
            raise ValueError(
                f"the noise runs from {low:g} to {high:g}, expected 0 <= low <= high where black "
                "is 0 and white is 1; correct it."
            )


class Training:
    """One run.

    Args:
        plan: what to train.
        scenes: images `(C, H, W)` uint8 of one number of channels, at least two.
        device: where the network trains.

    Raises:
        ValueError: too few images, images too small, an operator that does not take the crops.
    """

    def __init__(self, plan: Plan, scenes: Sequence[Tensor], device: str = "cpu") -> None:
        if len(scenes) < 2:
            raise ValueError(
                f"training needs at least 2 images, one of them held out, found {len(scenes)}; "
                "give more."
            )
        self.plan, self.channels = plan, scenes[0].shape[0]
        count = max(1, round(_HELD_OUT * len(scenes)))
        kept = [scene for i, scene in enumerate(scenes) if i >= count]
        patches: Images = Patches(kept, size=plan.patch, batch=plan.batch)
        aside: Images = Patches(
            list(scenes[:count]), size=min(128, 2 * plan.patch), batch=4
        ).plain_batch
        middle = 0.5
        if self.channels == 1 and plan.operator.partition(":")[0].strip() == "mri":
            patches, aside = with_phase(patches), with_phase(aside)
            self.channels, middle = 2, 0.0
        self.pairs = Pairs(patches, plan.operator, plan.noise, middle)
        self.held_out = Pairs(aside, plan.operator, plan.noise, middle)
        self.kind = families().get(plan.family, Restorer)
        draws = torch.Generator().manual_seed(plan.recipe.seed)
        around = self.kind.runs_around
        self.spread = residual_std(self.pairs, 50, draws, around) if around != "nothing" else 0.0
        widths, blocks = SIZES[plan.size]
        with torch.random.fork_rng(devices=[]):  # the first weights; nothing else draws globally
            torch.manual_seed(plan.recipe.seed)
            network = self.kind.network(self.channels, widths, blocks, self.spread)
            if plan.family == "idm":
                options = {"steps": plan.unroll, "form": plan.form, "middle": middle}
                network = Unrolled.of(self.channels, widths, blocks, **options)
        if isinstance(network, Unrolled):
            network.keep(plan.keep)
        if plan.begin is not None:
            assert isinstance(network, Unrolled)  # `Plan` refuses others
            network.begin(_weights(plan.begin))
        self.network = network.to(memory_format=torch.channels_last).to(device)

    @property
    def loss(self) -> Loss:
        """The training target of the family."""
        return trainable()[self.plan.family](self.pairs, self.network)

    def run(self, checkpoint: Path | None, every: int = 500) -> Iterator[Progress]:
        """Train, resuming from `checkpoint` when it exists; yield after every step."""
        return fit(self.network, self.loss, self.plan.recipe, checkpoint=checkpoint, every=every)

    def validation(self) -> Batch:
        """Four clean and degraded crops of images that are not trained on, always the same."""
        return self.held_out(torch.Generator().manual_seed(1))

    def measured(self) -> Measured:
        """Return the same crops, their measurements as they are."""
        return self.held_out.measured(torch.Generator().manual_seed(1))

    def prior(self, name: str) -> PairPrior:
        """Return the network, as it stands, with its card."""
        plan, spread = self.plan, self.spread
        trained = Trained(
            operator=plan.operator,
            noise=plan.noise,
            patch=plan.patch,
            levels=(LEVELS[0] * spread, LEVELS[1] * spread),
            spread=spread,
            family=plan.family,
            around=self.kind.runs_around,
            constants={"steps": plan.unroll} if plan.family == "idm" else {},
            steps=plan.recipe.steps,
        )
        card = Card(name=name, channels=self.channels, spatial_dims=2)
        return self.kind.assemble(card, self.network, trained)


def _weights(name: str) -> Denoiser:
    """A prior, or a network of `restore train`, by its name or file."""
    if name in priors.available():
        return priors.load(name)
    try:
        return weights.load(name)
    except ValueError:
        return priors.load(name)
