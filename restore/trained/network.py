"""The network of a restoration diffusion: it sees the noisy residual and the degraded image.

With `u = x - y_0`, the residual that is missing from the degraded image `y_0`, and `z = u_0 + s n`,
the network estimates `E[u_0 | z, y_0]`. That conditional mean depends on the level `s` alone and
not on the schedule, so that one network serves every paper's.

It is deepinv's DRUNet (Zhang et al. 2021) inside the preconditioning of Karras et al. 2022
(arXiv:2206.00364, section 5), whose data std is `spread`, that of the residual:

    D_u = c_skip z + c_out N(c_in z, (y_0 - middle) / 0.25, s c_in)

    c_in = 1 / sqrt(spread^2 + s^2),  c_skip = spread^2 c_in^2,  c_out = s spread c_in

The network's target, `(u_0 - c_skip z) / c_out`, then has unit variance at every level. Where the
noise is overwhelming, `D_u` is the regression of the clean image on the degraded one.
"""

import torch
from deepinv.models import DRUNet
from torch import Tensor, nn

from priors.denoiser import per_image
from priors.networks import padded_call


class PairNetwork(nn.Module):
    """See the module's docstring.

    Args:
        channels: of the images.
        widths: feature channels of the four scales.
        blocks: residual blocks a scale and side.
        spread: std of the residual `x_0 - y_0` over the training pairs, in units of the images.
        middle: middle of the images' range.
        seen: images that it looks at besides the noisy one, one above the other as channels.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, int, int, int],
        blocks: int,
        spread: float,
        middle: float = 0.5,
        seen: int = 1,
    ) -> None:
        super().__init__()
        self.channels, self.widths, self.blocks = channels, widths, blocks
        self.spread, self.middle, self.seen = spread, middle, seen
        self.net = DRUNet((1 + seen) * channels, channels, nc=widths, nb=blocks, pretrained=None)

    def forward(self, z: Tensor, y_0: Tensor, s: float | Tensor) -> Tensor:
        """Estimate the residual.

        Args:
            z: `(B, C, H, W)`, residual plus noise of std `s`.
            y_0: degraded images, same shape; `seen * C` channels.
            s: noise level, one number or one per image `(B,)`.

        Returns:
            `E[u_0 | z, y_0]`, same shape and dtype as `z`.
        """
        _, c_skip, c_out = self.scales(z, s)
        return c_skip * z + c_out * self.raw(z, y_0, s).to(z.dtype)

    def raw(self, z: Tensor, y_0: Tensor, s: float | Tensor) -> Tensor:
        """Evaluate `N` itself, in the network's own precision."""
        dtype = next(self.net.parameters()).dtype
        c_in, _, _ = self.scales(z, s)
        seen = torch.cat([c_in * z, (y_0 - self.middle) / 0.25], 1).to(dtype)
        level = (c_in * per_image(s, z)).flatten().expand(len(z)).to(dtype)
        return padded_call(self.net, seen, level, one_by_one=not self.training)

    @property
    def config(self) -> dict[str, object]:
        """What builds the same network, as plain values."""
        names = ("channels", "widths", "blocks", "spread", "middle", "seen")
        return {name: getattr(self, name) for name in names}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.net.parameters()).device

    def scales(self, z: Tensor, s: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `c_in`, `c_skip`, `c_out`, each broadcasting against `z`."""
        s = per_image(s, z)
        c_in = torch.rsqrt(self.spread**2 + s.square())
        return c_in, (self.spread * c_in).square(), s * self.spread * c_in
