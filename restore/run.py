"""One call for every solver: `solve(y, operator, prior, solver)`."""

from collections.abc import Callable
from pathlib import Path

from deepinv.models import Denoiser as DeepinvDenoiser
from deepinv.physics import Physics
from torch import Tensor
from torch.nn import Module

import priors
from operators.words import nearest
from restore import trained
from restore.result import Result
from restore.solver import Solver, Step
from restore.solvers import DEFAULT, available
from restore.students.student import Student
from restore.trained import weights as trained_weights
from restore.trained.pair_prior import PairPrior
from restore.untrained.prior import Untrained


def solve(
    y: Tensor,
    operator: Physics,
    prior: str | Path | DeepinvDenoiser | None = "natural",
    solver: str | Path | Solver = DEFAULT,
    *,
    samples: int = 1,
    seed: int = 0,
    init: Tensor | None = None,
    progress: bool | None = None,
    callback: Callable[[Step], None] | None = None,
    batch_size: int | None = None,
    checkpoint: str | Path | None = None,
) -> Result:
    """Restore images from a measurement `y = A(x) + n`.

    Args:
        y: measurement `(B, ...)`; images and their noise in units of the prior, [0, 1] as a rule.
        operator: any deepinv physics, from `operators` or your own, with its noise model.
        prior: a name of `priors.available()`, a safetensors file, one of our denoisers, or any
            deepinv denoiser of images in [0, 1]; ignored by solvers that need none.
        solver: a name of `restore.solvers.available()` with its paper's constants; a name of
            `restore.trained.available()` or a file of `restore train`, which bring their own
            network and ignore `prior`; or a solver.
        samples: number S of samples; their spread is a posterior only where `restore solvers`
            says so.
        seed: any integer; sample i of a seed is the same image in every batch.
        init: start image `(B, C, *spatial)` for solvers that take one.
        progress: show a bar; None shows it on a terminal only.
        callback: called with a `Step` after every step.
        batch_size: samples computed together.
        checkpoint: file by which a run that was killed goes on to the same result when it is asked
            for again; written about every minute, deleted at the end.

    Returns:
        A `Result`: samples, mean, std, data misfit, status, cost and provenance.

    Raises:
        ValueError, TypeError: one sentence on what does not fit and what to do.
    """
    _refuse_types(y, operator)
    chosen, network = solver_named(solver)
    known = network or _prior_for(chosen, prior)
    return chosen(
        y,
        operator.to(y.device),
        known.to(y.device),
        samples=samples,
        seed=seed,
        init=init,
        progress=progress,
        callback=callback,
        batch_size=batch_size,
        checkpoint=checkpoint,
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


def solver_named(solver: str | Path | Solver) -> tuple[Solver, PairPrior | None]:
    """Return the solver, and the network that it brings when it was trained on pairs."""
    if isinstance(solver, Solver):
        return solver, None
    if not isinstance(solver, str | Path):
        found = f"the class {solver.__name__}" if isinstance(solver, type) else repr(solver)
        raise TypeError(f"the solver is {found}, expected a name or an instance; make one.")
    known = available()
    if str(solver) in known:
        return known[str(solver)](), None
    if str(solver) in trained.available() or str(solver).endswith(".safetensors"):
        return trained.load(solver)
    names = [*known, *trained.available()]
    raise ValueError(f"unknown solver '{solver}'; {nearest(str(solver), names)}")


def _prior_for(solver: Solver, prior: str | Path | DeepinvDenoiser | None) -> priors.Denoiser:
    if solver.prior_free:
        return Untrained()
    if prior is None:
        raise TypeError(
            f"the prior is None, but solver '{solver.name}' needs one, expected a name, a "
            "file or a denoiser; priors.available() lists the names."
        )
    return _network(prior, solver) if solver.paired else _prior(prior)


def _network(prior: str | Path | DeepinvDenoiser, solver: Solver) -> priors.Denoiser:
    if isinstance(prior, PairPrior):
        return prior
    if isinstance(prior, str | Path) and str(prior) not in priors.available():
        return trained_weights.load(prior)
    raise ValueError(
        f"solver '{solver.name}' needs a network trained on pairs; name one that ships "
        f"({', '.join(trained.available()) or 'none'}), or train your own with `restore train`."
    )


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
    if isinstance(prior, Student):
        raise TypeError(prior.refuse())
    return priors.from_deepinv(prior)
