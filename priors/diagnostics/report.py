"""A prior examined at several noise levels, and what its user should conclude."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from priors.denoiser import Denoiser
from priors.diagnostics.level import Level, levels
from priors.diagnostics.verdicts import Verdict, judge

SIGMAS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a prior knows about itself.

    Attributes:
        prior: its name.
        image_shape: `(C, *spatial)` of the images.
        images: their number.
        levels: one entry a noise level, rising.
        verdicts: what to conclude.
    """

    prior: str
    image_shape: tuple[int, ...]
    images: int
    levels: tuple[Level, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        """Whether no test failed."""
        return all(verdict.ok is not False for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "prior": self.prior,
            "image_shape": list(self.image_shape),
            "images": self.images,
            "ok": self.ok,
            "levels": [level.as_dict() for level in self.levels],
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def diagnose(
    prior: Denoiser,
    images: Tensor,
    sigmas: Sequence[float] = SIGMAS,
    seed: int = 0,
    *,
    seen: Tensor | None = None,
    stride: int = 6,
    watch: Callable[[Iterator[Level]], Iterator[Level]] = iter,
) -> Diagnosis:
    """Examine a prior on images that it was not trained on.

    Args:
        prior: the denoiser.
        images: clean images `(B, C, *spatial)` in its range; two or more for standard errors.
        sigmas: noise levels, in the units of the images.
        seed: of noise and probes.
        seen: images of its training set, of the same size, to look for memory.
        stride: of the probing lattices; the cost is about `2 C stride^d` Jacobian products a level.
        watch: wraps the iterator over levels, for a progress bar.

    Returns:
        See `Diagnosis`.

    Raises:
        ValueError: the prior does not take these images, or a noise level is not positive.
    """
    if refusal := prior.refuse(tuple(images.shape)):
        raise ValueError(refusal)
    if not sigmas or not all(0 < sigma < math.inf for sigma in sigmas):
        raise ValueError(f"sigmas are {list(sigmas)}, expected positive numbers; correct these.")
    found = tuple(watch(levels(prior, images, sorted(sigmas), seed, seen=seen, stride=stride)))
    return Diagnosis(
        prior=prior.card.name,
        image_shape=tuple(images.shape[1:]),
        images=len(images),
        levels=found,
        verdicts=tuple(judge(found)),
    )
