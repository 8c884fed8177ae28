"""Tumours as clinics often draw them: above a threshold of uptake, the CT not looked at."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medical.segment.components import components

Mask = NDArray[np.bool_]


def fixed(pet: NDArray, *, suv: float = 2.5) -> Mask:
    """Where uptake exceeds a number.

    Args:
        pet: `(I, J, K)` in SUV.
        suv: the number; 2.5 is the usual one for FDG.
    """
    return np.asarray(pet) > suv


def relative(pet: NDArray, *, share: float = 0.41, floor: float = 2.5) -> Mask:
    """Where uptake exceeds a share of the largest in its own lesion.

    A lesion is what hangs together above `floor`; 41 % is the share that EANM's guidelines give for
    FDG (Boellaard et al. 2015, Eur. J. Nucl. Med. Mol. Imaging 42:328).

    Args:
        pet: `(I, J, K)` in SUV.
        share: of each lesion's largest uptake.
        floor: SUV.
    """
    pet = np.asarray(pet)
    labels, count = components(pet > floor)
    if not count:
        return np.zeros(pet.shape, bool)
    tops = np.concatenate([[np.inf], ndimage.maximum(pet, labels, np.arange(1, count + 1))])
    return pet >= share * tops[labels]
