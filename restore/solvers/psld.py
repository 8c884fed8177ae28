"""PSLD: posterior sampling with a latent diffusion.

Rout, Raoof, Daras, Caramanis, Dimakis, Shakkottai, *Solving Linear Inverse Problems Provably via
Posterior Sampling with Latent Diffusion Models*, NeurIPS 2023, arXiv:2307.00619, algorithm 2.

    symbol     name here     meaning
    z_t        z             latents, z_t = alpha z_0 + sigma eps
    z_hat_0    D             the denoiser at z_t
    D, E       decode,       the autoencoder
               encode
    eta        omega         weight of |y - A decode(D)|
    gamma      gamma         weight of the gluing term |encode(glued) - D|,
                             glued = x + A^T (y - A x) / |A|^2, x = decode(D)

Each step is a DDIM step from `z_t`, followed by the gradient of both norms *at* `z_t`, through
decoder, encoder and network. The norms are not squared: steps do not shrink as the data are met.

Against the released code: norms are per image, not over the batch; the predicted measurement gets
no fresh noise; the encoder gives its mean; the true adjoint over `|A|^2` (the pseudo-inverse where
`A A^T` is a multiple of one) stands where the code has the identity for masks and blurs and
nearest-neighbour enlargement for downsampling; and the whole image is the model's, where the code
pastes the clean pixels back before it measures its error.

With a prior on pixels encoder and decoder are the identity, and this is DPS on a DDIM chain with
the gluing term beside it (for a mask the two norms are one). A heuristic, as DPS is: its spread is
not an uncertainty. Constants are those of images in [-1, 1].

Cost: one forward and one VJP a step, and as much of decoder and encoder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.gain import squared_norm
from restore.problem import Problem
from restore.solver import Solver
from restore.space import Space


@dataclass(frozen=True, kw_only=True)
class PSLD(Solver):
    """Posterior sampling with latent diffusion; see the module's docstring.

    Args:
        steps: DDIM steps, spread evenly over the network's own discrete times.
        omega: weight of the measurement; the code has 1, and 0.1 for a box.
        gamma: weight of the gluing term; the code has 0.1, and 0.01 for a box.
    """

    name: ClassVar[str] = "psld"
    paper: ClassVar[str] = "Rout et al. 2023, posterior sampling with latent diffusion"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian")
    cost: ClassVar[str] = "1000 forwards + 1000 VJPs"
    posterior: ClassVar[str] = "heuristic: fits the noise, spread is not an uncertainty"
    remedy: ClassVar[str] = "lower omega and gamma"
    latent: ClassVar[bool] = True

    steps: int = 1000
    omega: float = 1.0
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000 or self.omega < 0 or self.gamma < 0:
            raise ValueError(
                "psld needs 1 <= steps <= 1000, omega >= 0 and gamma >= 0, found "
                f"{self.steps}, {self.omega}, {self.gamma}."
            )

    @property
    def length(self) -> int:
        """One estimate a step."""
        return self.steps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Walk down a DDIM chain, pulled towards the measurement and the autoencoder's images."""
        space = Space(problem)
        gain = squared_norm(problem)
        times = space.times(self.steps)
        alphas, sigmas = space.table.alpha(times).tolist(), space.table.sigma(times).tolist()
        z = space.noise()
        for i, (alpha, sigma) in enumerate(zip(alphas, sigmas, strict=True)):
            last = i + 1 == self.steps
            alpha_s, sigma_s = (1.0, 0.0) if last else (alphas[i + 1], sigmas[i + 1])
            # denoise, and DDIM step
            D, vjp = space.linearise(z, alpha, sigma)
            z_s = alpha_s * D + sigma_s * (z - alpha * D) / sigma
            # pull: gradient of both norms at z_t
            x, pull = self.pull(problem, space, D, gain)
            z = z_s - vjp(pull)
            yield space.decode(z) if last else x

    def pull(
        self, problem: Problem, space: Space, D: Tensor, gain: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return `decode(D)` and the gradient in `D` of `omega |A x - y| + gamma |glue|`."""
        with torch.enable_grad():
            z = D.detach().requires_grad_()
            x = space.decode(z)
            r = (problem.A(x) - problem.y) / problem.scale
            loss = self.omega * _norm(r)
            if self.gamma:
                loss = loss + self.gamma * _norm(gluing(problem, space, z, x, gain))
            return x.detach(), torch.autograd.grad(loss.sum(), z)[0]


def gluing(problem: Problem, space: Space, z: Tensor, x: Tensor, gain: Tensor) -> Tensor:
    """Return `encode(x + A^T (y - A x) / |A|^2) - z`: zero for latents of an image that fits `y`.

    Args:
        problem: a linear problem.
        space: its latents.
        z: latents `(N, c, *)`.
        x: `decode(z)`.
        gain: `|A|^2`, `(N, 1, ..., 1)`.
    """
    return space.encode(x + problem.A_adjoint(problem.y - problem.A(x)) / gain) - z


def _norm(x: Tensor) -> Tensor:
    """Length `(N,)` of every image; its gradient at zero is zero."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)
