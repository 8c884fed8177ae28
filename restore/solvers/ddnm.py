"""DDNM and DDNM+: denoising diffusion null-space models.

Wang, Yu, Zhang, *Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model*, ICLR
2023, arXiv:2212.00490, algorithms 1 and 2, appendix I for the singular-value form.

    symbol        name here     meaning
    x_0|t         D             the denoiser at x_t
    x_hat_0|t     x_0           D - Sigma_t A^+ (A D - y)
    Sigma_t       lam           min(1, s_next / noise): 1 without noise
    Phi_t         spare^2       variance left for the next level, s_next^2 - (lam noise)^2
    noise         noise         of A^+ y: sigma_y over the singular value
    l, r          travel_...    time travel: length and number of passes

The denoised image is made to fit the measurement in the range of `A^T` and kept in its null space;
then it is noised to the next level, a share `eta` of the noise fresh, the rest that of `x_t`.
The last estimate is `x_hat_0`: without noise it fits the measurement exactly.

With a singular value decomposition every coordinate has its own `lam`; without one, `A^+ y` is
taken to be as noisy as `y`, as the paper does. All in VE variables `x_t / alpha_t`.

For eta > 0 the hidden part is under-dispersed. Cost: one forward a step, no derivative.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.svd import Decomposed, has_svd
from priors.schedules import DDPM
from restore.problem import Problem
from restore.solver import Solver

# (D, the noise to add, s_next) -> the next state, and the estimate that fits
Advance = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class DDNM(Solver):
    """Denoising diffusion null-space model; see the module's docstring.

    Args:
        steps: levels visited of the DDPM schedule's 1000, evenly in time.
        eta: share of fresh noise.
        travel_length: l, steps that time travel goes back.
        travel_repeat: r, passes over every stretch of l steps; 1 is no travel.
    """

    name: ClassVar[str] = "ddnm"
    paper: ClassVar[str] = "Wang et al. 2023, denoising diffusion null-space model"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian")
    cost: ClassVar[str] = "100 forwards"
    posterior: ClassVar[str] = "heuristic: narrower than the posterior"

    steps: int = 100
    eta: float = 0.85
    travel_length: int = 1
    travel_repeat: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.steps <= 1000 and 0 <= self.eta <= 1):
            raise ValueError(
                f"ddnm needs 1 <= steps <= 1000 and eta in [0, 1], found {self.steps}, {self.eta}."
            )
        if self.travel_length < 1 or self.travel_repeat < 1:
            raise ValueError(
                "ddnm needs travel_length and travel_repeat of at least 1, found "
                f"{self.travel_length}, {self.travel_repeat}."
            )

    @property
    def length(self) -> int:
        """One estimate a network call."""
        path = self.path()
        return sum(b > a for a, b in zip(path, path[1:], strict=False))

    def path(self) -> list[int]:
        """Positions on the grid of levels visited: 0 is the noisiest, `steps` is no noise.

        Every stretch of `travel_length` steps is walked `travel_repeat` times (RePaint,
        arXiv:2201.09865, algorithm 1); the last steps, to no noise, once.
        """
        walk = [0]
        for end in range(1, self.steps + 1):
            walk.append(end)
            if end % self.travel_length == 0 and end < self.steps:
                back = range(end - self.travel_length, end + 1)
                walk += [*back] * (self.travel_repeat - 1)
        return walk

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Alternate denoising, fitting the range of the adjoint, and noising less."""
        schedule = DDPM()
        times = torch.linspace(schedule.steps - 1, 0, self.steps, dtype=torch.float64).round()
        levels = [problem.scale * s for s in schedule.level(times).tolist()] + [0.0]
        advance = self._by_coordinate(problem) if has_svd(problem.operator) else self._whole(problem)
        path = self.path()
        x_0 = problem.y.new_full(problem.shape, problem.middle)
        x = x_0 + levels[0] * problem.noise()
        for i, j in zip(path, path[1:], strict=False):
            if j < i:  # back in time: noise the last estimate anew
                x = x_0 + levels[j] * problem.noise()
                continue
            D = problem.denoise(x, levels[i])
            old = (x - D) / levels[i]
            mixed = self.eta * problem.noise() + (1 - self.eta**2) ** 0.5 * old
            x, x_0 = advance(D, mixed, levels[j])
            yield x_0

    def _by_coordinate(self, problem: Problem) -> Advance:
        """DDNM+ in singular values."""
        svd = problem.svd()
        ones = [1] * (svd.s.ndim - 1)
        seen = svd.s > Decomposed.cutoff * svd.s.flatten(1).amax(1).reshape(-1, *ones)
        a = torch.where(seen, svd.s, 1)
        y_bar, noise = svd.Ut(problem.y) / a, problem.sigma_y.reshape(-1, *ones) / a

        def advance(D: Tensor, mixed: Tensor, s: float) -> tuple[Tensor, Tensor]:
            lam, spare = split(noise, s)
            moved = svd.V(torch.where(seen, lam * (y_bar - svd.Vt(D)), 0))
            less = svd.V(torch.where(seen, (spare - s) * svd.Vt(mixed), 0))
            return D + moved + s * mixed + less, D + moved

        return advance

    def _whole(self, problem: Problem) -> Advance:
        """DDNM+ in its simplified form: every singular value counts as 1."""

        def advance(D: Tensor, mixed: Tensor, s: float) -> tuple[Tensor, Tensor]:
            lam, spare = split(problem.sigma_y, s)
            x_0 = D + lam * problem.A_dagger(problem.y - problem.A(D))
            return x_0 + spare * mixed, x_0

        return advance


def split(noise: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """Return `Sigma = min(1, s / noise)` and the std that it leaves free at level `s`."""
    lam = (s / noise.clamp_min(1e-12)).clamp(max=1)
    lam = torch.where(noise > 0, lam, 1)
    return lam, (s**2 - (lam * noise) ** 2).clamp_min(0).sqrt()
