"""DDNM and DDNM+: denoising diffusion null-space models.

Wang, Yu, Zhang, *Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model*, ICLR
2023, arXiv:2212.00490, algorithms 1 and 2, equations 17 and 51.

    symbol        name here     meaning
    x_0|t         D             the denoiser at x_t
    x_hat_0|t     x_0           D - Sigma_t A^+ (A D - y)
    Sigma_t       lam           how far the data are fitted: 1 without noise
    Phi_t         fresh^2       variance of the fresh noise
    eps_hat       old           noise of x_t, (x_t - D) / s
    sigma_y/s_i   noise         noise of A^+ y
    l, r          travel_...    time travel: length and number of passes

The denoised image is made to fit the measurement in the range of `A^T` and kept in its null space;
then it is noised to the next level by DDIM, a share `eta` of the noise fresh, the rest that of
`x_t`. The last estimate is `x_hat_0`: without noise it fits the measurement exactly.

With noise (DDNM+), what the fit brings in is part of the level's noise: where it is less than the
level, only the rest is added, fresh; where it is more, the fit is damped. With a singular value
decomposition this is decided coordinate by coordinate, and coordinates go as in DDRM with
`eta_b = 1`. Without one `A^+ y` is taken to be as noisy as `y`, the paper's simplified form.

Any other sampler without memory may take DDIM's place: what its step from `x_t` has for noise about
`D` then is `eps_hat`, kept whole.

Everything is in VE variables `x_t / alpha_t`. For eta > 0 the hidden part is under-dispersed. Cost:
one forward a step, no derivative of the network.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operators.svd import has_svd
from restore.guided import step, suited
from restore.problem import Problem
from restore.solver import Solver

# (D, old noise, new noise, next level) -> the next state, and the estimate that fits
Advance = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class DDNM(Solver):
    """Denoising diffusion null-space model; see the module's docstring.

    Args:
        steps: levels visited of the DDPM schedule's 1000, evenly in time.
        eta: share of fresh noise; of DDIM.
        travel_length: l, steps that time travel goes back.
        travel_repeat: r, passes over every stretch of l steps; 1 is no travel.
        travel: "paper" goes back by noising the state, "code" by noising the denoised image.
        sampler: a word of `restore samplers`; "ddim" is the paper's, with `eta`.
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
    travel: Literal["paper", "code"] = "paper"
    sampler: str = "ddim"

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
        if self.travel not in ("paper", "code"):
            raise ValueError(f"unknown travel '{self.travel}' of ddnm; choose paper or code.")
        suited(self.sampler, self.name, moves=True)

    @property
    def length(self) -> int:
        """One estimate a network call."""
        return sum(j > i for i, j in pairwise(self.path()))

    def path(self) -> list[int]:
        """Positions on the grid of levels visited: 0 is the noisiest, `steps` is no noise.

        Stretches of `travel_length` steps, counted from the last level, are walked `travel_repeat`
        times (RePaint, Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1).
        """
        walk = [0]
        for here in range(1, self.steps + 1):
            walk.append(here)
            there, left = here - self.travel_length, self.steps - 1 - here
            if there >= 0 and left >= 0 and left % self.travel_length == 0:
                walk += [*range(there, here + 1)] * (self.travel_repeat - 1)
        return walk

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Alternate denoising, fitting the range of the adjoint, and noising less."""
        levels = [*problem.ddpm_levels(self.steps), 0.0]
        by_coordinate = has_svd(problem.operator)
        advance = self._by_coordinate(problem) if by_coordinate else self._whole(problem)
        D = problem.y.new_full(problem.shape, problem.middle)
        x = D + levels[0] * problem.noise()
        for i, j in pairwise(self.path()):
            if j < i:  # back in time
                added = (levels[j] ** 2 - levels[i] ** 2) ** 0.5
                start, std = (x, added) if self.travel == "paper" else (D, levels[j])
                x = start + std * problem.noise()
                continue
            D, old = self._denoised(problem, x, levels[i], levels[j])
            x, x_0 = advance(D, old, problem.noise(), levels[j])
            yield x_0

    def _denoised(self, problem: Problem, x: Tensor, s: float, t: float) -> tuple[Tensor, Tensor]:
        """Return `D` at level `s`, and the noise of std 1 that remains of `x` at level `t`."""
        if self.sampler == "ddim" or t == 0:
            D = problem.denoise(x, s)
            return D, (x - D) / s
        run = suited(self.sampler, self.name, moves=True)
        x_t, D = step(run, problem.denoise, x, s, t, problem.noise)
        return D, (x_t - D) / t

    def _shares(self) -> tuple[float, float]:
        """Shares of fresh and of old noise."""
        eta = self.eta if self.sampler == "ddim" else 0.0
        return eta, (1 - eta**2) ** 0.5

    def _by_coordinate(self, problem: Problem) -> Advance:
        """DDNM+ in singular values, equations 17 and 51."""
        svd, (eta, rest) = problem.svd(), self._shares()
        seen = svd.s > 0
        a = torch.where(seen, svd.s, 1)
        y_bar, noise = svd.Ut(problem.y) / a, problem.sigma_y.reshape(-1, *[1] * (a.ndim - 1)) / a

        def advance(D: Tensor, old: Tensor, new: Tensor, s: float) -> tuple[Tensor, Tensor]:
            lam = torch.where(noise <= s, 1, rest * s / noise.clamp_min(1e-12))
            fresh = torch.where(noise <= s, (s**2 - noise**2).clamp_min(0).sqrt(), eta * s)
            fresh = torch.where(noise == 0, eta * s, fresh)
            kept = torch.where(noise == 0, rest * s, 0)
            free = s * (eta * new + rest * old)
            x_0 = D + svd.V(torch.where(seen, lam * (y_bar - svd.Vt(D)), 0))
            noised = kept * svd.Vt(old) + fresh * svd.Vt(new)
            return x_0 + free + svd.V(torch.where(seen, noised - svd.Vt(free), 0)), x_0

        return advance

    def _whole(self, problem: Problem) -> Advance:
        """DDNM+ in its simplified form: every singular value counts as 1."""
        noise, (eta, rest) = problem.sigma_y, self._shares()

        def advance(D: Tensor, old: Tensor, new: Tensor, s: float) -> tuple[Tensor, Tensor]:
            lam = torch.where(noise <= s, 1, s / noise.clamp_min(1e-12))
            spare = (s**2 - (lam * noise) ** 2).clamp_min(0).sqrt()
            x_0 = D + lam * problem.A_dagger(problem.y - problem.A(D))
            return x_0 + spare * (eta * new + rest * old), x_0

        return advance
