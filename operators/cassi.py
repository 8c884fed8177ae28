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

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor
from torch.nn.functional import pad

from .files import read_plane
from .mask import random_mask
from .noise import noise_model
from .svd import SVD, Decomposed
from .validate import image_size, whole


class CodedAperture(Decomposed, LinearPhysics):
    """The single disperser; see the module's docstring.

    Args:
        shape: `(bands, H, W)` of one cube.
        code: what the aperture lets through, `(H, W)`.
        step: columns by which neighbouring bands are apart.
        **options: for deepinv's `LinearPhysics`.
    """

    code: Tensor

    def __init__(self, shape: tuple[int, ...], code: Tensor, step: int, **options: Any) -> None:
        super().__init__(**options)
        self.img_size, self.step = shape, step
        self.register_buffer("code", code.detach().float())

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Code, shift, add: `(B, bands, H, W)` to `(B, 1, H, W + step (bands - 1))`."""
        last = self.step * (x.shape[1] - 1)
        bands = enumerate((self.code * x).split(1, 1))
        return torch.stack([pad(b, (i * self.step, last - i * self.step)) for i, b in bands]).sum(0)

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        """Adjoint: every band takes its window of the measurement, through the code."""
        windows = y.unfold(-1, self.img_size[2], self.step)
        return self.code * windows[:, 0].movedim(-2, 1)

    def svd(self) -> SVD:
        """`A A^T` is diagonal: `U` picks the pixels that see light, `s` is how much they see."""
        power = self.A(self.code.expand(1, *self.img_size))
        seen = power.flatten().nonzero().flatten()
        s = power.flatten()[seen].sqrt()

        def U(c: Tensor) -> Tensor:
            y = c.new_zeros(len(c), power.numel())
            return y.index_copy(1, seen, c).reshape(-1, *power.shape[1:])

        def Ut(y: Tensor) -> Tensor:
            return y.flatten(1)[:, seen]

        return SVD(s, lambda x: Ut(self.A(x)) / s, lambda c: self.A_adjoint(U(c / s)), U, Ut)


def cassi(
    image_shape: Sequence[int],
    *,
    step: int = 1,
    keep: float = 0.5,
    seed: int = 0,
    file: Path | str | None = None,
    code: Tensor | None = None,
    noise: float = 0.0,
) -> CodedAperture:
    """Snapshot spectral imaging (CASSI): coded bands, moved apart and added up.

    Args:
        image_shape: `(bands, H, W)` of one clean cube.
        step: columns by which neighbouring bands are apart.
        keep: fraction of a random code that is open.
        seed: of the random code.
        file: picture or `.npy` array of a real code `(H, W)` instead, white where it is open.
        code: the same as a tensor; anything from closed, 0, to open, 1.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator from `(B, bands, H, W)` to `(B, 1, H, W + step (bands - 1))`.

    Raises:
        ValueError: bad numbers, or a code of another size or of values outside [0, 1].
        FileNotFoundError: there is no such file.
    """
    shape = image_size(image_shape)
    step = whole("step", step, low=1, high=shape[2], do="give the columns between two bands")
    if file is not None and code is not None:
        raise ValueError("the code is given by file and code, expected one; drop the other.")
    if file is not None:
        code = read_plane(file)
    if code is None:
        code = random_mask(shape[1:], keep, seed)[0]
    else:
        _refuse_code(torch.as_tensor(code), shape[1:])
    return CodedAperture(shape, code, step, noise_model=noise_model(noise))


def _refuse_code(code: Tensor, size: tuple[int, ...]) -> None:
    if tuple(code.shape) != size:
        raise ValueError(
            f"the code has shape {tuple(code.shape)} but the image {size}; give one value a pixel."
        )
    low, high = float(code.min()), float(code.max())
    if not 0 <= low <= high <= 1 or high == 0 or math.isnan(low + high):
        raise ValueError(
            f"the code has values from {low:g} to {high:g}, expected 0 (closed) to 1 (open) and "
            "something open; scale it."
        )
