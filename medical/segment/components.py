"""Lesions of a mask: what hangs together."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOUCHING = np.ones((3, 3, 3), bool)  # voxels of one lesion share a face, an edge or a corner


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the lesions.

    Args:
        mask: `(I, J, K)`.

    Returns:
        `(I, J, K)`, 0 outside and 1 to the number of lesions in them; and that number.
    """
    return cast(Any, ndimage.label(mask, TOUCHING))
