"""STSL: second-order Tweedie sampler from a surrogate loss.

Rout, Chen, Kumar, Caramanis, Shakkottai, Chu, *Beyond First-Order Tweedie: Solving Inverse Problems
using Latent Diffusion*, CVPR 2024, arXiv:2312.00852, algorithm 1.

    symbol       name here     meaning
    z_t          z             latents, z_t = alpha z_0 + sigma eps
    E[z_0|z_t]   D             the denoiser at z_t
    s(z, t)      score         (alpha D - z_t) / sigma^2
    L            -             lam |y - A decode(D)|^2 + (eta / d) eps^T (s(z + eps) - s(z))
    K            inner         gradient steps on L a level, each with its own eps

The start is the measurement's image, brought to the highest noise by deterministic DDIM; then at
every level `inner` steps `z <- z - grad L(z)`, and one DDIM step down. The second term of L stands
for the trace of the Hessian of log p_t, at the cost of one more network call.

What it is worth is known. The expectation over eps is the trace of the Hessian *smoothed* by a
Gaussian as wide as eps, not the trace (Stein); with the paper's width of one they may differ in
sign, except near pure noise. `delta` sets the width. And for a Gaussian prior the score is affine,
so that the term has no gradient at all: there STSL is exactly its first-order self, DPS with
several steps a level, and shares its bias: the mean is drawn to y and the spread too small.

The paper's lam is not public. As a constant it is hard to choose: a step multiplies the residual
by `1 - 2 lam A J J^T A^T`, J the Jacobian of D (and decoder), whose norm reaches half the standard
deviation of the images' first principal component at mid noise and is 1 at low noise: on
photographs of 48x48 a lam of 0.03 diverges, where later 0.5 would be right. `step="norm"` therefore
divides by the residual's length, as DPS does. The gluing term of PSLD (`gamma`) is off, as in
the paper.

With a prior on pixels encoder and decoder are the identity. Constants are those of images in
[-1, 1]. Cost: `steps` (2 inner + 1) + `steps` - 1 forwards, 2 `steps` `inner` of them also
differentiated; papers count `steps` `inner`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from restore.gain import squared_norm
from restore.problem import Problem
from restore.solver import Solver
from restore.solvers.psld import gluing
from restore.space import Space


@dataclass(frozen=True, kw_only=True)
class STSL(Solver):
    """Second-order Tweedie sampler from a surrogate loss; see the module's docstring.

    Args:
        steps: DDIM levels, spread evenly over the network's own discrete times.
        inner: K, gradient steps a level.
        lam: lambda, weight of the squared residual of images in [-1, 1].
        step: "norm" divides lam by `|A| |r|`, r the residual; "constant" by `|A|^2`.
        eta: weight of the second-order term; 0 is the first-order method, at half the cost.
        delta: width of the perturbation eps; the paper's is 1.
        delta_unit: "one" as the paper, or "sigma": delta is then in units of sigma_t.
        gamma: weight of the squared gluing term.
        start: "inversion" as the paper, or "noise" from N(0, I).
    """

    name: ClassVar[str] = "stsl"
    paper: ClassVar[str] = "Rout et al. 2024, beyond first-order Tweedie (STSL)"
    requires: ClassVar[tuple[str, ...]] = ("gaussian",)
    cost: ClassVar[str] = "599 forwards + 500 VJPs"
    posterior: ClassVar[str] = "none: a point estimate; seeds differ by the probes of the trace"
    remedy: ClassVar[str] = "lower lam or eta"
    latent: ClassVar[bool] = True

    steps: int = 50
    inner: int = 5
    lam: float = 0.1
    step: Literal["norm", "constant"] = "norm"
    eta: float = 0.02
    delta: float = 1.0
    delta_unit: Literal["one", "sigma"] = "one"
    gamma: float = 0.0
    start: Literal["inversion", "noise"] = "inversion"

    def __post_init__(self) -> None:
        if not 2 <= self.steps <= 1000 or self.inner < 0 or min(self.lam, self.gamma) < 0:
            raise ValueError(
                "stsl needs 2 <= steps <= 1000, inner >= 0, lam >= 0 and gamma >= 0, found "
                f"{self.steps}, {self.inner}, {self.lam}, {self.gamma}."
            )
        if not self.delta > 0:
            raise ValueError(f"stsl needs delta > 0, found {self.delta}; the paper takes 1.")

    @property
    def length(self) -> int:
        """One estimate a level."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Descend on the surrogate loss at every level of a DDIM chain."""
        if self.gamma and not isinstance(problem.operator, LinearPhysics):
            raise ValueError("stsl's gluing term needs a linear operator; set gamma=0.")
        space = Space(problem)
        gain = squared_norm(problem)
        times = space.times(self.steps)
        alphas, sigmas = space.table.alpha(times).tolist(), space.table.sigma(times).tolist()
        levels = list(zip(alphas, sigmas, strict=True))
        z = space.noise() if self.start == "noise" else self._inverted(problem, space, levels)
        for i, (alpha, sigma) in enumerate(levels):
            # stochastic averaging: several steps on the surrogate loss
            for _ in range(self.inner):
                z = z - self.gradient(problem, space, z, alpha, sigma, gain)
            # unconditional DDIM step
            D = space.denoise(z, alpha, sigma)
            alpha_s, sigma_s = levels[i + 1] if i + 1 < self.steps else (1.0, 0.0)
            z = alpha_s * D + sigma_s * (z - alpha * D) / sigma
            yield space.decode(D)

    def gradient(
        self,
        problem: Problem,
        space: Space,
        z: Tensor,
        alpha: float,
        sigma: float,
        gain: Tensor,
    ) -> Tensor:
        """Gradient of the surrogate loss at `z_t`, one draw of eps.

        Args:
            problem: the measurement.
            space: where `z` lives.
            z: `(N, c, *)`.
            alpha: factor on the clean image.
            sigma: noise.
            gain: `|A|^2`, `(N, 1, ..., 1)`.
        """
        D, vjp = space.linearise(z, alpha, sigma)
        size = gain
        if self.step == "norm":
            size = gain.sqrt() * space.residual(space.decode(D)).clamp_min(1e-12)
        pull = space.data_gradient(D, 2 * self.lam / size)
        if self.gamma:
            pull = pull + self.gamma * _glue_gradient(problem, space, D, gain)
        eps = space.noise()  # drawn at eta = 0 too: both orders then see the same chance
        if not self.eta:
            return vjp(pull)
        delta = self.delta * (sigma if self.delta_unit == "sigma" else 1)
        _, vjp_near = space.linearise(z + delta * eps, alpha, sigma)
        # of s only alpha D / sigma^2 depends on z in a way that does not cancel
        probe = self.eta / space.entries * alpha / sigma**2 / delta * eps
        return vjp(pull - probe) + vjp_near(probe)

    def _inverted(
        self, problem: Problem, space: Space, levels: list[tuple[float, float]]
    ) -> Tensor:
        """Bring the first guess to the highest noise by DDIM, from low levels to high."""
        upwards = levels[::-1]
        z = upwards[0][0] * space.encode(problem.first_guess())
        for (alpha, sigma), (alpha_s, sigma_s) in pairwise(upwards):
            D = space.denoise(z, alpha, sigma)
            z = alpha_s * D + sigma_s * (z - alpha * D) / sigma
        return z


def _glue_gradient(problem: Problem, space: Space, D: Tensor, gain: Tensor) -> Tensor:
    with torch.enable_grad():
        z = D.detach().requires_grad_()
        glue = gluing(problem, space, z, space.decode(z), gain)
        return torch.autograd.grad(glue.square().sum(), z)[0]
