"""What a network of PET/CT is given: two channels in [-1, 1], in one order, clipped knowingly.

Channel 0 is PET, channel 1 is CT. The order and the ends are part of the weights: a network trained
on others would load and be wrong in silence, so that a model's card holds `Intensity.constants()`.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from medical.segment.pair import Pair
from medical.volume import Volume

CHANNELS = ("PET", "CT")


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Ends of the ranges that become -1 and 1; what lies beyond is clipped.

    Attributes:
        suv: of the PET. A tumour and the brain differ little above 15 SUV, and a bladder of 100
            must not dim them.
        hu: of the CT: soft tissue and fat, where 30 HU tell a lesion from muscle.

    Raises:
        ValueError: ends in the wrong order.
    """

    suv: tuple[float, float] = (0.0, 15.0)
    hu: tuple[float, float] = (-200.0, 300.0)

    def __post_init__(self) -> None:
        for name, (low, high) in (("suv", self.suv), ("hu", self.hu)):
            if not low < high:
                raise ValueError(
                    f"the range {name} goes from {low:g} to {high:g}, expected the lower end first."
                )

    def tensor(self, pair: Pair) -> Tensor:
        """PET and CT as `(1, 2, D, H, W)` in [-1, 1]: slices upward, rows backward, columns left.

        Args:
            pair: of any orientation.
        """
        parts = ((pair.pet, self.suv), (pair.ct, self.hu))
        return torch.cat([_scaled(volume.stack().data, *ends) for volume, ends in parts])[None]

    def constants(self) -> dict[str, object]:
        """Order and ranges, for a model's card."""
        return {"channels": CHANNELS, **asdict(self)}


def mask_tensor(pair: Pair) -> Tensor:
    """The mask as `(1, 1, D, H, W)` of zeros and ones, as `Intensity.tensor` lies.

    Raises:
        ValueError: a pair without a mask.
    """
    if pair.mask is None:
        raise ValueError("the pair has no mask, expected one; give paired() a mask.")
    return pair.mask.stack().data[None].contiguous()


def volume_of(tensor: Tensor, pair: Pair) -> Volume:
    """A mask or a map `(1, 1, D, H, W)` or `(1, D, H, W)` as a volume on the grid of a pair.

    Raises:
        ValueError: another grid.
    """
    data = tensor[0] if tensor.ndim == 5 else tensor
    placed = pair.pet.unstack(data.detach().cpu().float())
    return Volume(data=placed.data.contiguous(), affine=placed.affine, units="1", modality="SEG")


def _scaled(x: Tensor, low: float, high: float) -> Tensor:
    return x.clamp(low, high).sub_(low).mul_(2 / (high - low)).sub_(1)
