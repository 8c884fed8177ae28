"""Invertible maps between physical units and the range that a prior knows.

A prior is trained on numbers near [0, 1]; scans hold Hounsfield units, standardised uptake, or
arbitrary units of an MR machine. A map is a line, `u = slope * x + intercept`, one for a whole
volume, so that it can be undone and means the same in every slice. Nothing is clipped: metal at
20000 HU becomes 7, and comes back as 20000 HU.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from medical.refusal import Refusal
from medical.volume import Volume

if TYPE_CHECKING:
    from priors.denoiser import Card

AIR, WATER = -1000.0, 0.0
"""Hounsfield units."""
CT_RANGE = 3000.0
"""Hounsfield units that the range of the CT prior spans."""

_KNOWN = {"ct": "CT in HU", "mr": "MR"}  # priors of one kind of scan
_SAMPLES = 200_000  # voxels looked at to recognise Hounsfield units


@dataclass(frozen=True, kw_only=True)
class IntensityMap:
    """`u = slope * x + intercept`, from physical units x to the range of a prior u.

    There and back in float32 leaves at most an error of `eps (5 |x| + |intercept / slope|)`, with
    eps = 2^-24: 0.001 HU at 3000 HU.

    Attributes:
        slope: prior units per physical unit, positive.
        intercept: where physical zero goes.
        name: what the map is, for reports.

    Raises:
        ValueError: a slope that is not positive, or numbers that are not finite.
    """

    slope: float
    intercept: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0):
            raise ValueError(
                f"an intensity map has slope {self.slope:g} and intercept {self.intercept:g}, "
                "expected finite numbers and a positive slope."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Physical units to the range of the prior."""
        return (x * self.slope).add_(self.intercept)

    def inverse(self, u: Tensor) -> Tensor:
        """The range of the prior to physical units."""
        return (u - self.intercept).div_(self.slope)

    def scale_std(self, std: Tensor) -> Tensor:
        """Standard deviations (or widths) in the range of the prior to physical units."""
        return std / self.slope


def ct() -> IntensityMap:
    """`u = (HU + 1000) / 3000`: air is 0, water 1/3, dense bone about 1."""
    return IntensityMap(
        slope=1 / CT_RANGE, intercept=-AIR / CT_RANGE, name="u = (HU + 1000) / 3000"
    )


def magnitude(volume: Volume, *, quantile: float = 0.995, to: float = 0.9) -> IntensityMap:
    """Bring a quantile of a volume's magnitudes to a number; zero stays zero.

    One scale a volume: a scale for each slice would undo what ties slices together. Channels are
    parts of one number (real and imaginary).

    Args:
        volume: for example an MR scan, in arbitrary units.
        quantile: of the magnitudes of all voxels that were measured.
        to: where it goes.

    Raises:
        ValueError: a quantile outside (0, 1] or `to` not positive.
        Refusal: E_INTENSITY: the quantile is zero.
    """
    if not (0 < quantile <= 1 and to > 0):
        raise ValueError(
            f"quantile is {quantile:g} and goes to {to:g}, expected a quantile in (0, 1] and a "
            "positive number."
        )
    sizes = volume.data[0].abs() if len(volume.data) == 1 else volume.data.norm(dim=0)
    sizes = sizes.flatten() if volume.valid is None else sizes[volume.valid]
    found = float(np.quantile(sizes.numpy(), quantile)) if len(sizes) else 0.0
    if not found > 0:
        raise Refusal(
            "E_INTENSITY",
            f"the {100 * quantile:g}th percentile of the volume is 0, expected a positive scale; "
            "crop what is empty, or raise the quantile.",
        )
    return IntensityMap(slope=to / found, name=f"u = x * {to / found:.6g}")


def suv(*, top: float = 20.0) -> IntensityMap:
    """Bring a standardised uptake value of `top` to 1; zero stays zero."""
    return IntensityMap(slope=1 / top, name=f"u = SUV / {top:g}")


def for_volume(volume: Volume, card: "Card") -> IntensityMap:
    """Choose the map from a volume to a prior.

    Hounsfield units go through `ct`, uptake through `suv`, all others through `magnitude`; then
    [0, 1] becomes the value range of the prior.

    Raises:
        Refusal: E_INTENSITY: a prior of another kind of scan; E_HU_RANGE: a CT whose numbers are
            not in HU.
    """
    is_ct = volume.units == "HU"
    strange = {"ct": not is_ct, "mr": is_ct or volume.modality not in ("MR", "OT")}
    if strange.get(card.name, False):
        raise Refusal(
            "E_INTENSITY",
            f"prior '{card.name}' knows {_KNOWN[card.name]}, found {volume.modality} in "
            f"{volume.units}; choose another prior, or say what the numbers are when reading "
            "(modality, units).",
        )
    if is_ct:
        _refuse_stored(volume)
    unit = ct() if is_ct else suv() if volume.units == "SUV" else magnitude(volume)
    low, high = card.value_range
    if (low, high) == (0.0, 1.0):
        return unit
    return IntensityMap(
        slope=unit.slope * (high - low),
        intercept=low + unit.intercept * (high - low),
        name=f"{unit.name}, then [0, 1] to [{low:g}, {high:g}]",
    )


def hounsfield_hint(volume: Volume) -> str:
    """Say in one sentence what is odd about numbers that should be Hounsfield units, or ""."""
    low, high = _ends(volume)
    if low >= 0:
        return (
            f"no value of this CT is below 0 HU (air is -1000), the lowest is {low:g}; was the "
            "rescale applied?"
        )
    if low < -1100 or high > 32000:
        return (
            f"values reach from {low:g} to {high:g} HU, expected -1100 to 32000; what was not "
            "measured (padding) should be air."
        )
    return ""


def looks_like_hounsfield(values: ArrayLike) -> bool:
    """Whether numbers have air near -1000 and soft tissue near 0, as CT and nothing else has."""
    flat = np.asarray(values).reshape(-1, order="A")
    some = flat[:: max(1, flat.size // _SAMPLES)]
    air = ((some > -1100) & (some < -900)).mean()
    tissue = ((some > -150) & (some < 150)).mean()
    return bool(air > 0.05 and tissue > 0.02 and (some < -4000).sum() == 0 and some.max() < 33000)


def _ends(volume: Volume) -> tuple[float, float]:
    data = volume.data if volume.valid is None else volume.data[:, volume.valid]
    return (float(data.min()), float(data.max())) if data.numel() else (-1000.0, -1000.0)


def _refuse_stored(volume: Volume) -> None:
    if _ends(volume)[0] >= 0 and (median := float(volume.data.median())) > 500:
        raise Refusal(
            "E_HU_RANGE",
            f"this CT has no value below 0 and a median of {median:g}, expected HU with air at "
            "-1000; apply the rescale slope and intercept (often -1024) first.",
        )
