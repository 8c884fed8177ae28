"""Train a network of tumour masks: a diffusion, or a plain network on the same patches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from medical.segment.diffusion import SCHEDULE, Predicts
from medical.segment.intensity import Intensity
from medical.segment.network import MaskNetwork, Modalities
from medical.segment.patches import Case, MaskPatches
from medical.segment.segmenter import Family, Segmenter
from operators.validate import one_of
from priors.denoiser import per_image
from priors.training import Loss, Network, Progress, Recipe, fit

SIZES: dict[str, tuple[int, ...]] = {
    "small": (16, 24, 48),  # 1.0 M parameters, 2.1 MB
    "medium": (32, 48, 96),  # 4.2 M parameters, 8.3 MB, three times as slow
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train.

    Attributes:
        family: "diffusion", or "plain", which segments at once.
        modalities: "both", "pet" or "ct"; the other channel is blank.
        predicts: "x0", the mask, under Dice, cross-entropy and squared error; "eps", the noise,
            under squared error.
        size: of the network, a word of `SIZES`.
        patch: side of the patches in voxels.
        batch: patches a step.
        spacing: mm of the voxels.
        intensity: of PET and CT.
        recipe: constants of the run.

    Raises:
        ValueError: an unknown word.
    """

    family: Family = "diffusion"
    modalities: Modalities = "both"
    predicts: Predicts = "x0"
    size: str = "small"
    patch: int = 32
    batch: int = 4
    spacing: float = 4.0
    intensity: Intensity = field(default_factory=Intensity)
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=6000))

    def __post_init__(self) -> None:
        one_of("family", self.family, get_args(Family))
        one_of("modalities", self.modalities, get_args(Modalities))
        one_of("predicts", self.predicts, get_args(Predicts))
        one_of("size", self.size, list(SIZES))
        if self.family == "plain" and self.predicts != "x0":
            raise ValueError("a plain network predicts the mask, x0, and not the noise; leave it.")


class Training:
    """One run.

    Args:
        plan: what to train.
        cases: see `Case`.
        device: where the network trains.

    Raises:
        ValueError: no tumour in any case.
    """

    def __init__(self, plan: Plan, cases: Sequence[Case], device: str = "cpu") -> None:
        self.plan = plan
        self.patches = MaskPatches(cases, size=plan.patch, batch=plan.batch)
        with torch.random.fork_rng(devices=[]):  # the first weights; nothing else draws globally
            torch.manual_seed(plan.recipe.seed)
            network = MaskNetwork(
                noisy=plan.family == "diffusion",
                modalities=plan.modalities,
                widths=SIZES[plan.size],
            )
        self.network = network.to(device)

    @property
    def loss(self) -> Loss:
        """The training target."""
        if self.plan.family == "plain":
            return plain_loss(self.patches, self.network.device)
        return diffusion_loss(self.patches, self.network.device, self.plan.predicts)

    def run(self, checkpoint: Path | None = None, every: int = 500) -> Iterator[Progress]:
        """Train, resuming from `checkpoint` when it exists; yield after every step."""
        return fit(self.network, self.loss, self.plan.recipe, checkpoint=checkpoint, every=every)

    def segmenter(self, name: str, **trained: Any) -> Segmenter:
        """Return the network, as it stands, with what must be known of it."""
        plan = self.plan
        return Segmenter(
            name=name,
            network=self.network,
            predicts=plan.predicts,
            spacing=plan.spacing,
            window=plan.patch,
            intensity=plan.intensity,
            trained={"steps": plan.recipe.steps, "batch": plan.batch, **trained},
        )


def diffusion_loss(patches: MaskPatches, device: torch.device, predicts: Predicts = "x0") -> Loss:
    """Loss at a random step of the diffusion, every step alike."""
    last = len(SCHEDULE.alphas_cumprod)

    def loss(network: Network, generator: torch.Generator) -> Tensor:
        step = _of_step(generator)
        images, mask = (x.to(device) for x in patches(step))
        t = torch.randint(last, (len(mask),), generator=step).to(device)
        eps = torch.randn(mask.shape, generator=step).to(device)
        alpha, sigma = (per_image(level(t), mask) for level in (SCHEDULE.alpha, SCHEDULE.sigma))
        out = network(images, alpha * (2 * mask - 1) + sigma * eps, t.to(mask)).float()
        return (out - eps).square().mean() if predicts == "eps" else mask_loss(out, mask)

    return loss


def plain_loss(patches: MaskPatches, device: torch.device) -> Loss:
    """The same loss where nothing but PET and CT is seen."""

    def loss(network: Network, generator: torch.Generator) -> Tensor:
        images, mask = (x.to(device) for x in patches(_of_step(generator)))
        return mask_loss(network(images).float(), mask)

    return loss


def _of_step(generator: torch.Generator) -> torch.Generator:
    """A stream of one step's own: all networks of a seed see the same patches, whatever else."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Soft Dice of each patch, cross-entropy, and squared error of the mask in [-1, 1], summed.

    Cross-entropy and squared error have the posterior mean as their minimum; Dice does not, but
    makes lesions of less than a percent of the voxels be learnt at all.
    """
    p = torch.sigmoid(logits)
    both, sizes = (p * mask).flatten(1).sum(1), (p + mask).flatten(1).sum(1)
    dice = 1 - (2 * both + 1) / (sizes + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, mask)
    return dice.mean() + entropy + (2 * (p - mask)).square().mean()
