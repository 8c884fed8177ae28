"""The degraded image `y_0` around which a restoration diffusion runs: a measurement as an image.

Papers of trained restoration call it the low-quality image: the photograph as it came, enlarged to
the size sought. An instrument that does not measure images gives a linear fit instead. Training and
restoring must use the same map, hence this one place.
"""

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor
from torch.nn import functional as F

from operators.linalg import conjugate_gradient

_WEAK = 1e-3  # of the fit: mid-range where singular values are below its root


def anchor(y: Tensor, operator: Physics, image_shape: tuple[int, ...], middle: float) -> Tensor:
    """Bring measurements to images.

    Args:
        y: `(B, ...)` of the operator.
        operator: what measured.
        image_shape: `(C, *spatial)` of the clean images.
        middle: of their range.

    Returns:
        `(B, C, *spatial)`: `y` itself where it has the images' shape; enlarged bicubically where
        it is a smaller image; else `argmin_x |y - A x|^2 + 1e-3 |x - middle|^2`.

    Raises:
        ValueError: for a nonlinear operator whose measurement is not an image.
    """
    shape = tuple(y.shape[1:])
    if shape == tuple(image_shape):
        return y
    if len(shape) == len(image_shape) == 3 and _divides(shape, image_shape):
        return F.interpolate(y, image_shape[1:], mode="bicubic", align_corners=False)
    if not isinstance(operator, LinearPhysics):
        raise ValueError(
            f"a measurement of shape {shape} is no image of shape {tuple(image_shape)} and its "
            "operator is not linear; trained restoration needs one or the other."
        )
    return _weak_fit(y, operator, image_shape, middle)


def _divides(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    return small[0] == large[0] and all(
        n > m and n % m == 0 for m, n in zip(small[1:], large[1:], strict=True)
    )


def _weak_fit(
    y: Tensor, operator: LinearPhysics, image_shape: tuple[int, ...], middle: float
) -> Tensor:
    start = torch.full((len(y), *image_shape), middle, dtype=y.dtype, device=y.device)

    def normal(v: Tensor) -> Tensor:
        return operator.A_adjoint(operator.A(v)) + _WEAK * v

    return start + conjugate_gradient(
        normal, operator.A_adjoint(y - operator.A(start)), tol=1e-4, max_iter=100
    )
