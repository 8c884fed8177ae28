"""Eigen-images by posterior draws: a hyperspectral cube with a prior of grey photographs.

A cube is a few eigen-images mixed (`restore.eigenimages`), `x = mean + E z`, and every eigen-image
looks like a photograph. What the operator measures of a cube is linear in them, so that they are
drawn together from

    p(z | y)  ~  N(y; A(mean + E z), sigma_y^2 I)  prod_r p_grey(z_r)

by the moment ladder (`restore.solvers.moment_ladder`), and mixed. To restore eigen-images is the
idea of FastHyDe (Zhuang, Bioucas-Dias 2018, see `restore.solvers.fasthyde`), of which this keeps
the subspace alone. Entries, pixels or lines may be missing, differently in every band: bands help
one another through E.

The subspace is estimated and then taken for known, which the spread does not tell. The estimate to
look at is the mean of several draws: on a real scene with three entries of ten seen, one draw had
26.4 dB, the mean of four 27.7, of eight 27.9.

A call of the network is one on R images. Images of one channel have no spectrum: then this is the
ladder itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from priors import ChannelWise, Denoiser
from restore.eigenimages import Mixed, Subspace, subspaces
from restore.problem import Count, Problem
from restore.solver import Solver
from restore.solvers.moment_ladder import MomentLadder


@dataclass(frozen=True, kw_only=True)
class Eigen(Solver):
    """Posterior draws of eigen-images; see the module's docstring.

    Args:
        rank: R, number of eigen-images; None takes those that stand out from noise.
        ladder: how they are drawn; bands that help one another leave little for sweeps to mend.
    """

    name: ClassVar[str] = "eigen"
    paper: ClassVar[str] = "after Zhuang and Bioucas-Dias 2018; posterior draws of eigen-images"
    requires: ClassVar[tuple[str, ...]] = ("linear", "gaussian", "noise")
    cost: ClassVar[str] = "8 forwards + at most 24 VJPs, of R images"
    posterior: ClassVar[str] = "posterior, given the spectral subspace"
    remedy: ClassVar[str] = "raise rank, or the ladder's levels and max_iter"
    restores: ClassVar[str] = "cubes"

    rank: int | None = None
    ladder: MomentLadder = field(default_factory=lambda: MomentLadder(sweeps=2))

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"eigen needs rank >= 1 or None, found {self.rank}.")

    @property
    def length(self) -> int:
        """One draw a level and a sweep."""
        return self.ladder.length

    def lift(self, prior: Denoiser, shape: tuple[int, ...]) -> Denoiser:
        """A prior of grey images, for every eigen-image."""
        return prior if shape[1] == 1 else ChannelWise(prior)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Draw the eigen-images of every sample of every cube by itself, in step, and mix them."""
        if problem.shape[1] == 1:
            yield from self.ladder.iterate(problem)
            return
        spaces = subspaces(problem, self.rank)
        problem.notes["rank"] = [space.rank for space in spaces]
        parts = [_part(problem, i, spaces[i % len(spaces)]) for i in range(problem.shape[0])]
        before = replace(problem.count)
        for us in zip(*(self.ladder.iterate(part) for part in parts), strict=True):
            problem.count.forwards = before.forwards + _mean([p.count.forwards for p in parts])
            problem.count.vjps = before.vjps + _mean([p.count.vjps for p in parts])
            yield torch.cat([spaces[i % len(spaces)].cube(u) for i, u in enumerate(us)])


def _part(problem: Problem, i: int, space: Subspace) -> Problem:
    """The problem of the eigen-images of image `i` of the chunk.

    Alone, because cubes differ in rank, and because the ladder's loose inner solves multiply what
    the size of a batch does to rounding.
    """
    assert isinstance(problem.operator, LinearPhysics)
    batch = problem.images
    operator = Mixed(problem.operator, space, i % batch, batch)
    height, width = problem.shape[2:]
    base = space.mean[:, None, None].expand(1, -1, height, width)
    observed = problem.observed[i : i + 1]
    # the numbers are those of the sample, however many eigen-images the other cubes have
    twin = torch.Generator().set_state(problem.streams[i // batch].get_state())
    return replace(
        problem,
        y=(problem.y[i : i + 1] - operator.of_cube(base)) * observed,
        operator=operator,
        shape=(1, space.rank, height, width),
        sigma_y=problem.sigma_y[i : i + 1],
        streams=[twin],
        observed=observed,
        init=None,
        count=Count(),
        notes={},
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
