"""A trained network of tumour masks, with all that must be known to use it, from pair to mask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from medical.segment import diffusion
from medical.segment.diffusion import MaskDenoiser, Predicts
from medical.segment.intensity import Intensity
from medical.segment.network import MaskNetwork
from medical.segment.pair import Pair
from medical.segment.segmented import Segmented
from medical.segment.windows import blended

Family = Literal["diffusion", "plain"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmenter:
    """See the module's docstring.

    Attributes:
        name: by which it is known.
        network: sees a noisy mask where it is a diffusion's.
        predicts: "x0" or "eps"; a plain network gives logits, as "x0" does.
        spacing: mm of the voxels that it was trained on.
        window: voxels a side that it was trained on.
        intensity: order and range of its inputs.
        trained: on what and how long, plain values.
        sha256: of its file.
    """

    name: str
    network: MaskNetwork
    predicts: Predicts = "x0"
    spacing: float = 4.0
    window: int = 32
    intensity: Intensity = field(default_factory=Intensity)
    trained: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def family(self) -> Family:
        """Whether it draws masks or says probabilities."""
        return "diffusion" if self.network.noisy else "plain"

    def __call__(self, pair: Pair, **options: Any) -> Segmented:
        """Segment a pair whose voxels are of `spacing`; options as `segment`'s."""
        return self.segment(self.intensity.tensor(pair), **options)

    def segment(
        self,
        images: Tensor,
        *,
        samples: int = diffusion.SAMPLES,
        steps: int = diffusion.STEPS,
        sampler: str = diffusion.SAMPLER,
        seed: int = 0,
        batch: int = 4,
        callback: Callable[[int], None] | None = None,
    ) -> Segmented:
        """Segment.

        Args:
            images: `(1, 2, D, H, W)` of `intensity`.
            samples: masks that are drawn; a plain network has no use for this nor what follows.
            steps: network calls of each.
            sampler: a name of `restore.samplers.available()`.
            seed: same seed, same masks.
            batch: masks at once.
            callback: called with the number of masks that are done.

        Raises:
            ValueError: see `diffusion.draw`.
        """
        images = images.to(self.network.device)
        story: dict[str, Any] = {"network": self.name, "sha256": self.sha256}
        if self.family == "plain":
            return Segmented.of_probability(self._probability(images).cpu(), story)
        denoise = MaskDenoiser(
            network=self.network, images=images, predicts=self.predicts, window=self.window
        )
        how = {"samples": samples, "steps": steps, "sampler": sampler, "seed": seed}
        x_0 = diffusion.draw(
            denoise,
            (1, *images.shape[2:]),
            **how,
            batch=batch,
            device=images.device,
            callback=callback,
        )
        return Segmented.of_samples(x_0.cpu(), story | how)

    @torch.no_grad()
    def _probability(self, images: Tensor) -> Tensor:
        """What the plain network says, windows blended as the diffusion's are."""
        return blended(lambda x: torch.sigmoid(self.network(x)), images, window=self.window)
