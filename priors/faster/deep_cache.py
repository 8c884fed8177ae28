"""Deep features kept from one noise level to the next.

Ma, Fang, Wang, *DeepCache: Accelerating Diffusion Models for Free*, CVPR 2024, arXiv:2312.00858,
section 3.2. With x_1, x_2, ... the encoder's features from fine to coarse and d_4, ..., d_1 the
decoder's from coarse to fine, a key call computes and keeps

    d_{k+1}                                            all that lies below level k,

and the calls that follow compute x_1, ..., x_{k+1} and d_k, ..., d_1 anew and reuse it.

Li et al., *Faster Diffusion: Rethinking the Role of the Encoder for Diffusion Model Inference*,
NeurIPS 2024, arXiv:2312.09608, keep the whole encoder instead. That needs a decoder which is told
the time; DRUNet learns image and noise level through its first layer alone, so that its decoder
would repeat the noise of the key call, whatever the new image.

The result is no longer a function of image and noise level: it depends on the calls before. Its
derivative misses the path through what was kept, and is therefore refused.

A call is a key call when it is the first, when `every` calls have passed, and whenever the features
may be stale: another number or size of images, a noise level above the last key's or below half of
it, or an image that moved by more than both levels' noise together.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from priors.denoiser import Denoiser, per_image
from priors.faster.bfloat16 import Autocast
from priors.faster.inside import on_predictor
from priors.networks import NoisePredictor, padded_call


def deep_cache(prior: Denoiser, *, every: int = 2, depth: int = 1) -> Denoiser:
    """Reuse the deep features of a key call in the calls that follow.

    Args:
        prior: left as it is; weights are shared. It holds a noise predictor, with or without
            bfloat16, called on whole images.
        every: calls from one key call to the next; 1 makes every call one.
        depth: levels that are always computed, 0 to 3. Of 3 they are all but the body.

    Returns:
        A denoiser for solvers that take no derivative of it and go through the noise levels from
        high to low.

    Raises:
        ValueError: impossible numbers, or a prior without such a network; later, when called, a
            derivative asked for.
    """
    if every < 1 or not 0 <= depth <= 3:
        raise ValueError(
            f"deep-cache needs every >= 1 and a depth from 0 to 3, found {every} and {depth}; "
            "correct these."
        )
    return on_predictor(prior, "deep-cache", lambda predictor: _Cached(predictor, every, depth))


class _Cached(NoisePredictor):
    """A noise predictor that follows its images from call to call."""

    def __init__(self, predictor: NoisePredictor, every: int, depth: int) -> None:
        Denoiser.__init__(self, predictor.card)
        self.net = _with_kept(predictor.net, depth)
        self.kept = next(part for part in self.net.modules() if isinstance(part, _Kept))
        self.every = every
        self.key: tuple[Tensor, Tensor] | None = None
        self.age = 0
        self.eval()

    def noise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError(
                "features kept from an earlier call have no derivative by the image; take a solver "
                "that uses none (without VJPs in `restore solvers`) or leave deep-cache out."
            )
        level = per_image(sigma, x).flatten().expand(len(x))
        fresh = self._stale(x, level)
        if fresh:
            self.key, self.age = (x.detach().clone(), level.clone()), 0
            self.kept.features.clear()
        self.age += 1
        x = x.to(next(self.net.parameters()).dtype)
        parts = zip(x.split(1), level.to(x.dtype).split(1), strict=True)
        noise = []
        for index, one in enumerate(parts):
            self.kept.index = index
            noise.append(padded_call(self.net, *one, one_by_one=False))
        return torch.cat(noise)

    def _stale(self, x: Tensor, level: Tensor) -> bool:
        if self.key is None or self.age >= self.every:
            return True
        before, high = self.key
        if (before.shape, before.dtype, before.device) != (x.shape, x.dtype, x.device):
            return True
        if bool(((level > high) | (level < high / 2)).any()):
            return True
        moved = (x - before).flatten(1).square().mean(1).sqrt()
        return bool((moved > high + level).any())


class _Kept(nn.Module):
    """A DRUNet that computes what lies below `depth` once for every image and then keeps it."""

    def __init__(self, net: nn.Module, depth: int) -> None:
        super().__init__()
        self.net, self.depth = net, depth
        self.features: dict[int, Tensor] = {}
        self.index = 0

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        net, depth = cast(Any, self.net), self.depth
        down = (net.m_head, net.m_down1, net.m_down2, net.m_down3)
        up = (net.m_tail, net.m_up1, net.m_up2, net.m_up3)
        levels = level.reshape(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        features = [torch.cat((x, levels), 1)]
        for part in down[: depth + 1]:
            features.append(part(features[-1]))
        if self.index not in self.features:
            below = features.copy()
            for part in down[depth + 1 :]:
                below.append(part(below[-1]))
            d = net.m_body(below[-1])
            for part in reversed(up[depth + 1 :]):
                d = part(d + below.pop())
            self.features[self.index] = d
        d = self.features[self.index]
        for part in reversed(up[: depth + 1]):
            d = part(d + features.pop())
        return d


def _with_kept(net: nn.Module, depth: int) -> nn.Module:
    if isinstance(net, Autocast):
        outer = Autocast(nn.Identity())
        outer.network = _Kept(net.network, depth)
        return outer
    return _Kept(net, depth)
