"""CASSI: a whole spectrum in one shot, each band coded by a mask and shifted by a prism.

Wagadarikar, John, Willett, Brady, *Single disperser design for coded aperture snapshot spectral
imaging*, Applied Optics 47, 2008. Band b of the coded cube is moved by `step b` columns and all are
added up:

    y(i, j) = sum_b m(i, j - step b) x_b(i, j - step b).

Every measured pixel sees other cube pixels than its neighbours, so that `A A^T` is diagonal. The
shift is done by index: deepinv shifts by convolution and its adjoint is wrong at even sizes.
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor
from torch.nn.functional import pad

from .mask import random_mask
from .noise import noise_model
from .svd import SVD, Decomposed
from .validate import image_size, whole


class CodedAperture(Decomposed, LinearPhysics):
    """The single disperser; see the module's docstring.

    Args:
        shape: `(bands, H, W)` of one cube.
        code: the mask `(H, W)`.
        step: columns by which neighbouring bands are apart.
        **kwargs: for deepinv's `LinearPhysics`.
    """

    code: Tensor

    def __init__(self, shape: tuple[int, ...], code: Tensor, step: int, **kwargs: Any) -> None:
        super().__init__(img_size=shape, **kwargs)
        self.step, self.bands = step, shape[0]
        self.register_buffer("code", code.float())

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Code, shift, add: `(B, bands, H, W)` to `(B, 1, H, W + step (bands - 1))`."""
        return self._sheared(self.code * x).sum(1, keepdim=True)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Adjoint: every band takes its window of the measurement, through the code."""
        width = y.shape[-1] - self.step * (self.bands - 1)
        windows = y[:, 0].unfold(-1, width, self.step) if self.bands > 1 else y.movedim(1, -2)
        return self.code * windows.movedim(-2, 1)

    def svd(self) -> SVD:
        """`A A^T` is diagonal: `U` picks the pixels that see light, `s` is how much they see."""
        power = self.A(self.code.expand(1, self.bands, -1, -1))
        shape, power = power.shape[1:], power.flatten()
        seen = power.nonzero().flatten()
        s = power[seen].sqrt()

        def U(c: Tensor) -> Tensor:
            y = c.new_zeros(len(c), power.numel())
            return y.index_copy(1, seen, c).unflatten(1, shape)

        def Ut(y: Tensor) -> Tensor:
            return y.flatten(1)[:, seen]

        return SVD(s, lambda x: Ut(self.A(x)) / s, lambda c: self.A_adjoint(U(c / s)), U, Ut)

    def _sheared(self, x: Tensor) -> Tensor:
        """Every band moved by its columns: `(B, bands, H, W + step (bands - 1))`."""
        last = self.step * (self.bands - 1)
        offsets = range(0, last + 1, self.step) if last else [0]
        return torch.stack([pad(x[:, b], (o, last - o)) for b, o in enumerate(offsets)], 1)


def cassi(
    image_shape: Sequence[int], *, step: int = 1, seed: int = 0, noise: float = 0.0
) -> CodedAperture:
    """Snapshot spectral imaging through a random binary code, half of it open.

    Args:
        image_shape: `(bands, H, W)` of one clean cube.
        step: columns by which neighbouring bands are apart.
        seed: of the code.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, bands, H, W)` to `(B, 1, H, W + step (bands - 1))`.

    Raises:
        ValueError: a bad step.
    """
    shape = image_size(image_shape)
    step = whole("step", step, low=1, high=shape[2], do="give the columns between two bands")
    code = random_mask(shape[1:], 0.5, seed)
    return CodedAperture(shape, code, step, noise_model=noise_model(noise))
