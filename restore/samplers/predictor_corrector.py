"""Predictor-corrector: steps of the reverse SDE, and Langevin dynamics at each new noise level.

Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, *Score-Based Generative Modeling through
Stochastic Differential Equations*, ICLR 2021, arXiv:2011.13456, algorithms 2 to 5.

From a point `t` down to `s` the diffusion run forward is `x_t = a x_s + G z`:

    symbol     name here      meaning                       VE                       VP
    -          a              alpha_t / alpha_s             1                        sqrt(1 - beta)
    G^2        G2             sigma_t^2 - a^2 sigma_s^2     sigma_t^2 - sigma_s^2    beta
    s_theta    score          -eps / sigma
    M          corrections    Langevin steps a level
    r          snr            sets their size
    alpha      a2             a^2, factor on it             1                        1 - beta
    epsilon    e              their size, 2 a^2 (r |z| / |score|)^2

    reverse-diffusion    x_s = (2 - a) x + G^2 score + G z                appendix E
    ancestral            x_s = (x + G^2 score) / a + sigma_s/sigma_t G z  appendix F, the paper's VE
    ancestral-large      the same with noise G z                          equation 4, the paper's VP
    corrector            x + e score + sqrt(2 e) z                        appendix G

**Law.** `ancestral` is DDIM with eta = 1. Predictors converge in law with order 1. A Langevin step
leaves a Gaussian of variance v, of `x_t`, with `v / (1 - e / 2v)`. The rule of `snr` makes `e`
follow v, and this does not vanish on fine grids: white images with many pixels settle at
`(1 + r^2) v`, 2.6 % too much.

Norms are those of each image; the authors' code averages them over the batch, which couples its
images. Predictor first, then corrector, as in the paper; the code has them the other way round.

Cost: one call for the prediction and one for each correction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from operators.validate import one_of
from restore.samplers.grid import Point
from restore.samplers.sampler import Path, Sampler

PREDICTORS = ("reverse-diffusion", "ancestral", "ancestral-large")


@dataclass(frozen=True, kw_only=True)
class PredictorCorrector(Sampler):
    """Predictor-corrector; see the module's docstring.

    Args:
        predictor: a word of `PREDICTORS`.
        corrections: Langevin steps at each new level, >= 0.
        snr: the paper's r, positive.
        step: of Langevin, as a fixed share of `sigma^2`; in place of `snr`.
    """

    name: ClassVar[str] = "predictor-corrector"
    paper: ClassVar[str] = "Song et al. 2021, score SDE, algorithms 2 to 5"
    order: ClassVar[str] = "1, in law"
    random: ClassVar[bool] = True

    predictor: str = "reverse-diffusion"
    corrections: int = 1
    snr: float = 0.16
    step: float | None = None

    def __post_init__(self) -> None:
        one_of("predictor", self.predictor, PREDICTORS)
        if not (self.corrections >= 0 and self.snr > 0 and (self.step is None or self.step > 0)):
            raise ValueError(
                "predictor-corrector needs corrections >= 0, snr > 0 and step > 0 or none, found "
                f"{self.corrections}, {self.snr} and {self.step}; correct these."
            )

    def calls(self, steps: int) -> int:
        """One call for each prediction and each correction."""
        return (1 + self.corrections) * steps

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Predict `x` at the next level, then correct it there."""
        for t, s in pairwise(path.grid.points):
            x = self.predict(path, x, t, s)
            for _ in range(self.corrections):
                x = self.correct(path, x, s, (t.alpha / s.alpha) ** 2)
            yield x

    def predict(self, path: Path, x: Tensor, start: Point, end: Point) -> Tensor:
        """Take one step of the reverse SDE."""
        a = start.alpha / end.alpha
        G2 = start.sigma**2 - (a * end.sigma) ** 2
        moved = G2 * score(path, x, start)
        if self.predictor == "reverse-diffusion":
            return (2 - a) * x + moved + G2**0.5 * path.noise(x)
        share = 1.0 if self.predictor == "ancestral-large" else end.sigma / start.sigma
        return (x + moved) / a + share * G2**0.5 * path.noise(x)

    def correct(self, path: Path, x: Tensor, at: Point, a2: float = 1.0) -> Tensor:
        """Take one Langevin step at a noise level; `a2` is the paper's alpha."""
        slope, z = score(path, x, at), path.noise(x)
        if self.step is not None:
            e = x.new_tensor(self.step * at.sigma**2)
        else:
            e = 2 * a2 * (self.snr * _norm(z) / _norm(slope)) ** 2
        return x + e * slope + (2 * e).sqrt() * z


def score(path: Path, x: Tensor, at: Point) -> Tensor:
    """Gradient of the log density of `x`; one call."""
    return -path.eps(x, at) / at.sigma


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
