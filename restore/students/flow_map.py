"""The network of a student: the mean slope of a trajectory over a whole jump.

Along the probability-flow ODE `dx/ds = eps(x, s)` (images plus noise of std `s`) the jump from a
level `t` to `u` and the clean image averaged over it are the same thing,

    x_u = (u / t) x_t + (1 - u / t) G(x_t, t, u).

    symbol       here                  meaning
    c_skip       u / t                 consistency models' skip, arXiv:2303.01469, equation 5
    c_out        1 - u / t             0 at u = t, so that a jump of no length changes nothing
    G            FlowMap               tends to the teacher's D(x_t, t) as u -> t; G(x, t, 0) = x_0

`G` is a DRUNet that predicts the noise, as the shipped priors do, with two planes more to see: the
level `u`, and `G` of the power-law Gaussian, known in closed form for every pair of levels, which
tells the few low frequencies that a convolution sees badly. Where both planes are ignored, the
network is the teacher and a jump is a DDIM step: training starts there (`from_teacher`).
"""

import torch
from deepinv.models import DRUNet
from torch import Tensor, nn

from priors.denoiser import per_image
from priors.networks import NoisePredictor, padded_call
from priors.powerlaw import PowerLaw
from priors.training import Network
from restore.students.gaussian import gaussian_average


class FlowMap(nn.Module):
    """See the module's docstring.

    Args:
        law: power law of the images; it sets the number of channels C.
        widths: feature channels of the four scales.
        blocks: residual blocks a scale and side.
    """

    def __init__(self, law: PowerLaw, widths: tuple[int, int, int, int], blocks: int) -> None:
        super().__init__()
        self.law, self.widths, self.blocks = law, tuple(widths), blocks
        self.channels = len(law.mean)
        self.net = DRUNet(2 * self.channels + 1, self.channels, widths, blocks, pretrained=None)

    @classmethod
    def from_teacher(
        cls, teacher: NoisePredictor, law: PowerLaw, widths: tuple[int, int, int, int], blocks: int
    ) -> "FlowMap":
        """Build a student that begins as DDIM with a teacher of the same blocks and widths.

        The coarsest scale may be narrower: of the teacher's it keeps the channels of most weight.
        """
        student = cls(law, widths, blocks)
        weights = _narrowed(teacher.net.state_dict(), widths[-1])
        head, seen = weights["m_head.weight"], student.channels
        wide = torch.zeros_like(student.net.state_dict()["m_head.weight"])
        wide[:, :seen], wide[:, -1] = head[:, :seen], head[:, -1]  # the image, and its own level
        student.net.load_state_dict(weights | {"m_head.weight": wide})
        return student.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, start: float | Tensor, end: float | Tensor) -> Tensor:
        """Average the clean image over a jump.

        Args:
            x: `(B, C, H, W)` at level `start`.
            start: level of `x`, positive; one number or one per image `(B,)`.
            end: level to reach, from 0 to below `start`; likewise.

        Returns:
            `G`, shape and dtype of `x`.
        """
        with torch.autocast(x.device.type, enabled=False):
            t, u = per_image(start, x), per_image(end, x)
            guide = gaussian_average(self.law, x, t, u)
            plane = u.expand(len(x), 1, *x.shape[2:])
            seen = torch.cat([x, guide, plane], 1).to(next(self.parameters()).dtype)
            seen = seen.contiguous(memory_format=torch.channels_last)
            level = t.flatten().expand(len(x)).to(seen.dtype)
        noise = padded_call(self.net, seen, level, one_by_one=not self.training)
        return x - noise.to(x.dtype)


def jump_with(network: Network, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Jump with a network that gives the averaged clean image; levels `(B,)`."""
    ratio = per_image(end / start, x)
    moved = ratio < 1
    return torch.where(moved, ratio * x + (1 - ratio) * network(x, start, end), x)


def _narrowed(weights: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Keep the `width` channels of the coarsest scale that come in and go out with most weight."""
    up = next(
        w for name, w in weights.items() if name.startswith("m_up3.0")
    )  # (widest, next, 2, 2)
    down = [w for name, w in weights.items() if name.startswith("m_down3")][-1]
    weight = up.flatten(1).norm(dim=1) * down.flatten(1).norm(dim=1)
    kept = weight.topk(width).indices.sort().values
    for axis in (0, 1):
        weights = {
            name: w.index_select(axis, kept) if w.shape[axis] == len(weight) else w
            for name, w in weights.items()
        }
    return weights
