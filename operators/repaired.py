"""deepinv physics without three of their surprises.

Mixed in before a deepinv class, `Repaired` changes nothing in what `A` and `A_adjoint` compute:

- deepinv's conjugate gradients add 1e-8 to their denominators and stall at a relative residual of
  about 1e-3, and stop a batch as one. Here `A_dagger` and `prox_l2` use `linalg`.
- deepinv writes the options of one such call into the object, so that the next call runs with
  them. Here they last for one call.
- `physics.to(torch.float64)` makes torch cast complex buffers (coil maps, transfer functions) to
  real ones, losing the imaginary part. Here they become complex128.
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from .linalg import conjugate_gradient


class Repaired(LinearPhysics):
    """Mixin: `class Mine(Repaired, deepinv.physics.Blur)`.

    Attributes:
        dagger_tolerance: what `restore check` demands of `|A A_dagger A x - A x| / |A x|`; None
            for an approximate inverse.
    """

    dagger_tolerance: ClassVar[float | None] = 1e-2

    def A_dagger(
        self, y: Tensor, *, tol: float = 1e-6, max_iter: int = 200, **parameters: Any
    ) -> Tensor:
        """Least-squares solution of minimum norm, by conjugate gradients on `A^T A x = A^T y`.

        Args:
            y: measurements `(B, ...)`.
            tol: relative residual of the normal equations at which an image stops.
            max_iter: most applications of `A^T A`; an image that needs more is returned as it
                stands, with a `ConvergenceWarning`.
            **parameters: new operator parameters (a mask, a filter), kept as deepinv keeps them.

        Returns:
            Images `(B, C, H, W)`.
        """
        self.update_parameters(**parameters)
        return conjugate_gradient(
            self.A_adjoint_A,
            self.A_adjoint(y),
            tol=tol,
            max_iter=max_iter,
            warn=True,
        )

    def prox_l2(
        self,
        z: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        *,
        tol: float = 1e-6,
        max_iter: int = 200,
        **parameters: Any,
    ) -> Tensor:
        """`argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2`, by conjugate gradients.

        Args:
            z: images `(B, C, H, W)`.
            y: measurements `(B, ...)`.
            gamma: weight of the data, one number or one per image `(B,)`.
            tol: relative residual of the normal equations at which an image stops.
            max_iter: most applications of `A^T A`; an image that needs more is returned as it
                stands, with a `ConvergenceWarning`.
            **parameters: new operator parameters, kept as deepinv keeps them.

        Returns:
            Images `(B, C, H, W)`.
        """
        self.update_parameters(**parameters)
        weight = per_image(gamma, z)
        return conjugate_gradient(
            lambda x: weight * self.A_adjoint_A(x) + x,
            weight * self.A_adjoint(y) + z,
            x0=z,
            tol=tol,
            max_iter=max_iter,
            warn=True,
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def parts(t: Tensor) -> Tensor:
            if not t.is_complex():
                return fn(t)
            return torch.view_as_complex(fn(torch.view_as_real(t.resolve_conj())))

        return super()._apply(parts, recurse)


def per_image(gamma: float | Tensor, z: Tensor) -> Tensor:
    """A weight as `(B, 1, ..., 1)` (or `(1, 1, ..., 1)`) that scales images `z`."""
    weight = torch.as_tensor(gamma, dtype=z.dtype, device=z.device)
    return weight.reshape(-1, *[1] * (z.ndim - 1))
