"""Volumes to and from MONAI and TorchIO.

Both keep `(C, I, J, K)` with an affine to RAS+ mm, as a `Volume` does, so that nothing is turned or
rounded. Units and modality travel along; `valid`, notes and the source do not. Memory is shared.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medical.geometry import LPS_TO_RAS
from medical.volume import Volume

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor
    from torchio import ScalarImage


def to_monai(volume: Volume) -> "MetaTensor":
    """A MetaTensor `(C, I, J, K)` whose `meta` holds space, units and modality."""
    from monai.data.meta_tensor import MetaTensor

    meta = {"space": "RAS", "units": volume.units, "modality": volume.modality}
    affine = torch.from_numpy(volume.affine.copy())
    return MetaTensor(volume.data, affine=affine, meta=meta)


def from_monai(
    tensor: "MetaTensor", *, units: str | None = None, modality: str | None = None
) -> Volume:
    """A volume from a MetaTensor.

    Args:
        tensor: `(C, I, J, K)`, its affine to RAS, or to LPS where `meta["space"]` says so.
        units: of the numbers; None takes `meta["units"]`, or else "a.u.".
        modality: DICOM's word; None takes `meta["modality"]`, or else "OT".

    Raises:
        ValueError: a batch, another space, or what a `Volume` refuses.
    """
    space = str(tensor.meta.get("space", "RAS"))
    if space not in ("RAS", "LPS"):
        raise ValueError(f"the tensor's space is '{space}', expected RAS or LPS; reorient it.")
    affine = np.asarray(tensor.affine, dtype=np.float64)
    return _volume(
        tensor.as_tensor(),
        LPS_TO_RAS @ affine if space == "LPS" else affine,
        units or tensor.meta.get("units"),
        modality or tensor.meta.get("modality"),
    )


def to_torchio(volume: Volume) -> "ScalarImage":
    """A ScalarImage that holds `units` and `modality` beside its tensor."""
    from torchio import ScalarImage

    return ScalarImage(
        tensor=volume.data,
        affine=volume.affine.copy(),
        units=volume.units,
        modality=volume.modality,
    )


def from_torchio(
    image: "ScalarImage", *, units: str | None = None, modality: str | None = None
) -> Volume:
    """A volume from a TorchIO image.

    Args:
        image: read or made.
        units: of the numbers; None takes what `to_torchio` left, or else "a.u.".
        modality: DICOM's word; None takes what `to_torchio` left, or else "OT".

    Raises:
        ValueError: what a `Volume` refuses.
    """
    known = getattr(image, "metadata", image)
    return _volume(
        image.data, image.affine, units or known.get("units"), modality or known.get("modality")
    )


def _volume(data: Tensor, affine: Any, units: object, modality: object) -> Volume:
    if data.ndim != 4:
        raise ValueError(
            f"a tensor of shape {tuple(data.shape)} is no volume (C, I, J, K); take one out of "
            "the batch, or add a channel axis."
        )
    return Volume(
        data=data.detach().float(),
        affine=np.asarray(affine, dtype=np.float64),
        units=str(units or "a.u."),
        modality=str(modality or "OT"),
    )
