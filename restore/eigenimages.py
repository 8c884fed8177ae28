"""A cube as a few eigen-images: the spectral subspace that its pixels share, found from the noise.

Neighbouring bands show the same scene, so that the spectra of all pixels lie near a subspace of few
dimensions. In an orthonormal basis E of it

    x = mean + E z,      z (R, H, W) the eigen-images, uncorrelated with one another,

white noise of x stays white in z, and each z_r looks like a photograph of its own contrast: brought
to mid-grey and the contrast of photographs, `u = middle + (z / std) contrast`, it is what a prior
of grey images knows. E, the mean and the stds are principal components of the measured cube, less
the noise (`restore.principal`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from restore.principal import principal
from restore.problem import Problem

CONTRAST = 0.2  # std of a photograph, in widths of the range; a scale-free network hardly cares


@dataclass(frozen=True)
class Subspace:
    """An affine map between eigen-images of grey contrast and cubes.

    Attributes:
        mean: spectrum `(C,)` of mid-grey eigen-images.
        mixing: `(C, R)`, orthogonal columns: spectra of one unit of each eigen-image.
    """

    mean: Tensor
    mixing: Tensor

    @property
    def rank(self) -> int:
        """R."""
        return self.mixing.shape[1]

    @property
    def gains(self) -> Tensor:
        """Lengths `(R,)` of the columns: noise of a cube is `gains` times smaller in them."""
        return self.mixing.norm(dim=0)

    def mix(self, u: Tensor) -> Tensor:
        """Linear part: eigen-images `(N, R, H, W)` to cubes `(N, C, H, W)`."""
        return torch.einsum("cr,nrhw->nchw", self.mixing, u)

    def mix_adjoint(self, x: Tensor) -> Tensor:
        """Adjoint of `mix`."""
        return torch.einsum("cr,nchw->nrhw", self.mixing, x)

    def cube(self, u: Tensor) -> Tensor:
        """Cubes of eigen-images."""
        return self.mix(u) + self.mean[:, None, None]

    def eigenimages(self, x: Tensor) -> Tensor:
        """The eigen-images nearest to cubes `(N, C, H, W)`; inverts `cube`."""
        away = self.mix_adjoint(x - self.mean[:, None, None])
        return away / self.gains.square()[:, None, None]


class Mixed(LinearPhysics):
    """`u -> A(mix(u))`: what an operator on cubes measures of eigen-images.

    Args:
        operator: on cubes.
        subspace: see `Subspace`.
        index: which cube of a batch this is, of `batch`; operators may be batch-shaped.
        batch: how many cubes the operator is called with.
    """

    def __init__(
        self, operator: LinearPhysics, subspace: Subspace, index: int = 0, batch: int = 1
    ) -> None:
        super().__init__()
        self.noise_model = operator.noise_model
        self.operator, self.subspace = operator, subspace
        self.index, self.batch = index, batch

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Measure: `(N, R, H, W)` to measurements."""
        return self.of_cube(self.subspace.mix(x))

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        """Adjoint."""
        if self.batch == 1:
            return self.subspace.mix_adjoint(self.operator.A_adjoint(y))
        back = [self.operator.A_adjoint(self._spread(v))[self.index] for v in y]
        return self.subspace.mix_adjoint(torch.stack(back))

    def of_cube(self, x: Tensor) -> Tensor:
        """Measure cubes `(N, C, H, W)`."""
        if self.batch == 1:
            return self.operator.A(x)
        return torch.stack([self.operator.A(self._spread(one))[self.index] for one in x])

    def _spread(self, one: Tensor) -> Tensor:
        return one.expand(self.batch, *one.shape)


def subspaces(problem: Problem, rank: int | None = None) -> list[Subspace]:
    """The subspace of every measurement of a problem whose measurements are cubes.

    Args:
        problem: its operator may lose entries, pixels or sharpness, but acts on every band alone.
        rank: R; None takes the components that stand out from noise.

    Raises:
        ValueError: the measurement has not the bands of the cube, or too few values.
    """
    y = problem.y[: problem.images]
    if y.ndim != 4 or y.shape[1] != problem.shape[1]:
        raise ValueError(
            f"the measurement has shape {tuple(y.shape)}, expected a cube of {problem.shape[1]} "
            "bands to find eigen-images in; choose another solver."
        )
    flat = problem.A(torch.ones_like(problem.y[:1]).new_ones(problem.shape))[: problem.images]
    seen = (problem.observed[: problem.images].expand_as(y) > 0) & (flat.abs() > 1e-3)
    level = torch.where(seen, y / torch.where(seen, flat, 1), 0)  # uneven gains made even
    sigmas = problem.sigma_y.flatten().tolist()
    known = zip(level, seen, sigmas, strict=False)
    found = [principal(one, where, sigma, rank) for one, where, sigma in known]
    grey, contrast = problem.middle, CONTRAST * 2 * problem.scale
    return [_grey(mean, basis, std, grey, contrast) for mean, basis, std in found]


def _grey(mean: Tensor, basis: Tensor, std: Tensor, grey: float, contrast: float) -> Subspace:
    mixing = basis * (std / contrast)
    return Subspace(mean - grey * mixing.sum(1), mixing)
