"""What a solver sees: one chunk of samples of one measurement, and nothing shared between them.

A chunk holds `N = S * B` images, sample-major: S samples of each of B measurements. `Problem`
expands the measurement, calls the operator so that its batch-shaped parameters still fit, counts
network calls, and draws noise from one stream a sample. Solvers work on it in the prior's units.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from operators import noise_sigma
from operators.linalg import proximal
from operators.svd import SVD, Decomposed, svd
from priors import Denoiser
from priors.jacobian import linearise
from priors.schedules import DDPM
from restore.likelihood import Likelihood

# odd and irregular numbers: neighbouring seeds give unrelated streams, and none is a small integer
# with which somebody else may have drawn the truth or the measurement's noise
_SEED, _SAMPLE, _SALT = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x2545F4914F6CDD1D

_PIECE = 2**20  # numbers drawn at a time

_WEAK = 1e-3  # singular values below its root are not trusted for a start


@dataclass
class Count:
    """Network calls for every sample of the result: a call on as many images as it has counts once.

    A method that moves more particles than it returns pays for all of them.
    """

    forwards: float = 0
    vjps: float = 0


def stream(seed: int, sample: int) -> torch.Generator:
    """Return the random stream of sample `sample` of seed `seed`, whatever the batch around it.

    The images of one batch share it (common random numbers), so that an image restored alone
    equals the same image restored in a batch.
    """
    return torch.Generator().manual_seed((seed * _SEED + sample * _SAMPLE + _SALT) % 2**63)


@dataclass
class Problem:
    """One chunk of samples.

    Attributes:
        y: measurements `(N, ...)`, repeated for every sample, zero where nothing is observed.
        operator: the physics.
        prior: the denoiser.
        shape: `(N, C, *spatial)` of the images sought.
        sigma_y: noise std, `(N, 1, ..., 1)` against images.
        streams: one generator a sample.
        observed: 1 where `A` has a row that is not zero, else 0; broadcasts against `y`.
        init: start image `(N, C, *spatial)` when the user gave one.
        count: network calls so far.
        per_call: most images in one network call, for methods that move a population.
        notes: what the solver reports of its run, see `Result.notes`.
        likelihood: of other noise than Gaussian; None is least squares.
        state: a solver that keeps here all that it needs to go on after the estimate it yields
            goes on after a kill; empty at the start of a chunk, see `restore.checkpoint`.
        done: estimates that were yielded before; 0 unless `state` says how to go on.
    """

    y: Tensor
    operator: Physics
    prior: Denoiser
    shape: tuple[int, ...]
    sigma_y: Tensor
    streams: list[torch.Generator]
    observed: Tensor
    init: Tensor | None = None
    count: Count = field(default_factory=Count)
    per_call: int | None = None
    notes: dict[str, object] = field(default_factory=dict)
    likelihood: Likelihood | None = None
    state: dict[str, list[Tensor]] = field(default_factory=dict)
    done: int = 0

    @property
    def images(self) -> int:
        """Number B of measurements; the first B entries of `y` are all there are."""
        return self.shape[0] // len(self.streams)

    @property
    def scale(self) -> float:
        """Half the width of the prior's range: papers state their constants for [-1, 1]."""
        low, high = self.prior.card.value_range
        return (high - low) / 2

    @property
    def middle(self) -> float:
        """Middle of the prior's range."""
        low, high = self.prior.card.value_range
        return (high + low) / 2

    @property
    def pixels(self) -> int:
        """Entries of one image."""
        return self.y.new_empty(self.shape[1:], device="meta").numel()

    @property
    def noise_y(self) -> Tensor:
        """`sigma_y` shaped `(N, 1, ..., 1)` against measurements."""
        return self.sigma_y.reshape(-1, *[1] * (self.y.ndim - 1))

    # -- the operator ------------------------------------------------------------------------

    def A(self, x: Tensor) -> Tensor:
        """Measure images without noise."""
        return self._by_sample(self.operator.A, x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoint of a linear operator."""
        assert isinstance(self.operator, LinearPhysics)
        return self._by_sample(self.operator.A_adjoint, y)

    def A_dagger(self, y: Tensor) -> Tensor:
        """Apply the pseudo-inverse."""
        return self._by_sample(self.operator.A_dagger, y)

    def svd(self) -> SVD:
        """Singular value decomposition of the operator, `s` one for each coordinate `(N, ...)`.

        Singular values that are no more than rounding are set to zero.
        """
        one = svd(self.operator)
        like = one.Vt(torch.zeros((self.images, *self.shape[1:])).to(self.y))
        ones = [1] * (like.ndim - 1)
        s = one.s.to(self.y).expand(like.shape).repeat(len(self.streams), *ones)
        s = torch.where(s > Decomposed.cutoff * s.flatten(1).amax(1).reshape(-1, *ones), s, 0)
        Vt, V, U, Ut = (partial(self._by_sample, m) for m in (one.Vt, one.V, one.U, one.Ut))
        return SVD(s=s, Vt=Vt, V=V, U=U, Ut=Ut)

    def gram_spectrum(self, power: Tensor) -> Tensor | None:
        """Spectrum of `A C A^T` for stationary `C`, or None where `A` does not keep it so."""
        known = getattr(self.operator, "gram_spectrum", None)
        return None if known is None else self._by_sample(known, power)

    def data_gradient(self, x: Tensor) -> Tensor:
        """Gradient of `|y - A(x)|^2 / 2`, by autograd when `A` is not linear.

        For other noise than Gaussian that of `noise_power` times its negative log-likelihood.
        """
        if self.likelihood is not None:
            return self._likelihood_gradient(self.likelihood, x)
        if isinstance(self.operator, LinearPhysics):
            return self.A_adjoint(self.A(x) - self.y)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            loss = (self.A(x) - self.y).square().sum() / 2
            return torch.autograd.grad(loss, x)[0]

    def _likelihood_gradient(self, likelihood: Likelihood, x: Tensor) -> Tensor:
        linear = isinstance(self.operator, LinearPhysics)
        with torch.set_grad_enabled(not linear):
            x = x.detach().requires_grad_(not linear)
            z = self.A(x)
        slope = likelihood.gradient(z.detach(), self.y) * self.observed
        pulled = self.A_adjoint(slope) if linear else torch.autograd.grad(z, x, slope)[0]
        return self.noise_power * pulled

    def data_curvature(self, x: Tensor) -> Tensor | float:
        """Bound `(N, 1, ..., 1)` on the curvature of what `data_gradient` descends, in `A(x)`."""
        if self.likelihood is None:
            return 1.0
        bends = self.likelihood.curvature(self.A(x.detach()), self.y) * self.observed
        return self.noise_power * bends.flatten(1).amax(1).reshape(self.noise_power.shape)

    def gram(self, v: Tensor, x: Tensor | None = None) -> Tensor:
        """`J^T J v`, J the operator or, where it is not linear, its derivative at `x`."""
        if isinstance(self.operator, LinearPhysics):
            return self._by_sample(self.operator.A_adjoint_A, v)
        assert x is not None
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            z = self.A(x)
            u = torch.zeros_like(z, requires_grad=True)
            (pulled,) = torch.autograd.grad(z, x, u, create_graph=True)  # J^T u, linear in u
            (Jv,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
            return torch.autograd.grad(z, x, Jv)[0]

    @property
    def noise_power(self) -> Tensor:
        """Variance of the noise `(N, 1, ..., 1)` against images; harmonic mean where it varies."""
        if self.likelihood is None:
            return self.sigma_y.square()
        seen = self.observed.expand_as(self.y)
        precision = (self.likelihood.precision(self.y) * seen).flatten(1).sum(1)
        mean = precision / seen.flatten(1).sum(1).clamp_min(1)
        return 1 / mean.reshape(-1, *[1] * (len(self.shape) - 1))

    def residual(self, z: Tensor) -> Tensor:
        """`y - z` for a clean measurement `z`, entries of other noise brought to `noise_power`."""
        if self.likelihood is None:
            return self.y - z
        power = self.noise_power.reshape(-1, *[1] * (z.ndim - 1))
        return power.sqrt() * self.likelihood.residual(z, self.y) * self.observed

    def _by_sample(self, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Call the operator on B images at a time: its masks or maps may have batch size B."""
        if self.images == 1 or len(self.streams) == 1:
            return call(x)
        return torch.cat([call(part) for part in x.split(self.images)])

    # -- the prior ---------------------------------------------------------------------------

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return `D(x, sigma)`; one forward."""
        self.count.forwards += len(x) / self.shape[0]
        with torch.no_grad():
            return self.prior(x, sigma)

    def linearise(
        self, x: Tensor, sigma: float | Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return `D(x, sigma)` and the product `v -> J^T v` with its Jacobian; one forward now.

        Every product costs one vector-Jacobian product.
        """
        self.count.forwards += len(x) / self.shape[0]
        denoised, pull_back = linearise(lambda z: self.prior(z, sigma), x)

        def vjp(v: Tensor) -> Tensor:
            self.count.vjps += len(x) / self.shape[0]
            return pull_back(v)

        return denoised, vjp

    def ddpm_levels(self, steps: int) -> list[float]:
        """Levels of DDPM's schedule at `steps` times spread evenly, falling, for these images."""
        schedule = DDPM()
        times = torch.linspace(schedule.steps - 1, 0, steps, dtype=torch.float64).round()
        return [self.scale * s for s in schedule.level(times).tolist()]

    # -- chance ------------------------------------------------------------------------------

    def noise(self, like: Tensor | None = None) -> Tensor:
        """Standard normal noise of the shape of the images, or of `like` `(N, ...)`; a fresh one.

        Drawn in float64 for all precisions, and piece by piece, in the memory of the result.
        """
        shape = self.shape if like is None else tuple(like.shape)
        noise = self.y.new_empty(shape)
        parts = noise.split(shape[0] // len(self.streams))
        for generator, part in zip(self.streams, parts, strict=True):
            fill(part[0], partial(torch.randn, generator=generator))
            part[1:] = part[:1]
        return noise

    # -- the start ---------------------------------------------------------------------------

    def first_guess(self) -> Tensor:
        """Return the start: the user's, or a linear fit held to mid-range where data are weak.

        The papers start from `A^+ y` of images in [-1, 1], which is mid-range where nothing is
        seen. An exact pseudo-inverse of a blur is all noise, and sensitive to rounding.
        """
        if self.init is not None:
            return self.init
        if isinstance(self.operator, LinearPhysics):
            middle = torch.full(self.shape, self.middle, dtype=self.y.dtype, device=self.y.device)
            return proximal(self, middle, self.y, _WEAK)
        return self.operator.A_dagger(self.y)


def fill(out: Tensor, draw: Callable[..., Tensor]) -> None:
    """Draw the numbers of a contiguous tensor in float64, piece by piece, in its own memory."""
    for piece in out.view(-1).split(_PIECE):
        piece.copy_(draw(len(piece), dtype=torch.float64))


def observed_rows(operator: Physics, x: Tensor, y: Tensor) -> Tensor:
    """Find the measurements that see the image at all, as ones and zeros shaped like `y`.

    A row of `A` that is zero (an unsampled pixel stored in a full-size measurement) gives zero for
    a random image; any other row does so with probability zero. Where every one sees it, the ones
    take no memory.
    """
    all_seen = y.new_ones(()).expand(y.shape)
    if not isinstance(operator, LinearPhysics):
        return all_seen
    draw = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draw = draw.to(x).add_(0.5)
    with torch.no_grad():
        seen = operator.A(draw) != 0
    return all_seen if bool(seen.all()) else seen.to(y.dtype)


def gaussian_sigma(operator: Physics, batch: int, like: Tensor) -> Tensor:
    """Noise std of every measurement `(batch,)`.

    Raises:
        ValueError: when the noise is not Gaussian, or its std has another length.
    """
    sigma = torch.as_tensor(noise_sigma(operator), dtype=like.dtype, device=like.device).flatten()
    if sigma.numel() not in (1, batch):
        raise ValueError(
            f"the operator's noise has {sigma.numel()} levels for {batch} measurements; give one "
            "level, or one per measurement."
        )
    return sigma.expand(batch)
