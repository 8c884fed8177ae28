"""Replacement: inpainting and colourisation with a score SDE, by predictor and corrector.

Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, *Score-Based Generative Modeling through
Stochastic Differential Equations*, ICLR 2021, arXiv:2011.13456, algorithms 2, 3, 4 and 5 and
appendix I.2.

    symbol       name here        meaning
    x_i          x                x_i = alpha_i x_0 + sigma_i eps
    s(x, t)      score            (alpha D - x) / sigma^2
    G_i^2        G^2              variance added from level i - 1 to level i
    Omega        P                projection on what the measurement determines
    r            snr              Langevin step e = 2 a (r |z| / |s|)^2

Every call of corrector or predictor is followed by `x <- x + P (alpha y^ + sigma z - x)`: what the
measurement determines, `y^`, is replaced by itself at the noise level reached. With the singular
value decomposition `A = U S V^T` it is `P = V V^T`, over singular values that are not small: the
known pixels of a mask, the grey axis of a colour image (the paper's orthogonal change of channels),
the sampled frequencies of MRI. Singular values below `cutoff` count as not measured.

Replacement is not conditioning. In the limit of small steps the fresh noise averages out, and the
unknown pixels follow the noisy image whose known part is `y^` *without* noise: a covariance
`(C_kk + sigma^2)^-1` stands where `C_kk^-1` should. Two pixels of correlation 0.9, one seen to be
1: the other gets mean 0.63 and variance 0.31 instead of 0.9 and 0.19, for any number of predictor
steps. Corrector steps bring it nearer, there to 0.89 and 0.20, and less the wider the spectrum of
images. Noise of the measurement is copied into the image.

Against the code: norms in the corrector are per image; replacement uses the level that was reached;
the last mean is used for unknown pixels too; and all three SDEs step by their exact transition
between levels, `x_i = rho x_{i-1} + G z`, so that levels may lie anywhere.

Constants are those of the paper's own ranges, [0, 1] for VE and [-1, 1] for VP and sub-VP, scaled
to the prior's. Cost: `steps` (1 + `corrections`) forwards.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operators import svd
from operators.linalg import dot
from priors.schedules import VE, VP, Schedule, SubVP
from restore.problem import Problem
from restore.solver import Solver

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Replacement(Solver):
    """Predictor-corrector sampling with replacement; see the module's docstring.

    Args:
        sde: "ve", "vp" or "sub-vp".
        steps: N, noise levels.
        corrections: M, Langevin steps a level.
        snr: r, size of a Langevin step; 0.16 in the paper, 0.075 for LSUN.
        predictor: "reverse-diffusion", or "ancestral".
        sigma_max: first level of VE for images in [0, 1]: 50 for CIFAR-10, 348 for faces.
        sigma_min: last level of VE.
        cutoff: share of the largest singular value below which nothing counts as measured.
    """

    name: ClassVar[str] = "replacement"
    paper: ClassVar[str] = "Song et al. 2021, score SDE: inpainting and colourisation"
    requires: ClassVar[tuple[str, ...]] = ("linear", "svd", "gaussian")
    cost: ClassVar[str] = "2000 forwards"
    posterior: ClassVar[str] = "biased: what is hidden follows what is known too little"
    remedy: ClassVar[str] = "raise steps"

    sde: Literal["ve", "vp", "sub-vp"] = "ve"
    steps: int = 1000
    corrections: int = 1
    snr: float = 0.16
    predictor: Literal["reverse-diffusion", "ancestral"] = "reverse-diffusion"
    sigma_max: float = 50.0
    sigma_min: float = 0.01
    cutoff: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 2 or self.corrections < 0 or not self.snr > 0:
            raise ValueError(
                "replacement needs steps >= 2, corrections >= 0 and snr > 0, found "
                f"{self.steps}, {self.corrections}, {self.snr}."
            )
        if not 0 < self.sigma_min < self.sigma_max or not 0 < self.cutoff < 1:
            raise ValueError(
                "replacement needs 0 < sigma_min < sigma_max and 0 < cutoff < 1, found "
                f"{self.sigma_min}, {self.sigma_max}, {self.cutoff}."
            )
        if self.sde not in ("ve", "vp", "sub-vp"):
            raise ValueError(f"unknown sde '{self.sde}'; choose ve, vp or sub-vp.")
        if self.predictor not in ("reverse-diffusion", "ancestral"):
            raise ValueError(
                f"unknown predictor '{self.predictor}'; choose reverse-diffusion or ancestral."
            )

    @property
    def length(self) -> int:
        """One estimate a level."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Correct and predict at every level, replacing what is known."""
        origin, unit = self._coordinates(problem)  # image = origin + unit * x
        levels = self._levels()
        P, known = _known(problem, self.cutoff)
        known = P((known - origin) / unit)

        def denoise(x: Tensor, alpha: float, sigma: float) -> Tensor:
            D = problem.denoise(origin + unit * x / alpha, unit * sigma / alpha)
            return (D - origin) / unit

        def replace(x: Tensor, alpha: float, sigma: float) -> Tensor:
            return x + alpha * known + P(sigma * problem.noise() - x)

        alpha, sigma = levels[0]
        x = sigma * problem.noise()
        x = x + known - P(x)  # the code starts from the measurement without noise
        for (alpha, sigma), (alpha_s, sigma_s) in pairwise(levels):
            rho = alpha / alpha_s
            G2 = sigma**2 - rho**2 * sigma_s**2
            # corrector: Langevin steps at this level
            for _ in range(self.corrections):
                score = (alpha * denoise(x, alpha, sigma) - x) / sigma**2
                z = problem.noise()
                e = langevin_step(score, z, self.snr, rho**2)
                x = replace(x + e * score + (2 * e).sqrt() * z, alpha, sigma)
            # predictor: one step down
            D = denoise(x, alpha, sigma)
            mean, noise = self._predict(x, (alpha * D - x) / sigma**2, rho, G2, sigma, sigma_s)
            last = sigma_s == 0
            x = replace(mean if last else mean + noise * problem.noise(), alpha_s, sigma_s)
            yield origin + unit * (x if last else D)

    def _predict(
        self, x: Tensor, score: Tensor, rho: float, G2: float, sigma: float, sigma_s: float
    ) -> tuple[Tensor, float]:
        """Mean and noise of a step down, from a forward step `x_i = rho x_{i-1} + G z`."""
        if self.predictor == "ancestral":  # of q(x_{i-1} | x_i, x_0 = D)
            return (x + G2 * score) / rho, G2**0.5 * sigma_s / sigma
        return (2 - rho) * x + G2 * score, G2**0.5

    def _levels(self) -> list[tuple[float, float]]:
        """Pairs (alpha, sigma) from the highest noise to none."""
        schedule: Schedule = VE(self.sigma_min, self.sigma_max)
        last = 0.0
        if self.sde != "ve":
            schedule, last = (VP() if self.sde == "vp" else SubVP()), 1e-3
        t = torch.linspace(1, last, self.steps, dtype=torch.float64)
        pairs = zip(schedule.alpha(t).tolist(), schedule.sigma(t).tolist(), strict=True)
        return [*pairs, (1.0, 0.0)]

    def _coordinates(self, problem: Problem) -> tuple[float, float]:
        """Origin and unit in which the prior's range is [0, 1] for VE, [-1, 1] for the others."""
        if self.sde == "ve":
            return problem.middle - problem.scale, 2 * problem.scale
        return problem.middle, problem.scale


def langevin_step(score: Tensor, z: Tensor, snr: float, a: float = 1.0) -> Tensor:
    """Step `e = 2 a (snr |z| / |s|)^2` of every image, `(N, 1, ..., 1)`; none where `s = 0`."""
    power = dot(score, score)
    return torch.where(power > 0, 2 * a * snr**2 * dot(z, z) / power.clamp_min(1e-300), 0)


def _known(problem: Problem, cutoff: float) -> tuple[Map, Tensor]:
    """Projection `P` on what the measurement determines, and the image it determines there."""
    decomposition = svd(problem.operator)
    s = torch.as_tensor(decomposition.s, device=problem.y.device)
    own = s.ndim == decomposition.Vt(problem.y.new_zeros(problem.shape)[: problem.images]).ndim
    largest = s.amax(tuple(range(1, s.ndim)), keepdim=True) if own else s.max()
    keep = s > cutoff * largest
    inverse = torch.where(keep, 1 / torch.where(keep, s, 1), 0)

    def by_sample(call: Map) -> Map:
        return lambda v: torch.cat([call(part) for part in v.split(problem.images)])

    P = by_sample(lambda v: decomposition.V(keep * decomposition.Vt(v)).to(v.dtype))
    back = by_sample(lambda y: decomposition.V(inverse * decomposition.Ut(y)).to(y.dtype))
    return P, back(problem.y)
