"""Which axis of an array holds the bands: told, or evident, or refused."""

from typing import Literal

import numpy as np

BandsAxis = Literal["first", "middle", "last"]
AXES: dict[str, int] = {"first": 0, "middle": 1, "last": 2}


def bands_first(
    array: np.ndarray, *, axis: str | None = None, wavelengths: int | None = None
) -> np.ndarray:
    """Bring an array of three axes to `(C, H, W)`.

    The axis is the one told; else the one as long as there are wavelengths; else, of axes two of
    which are equally long (a square scene), the other. Nothing is guessed from what is inside.

    Args:
        array: three axes.
        axis: "first", "middle" or "last".
        wavelengths: how many there are, when known.

    Raises:
        ValueError: other than three axes, or none that is evident.
    """
    if array.ndim != 3:
        raise ValueError(
            f"the array has {array.ndim} axes {array.shape}, expected three: bands, rows, columns."
        )
    if axis is not None and axis not in AXES:
        raise ValueError(f"--bands-axis is '{axis}', expected {', '.join(AXES)}.")
    where = AXES[axis] if axis is not None else _evident(array.shape, wavelengths)
    if where is None:
        beside = "" if wavelengths is None else f", nor do its {wavelengths} wavelengths"
        raise ValueError(
            f"an array of shape {'x'.join(map(str, array.shape))} does not tell which axis holds "
            f"the bands{beside}; give --bands-axis first, or --bands-axis last."
        )
    return np.moveaxis(array, where, 0)


def _evident(shape: tuple[int, ...], wavelengths: int | None) -> int | None:
    alike = [i for i, n in enumerate(shape) if n == wavelengths]
    if wavelengths is not None:
        return alike[0] if len(alike) == 1 else None
    odd = [i for i, n in enumerate(shape) if shape.count(n) == 1]
    return odd[0] if len(odd) == 1 else None
