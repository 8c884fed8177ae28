"""The base of every solver: one call, and everything that is not the algorithm.

A solver is a frozen dataclass whose fields are its paper's constants. Its algorithm is one
generator, `iterate`, that yields the current estimate of the clean image after every step; the last
one is the result. Seeds, batching of samples, progress, divergence, cost and provenance live here.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from deepinv.physics import Denoising, LinearPhysics, Physics
from torch import Tensor

from operators import noise_sigma
from operators.svd import has_svd
from priors import Denoiser
from restore.checkpoint import Checkpoint
from restore.driver import Step as Step
from restore.driver import drive
from restore.likelihood import noise_kind
from restore.problem import Problem, observed_rows
from restore.refusals import (
    clean_like,
    refuse_noise,
    refuse_numbers,
    refuse_prior,
    refuse_values,
    who_can,
)
from restore.request import Request
from restore.result import Result, provenance

log = logging.getLogger("restore")


@dataclass(frozen=True, kw_only=True)
class Solver:
    """Base class; see the module's docstring.

    Class attributes, shown by `restore solvers` and checked before the first network call:
        name: the word users type.
        paper: authors, title, year.
        requires: any of "linear" (an adjoint is needed), "svd" (a fast singular value
            decomposition), "identity" (noise is all that happens to an image), "gaussian" (noise),
            "noise" (sigma_y > 0).
        cost: network calls a sample, in words.
        posterior: what the spread of its samples is.
        repeats: whether all samples of an image are the same, whatever the seed.
        joint: whether the samples of an image are drawn together, from one population. The set of
            S samples is then a function of the seed, S and the image; otherwise sample i is one of
            the seed, i and the image.
        latent: whether it takes a prior on the latents of an autoencoder, `priors.Latent`.
        paired: whether it takes, and needs, a network trained on pairs, `restore.trained`.
        prior_free: whether it needs no prior, and ignores the one it gets.
        restores: what it is made for: "images", "volumes" (and images) or "cubes" of many bands.
        likelihoods: kinds of noise that it handles, words of `restore.likelihood.KINDS`.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str]
    posterior: ClassVar[str]
    repeats: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    latent: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    prior_free: ClassVar[bool] = False
    restores: ClassVar[str] = "images"
    likelihoods: ClassVar[tuple[str, ...]] = ("gaussian",)
    remedy: ClassVar[str] = "use more steps, or check the operator with `restore check`"

    @property
    def length(self) -> int:
        """Number of estimates that `iterate` yields."""
        raise NotImplementedError

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Run the algorithm on one chunk, yielding estimates `(N, C, *spatial)`."""
        raise NotImplementedError

    def spread(self, problem: Problem, seed: int) -> Tensor | None:
        """The posterior's std `(B, C, *spatial)` where it is known without samples.

        Asked for when several samples are, once, about the problem of a single one.
        """
        return None

    def stand_in(self, observed: Tensor) -> "tuple[Solver, str] | None":
        """Name another solver that must do the work, and why in one sentence.

        Args:
            observed: 1 where a measurement sees the image, else 0, shaped like `y`.
        """
        return None

    def lift(self, prior: Denoiser, shape: tuple[int, ...]) -> Denoiser:
        """Bring a prior to images `(B, C, *spatial)` that it was not made for, if the solver can.

        Nothing by default: a prior of flat images is refused for volumes unless it is a
        `priors.SliceWise`.
        """
        return prior

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
        checkpoint: str | Path | None = None,
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
            checkpoint: file in which a run that is killed finds its way back, to the same result on
                the same machine; written now and then, deleted at the end.

        Returns:
            A `Result` with `samples` `(S, B, C, *spatial)`.

        Raises:
            ValueError: when the measurement, operator or prior does not suit, or the checkpoint is
                that of another request, in one sentence.
        """
        refuse_numbers(samples, seed, batch_size)
        refuse_values("measurement", y)
        self._check_operator(operator)
        x = clean_like(y, operator, init)
        prior = self.lift(prior, tuple(x.shape))
        refuse_prior(prior, x, self, operator)
        request = Request(
            solver=self,
            y=y,
            operator=operator,
            prior=prior,
            shape=tuple(x.shape),
            observed=observed_rows(operator, x, y),
            samples=samples,
            seed=seed,
            init=init,
            batch_size=batch_size,
        )
        file = None if checkpoint is None else Checkpoint(checkpoint, request)
        other = self.stand_in(request.observed)
        if other is None:
            return drive(request, progress=progress, callback=callback, checkpoint=file)
        worker, reason = other
        worker._check_operator(operator)
        log.warning("%s: %s", self.name, reason)
        request = replace(request, solver=worker)
        result = drive(request, progress=progress, callback=callback, checkpoint=file)
        about = provenance(self, prior, operator, seed)
        return replace(result, provenance=about, notes={**result.notes, "instead": reason})

    # -- refusals ----------------------------------------------------------------------------

    @classmethod
    def lacks(cls, operator: Physics) -> str | None:
        """Say what the operator lacks for this solver, or None."""
        if "linear" in cls.requires and not isinstance(operator, LinearPhysics):
            return "a linear operator"
        if "svd" in cls.requires and not has_svd(operator):
            return "an operator with a fast singular value decomposition"
        if "identity" in cls.requires and not isinstance(operator, Denoising):
            return "an operator that only adds noise, `denoise`"
        if (kind := noise_kind(operator)) not in cls.likelihoods:
            return f"{' or '.join(word.title() for word in cls.likelihoods)} noise"
        if kind == "gaussian" and ("gaussian" in cls.requires or "noise" in cls.requires):
            sigma = torch.as_tensor(noise_sigma(operator))
            if "noise" in cls.requires and not bool((sigma > 0).all()):
                return "a noise level above zero (set noise=, for example 0.01)"
        return None

    def _check_operator(self, operator: Physics) -> None:
        refuse_noise(operator)
        if (lacking := self.lacks(operator)) is not None:
            raise ValueError(
                f"solver '{self.name}' needs {lacking}, which operator "
                f"'{getattr(operator, 'spec', type(operator).__name__)}' does not offer; "
                f"{who_can(operator)}."
            )
