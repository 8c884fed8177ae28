"""A request carried out: chunks of samples, one after another, and what a result tells."""

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm.auto import tqdm

from restore.checkpoint import Checkpoint, Run
from restore.problem import Count, Problem
from restore.request import Request
from restore.result import Cost, Result, judge, provenance

log = logging.getLogger("restore")

# Half-ranges from the middle. Sound solvers pass through wild estimates: DiffPIR's first, at noise
# level s, is off by some (s / 2 sigma_y) noise stds where A is weakest, a few hundred half-ranges.
_RUNAWAY = 1000.0


@dataclass(frozen=True)
class Step:
    """What a callback receives: the step within the chunk, and the estimate `(N, C, ...)`."""

    index: int
    total: int
    x: Tensor


def drive(
    request: Request,
    *,
    progress: bool | None = None,
    callback: Callable[[Step], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Run all chunks, from where a checkpoint says that they stand."""
    started = time.perf_counter()
    run = Run() if checkpoint is None else checkpoint.load()
    chunks, length = request.chunks, request.solver.length
    bar = tqdm(
        total=len(chunks) * length,
        initial=sum(chunk.stop <= run.finished for chunk in chunks) * length + run.done,
        desc=request.solver.name,
        disable=None if progress is None else not progress,
        leave=False,
    )

    def after(problem: Problem, index: int) -> None:
        bar.update()
        if callback is not None and run.estimate is not None:
            callback(Step(index, length, run.estimate))
        if checkpoint is not None and problem.state and checkpoint.due:
            checkpoint.save(run, time.perf_counter() - started, problem)

    diverged_at = None
    with bar:
        for chunk in chunks:
            if chunk.stop <= run.finished:
                continue
            problem = request.problem(chunk, run.count, run.notes)
            estimate, diverged_at = _follow(request, problem, run, after)
            del problem
            run.keep(estimate.reshape(len(chunk), *request.shape), request.samples)
            if diverged_at is not None:
                break
            if checkpoint is not None and checkpoint.due:
                checkpoint.save(run, time.perf_counter() - started)
    result = _result(request, run, diverged_at)
    if request.samples > 1 and diverged_at is None:
        result = _with_spread(request, result)
    seconds = run.seconds + time.perf_counter() - started
    result = replace(result, cost=replace(result.cost, seconds=seconds))
    if checkpoint is not None:
        checkpoint.remove()
    return result


def _follow(
    request: Request, problem: Problem, run: Run, after: Callable[[Problem, int], None]
) -> tuple[Tensor, int | None]:
    """Follow one chunk; return its last sound estimate and the step at which it diverged."""
    run.resume(problem)
    if run.estimate is None:
        run.estimate = problem.y.new_full((), problem.middle).expand(problem.shape)
    with torch.no_grad():
        for index, x in enumerate(request.solver.iterate(problem), start=problem.done):
            if not _away(x, problem) < _RUNAWAY:  # also true for NaN
                return run.estimate, index + 1
            run.estimate, run.done = x.detach(), index + 1
            after(problem, index)
    return run.estimate, None


def _away(x: Tensor, problem: Problem) -> float:
    """Largest distance from the middle of the range, in half-ranges."""
    low, high = x.aminmax()
    return float(torch.maximum(problem.middle - low, high - problem.middle)) / problem.scale


def _result(request: Request, run: Run, diverged_at: int | None) -> Result:
    solver, y, chunks = request.solver, request.y, len(request.chunks)
    assert run.samples is not None
    drawn = run.samples[: run.finished]
    misfit = _misfit(request, drawn)
    seen = request.observed.expand_as(y).flatten(1).sum(1)
    status, remedy = judge(misfit, diverged_at, solver.remedy, seen)
    if status != "ok":
        log.warning("%s: %s; %s", solver.name, status, remedy)
    return Result(
        samples=drawn,
        misfit=misfit,
        status=status,
        remedy=remedy,
        cost=Cost(
            forwards=run.count.forwards / chunks,
            vjps=run.count.vjps / chunks,
            seconds=0.0,
            peak_memory=_peak_memory(y.device),
        ),
        provenance=provenance(solver, request.prior, request.operator, request.seed),
        notes=run.notes,
    )


def _with_spread(request: Request, result: Result) -> Result:
    """Add the std that a solver knows without samples, and its cost, shared by the samples."""
    count = Count()
    spread = request.solver.spread(request.problem(range(1), count, {}), int(request.seed))
    if spread is None:
        return result
    cost = replace(
        result.cost,
        forwards=result.cost.forwards + count.forwards / request.samples,
        vjps=result.cost.vjps + count.vjps / request.samples,
        peak_memory=_peak_memory(request.y.device),
    )
    return replace(result, spread=spread, cost=cost)


def _misfit(request: Request, samples: Tensor) -> Tensor:
    """Mean over samples of chi-square over its count `(B,)`, 1 when consistent.

    `|A x - y|^2 / (m sigma_y^2)`; for other noise its own residual over what it is at the truth.
    """
    y, model, observed = request.y, request.likelihood, request.observed

    def total(square: Tensor) -> Tensor:
        return (square * observed).flatten(1).sum(1)

    def one(x: Tensor) -> Tensor:
        z = request.operator.A(x)
        if model is None:
            power = request.sigma.clamp_min(1 / 255) ** 2
            count = observed.expand_as(y).flatten(1).sum(1)
            return total((z - y).square_()) / (count * power)
        return total(model.residual(z, y).square()) / total(model.power(z)).clamp_min(1)

    with torch.no_grad():
        return torch.stack([one(x) for x in samples]).mean(0)


def _peak_memory(device: torch.device) -> int:
    """Bytes: the process's largest resident size, or the accelerator's largest allocation."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
