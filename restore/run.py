"""One call for every solver: `solve(y, operator, prior, solver)`."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from deepinv.models import Denoiser as DeepinvDenoiser
from deepinv.physics import Physics
from torch import Tensor
from torch.nn import Module

import priors
from restore.result import Result
from restore.solver import Solver, Step
from restore.solvers import DEFAULT, available


def solve(
    y: Tensor,
    operator: Physics,
    prior: str | Path | DeepinvDenoiser = "natural",
    solver: str | Solver = DEFAULT,
    *,
    samples: int = 1,
    seed: int = 0,
    init: Tensor | None = None,
    progress: bool | None = None,
    callback: Callable[[Step], None] | None = None,
    batch_size: int | None = None,
) -> Result:
    """Restore images from a measurement `y = A(x) + n`.

    Args:
        y: measurement `(B, ...)`; images and their noise in units of the prior, [0, 1] as a rule.
        operator: any deepinv physics, from `operators` or your own, with its noise model.
        prior: a name of `priors.available()`, a safetensors file, one of our denoisers, or any
            deepinv denoiser of images in [0, 1].
        solver: a name of `restore.solvers.available()` with its paper's constants, or a solver.
        samples: number S of samples; their spread is a posterior only where `restore solvers`
            says so.
        seed: any integer; sample i of a seed is the same image in every batch.
        init: start image `(B, C, *spatial)` for solvers that take one.
        progress: show a bar; None shows it on a terminal only.
        callback: called with a `Step` after every step.
        batch_size: samples computed together.

    Returns:
        A `Result`: samples, mean, std, data misfit, status, cost and provenance.

    Raises:
        ValueError, TypeError: one sentence on what does not fit and what to do.
    """
    _refuse_types(y, operator)
    return _solver(solver)(
        y,
        operator.to(y.device),
        _prior(prior).to(y.device),
        samples=samples,
        seed=seed,
        init=init,
        progress=progress,
        callback=callback,
        batch_size=batch_size,
    )


def _refuse_types(y: object, operator: object) -> None:
    if not isinstance(y, Tensor):
        raise TypeError(
            f"the measurement is a {type(y).__name__}, expected a torch tensor (B, ...); "
            "convert it, for example with torch.as_tensor."
        )
    if not isinstance(operator, Physics):
        raise TypeError(
            f"the operator is a {type(operator).__name__}, expected a deepinv physics; "
            "build one with operators.parse(spec, image_shape)."
        )


def _solver(solver: str | Solver) -> Solver:
    if isinstance(solver, Solver):
        return solver
    if not isinstance(solver, str):
        found = f"the class {solver.__name__}" if isinstance(solver, type) else repr(solver)
        raise TypeError(f"the solver is {found}, expected a name or an instance; make one.")
    known = available()
    if solver in known:
        return known[solver]()
    near = get_close_matches(solver, list(known), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(known)}."
    raise ValueError(f"unknown solver '{solver}'; {hint}")


def _prior(prior: str | Path | DeepinvDenoiser) -> priors.Denoiser:
    if isinstance(prior, str | Path):
        return priors.load(prior)
    if isinstance(prior, priors.Denoiser):
        return prior
    if not isinstance(prior, Module):
        raise TypeError(
            f"the prior is {prior!r}, expected a name, a file or a denoiser; "
            "priors.available() lists the names."
        )
    return priors.from_deepinv(prior)
