"""A noise network that sees the measurement at every layer and can be run backwards.

The network of Chen et al., *Invertible Diffusion Models for Compressed Sensing*, TPAMI 2025, with
deepinv's DRUNet (Zhang et al. 2021) in place of Stable Diffusion's: every block is followed by an
injector, and the blocks of a stage are wired on two streams (`restore.trained.reversible`). It is
told the noise level, as DRUNet is; what else differs from step to step is in the injectors.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from deepinv.models import DRUNet
from torch import Tensor, nn
from torch.nn import functional as F

from priors import Denoiser
from priors.networks import Handover, NoisePredictor
from restore.trained.normal import Normal
from restore.trained.reversible import Reversible

_MULTIPLE = 8  # of the sides of what DRUNet takes


class Injector(nn.Module):
    """Adds to features what the measurement says about the image that they show.

    The features are laid out as one image `f` of full size; `f`, `G f` and `b` are mixed and folded
    back. One set of weights a step of the sampler. Without effect at first.

    Args:
        width: feature channels.
        factor: by which the features are smaller than the image.
        channels: of the image.
        steps: T.
    """

    def __init__(self, width: int, factor: int, channels: int, steps: int) -> None:
        super().__init__()
        self.factor, thin = factor, width // factor**2
        if thin * factor**2 != width:
            raise ValueError(
                f"{width} features at 1/{factor} of the size cannot be laid out as images; choose "
                f"a multiple of {factor**2}."
            )
        self.out = nn.ModuleList(nn.Conv2d(thin, channels, 1, bias=False) for _ in range(steps))
        self.back = nn.ModuleList(
            nn.Conv2d(3 * channels, thin, 1, bias=False) for _ in range(steps)
        )
        for conv in self.back:
            nn.init.zeros_(cast(nn.Conv2d, conv).weight)

    def forward(self, x: Tensor, b: Tensor, normal: Normal, t: int) -> Tensor:
        """Inject at step `t`, 1 to T; features and `b` have sides that are multiples of 8."""
        f = self.out[t - 1](F.pixel_shuffle(x, self.factor)).to(b.dtype)
        height, width = normal.b.shape[-2:]
        G_f = normal.gram(f[..., :height, :width])
        G_f = F.pad(G_f, (0, f.shape[-1] - width, 0, f.shape[-2] - height))
        return x + F.pixel_unshuffle(self.back[t - 1](torch.cat([f, G_f, b], 1)), self.factor)


class Block(nn.Module):
    """A block of a network that does not look at the measurement."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, b: Tensor, normal: Normal, t: int) -> Tensor:
        """Evaluate the block."""
        return self.block(x)


class Stage(nn.Module):
    """Blocks of one width with an injector after each, on two streams.

    The features are doubled to `f, c f`, and become `f_1 + m f_2` at the end; c and m are learned.

    Args:
        blocks: of one shape to the same shape.
        width: see `Injector`; so are factor, channels and steps.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], width: int, factor: int, channels: int, steps: int
    ) -> None:
        super().__init__()
        bodies: list[nn.Module] = []
        for block in blocks:
            bodies += [Block(block), Injector(width, factor, channels, steps)]
        self.chain = Reversible(bodies)
        self.c, self.m = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, b: Tensor, normal: Normal, t: int) -> Tensor:
        """Evaluate."""
        f_1, f_2 = self.chain(x, self.c * x, b, normal, t)
        return f_1 + self.m * f_2


class InjectedDRUNet(nn.Module):
    """A DRUNet that predicts noise and sees the measurement; see the module's docstring.

    Args:
        channels: of the images.
        widths: feature channels of the four scales, multiples of 1, 4, 16 and 64.
        blocks: residual blocks a scale and side.
        steps: T.
    """

    def __init__(
        self, channels: int, widths: tuple[int, int, int, int], blocks: int, steps: int
    ) -> None:
        super().__init__()
        self.config = {"channels": channels, "widths": widths, "blocks": blocks, "steps": steps}
        net = DRUNet(channels, channels, nc=widths, nb=blocks, pretrained=None)

        def stage(layers: list[nn.Module], scale: int) -> Stage:
            return Stage(layers, widths[scale], 2**scale, channels, steps)

        down = [list(m) for m in (net.m_down1, net.m_down2, net.m_down3)]  # pyright: ignore
        up = [list(m) for m in (net.m_up1, net.m_up2, net.m_up3)]  # pyright: ignore
        body = list(net.m_body) if isinstance(net.m_body, nn.Sequential) else [net.m_body]
        self.head, self.tail = net.m_head, net.m_tail
        self.down = nn.ModuleList(stage(m[:-1], i) for i, m in enumerate(down))
        self.smaller = nn.ModuleList(m[-1] for m in down)
        self.middle = stage(body, 3)
        self.larger = nn.ModuleList(m[0] for m in up)
        self.up = nn.ModuleList(stage(m[1:], i) for i, m in enumerate(up))

    def forward(self, z: Tensor, s: Tensor, normal: Normal, t: int) -> Tensor:
        """Estimate the noise; see `restore.trained.unrolled.Noise`."""
        height, width = z.shape[-2:]
        down, right = -height % _MULTIPLE, -width % _MULTIPLE
        mode = "reflect" if height > down and width > right else "replicate"
        z = F.pad(z, (0, right, 0, down), mode=mode)
        b = F.pad(normal.b, (0, right, 0, down))
        level = s.expand(len(z), 1, *z.shape[2:])
        x = self.head(torch.cat([z, level], 1).contiguous(memory_format=torch.channels_last))
        skips = []
        for stage, smaller in zip(self.down, self.smaller, strict=True):
            skips.append(x)
            x = smaller(stage(x, b, normal, t))
        x = x + self.middle(x, b, normal, t)
        for stage, larger in reversed(list(zip(self.up, self.larger, strict=True))):
            x = stage(larger(x), b, normal, t)
            x = x + skips.pop()
        return self.tail(x)[..., :height, :width] / s

    def take(self, prior: Denoiser) -> None:
        """Take the weights of a prior of the same layout, to start from.

        With one block a stage the network then predicts exactly what the prior does: what the
        streams take from the block, `(1 - v)^2`, is given to its last layer.

        Raises:
            ValueError: another kind of prior, or other widths.
        """
        source = prior.network if isinstance(prior, Handover) else prior
        if not isinstance(source, NoisePredictor):
            raise ValueError(
                f"'{prior.card.name}' is not a DRUNet that predicts noise; start from another."
            )
        net = copy.deepcopy(source.net)
        mine = dict(self.named_parameters())
        for name, weight in _renamed(net):
            if name not in mine or mine[name].shape != weight.shape:
                raise ValueError(
                    f"'{prior.card.name}' has another layout; give widths and blocks that agree."
                )
            mine[name].data.copy_(weight)
        for stage in (*self.down, self.middle, *self.up):
            chain = cast(Stage, stage).chain
            for block, v in zip(list(chain.bodies)[::2], chain.mix[::2], strict=True):
                last = list(cast(Any, block).block.res)[-1]
                last.weight.data.div_((1 - v.detach()) ** 2)


def _renamed(net: DRUNet) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of a DRUNet as `InjectedDRUNet` calls them."""
    for name, weight in net.named_parameters():
        part, _, rest = name.partition(".")
        index, _, inner = rest.partition(".")
        if part in ("m_head", "m_tail"):
            yield name.removeprefix("m_"), weight
        elif part == "m_body":  # a lone block is not in a list
            inside = rest if index == "res" else inner
            number = 0 if index == "res" else int(index)
            yield f"middle.chain.bodies.{2 * number}.block.{inside}", weight
        else:
            side, scale = part[2:-1], int(part[-1]) - 1
            layers, number = len(getattr(net, part)), int(index)
            if side == "down" and number == layers - 1:
                yield f"smaller.{scale}.{inner}", weight
            elif side == "up" and number == 0:
                yield f"larger.{scale}.{inner}", weight
            else:
                number -= side == "up"
                yield f"{side}.{scale}.chain.bodies.{2 * number}.block.{inner}", weight
