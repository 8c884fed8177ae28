"""Which measurements speak of separate parts of the image.

Where the prior falls into independent parts, each with measurements of its own, the posterior does
too. Particles can then be weighed and resampled part by part and put together anew: B independent
ambiguities need no more particles than one, where weights of whole images need exponentially many
(local particle filters; Rebeschini, van Handel, *Can local particle filters beat the curse of
dimensionality?*, 2015). Here the parts are found from the covariance of the measurements and from
the Jacobian; whether they are right is for the caller to test, by denoising what was put together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Parts:
    """A division of rows and pixels into at most m parts, most of them empty as a rule.

    Attributes:
        rows: 1 where a row belongs to a part, `(m, B, m)`, parts first.
        pixels: the same for pixels, `(m, B, P)`.
    """

    rows: Tensor
    pixels: Tensor

    @property
    def single(self) -> Tensor:
        """Whether the image is in one part `(B,)`."""
        return self.pixels.amax(2).sum(0) <= 1

    def per_pixel(self, values: Tensor) -> Tensor:
        """Give every pixel the number of its part: `(m, N, B)` to `(N, B, P)`."""
        owner = self.pixels.argmax(0)
        return values.permute(1, 2, 0).gather(2, owner.expand(values.shape[1], -1, -1))


def find_parts(K: Tensor, energy: Tensor, seen: Tensor, tol: float) -> Parts:
    """Divide by coupling: rows are together when correlated in the mean square over particles.

    A pixel goes to the part whose rows reach it most. An image stays whole when a part would have
    no pixels.

    Args:
        K: covariances `(N, B, m, m)` of `A x_0` given each particle, without noise.
        energy: of the rows of `A C` at every pixel, `(B, m, P)`.
        seen: 1 at rows that an image has, `(B, m)`.
        tol: correlation above which two rows belong together.
    """
    d = K.diagonal(dim1=2, dim2=3).clamp_min(torch.finfo(K.dtype).tiny)
    linked = (K.square() / (d[..., :, None] * d[..., None, :])).mean(0) > tol**2
    linked = (linked | torch.eye(K.shape[2], dtype=torch.bool, device=K.device)).to(K)
    for _ in range(K.shape[2].bit_length()):  # paths of any length
        linked = (linked @ linked > 0).to(K)
    parts = _parts(linked.argmax(2), energy)  # a part is named after its first row
    owned = (parts.rows * seen).amax(2) <= parts.pixels.amax(2)
    whole = ~owned.all(0)
    one = _parts(torch.zeros_like(seen, dtype=torch.long), energy)
    return Parts(
        torch.where(whole[None, :, None], one.rows, parts.rows),
        torch.where(whole[None, :, None], one.pixels, parts.pixels),
    )


def _parts(names: Tensor, energy: Tensor) -> Parts:
    m = names.shape[1]
    rows = torch.nn.functional.one_hot(names, m).to(energy).permute(2, 0, 1)
    nearest = torch.einsum("kbm,bmp->bpk", rows, energy).argmax(2)
    # an image that nothing reaches belongs to its first part
    return Parts(rows, torch.nn.functional.one_hot(nearest, m).to(energy).permute(2, 0, 1))
