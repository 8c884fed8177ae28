"""Measurement noise: `y = A(x) + n`, always from a generator of its own, never the global one."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from deepinv.physics import GaussianNoise as DeepinvGaussianNoise
from deepinv.physics import NoiseModel, Physics, ZeroNoise
from torch import Tensor

from .validate import number, whole


class GaussianNoise(DeepinvGaussianNoise):
    """`n ~ N(0, sigma^2 I)`, the same for every batch size, precision and device.

    Noise is drawn image by image in float64 on the processor, so that image `i` of a batch meets
    the noise it would meet in a longer batch.

    Args:
        sigma: standard deviation in the units of the measurement, one number or one per image
            `(B,)`.
        rng: the generator; a fresh one with seed 0 when None.
    """

    def __init__(self, sigma: float | Tensor = 0.1, rng: torch.Generator | None = None) -> None:
        super().__init__(sigma=sigma, rng=rng or torch.Generator().manual_seed(0))

    def forward(
        self, x: Tensor, sigma: float | Tensor | None = None, seed: int | None = None, **kwargs: Any
    ) -> Tensor:
        """Add noise.

        Args:
            x: clean measurements `(B, ...)`.
            sigma: a new standard deviation, kept for later calls as everywhere in deepinv.
            seed: restarts the generator when given.
            **kwargs: parameters of the operator, which deepinv passes along.

        Returns:
            `x + n`, shape and dtype of `x`.
        """
        self.update_parameters(sigma=sigma, **kwargs)
        if seed is not None:
            self.rng_manual_seed(seed)
        level = self.sigma.to(x).reshape(-1, *[1] * (x.ndim - 1))
        return x + level * self.randn_like(x)

    def randn_like(self, input: Tensor, seed: int | None = None) -> Tensor:
        """Standard normal numbers in the shape, dtype and device of `input`."""
        if seed is not None:
            self.rng_manual_seed(seed)
        rng, one = self.rng, input.shape[1:]
        draws = [
            torch.randn(one, generator=rng, device=rng.device, dtype=torch.float64) for _ in input
        ]
        return torch.stack(draws).to(input)


class _Private(NoiseModel):
    """Noise drawn image by image in float64 from a generator of its own."""

    rng: torch.Generator

    def __init__(self, rng: torch.Generator | None) -> None:
        super().__init__(rng=rng or torch.Generator().manual_seed(0))

    def draw(self, z: Tensor, rng: torch.Generator) -> Tensor:
        """Measure one clean measurement `z` `(...)` in float64 on the processor."""
        raise NotImplementedError

    def forward(self, x: Tensor, *_: Any, seed: int | None = None, **__: Any) -> Tensor:
        """Add noise to clean measurements `(B, ...)`; `seed` restarts the generator."""
        if seed is not None:
            self.rng_manual_seed(seed)
        return torch.stack([self.draw(z.double().cpu(), self.rng) for z in x]).to(x)


class PoissonNoise(_Private):
    """Counting: `y = N / counts` with `N ~ Poisson(counts z)`.

    Args:
        counts: expected number of counts where the clean measurement `z` is 1.
        rng: the generator; a fresh one with seed 0 when None.
    """

    def __init__(self, counts: float, rng: torch.Generator | None = None) -> None:
        super().__init__(rng)
        self.counts = number("counts", counts, above=0, do="give expected counts at value 1")

    def draw(self, z: Tensor, rng: torch.Generator) -> Tensor:
        """Count; a rate below zero, which only rounding produces, counts nothing."""
        return torch.poisson((self.counts * z).clamp(min=0), generator=rng) / self.counts


class TransmissionNoise(_Private):
    """Photons that came through: `y = log(photons / N) / depth`.

    `N ~ Poisson(photons exp(-depth z))` for a clean measurement `z`, such as a line integral.
    A ray through which no photon came is given half a photon, the usual continuity correction.

    Args:
        photons: photons that leave the source towards each detector bin.
        depth: optical depth of a clean measurement `z` of 1.
        rng: the generator; a fresh one with seed 0 when None.
    """

    def __init__(
        self, photons: float, depth: float = 1.0, rng: torch.Generator | None = None
    ) -> None:
        super().__init__(rng)
        self.photons = number("photons", photons, above=0, do="give photons in a detector bin")
        self.depth = number("depth", depth, above=0, do="give the optical depth of value 1")

    def draw(self, z: Tensor, rng: torch.Generator) -> Tensor:
        """Count and take the logarithm."""
        seen = torch.poisson(self.photons * torch.exp(-self.depth * z), generator=rng)
        return torch.log(self.photons / seen.clamp(min=0.5)) / self.depth


class RicianNoise(_Private):
    """Magnitude of a complex value with Gaussian noise: `y = |z + n_1 + i n_2|`.

    Args:
        sigma: standard deviation of each part, in the units of the measurement.
        rng: the generator; a fresh one with seed 0 when None.
    """

    def __init__(self, sigma: float, rng: torch.Generator | None = None) -> None:
        super().__init__(rng)
        self.sigma = number("sigma", sigma, low=0, do="give a standard deviation")

    def draw(self, z: Tensor, rng: torch.Generator) -> Tensor:
        """Take the magnitude."""
        n = torch.randn((2, *z.shape), generator=rng, dtype=z.dtype)
        return torch.hypot(z + self.sigma * n[0], self.sigma * n[1])


def noise_model(noise: float) -> NoiseModel:
    """The noise of a constructor: Gaussian of standard deviation `noise`, none for 0.

    Raises:
        ValueError: negative, infinite or not a number.
    """
    sigma = number("noise", noise, low=0, do="give a standard deviation in the units of the image")
    return GaussianNoise(sigma) if sigma > 0 else ZeroNoise()


def noise_sigma(physics: Physics) -> float | Tensor:
    """Standard deviation of an operator's Gaussian noise.

    Returns:
        0.0 without noise; a float for one level; a tensor `(B,)` for one level per image.

    Raises:
        ValueError: the noise is not Gaussian.
    """
    model = physics.noise_model
    if isinstance(model, ZeroNoise):
        return 0.0
    if not isinstance(model, DeepinvGaussianNoise):
        raise ValueError(
            f"the operator's noise is {type(model).__name__}, expected Gaussian noise or none; "
            "set physics.noise_model = operators.GaussianNoise(sigma)."
        )
    return model.sigma.item() if model.sigma.numel() == 1 else model.sigma


def measure(physics: Physics, x: Tensor, *, seed: int) -> Tensor:
    """Measure images: `y = A(x) + n` with the operator's own noise from a private stream.

    Leaves the operator's generator and the global one as they were. Noise models of deepinv that
    only know the global generator are run with a fork of it.

    Args:
        physics: the operator and its noise.
        x: clean images `(B, C, H, W)`.
        seed: of the noise; 0 is a seed like any other.

    Returns:
        Measurements `(B, ...)`.
    """
    model = physics.noise_model
    if isinstance(model, ZeroNoise) or not isinstance(model, NoiseModel):
        with _forked(seed):
            return physics(x)
    ours = isinstance(model, GaussianNoise | _Private)
    kept, device = model.rng, "cpu" if ours else x.device
    model.rng = torch.Generator(device).manual_seed(whole("seed", seed, low=0, do="choose another"))
    try:
        with _forked(seed):
            return physics(x)
    finally:
        model.rng = kept


@contextmanager
def _forked(seed: int) -> Iterator[None]:
    """The global generators restarted at `seed`, and put back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
