"""Denoising Langevin Gibbs (DLG): one chain through all noise levels, an image every few moves.

Kim, Ye, *Denoising MCMC for Accelerating Diffusion-Based Generative Models*, ICML 2023,
arXiv:2209.14593. The chain lives on noisy images and their levels, with the joint law
`p(x, s) = p(s) p_s(x)`, `p_s` the law of `x_0 + s n`, and alternates

    x <- x + (eta / 2) (D(x, s) - x) / s^2 + sqrt(eta) z      a Langevin step at the level
    s ~ p(s | x), proportional to p(s) p_s(x)                 a new level

Whenever the chain is at low noise, any sampler reaches a clean image in few steps: the least noisy
of every `skip` states is handed over, and the chain goes on. Successive images are correlated.
That choice is itself a bias, since some images are low more often: on a mixture of one pixel it
widens the samples by 14%, while handing over the last state, `keep = "last"`, draws exactly.

    symbol    name here    meaning
    eta       eta          Langevin step, in units of s^2; of the images' squared with `absolute`
    n_skip    skip, keep   moves between two images, and which of their states is handed over
    p(s)      levels       uniform on the levels given

**What keeps the law.** Drawing the level is an exact Gibbs step where `log p_s(x)` is known. The
Langevin step errs by its length only, and only if that is below `4 s^2` at every level the chain
visits. The paper's fixed eta (0.8 on CIFAR-10, `absolute`) is not: it throws the chain out of the
low levels, which moves it between levels quickly and changes their law. Taking the likeliest level
(`pick = "argmax"`), as the paper's classifier does, is no Gibbs step either.

**Levels without a density.** At the level s of the chain, `d log p_s(x) / d log s = R^2 / s^2 - nu`
with `R = |x - D|` and `nu = n - div D`; the law with constant R and nu,
`p(s' | x) ~ s'^-nu exp(-R^2 / 2 s'^2)`, is likeliest at `R / sqrt(nu)`. It is right to first order
around s. The divergence costs one more call, along one random direction: with n in its place, each
move would read the level too low.

Levels closer than `s / sqrt(2 n)` mix; images of many pixels tell their level so well that coarser
ones do not. Cost: a move takes one call, three without a density.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from operators.validate import one_of
from priors.denoiser import per_image
from priors.schedules import EDM
from restore.samplers import grid as grids
from restore.samplers.sampler import Sampler

DenoiseEach = Callable[[Tensor, Tensor], Tensor]
"""`D(x, s)` with one level an image, `(B,)`: any prior."""

Density = Callable[[Tensor, float], Tensor]
"""`log p_s(x)` `(B,)` up to a constant that does not depend on s: `log_prob` of an exact prior."""


class Draw(NamedTuple):
    """One image of every chain.

    Attributes:
        images: `(B, C, *spatial)`.
        levels: `(B,)`, noise at which the sampler took over.
        calls: denoiser calls an image since the last draw, the mean over the chains.
    """

    images: Tensor
    levels: Tensor
    calls: float


@dataclass(frozen=True, kw_only=True)
class DLG:
    """Denoising Langevin Gibbs; see the module's docstring.

    Args:
        levels: rising noise levels, in units of the images.
        eta: Langevin step.
        absolute: eta is in squared units of the images, not of the level.
        skip: moves between two images.
        keep: hand over the "lowest" state of these, or the "last".
        pick: "sample" the level or take its "argmax".
    """

    levels: tuple[float, ...]
    eta: float = 0.1
    absolute: bool = False
    skip: int = 10
    keep: str = "lowest"
    pick: str = "sample"

    def __post_init__(self) -> None:
        one_of("dlg's keep", self.keep, ("lowest", "last"))
        one_of("dlg's pick", self.pick, ("sample", "argmax"))
        rising = all(b > a for a, b in zip(self.levels, self.levels[1:], strict=False))
        if len(self.levels) < 2 or not rising or not self.levels[0] > 0:
            raise ValueError(
                "dlg needs two or more rising levels above zero, found "
                f"{', '.join(f'{s:g}' for s in self.levels[:6])}; correct these."
            )
        if not self.eta > 0 or self.skip < 1 or not (self.absolute or self.eta < 4):
            raise ValueError(
                f"dlg needs eta > 0, below 4 in units of s^2, and skip >= 1, found {self.eta} and "
                f"{self.skip}; correct these."
            )

    def draws(
        self,
        denoise: DenoiseEach,
        x: Tensor,
        sampler: Sampler,
        generator: torch.Generator,
        *,
        start: Tensor | None = None,
        steps: int = 10,
        density: Density | None = None,
    ) -> Iterator[Draw]:
        """Run chains without end; yield one image of each every `skip` moves.

        Args:
            denoise: `D(x, s)` with one level an image.
            x: noisy images `(B, C, *spatial)`, one a chain.
            sampler: takes a state to its clean image.
            generator: source of all noise.
            start: indices `(B,)` of the levels of `x`; the highest by default.
            steps: of the sampler from the highest level to the lowest; fewer from between.
            density: `log p_s(x)` where it is known.
        """
        k = torch.full((len(x),), len(self.levels) - 1) if start is None else start
        move_calls = 1 if density else 3
        while True:
            best, lowest = x, torch.full_like(k, len(self.levels))
            for _ in range(self.skip):
                x, k = self.move(denoise, x, k, generator, density)
                lower = k < lowest if self.keep == "lowest" else torch.ones_like(k).bool()
                best = torch.where(per_image(lower, x) > 0, x, best)
                lowest = torch.where(lower, k, lowest)
            images, calls = self._clean(denoise, best, lowest, sampler, steps, generator)
            yield Draw(images, self._values(lowest, x), self.skip * move_calls + calls)

    def move(
        self,
        denoise: DenoiseEach,
        x: Tensor,
        k: Tensor,
        generator: torch.Generator,
        density: Density | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Take one Langevin step and draw new levels; `k` `(B,)` are indices of levels."""
        s2 = per_image(self._values(k, x), x).square()
        eta = torch.full_like(s2, self.eta) if self.absolute else self.eta * s2
        drift = (denoise(x, self._values(k, x)) - x) / s2
        x = x + eta / 2 * drift + eta.sqrt() * _normal(x, generator)

        law = self._density(x, density) if density else self._residual(denoise, x, k, generator)
        if self.pick == "argmax":
            return x, law.argmax(1)
        return x, torch.multinomial(law.softmax(1).cpu(), 1, generator=generator)[:, 0]

    def _density(self, x: Tensor, density: Density) -> Tensor:
        return torch.stack([density(x, s) for s in self.levels], 1)

    def _residual(
        self, denoise: DenoiseEach, x: Tensor, k: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Logarithm `(B, L)` of the law of levels that the denoiser implies around its own."""
        s, sign = self._values(k, x), _normal(x, generator).sign()
        D, delta = denoise(x, s), 1e-2 * per_image(s, x)
        divergence = ((denoise(x + delta * sign, s) - D) / delta * sign).flatten(1).sum(1)
        nu = (x[0].numel() - divergence).double().cpu()[:, None].clamp_min(1)
        energy = (x - D).flatten(1).double().square().sum(1).cpu()[:, None]
        levels = torch.tensor(self.levels, dtype=torch.float64)
        return -nu * levels.log() - energy / (2 * levels.square())

    def _clean(
        self,
        denoise: DenoiseEach,
        x: Tensor,
        k: Tensor,
        sampler: Sampler,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, float]:
        """Take every state to its clean image; those of one level together."""
        out, calls, low = torch.empty_like(x), 0, self.levels[0]

        def together(y: Tensor, s: float) -> Tensor:
            nonlocal calls
            calls += len(y)
            return denoise(y, torch.full((len(y),), s, dtype=y.dtype, device=y.device))

        for level in k.unique().tolist():
            own, high = (k == level).to(x.device), self.levels[level]
            if level == 0:
                out[own] = together(x[own], low)
                continue
            share = math.log(high / low) / math.log(self.levels[-1] / low)
            grid = grids.edm(EDM(), max(1, round(steps * share)), high, low)
            out[own] = sampler(together, x[own], grid, noise=partial(_normal, generator=generator))
        return out, calls / len(x)

    def _values(self, k: Tensor, x: Tensor) -> Tensor:
        return torch.tensor(self.levels, dtype=x.dtype, device=x.device)[k.to(x.device)]


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
