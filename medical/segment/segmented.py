"""A segmentation with its doubt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmented:
    """Mask and uncertainty, each `(1, 1, D, H, W)`.

    Attributes:
        probability: mean of the samples, or what a plain network says, in [0, 1].
        std: of the samples, in [0, 0.5]; of a plain network that of a voxel drawn by its
            probability.
        samples: `(K, 1, D, H, W)` in [0, 1]; None of a plain network.
        story: network, samples, steps, seed: what made it, plain values.
    """

    probability: Tensor
    std: Tensor
    samples: Tensor | None = None
    story: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_samples(cls, x_0: Tensor, story: Mapping[str, Any] | None = None) -> "Segmented":
        """From samples `(K, 1, D, H, W)` in [-1, 1]."""
        samples = (x_0.clamp(-1, 1) + 1) / 2
        return cls(
            probability=samples.mean(0, keepdim=True),
            std=samples.std(0, correction=0, keepdim=True),
            samples=samples,
            story=story or {},
        )

    @classmethod
    def of_probability(cls, p: Tensor, story: Mapping[str, Any] | None = None) -> "Segmented":
        """From probabilities `(1, 1, D, H, W)`."""
        return cls(probability=p, std=(p * (1 - p)).sqrt(), story=story or {})

    @property
    def mask(self) -> Tensor:
        """Where the tumour is more likely than not, float32 zeros and ones."""
        return (self.probability > 0.5).float()

    @property
    def entropy(self) -> Tensor:
        """Entropy of the probability in bits, in [0, 1]: large where samples disagree."""
        p = self.probability
        return torch.special.entr(p).add(torch.special.entr(1 - p)) / torch.log(torch.tensor(2.0))
