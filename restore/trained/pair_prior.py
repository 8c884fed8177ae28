"""What training on pairs gives: the clean image expected from a noisy one and the degraded one.

    residual(z, y_0, s) = E[u_0 | u_0 + s n = z, y_0],   u_0 = x_0 - shift(y_0)

A restoration diffusion runs around the degraded image, `shift(y_0) = y_0`; a conditional one runs
around mid-range and only looks at it. Either is an ordinary diffusion of `u`, which depends on the
noise level alone: one network serves every schedule.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from deepinv.physics import Physics
from torch import Tensor, nn

import operators
from operators import noise_sigma, same_but_seed
from priors import Card, Denoiser

_SAME = 1e-3  # relative difference of two operators' measurements of one random image


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the network was trained for.

    Attributes:
        operator: specification of the operator, as `operators.parse` reads it.
        noise: lowest and highest std of the Gaussian noise of its measurements.
        patch: side of the training patches, pixels.
        levels: lowest and highest noise level trained, in units of the images.
        spread: std of what the diffusion runs on, `x_0 - y_0`, over the training pairs.
        family: the paper whose training target it was, a word of `restore.trained.families()`.
        around: "degraded" for a diffusion of `x - y_0`, "middle" for a conditional one of `x`.
        sees: images that the network looks at besides the noisy one: 1, the one it runs around;
            2, the degraded one too, where a predictor improves it.
        constants: of that paper, for sampling.
        steps: optimiser steps.
    """

    operator: str
    noise: tuple[float, float]
    patch: int
    levels: tuple[float, float]
    spread: float
    family: str
    around: str = "degraded"
    sees: int = 1
    constants: Mapping[str, float | int | str] = field(default_factory=dict)
    steps: int = 0


class PairPrior(Denoiser):
    """A network trained on pairs, with its card; see the module's docstring.

    It is no prior of images: called as one, it refuses.

    Args:
        card: of the clean images.
        network: `network(z, y_0, s)`, for example `restore.trained.network.PairNetwork`.
        trained: what for.
        predictor: maps degraded images to better ones before the diffusion runs around them.
    """

    def __init__(
        self,
        card: Card,
        network: nn.Module,
        trained: Trained,
        predictor: "PairPrior | None" = None,
    ) -> None:
        super().__init__(card)
        self.network, self.trained, self.predictor = network, trained, predictor

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Refuse: without a degraded image there is nothing to say.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"'{self.card.name}' is a network trained on pairs, not a prior of images; use it with "
            f"solver '{self.trained.family}'."
        )

    def residual(self, z: Tensor, y_0: Tensor, s: float | Tensor) -> Tensor:
        """Return `E[u_0 | z, y_0]`, shape of `z`; see the module's docstring."""
        return self.network(z, y_0, s)

    def shift(self, y_0: Tensor) -> Tensor:
        """Return what the diffusion runs around."""
        low, high = self.card.value_range
        y_0 = y_0[:, : self.card.channels]  # the first of the images it looks at
        return shifted(y_0, self.trained.around, (low + high) / 2)


def shifted(y_0: Tensor, around: str, middle: float) -> Tensor:
    """Return what a diffusion runs around: "degraded" images, or the "middle" of their range."""
    return y_0 if around == "degraded" else torch.full_like(y_0, middle)


def mismatch(operator: Physics, prior: PairPrior, x: Tensor) -> str | None:
    """Compare an operator and its noise with those of the training, by what they do.

    Args:
        operator: what measured.
        prior: the network.
        x: images like those sought, `(B, C, *spatial)`; only shape, type and place count.

    Returns:
        One sentence on what does not fit, or None.
    """
    about, name = prior.trained, prior.card.name
    trained_for = f"'{name}' was trained for '{about.operator}' with noise {_range(about.noise)}"
    given = getattr(operator, "spec", type(operator).__name__)
    advice = "choose other weights (`restore solvers`) or train your own (`restore train`)."
    sigma = torch.as_tensor(noise_sigma(operator)).max()
    low, high = about.noise
    if not low / 1.5 - 1e-3 <= float(sigma) <= 1.5 * high + 1e-3:
        return f"{trained_for}, found noise {float(sigma):g}; {advice}"
    kind = about.operator.partition(":")[0]
    _, options = operators.available()[kind]
    if "seed" in options:  # a random pattern: any like it will do
        if str(given).partition(":")[0] == kind and same_but_seed(str(given), about.operator):
            return None
        return f"{trained_for}, found '{given}'; {advice}"
    mine = operators.parse(about.operator, tuple(x.shape[1:])).to(x.device, x.dtype)
    probe = torch.rand((1, *x.shape[1:]), generator=torch.Generator().manual_seed(0)).to(x)
    with torch.no_grad():
        ours, theirs = mine.A(probe), operator.A(probe)
    if ours.shape == theirs.shape and math.isclose(
        float((ours - theirs).norm()), 0, abs_tol=_SAME * float(ours.norm())
    ):
        return None
    return f"{trained_for}, found '{given}'; {advice}"


def _range(noise: tuple[float, float]) -> str:
    low, high = noise
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
