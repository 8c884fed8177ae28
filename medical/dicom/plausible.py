"""Whether numbers are what their units say, as far as numbers can tell."""

import numpy as np
from numpy.typing import NDArray

from medical.refusal import Refusal


def check_hounsfield(
    data: NDArray[np.float32], valid: NDArray[np.bool_] | None, rescaled: bool
) -> list[str]:
    """Notes on numbers that Hounsfield units are not.

    Args:
        data: of a CT.
        valid: where they were measured, None for everywhere.
        rescaled: whether the file said how numbers become HU.

    Raises:
        Refusal: nothing was rescaled and the numbers show it.
    """
    flat = data.reshape(-1)[:: max(1, data.size // 100_000)]
    if not rescaled and np.median(flat) > 500:
        raise Refusal(
            "E_HU_RANGE",
            f"the CT has no RescaleSlope and half of its numbers are above {np.median(flat):.0f}, "
            "expected Hounsfield units, of which air is -1000; export it with its rescaling.",
        )
    where = True if valid is None else valid
    low = float(data.min(where=where, initial=np.inf))
    high = float(data.max(where=where, initial=-np.inf))
    notes = (
        [] if rescaled else ["The CT does not say how its numbers become HU; they are as stored."]
    )
    if low < -1100 or high > 32000 or low >= 0:
        notes.append(
            f"CT numbers go from {low:.6g} to {high:.6g}, unlike Hounsfield units. [W_HU_RANGE]"
        )
    return notes


def check_uptake(data: NDArray[np.float32]) -> list[str]:
    """Notes on uptake values that no patient has."""
    top = float(np.quantile(data.reshape(-1)[:: max(1, data.size // 1_000_000)], 0.999))
    if 0.5 < top < 100:
        return []
    return [f"The largest SUV are about {top:.3g}, expected 0.5 to 100. [W_SUV_RANGE]"]
