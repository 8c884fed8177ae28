"""The base of every solver: one call, and everything that is not the algorithm.

A solver is a frozen dataclass whose fields are its paper's constants. Its algorithm is one
generator, `iterate`, that yields the current estimate of the clean image after every step; the last
one is the result. Seeds, batching of samples, progress, divergence, cost and provenance live here.
"""

import logging
import math
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import ClassVar

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor
from tqdm.auto import tqdm

from operators import noise_sigma
from operators.svd import has_svd
from priors import Denoiser, Latent
from restore.likelihood import Likelihood, likelihood, noise_kind
from restore.problem import Count, Problem, gaussian_sigma, observed_rows, stream
from restore.result import Cost, Result, judge, provenance
from restore.trained.pair_prior import PairPrior, mismatch

log = logging.getLogger("restore")

# Half-ranges from the middle. Sound solvers pass through wild estimates: DiffPIR's first, at noise
# level s, is off by some (s / 2 sigma_y) noise stds where A is weakest, a few hundred half-ranges.
_RUNAWAY = 1000.0

_ENTRIES = 2**21  # of the images in one network call, for methods that move a population


@dataclass(frozen=True)
class Step:
    """What a callback receives: the step within the chunk, and the estimate `(N, C, ...)`."""

    index: int
    total: int
    x: Tensor


@dataclass(frozen=True, kw_only=True)
class Solver:
    """Base class; see the module's docstring.

    Class attributes, shown by `restore solvers` and checked before the first network call:
        name: the word users type.
        paper: authors, title, year.
        requires: any of "linear" (an adjoint is needed), "svd" (a fast singular value
            decomposition), "gaussian" (noise), "noise" (sigma_y > 0).
        cost: network calls a sample, in words.
        posterior: what the spread of its samples is.
        joint: whether the samples of an image are drawn together, from one population. The set of
            S samples is then a function of the seed, S and the image; otherwise sample i is one of
            the seed, i and the image.
        latent: whether it takes a prior on the latents of an autoencoder, `priors.Latent`.
        paired: whether it takes, and needs, a network trained on pairs, `restore.trained`.
        likelihoods: kinds of noise that it handles, words of `restore.likelihood.KINDS`.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str]
    posterior: ClassVar[str]
    joint: ClassVar[bool] = False
    latent: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    likelihoods: ClassVar[tuple[str, ...]] = ("gaussian",)
    remedy: ClassVar[str] = "use more steps, or check the operator with `restore check`"

    @property
    def length(self) -> int:
        """Number of estimates that `iterate` yields."""
        raise NotImplementedError

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Run the algorithm on one chunk, yielding estimates `(N, C, *spatial)`."""
        raise NotImplementedError

    def stand_in(self, observed: Tensor) -> "tuple[Solver, str] | None":
        """Name another solver that must do the work, and why in one sentence.

        Args:
            observed: 1 where a measurement sees the image, else 0, shaped like `y`.
        """
        return None

    def __call__(
        self,
        y: Tensor,
        operator: Physics,
        prior: Denoiser,
        *,
        samples: int = 1,
        seed: int = 0,
        init: Tensor | None = None,
        progress: bool | None = None,
        callback: Callable[[Step], None] | None = None,
        batch_size: int | None = None,
    ) -> Result:
        """Restore.

        Args:
            y: measurement `(B, ...)` of the operator; its dtype and device are the result's.
            operator: deepinv physics with its noise model.
            prior: denoiser of the clean images.
            samples: number S of samples for each measurement.
            seed: any integer; sample i of a seed is the same image in every batch.
            init: start image `(B, C, *spatial)` for solvers that take one.
            progress: show a bar; None shows it on a terminal only.
            callback: called with a `Step` after every step.
            batch_size: samples computed together, as many as fit 16 images by default; of a joint
                solver the particles of an image in one network call, which bounds its memory.

        Returns:
            A `Result` with `samples` `(S, B, C, *spatial)`.

        Raises:
            ValueError: when the measurement, operator or prior does not suit, in one sentence.
        """
        _refuse_numbers(samples, seed, batch_size)
        _refuse_values("measurement", y)
        self._check_operator(operator)
        x = _clean_like(y, operator, init)
        _check_prior(prior, x, self, operator)
        observed = observed_rows(operator, x, y)
        if (other := self.stand_in(observed.expand_as(y))) is not None:
            solver, reason = other
            log.warning("%s: %s", self.name, reason)
            result = solver(
                y,
                operator,
                prior,
                samples=samples,
                seed=seed,
                init=init,
                progress=progress,
                callback=callback,
                batch_size=batch_size,
            )
            about = provenance(self, prior, operator, seed)
            return replace(result, provenance=about, notes={**result.notes, "instead": reason})
        batch = len(y)
        per_chunk = min(samples, batch_size or max(1, 16 // batch))
        if self.joint:
            per_chunk = samples
        chunks = [range(i, min(i + per_chunk, samples)) for i in range(0, samples, per_chunk)]
        sigma, model = self._sigma(operator, batch, y), likelihood(operator)
        count, notes, started = Count(), {}, time.perf_counter()
        kept, diverged_at = [], None
        bar = tqdm(
            total=len(chunks) * self.length,
            desc=self.name,
            disable=None if progress is None else not progress,
            leave=False,
        )
        with bar:
            for chunk in chunks:
                s = len(chunk)
                problem = Problem(
                    y=(y * observed).repeat(s, *[1] * (y.ndim - 1)),
                    operator=operator,
                    prior=prior,
                    shape=(s * batch, *x.shape[1:]),
                    sigma_y=sigma.repeat(s).reshape(-1, *[1] * (x.ndim - 1)),
                    streams=[stream(int(seed), i) for i in chunk],
                    observed=observed.repeat(s, *[1] * (y.ndim - 1)),
                    init=None if init is None else init.to(y).repeat(s, *[1] * (x.ndim - 1)),
                    count=count,
                    per_call=batch * (batch_size or max(1, _ENTRIES // x.numel())),
                    notes=notes,
                    likelihood=model,
                )
                estimate, failed = self._run(problem, bar, callback)
                kept.append(estimate.reshape(s, batch, *x.shape[1:]))
                if failed is not None:
                    diverged_at = failed
                    break
        drawn = torch.cat(kept)
        misfit = _misfit(drawn, y, operator, observed, sigma, model)
        seen = observed.expand_as(y).flatten(1).sum(1)
        status, remedy = judge(misfit, diverged_at, self.remedy, seen)
        if status != "ok":
            log.warning("%s: %s; %s", self.name, status, remedy)
        return Result(
            samples=drawn,
            misfit=misfit,
            status=status,
            remedy=remedy,
            cost=Cost(
                forwards=count.forwards / len(chunks),
                vjps=count.vjps / len(chunks),
                seconds=time.perf_counter() - started,
                peak_memory=_peak_memory(y.device),
            ),
            provenance=provenance(self, prior, operator, seed),
            notes=notes,
        )

    def _run(
        self, problem: Problem, bar: tqdm, callback: Callable[[Step], None] | None
    ) -> tuple[Tensor, int | None]:
        """Drive one chunk; return its last sound estimate and the step at which it diverged."""
        estimate = torch.full(problem.shape, problem.middle, dtype=problem.y.dtype)
        estimate = estimate.to(problem.y.device)
        with torch.no_grad():
            for index, x in enumerate(self.iterate(problem)):
                away = float((x - problem.middle).abs().max()) / problem.scale
                if not away < _RUNAWAY:  # also true for NaN
                    return estimate, index + 1
                estimate = x.detach()
                bar.update()
                if callback is not None:
                    callback(Step(index, self.length, estimate))
        return estimate, None

    def _sigma(self, operator: Physics, batch: int, like: Tensor) -> Tensor:
        if "gaussian" in self.requires:
            return gaussian_sigma(operator, batch, like)
        try:
            return gaussian_sigma(operator, batch, like)
        except ValueError:  # other noise, and a solver that does not ask
            return torch.full((batch,), math.nan, dtype=like.dtype, device=like.device)

    # -- refusals ----------------------------------------------------------------------------

    @classmethod
    def lacks(cls, operator: Physics) -> str | None:
        """Say what the operator lacks for this solver, or None."""
        if "linear" in cls.requires and not isinstance(operator, LinearPhysics):
            return "a linear operator"
        if "svd" in cls.requires and not has_svd(operator):
            return "an operator with a fast singular value decomposition"
        if (kind := noise_kind(operator)) not in cls.likelihoods:
            return f"{' or '.join(word.title() for word in cls.likelihoods)} noise"
        if kind == "gaussian" and ("gaussian" in cls.requires or "noise" in cls.requires):
            sigma = torch.as_tensor(noise_sigma(operator))
            if "noise" in cls.requires and not bool((sigma > 0).all()):
                return "a noise level above zero (set noise=, for example 0.01)"
        return None

    def _check_operator(self, operator: Physics) -> None:
        _refuse_noise(operator)
        if (lacking := self.lacks(operator)) is not None:
            raise ValueError(
                f"solver '{self.name}' needs {lacking}, which operator "
                f"'{getattr(operator, 'spec', type(operator).__name__)}' does not offer; "
                f"{_who_can(operator)}."
            )


def _check_prior(prior: Denoiser, x: Tensor, solver: Solver, operator: Physics) -> None:
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


def _refuse_numbers(samples: int, seed: int, batch_size: int | None) -> None:
    for name, count in (("samples", samples), ("batch_size", batch_size)):
        if count is not None and (not isinstance(count, Integral) or count < 1):
            raise ValueError(f"{name} is {count}, expected a whole number of at least 1.")
    if not isinstance(seed, Integral):
        raise ValueError(f"seed is {seed}, expected a whole number; choose another.")


def _refuse_values(name: str, y: Tensor) -> None:
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


def _refuse_noise(operator: Physics) -> None:
    try:
        sigma = torch.as_tensor(noise_sigma(operator))
    except ValueError:  # not Gaussian, which `lacks` tells
        return
    if not bool(((sigma >= 0) & sigma.isfinite()).all()):
        raise ValueError(
            f"the operator's noise level is {sigma.tolist()}, expected a finite std of at least 0; "
            "set physics.noise_model = operators.GaussianNoise(sigma)."
        )


def _who_can(operator: Physics) -> str:
    from restore.solvers import available

    able = [name for name, solver in available().items() if solver.lacks(operator) is None]
    return f"solver '{able[0]}' can use it" if able else "no solver here can use it as it is"


def _for_latents() -> str:
    from restore.solvers import available

    return " or ".join(f"'{name}'" for name, solver in available().items() if solver.latent)


def _clean_like(y: Tensor, operator: Physics, init: Tensor | None) -> Tensor:
    """Return a tensor of the clean images' shape, that of `init` or the operator's."""
    if init is not None:
        _refuse_values("init", init)
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
    return x


def _misfit(
    samples: Tensor,
    y: Tensor,
    operator: Physics,
    observed: Tensor,
    sigma: Tensor,
    model: Likelihood | None,
) -> Tensor:
    """Mean over samples of chi-square over its count `(B,)`, 1 when consistent.

    `|A x - y|^2 / (m sigma_y^2)`; for other noise its own residual over what it is at the truth.
    """

    def total(square: Tensor) -> Tensor:
        return (square * observed).flatten(1).sum(1)

    def one(x: Tensor) -> Tensor:
        z = operator.A(x)
        if model is None:
            power = sigma.clamp_min(1 / 255) ** 2
            return total((z - y).square()) / (total(torch.ones_like(y)) * power)
        return total(model.residual(z, y).square()) / total(model.power(z)).clamp_min(1)

    with torch.no_grad():
        return torch.stack([one(x) for x in samples]).mean(0)


def _peak_memory(device: torch.device) -> int:
    """Bytes: the process's largest resident size, or the accelerator's largest allocation."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
