"""What a solver was asked, checked: the measurement and all that goes with it, and its chunks."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from deepinv.physics import Physics
from torch import Tensor

from priors import Denoiser
from restore.likelihood import Likelihood, likelihood
from restore.problem import Count, Problem, gaussian_sigma, stream

if TYPE_CHECKING:
    from restore.solver import Solver

_ENTRIES = 2**21  # of the images in one network call, for methods that move a population
_IMAGES = 16  # in a chunk, by default


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a solver.

    Attributes:
        solver: who does the work.
        y: measurement `(B, ...)`.
        operator: the physics.
        prior: the denoiser, of images of `shape`.
        shape: `(B, C, *spatial)` of the images sought.
        observed: 1 where a measurement sees the image, else 0, shaped like `y`; one number in
            memory where all do.
        samples: S.
        seed: of all streams.
        init: start image `(B, C, *spatial)`.
        batch_size: samples computed together.
    """

    solver: "Solver"
    y: Tensor
    operator: Physics
    prior: Denoiser
    shape: tuple[int, ...]
    observed: Tensor
    samples: int
    seed: int
    init: Tensor | None
    batch_size: int | None

    @cached_property
    def sigma(self) -> Tensor:
        """Noise std of every measurement `(B,)`; NaN for other noise, where the solver may."""
        try:
            return gaussian_sigma(self.operator, len(self.y), self.y)
        except ValueError:
            if "gaussian" in self.solver.requires:
                raise
            return self.y.new_full((len(self.y),), math.nan)

    @cached_property
    def likelihood(self) -> Likelihood | None:
        """Of other noise than Gaussian."""
        return likelihood(self.operator)

    @property
    def chunks(self) -> list[range]:
        """Samples that are computed together."""
        size = min(self.samples, self.batch_size or max(1, _IMAGES // len(self.y)))
        if self.solver.joint:
            size = self.samples
        return [range(i, min(i + size, self.samples)) for i in range(0, self.samples, size)]

    def problem(self, chunk: range, count: Count, notes: dict[str, object]) -> Problem:
        """Make the problem of a chunk, which counts calls and writes notes where it is told."""
        s, batch = len(chunk), len(self.y)
        one = math.prod(self.shape)
        return Problem(
            y=_times(self._seen, s),
            operator=self.operator,
            prior=self.prior,
            shape=(s * batch, *self.shape[1:]),
            sigma_y=self.sigma.repeat(s).reshape(-1, *[1] * (len(self.shape) - 1)),
            streams=[stream(int(self.seed), i) for i in chunk],
            observed=_times(self.observed, s),
            init=None if self.init is None else _times(self.init.to(self.y), s),
            count=count,
            per_call=batch * (self.batch_size or max(1, _ENTRIES // one)),
            notes=notes,
            likelihood=self.likelihood,
        )

    @cached_property
    def _seen(self) -> Tensor:
        """`y`, zero where nothing is observed; no copy where it is so already."""
        if constant(self.observed):
            return self.y
        seen = self.y * self.observed
        return self.y if torch.equal(seen, self.y) else seen


def constant(x: Tensor) -> bool:
    """Whether a tensor is one number in memory."""
    return not any(stride for stride, n in zip(x.stride(), x.shape, strict=True) if n > 1)


def _times(x: Tensor, s: int) -> Tensor:
    """Repeat along the batch, without a copy where none is needed."""
    if s == 1:
        return x
    if constant(x):
        return x[:1].expand(s * len(x), *x.shape[1:])
    return x.repeat(s, *[1] * (x.ndim - 1))


def fingerprint(request: Request) -> dict[str, str]:
    """Tell requests apart, part by part: what has the same fingerprint has the same result.

    An operator that keeps its numbers to itself is known by its specification and by the norm of
    what it makes of one random image.
    """
    from restore import __version__

    operator, prior, solver = request.operator, request.prior, request.solver
    probe = torch.rand(request.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = operator.A(probe.to(request.y)[None].expand(request.shape))
    name = getattr(operator, "spec", type(operator).__name__)
    init = [] if request.init is None else [request.init]
    return {
        "measurement": _hash([request.y], request.shape),
        "operator": _hash(operator.state_dict().values(), name, f"{float(z.norm()):.4g}"),
        "prior": _hash(prior.state_dict().values(), prior.card.name, prior.card.sha256),
        "solver": _hash([], solver.name, asdict(solver)),
        "seed": str(request.seed),
        "number of samples": f"{request.samples}, {request.batch_size}",
        "start": _hash(init),
        "version": f"{__version__}, torch {torch.__version__}, {request.y.device.type}",
    }


def _hash(tensors: Iterable[Tensor], *words: object) -> str:
    digest = hashlib.sha256(repr(words).encode())
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
