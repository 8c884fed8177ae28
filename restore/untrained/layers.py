"""Layers of many networks side by side: equal in form, apart in weights, called as one.

R networks of c channels are one of R c channels whose convolutions are grouped, network-major. One
image at a time: then batch statistics are those of each network and channel alone. Weights start as
PyTorch's own would, uniform within `1 / sqrt(fan_in)`, but from a stream of one's own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

SLOPE = 0.2  # of the leaky units


class Convolution(nn.Module):
    """A convolution in each network; reflected at the border, or zero beyond it.

    Args:
        networks: R.
        before: channels a network of what comes in.
        after: of what goes out.
        size: side of the kernel, odd.
        bias: whether there is one.
        mode: "reflect" or "zeros".
    """

    def __init__(
        self,
        networks: int,
        before: int,
        after: int,
        size: int = 1,
        *,
        bias: bool = True,
        mode: str = "reflect",
    ) -> None:
        super().__init__()
        # skip_init: the layer's own initialisation would draw from the global generator
        self.layer = skip_init(
            nn.Conv2d,
            networks * before,
            networks * after,
            size,
            padding=size // 2,
            padding_mode=mode,
            groups=networks,
            bias=bias,
        )
        self.fan_in = before * size**2

    def forward(self, x: Tensor) -> Tensor:
        """Apply: `(1, R before, H, W)` to `(1, R after, H, W)`."""
        return self.layer(x)


class Dense(nn.Module):
    """A matrix and a bias in each network.

    Args:
        networks: R.
        before: length of what comes in.
        after: of what goes out.
    """

    def __init__(self, networks: int, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(networks, before, after))
        self.bias = nn.Parameter(torch.empty(networks, 1, after))
        self.fan_in = before

    def forward(self, x: Tensor) -> Tensor:
        """Apply: `(R, 1, before)` to `(R, 1, after)`."""
        return torch.baddbmm(self.bias, x, self.weight)


class Unit(nn.Module):
    """Convolution, averaging two by two if asked, batch normalisation, leaky ReLU."""

    def __init__(
        self, networks: int, before: int, after: int, size: int = 1, *, halve: bool = False
    ) -> None:
        super().__init__()
        self.convolution, self.halve = Convolution(networks, before, after, size), halve
        self.norm = normalisation(networks * after)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to `(1, R before, H, W)`; odd sides are halved upwards."""
        x = self.convolution(x)
        if self.halve:
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return F.leaky_relu(self.norm(x), SLOPE)


class Attention(nn.Module):
    """Convolutional block attention: what channels matter, then where; added to what came in.

    Woo, Park, Lee, Kweon, *CBAM*, ECCV 2018, arXiv:1807.06521.

    Args:
        networks: R.
        channels: a network.
        size: side of the spatial kernel, odd.
        reduction: how many times fewer channels the weights of channels pass through.
    """

    def __init__(self, networks: int, channels: int, size: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.networks = networks
        self.squeeze = Convolution(networks, channels, narrow, bias=False)
        self.excite = Convolution(networks, narrow, channels, bias=False)
        self.where = Convolution(networks, 2, 1, size, mode="zeros")

    def forward(self, x: Tensor) -> Tensor:
        """Apply to `(1, R channels, H, W)`."""
        highest, mean = x.amax((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)
        each = x * (self._weigh(highest) + self._weigh(mean)).sigmoid()
        each = each.unflatten(1, (self.networks, -1))
        seen = torch.stack([each.amax(2), each.mean(2)], 2).flatten(1, 2)
        gate = self.where(seen).sigmoid()
        return x + (each * gate[:, :, None]).flatten(1, 2)

    def _weigh(self, pooled: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(pooled)))


def normalisation(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation by the image at hand, always."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def side_by_side(networks: int, *parts: Tensor) -> Tensor:
    """Concatenate the channels of each network, of images cut to the smallest."""
    each = [part.unflatten(1, (networks, -1)) for part in parts]
    return torch.cat(each, 2).flatten(1, 2)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights, in the order of the modules, in double precision."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, Convolution | Dense):
                bound = layer.fan_in**-0.5
                for weight in layer.parameters():
                    draw = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
                    weight.copy_(bound * (2 * draw - 1))
