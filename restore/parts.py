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

    def join(self, whole: Tensor) -> "Parts":
        """Undo the division of the images where `whole` `(B,)` holds."""
        rows, pixels = torch.zeros_like(self.rows), torch.zeros_like(self.pixels)
        rows[:1], pixels[:1] = 1, 1
        whole = whole[None, :, None]
        return Parts(torch.where(whole, rows, self.rows), torch.where(whole, pixels, self.pixels))

    def take_pixels(self, x: Tensor, index: Tensor) -> Tensor:
        """Put images together from particles `x` `(N, B, C, *spatial)`.

        Args:
            x: particles.
            index: which of them gives each part, `(m, count, B)`.
        """
        each = _each(self.pixels, index)
        return x.flatten(2).gather(0, each).reshape(-1, *x.shape[1:])

    def take_rows(self, K: Tensor, r: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Put together covariances `(N, B, m, m)` and residuals `(N, B, m)`, as `take_pixels`."""
        each = _each(self.rows, index)
        same = torch.einsum("kbi,kbj->bij", self.rows, self.rows).to(K)
        return K.gather(0, each[..., None].expand(-1, -1, -1, K.shape[3])) * same, r.gather(0, each)


def _each(members: Tensor, index: Tensor) -> Tensor:
    """Particle `(count, B, ...)` of each member, from that of each part `(m, count, B)`."""
    owner = members.argmax(0).expand(index.shape[1], -1, -1)
    return index.permute(1, 2, 0).gather(2, owner)


def find_parts(K: Tensor, energy: Tensor, seen: Tensor, tol: float) -> Parts:
    """Divide by coupling: rows are together when correlated in the mean square over particles.

    A pixel goes to the part whose rows reach it most. An image stays whole when a part would have
    no pixels.

    Args:
        K: covariances `(N, B, m, m)` of `A x_0` given each particle, without noise.
        energy: of the rows of `A C` at every pixel, `(B, m, P)`.
        seen: 1 at rows that an image has, `(B, m)`.
        tol: correlation above which two rows belong together; below 0 all do.
    """
    d = K.diagonal(dim1=2, dim2=3).clamp_min(torch.finfo(K.dtype).tiny)
    linked = (K.square() / (d[..., :, None] * d[..., None, :])).mean(0).sqrt() > tol
    linked = (linked | torch.eye(K.shape[2], dtype=torch.bool, device=K.device)).to(K)
    for _ in range(K.shape[2].bit_length()):  # paths of any length
        linked = (linked @ linked > 0).to(K)
    m = K.shape[2]
    rows = _one_hot(linked.argmax(2), m, energy)  # a part is named after its first row
    nearest = torch.einsum("kbm,bmp->bpk", rows, energy).argmax(2)
    parts = Parts(rows, _one_hot(nearest, m, energy))
    owned = (parts.rows * seen).amax(2) <= parts.pixels.amax(2)
    return parts.join(~owned.all(0))


def _one_hot(names: Tensor, count: int, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(names, count).to(like).movedim(2, 0)
