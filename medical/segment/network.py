"""The network of tumour masks: MONAI's diffusion U-Net in 3-D, PET and CT joined as channels.

Channels in this order: the noisy mask, if there is one, then PET, then CT. Blocks of `fold`^3
voxels become channels first and channels become blocks again last (MONAI's pixel shuffle), which
loses nothing and takes an eighth of the time for `fold` 2.

The plain network, which segments at once, is the same network without the noisy mask, at time 0.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.validate import one_of, whole

Modalities = Literal["both", "pet", "ct"]
"""What a network looks at."""

CHANNELS: dict[Modalities, tuple[int, ...]] = {"both": (0, 1), "pet": (0,), "ct": (1,)}
BLANK = -1.0  # no uptake, or air: what the channel that is not looked at holds


class MaskNetwork(nn.Module):
    """See the module's docstring.

    Args:
        noisy: whether it sees a noisy mask, as a diffusion does.
        modalities: the other channel is filled with -1.
        widths: feature channels of the scales, each half as fine as the one before; multiples of
            `groups`.
        blocks: residual blocks of a scale.
        fold: side of the blocks of voxels that become channels.
        groups: of the normalisation.

    Raises:
        ValueError: an unknown word, widths that are not multiples.
    """

    def __init__(
        self,
        *,
        noisy: bool = True,
        modalities: Modalities = "both",
        widths: Sequence[int] = (16, 24, 48),
        blocks: int = 1,
        fold: int = 2,
        groups: int = 8,
    ) -> None:
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        super().__init__()
        one_of("modalities", modalities, get_args(Modalities))
        whole("fold", fold, low=1, do="1 is none")
        if not widths or any(width % groups or width < 1 for width in widths):
            raise ValueError(
                f"the widths are {tuple(widths)}, expected multiples of {groups}; correct these."
            )
        self.noisy, self.fold = noisy, fold
        self.modalities: Modalities = modalities
        self.widths, self.blocks, self.groups = tuple(widths), blocks, groups
        self.net = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=(2 + noisy) * fold**3,
            out_channels=fold**3,
            num_res_blocks=blocks,
            channels=self.widths,
            attention_levels=(False,) * len(self.widths),
            norm_num_groups=groups,
            num_head_channels=groups,
        )

    def forward(
        self, images: Tensor, noisy: Tensor | None = None, t: Tensor | None = None
    ) -> Tensor:
        """Evaluate.

        Args:
            images: `(B, 2, D, H, W)`, PET and CT in [-1, 1].
            noisy: `(B, 1, D, H, W)`, noisy mask of unit variance, where the network sees one.
            t: its time in steps of the schedule, `(B,)`.

        Returns:
            `(B, 1, D, H, W)`: logits of the mask, or the noise, as it was trained.

        Raises:
            ValueError: a noisy mask that is missing or too many.
        """
        if (noisy is not None) is not self.noisy:
            raise ValueError(
                f"the network {'sees a' if self.noisy else 'sees no'} noisy mask and was given "
                f"{'none' if self.noisy else 'one'}; call it as it was trained."
            )
        images = self._looked_at(images)
        seen = images if noisy is None else torch.cat([noisy, images], 1)
        time = torch.zeros(len(seen), device=seen.device) if t is None else t.expand(len(seen))
        return self._folded(seen, time)

    def _looked_at(self, images: Tensor) -> Tensor:
        kept = CHANNELS[self.modalities]
        parts = [
            images[:, [c]] if c in kept else torch.full_like(images[:, [c]], BLANK) for c in (0, 1)
        ]
        return torch.cat(parts, 1)

    def _folded(self, x: Tensor, t: Tensor) -> Tensor:
        """Run the network on blocks of voxels, the volume padded to whole blocks at all scales."""
        from monai.networks.utils import pixelshuffle, pixelunshuffle

        step = self.fold * 2 ** (len(self.widths) - 1)
        size = x.shape[2:]
        margins = [m for n in reversed(size) for m in (0, -n % step)]
        if any(margins):
            x = F.pad(x, margins, mode="replicate")
        out = pixelshuffle(self.net(pixelunshuffle(x, 3, self.fold), t), 3, self.fold)
        return out[..., : size[0], : size[1], : size[2]]

    @property
    def config(self) -> dict[str, object]:
        """What builds the same network, as plain values."""
        names = ("noisy", "modalities", "widths", "blocks", "fold", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
