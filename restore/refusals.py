"""What no solver can work with, refused in one sentence before the first network call."""

import math
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from operators import noise_sigma
from priors import Denoiser, Latent
from restore.trained.pair_prior import PairPrior, mismatch

if TYPE_CHECKING:
    from restore.solver import Solver


def refuse_prior(prior: Denoiser, x: Tensor, solver: "Solver", operator: Physics) -> None:
    """Refuse a prior that is not for this solver, operator or image.

    Raises:
        ValueError: what does not go together.
    """
    if isinstance(prior, Latent) and not solver.latent:
        raise ValueError(
            f"prior '{prior.card.name}' lives on the latents of an autoencoder and solver "
            f"'{solver.name}' on pixels; use solver {_for_latents()}."
        )
    if isinstance(prior, PairPrior) != solver.paired:
        raise ValueError(
            f"prior '{prior.card.name}' is {_kind(prior)} and solver '{solver.name}' needs "
            f"{'a network trained on pairs' if solver.paired else 'a prior of images'}; "
            "`restore solvers` lists what goes together."
        )
    if isinstance(prior, PairPrior):
        if (reason := mismatch(operator, prior, x)) is not None:
            raise ValueError(reason)
    if max(x.shape[2:]) < 2:
        raise ValueError(
            f"an image of {'x'.join(map(str, x.shape[2:]))} pixels holds nothing to restore; "
            "expected at least 2 pixels along some side."
        )
    if (reason := prior.refuse(tuple(x.shape))) is not None:
        raise ValueError(reason)


def _kind(prior: Denoiser) -> str:
    return "a network trained on pairs" if isinstance(prior, PairPrior) else "a prior of images"


def refuse_numbers(samples: int, seed: int, batch_size: int | None) -> None:
    """Refuse numbers that are not whole, or too small.

    Raises:
        ValueError: the number.
    """
    for name, count in (("samples", samples), ("batch_size", batch_size)):
        if count is not None and (not isinstance(count, Integral) or count < 1):
            raise ValueError(f"{name} is {count}, expected a whole number of at least 1.")
    if not isinstance(seed, Integral):
        raise ValueError(f"seed is {seed}, expected a whole number; choose another.")


def refuse_values(name: str, y: Tensor) -> None:
    """Refuse a tensor without batch dimension, of another type, or with values that are not finite.

    Raises:
        ValueError: what it is, called by its name.
    """
    if y.ndim < 2 or len(y) == 0:
        raise ValueError(
            f"the {name} has shape {tuple(y.shape)}, expected (B, ...) with B of at least 1; "
            "y[None] adds a batch dimension."
        )
    if y.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the {name} must be float32 or float64, found {y.dtype}; convert it to [0, 1]."
        )
    if not bool(torch.isfinite(y).all()):
        bad = int((~torch.isfinite(y)).sum())
        raise ValueError(
            f"the {name} has {bad} of {y.numel()} values that are NaN or infinite; "
            "mask them out first."
        )


def refuse_noise(operator: Physics) -> None:
    """Refuse a noise level that is negative or not finite.

    Raises:
        ValueError: the level.
    """
    try:
        sigma = torch.as_tensor(noise_sigma(operator))
    except ValueError:  # not Gaussian, which `lacks` tells
        return
    if not bool(((sigma >= 0) & sigma.isfinite()).all()):
        raise ValueError(
            f"the operator's noise level is {sigma.tolist()}, expected a finite std of at least 0; "
            "set physics.noise_model = operators.GaussianNoise(sigma)."
        )


def who_can(operator: Physics) -> str:
    """Name a solver that can use an operator."""
    from restore.solvers import available

    able = [name for name, solver in available().items() if solver.lacks(operator) is None]
    return f"solver '{able[0]}' can use it" if able else "no solver here can use it as it is"


def _for_latents() -> str:
    from restore.solvers import available

    return " or ".join(f"'{name}'" for name, solver in available().items() if solver.latent)


def clean_like(y: Tensor, operator: Physics, init: Tensor | None) -> Tensor:
    """Return zeros of the clean images' shape, that of `init` or the operator's, in no memory.

    Raises:
        ValueError: measurement, operator and images do not fit each other.
    """
    if init is not None:
        refuse_values("init", init)
    backward = operator.A_adjoint if isinstance(operator, LinearPhysics) else operator.A_dagger
    try:
        with torch.no_grad():
            x = torch.zeros_like(backward(y) if init is None else init.to(y))
            made = tuple(operator.A(x).shape)
    except (RuntimeError, ValueError) as error:
        if init is not None:
            raise ValueError(
                f"the operator does not accept an init of shape {tuple(init.shape)} "
                f"({str(error).splitlines()[0]}); give one of the clean images' shape."
            ) from None
        linear = isinstance(operator, LinearPhysics)
        raise ValueError(
            f"the operator does not accept a measurement of shape {tuple(y.shape)} "
            f"({str(error).splitlines()[0]}); measure again"
            f"{' or rebuild the operator' if linear else ', or give init if it has no A_dagger'}."
        ) from None
    # a circular blur or plain noise would take any size; compressed sensing tells a flat one
    size = tuple(getattr(operator, "img_size", None) or ())
    told = len(size) == x.ndim - 1
    if made != tuple(y.shape) or (told and math.prod(size) != x[0].numel()):
        raise ValueError(
            f"a measurement of shape {tuple(y.shape)} and images of shape {tuple(x.shape)} do not "
            f"fit the operator{f', built for images {size}' if told else ''}; measure again or "
            "rebuild the operator."
        )
    return x.new_zeros(()).expand(x.shape)
