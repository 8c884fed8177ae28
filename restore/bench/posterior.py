"""Solvers against exact posteriors, ours and other libraries' side by side.

    error     hypot(bias, std ratio - 1), the one number
    bias      root-mean-square error of the sample mean in units of the posterior std, with the part
              that finitely many samples explain removed
    ratio     root-mean-square std of the samples over that of the posterior
    std map   root-mean-square error of the std map, in units of the posterior std
    W1        sliced Wasserstein distance to exact draws over that between two sets of exact draws
    modes     total variation between the frequencies of the modes and their posterior weights
    50, 90 %  what the samples' own intervals cover under the exact posterior
    fit       data misfit of the samples, 1 when consistent

Problems are pooled: the squared bias is averaged before its sign is dropped. It is then zero on
average for a perfect sampler, with standard error `sqrt(2 / d_eff) / (n sqrt(p))` for n samples of
p problems of d_eff effective dimensions: at n = 64, p = 3 chance alone makes biases of about 0.04
where d_eff is 60 and 0.02 where it is 1000. The exact sampler therefore stands in every table.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from priors.posteriors import DiracPosterior, MixturePosterior
from restore.bench import peers as others
from restore.bench.families import FAMILIES
from restore.bench.peers import Peer
from restore.bench.problems import Case
from restore.bench.scores import bias_and_ratio, coverage, mode_error, sliced_wasserstein, std_error
from restore.problem import observed_rows
from restore.result import Result
from restore.solver import Solver

EXACT = "exact sampler"
QUICK = ("gaussian 16x16", "mixture R^8", "data set 8x8")


@dataclass(frozen=True)
class Row:
    """One line of the bench: one solver on one task; see the module's docstring.

    Attributes:
        prior, task, solver: what was run.
        setting: what differs from the solver's defaults; "best of grid: ..." for other libraries.
        n: samples a problem.
        problems: problems pooled.
        error, bias, ratio, std_map, wasserstein, modes, cover_50, cover_90, fit: scores; `modes` is
            NaN where there are none, `fit` where the noise is not Gaussian.
        modes_max: of the worst problem.
        forwards, vjps: network calls a sample.
        seconds: a problem, all samples together.
        diverged: problems on which the solver gave up; its numbers then mean nothing.
    """

    prior: str
    task: str
    solver: str
    setting: str
    n: int
    problems: int
    error: float = math.nan
    bias: float = math.nan
    ratio: float = math.nan
    std_map: float = math.nan
    wasserstein: float = math.nan
    modes: float = math.nan
    modes_max: float = math.nan
    cover_50: float = math.nan
    cover_90: float = math.nan
    fit: float = math.nan
    forwards: float = math.nan
    vjps: float = math.nan
    seconds: float = math.nan
    diverged: int = 0

    @property
    def calls(self) -> float:
        """Network calls a sample: forwards and vector-Jacobian products."""
        return self.forwards + self.vjps


# draws samples of one case: seed -> result
Sampler = Callable[[Case, int], Result]


def run(
    solvers: Sequence[Solver],
    *,
    priors: Sequence[str] = tuple(FAMILIES),
    peers: Sequence[Peer] = (),
    grid: bool = True,
    n: int = 64,
    problems: int = 3,
    first: int = 0,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Run every solver on every prior and task it can take; the exact sampler first.

    Args:
        solvers: ours.
        priors: names from `FAMILIES`.
        peers: methods of other libraries, each at its defaults and at the best of its grid, which
            is chosen for each prior by the mean error over its tasks.
        grid: False runs other libraries at their defaults only.
        n: samples a problem.
        problems: measurements drawn and pooled.
        first: seed of the first problem.
        progress: show a bar; None shows it on a terminal only.

    Yields:
        One `Row` for each prior, task and solver; those of a prior together.
    """
    tasks = [(prior, task) for prior in priors for task in FAMILIES[prior]]
    with tqdm(
        total=len(tasks) * (len(solvers) + len(peers)),
        disable=None if progress is None else not progress,
        leave=False,
    ) as bar:
        for prior in priors:
            tried: dict[Peer, list[Row]] = {}
            for task, make in FAMILIES[prior].items():
                cases = [make(first + i) for i in range(problems)]
                blank = Row(prior, task, EXACT, "", n, problems)
                exact = [_exact(case, n, 100 + i) for i, case in enumerate(cases)]
                yield _row(blank, cases, exact)
                for solver in solvers:
                    bar.set_description(f"{prior}, {task}: {solver.name}")
                    bar.update()
                    if solver.lacks(cases[0].operator) is None:
                        found = _draw(_ours(solver, n), cases)
                        yield _row(replace(blank, solver=solver.name), cases, found)
                for peer in peers:
                    bar.set_description(f"{prior}, {task}: {peer.name}")
                    bar.update()
                    if cases[0].sigma is None or peer.refuses(cases[0].operator):
                        continue
                    for setting in others.settings_of(peer) if grid else [peer]:
                        found = _draw(_theirs(setting, n), cases)
                        row = replace(blank, solver=peer.name, setting=_words(setting))
                        tried.setdefault(setting, []).append(_row(row, cases, found))
            yield from _defaults_and_best(peers, tried)


def _ours(solver: Solver, n: int) -> Sampler:
    def draw(case: Case, seed: int) -> Result:
        return solver(
            case.y, case.operator, case.prior, samples=n, seed=seed, batch_size=n, progress=False
        )

    return draw


def _theirs(peer: Peer, n: int) -> Sampler:
    return lambda case, seed: peer(case.y, case.operator, case.prior, samples=n, seed=seed)


def _draw(sampler: Sampler, cases: Sequence[Case]) -> list[Result]:
    return [sampler(case, seed) for seed, case in enumerate(cases)]


def _exact(case: Case, n: int, seed: int) -> Result:
    from restore.result import Cost

    samples = case.posterior.sample(n, torch.Generator().manual_seed(seed))[:, None]
    return Result(samples, torch.full((1,), math.nan), "ok", "", Cost(0, 0, 0.0, 0))


def _row(row: Row, cases: Sequence[Case], found: Sequence[Result]) -> Row:
    """Pool the problems of one solver."""
    scores = [
        _scores(case, result.samples[:, 0]) for case, result in zip(cases, found, strict=True)
    ]

    def mean(name: str) -> float:
        return sum(s[name] for s in scores) / len(scores)

    bias, ratio = math.sqrt(max(0.0, mean("square"))), mean("ratio")
    return replace(
        row,
        error=math.hypot(bias, ratio - 1),
        bias=bias,
        ratio=ratio,
        std_map=mean("std_map"),
        wasserstein=mean("wasserstein"),
        modes=mean("modes"),
        modes_max=max(s["modes"] for s in scores),
        cover_50=mean("cover_50"),
        cover_90=mean("cover_90"),
        fit=mean("fit"),
        forwards=sum(r.cost.forwards for r in found) / len(found),
        vjps=sum(r.cost.vjps for r in found) / len(found),
        seconds=sum(r.cost.seconds for r in found) / len(found),
        diverged=sum(r.status == "diverged" for r in found),
    )


def _scores(case: Case, samples: Tensor) -> dict[str, float]:
    samples, truth = samples.double(), case.posterior
    if not bool(samples.isfinite().all()):
        return dict.fromkeys(_SCORES, math.inf)
    square, ratio = bias_and_ratio(samples, truth.mean, truth.std)
    n, generator = len(samples), torch.Generator().manual_seed(77)
    one, two = truth.sample(n, generator), truth.sample(n, generator)
    floor = sliced_wasserstein(one, two, truth.std)
    modes = math.nan
    if isinstance(truth, MixturePosterior | DiracPosterior):
        modes = mode_error(samples, truth)
    fit = math.nan
    if case.sigma is not None:
        seen = observed_rows(case.operator, samples[:1], case.y)
        energy = ((case.operator.A(samples) - case.y) * seen).square().flatten(1).sum(1).mean()
        fit = float(energy / (seen.sum() * case.sigma**2))
    return {
        "square": square,
        "ratio": ratio,
        "std_map": std_error(samples, truth.std),
        "wasserstein": sliced_wasserstein(samples, one, truth.std) / floor,
        "modes": modes,
        "cover_50": coverage(samples, truth, 0.5),
        "cover_90": coverage(samples, truth, 0.9),
        "fit": fit,
    }


_SCORES = ("square", "ratio", "std_map", "wasserstein", "modes", "cover_50", "cover_90", "fit")


def _words(peer: Peer) -> str:
    return ", ".join(f"{key}={value}" for key, value in peer.settings) or "defaults"


def _defaults_and_best(peers: Sequence[Peer], tried: dict[Peer, list[Row]]) -> Iterator[Row]:
    for peer in peers:
        settings = [s for s in others.settings_of(peer) if s in tried]
        if not settings:
            continue
        yield from tried[peer]
        if len(settings) == 1:
            continue
        best = min(settings, key=lambda s: sum(row.error for row in tried[s]))
        for row in tried[best]:
            yield replace(row, setting=f"best of grid: {row.setting}")


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each prior and solver: worst and mean error over its tasks, and the mean cost.

    The exact sampler's row says what chance leaves.
    """
    groups: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        best = row.setting.startswith("best")
        groups.setdefault((row.prior, row.solver, best), []).append(row)
    return [
        {
            "prior": prior,
            "solver": solver + (" (best of grid)" if best else ""),
            "tasks": len(group),
            "worst error": max(row.error for row in group),
            "mean error": sum(row.error for row in group) / len(group),
            "mode error": sum(row.modes for row in group) / len(group),
            "90 % covers": sum(row.cover_90 for row in group) / len(group),
            "calls": sum(row.calls for row in group) / len(group),
            "seconds": sum(row.seconds for row in group) / len(group),
        }
        for (prior, solver, best), group in groups.items()
    ]
