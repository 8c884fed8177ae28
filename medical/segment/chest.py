"""PET simulated on real CT of chests with real tumours.

The scans are two patients' of the source distribution of `pyradiomics` 3.0.1, with masks that
readers drew; nothing is downloaded. Uptake follows the CT: little in lungs, more in soft tissue,
most in the tumour and in a few lymph nodes that the CT does not show. The PET has a grid of its
own, coarser and elsewhere, and is brought onto the CT's as a real one is.
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medical import nrrd
from medical.geometry import place
from medical.segment.box import Box, grid
from medical.segment.pair import Pair, paired
from medical.segment.phantoms import measured, scan
from medical.segment.sampling import smooth
from medical.volume import Volume

LUNG_CT = "RESTORE_LUNG_CT"
"""Environment variable that names the folder `data` of the unpacked pyradiomics 3.0.1."""

PATIENTS = ("lung1", "lung2")
PET_STEP = 4.0  # mm
_AIR, _LUNG, _TISSUE, _BONE = -950.0, -500.0, 150.0, 200.0  # HU where a tissue begins
_NODE = (6.0, 12.0)  # mm, radius


def patients() -> tuple[str, ...]:
    """Patients that are there: "lung1" and "lung2", or none."""
    folder = os.environ.get(LUNG_CT)
    return tuple(p for p in PATIENTS if folder and (Path(folder) / f"{p}_image.nrrd").is_file())


def chest(
    seed: int, *, patient: str | None = None, size: int = 32, spacing: float | None = 4.0
) -> Pair:
    """A part of a chest around its tumour, in PET and CT.

    Args:
        seed: of the uptake, the nodes, the noise, and where the tumour lies in the part.
        patient: "lung1" or "lung2"; None takes one by the seed.
        size: voxels along each axis.
        spacing: mm; None takes voxels of the CT.

    Returns:
        A pair with its mask, voxel axes to the right, the front and the head.

    Raises:
        FileNotFoundError: the scans are not there.
    """
    there = patients()
    if not there or (patient is not None and patient not in there):
        raise FileNotFoundError(
            f"the chests are not there; unpack pyradiomics-3.0.1.tar.gz and let {LUNG_CT} name its "
            "folder data."
        )
    rng = np.random.default_rng(seed)
    ct, tumour = _read(patient or there[int(rng.integers(len(there)))])
    box = _around(tumour, rng, size, spacing)
    pet = _pet(ct, tumour, box, rng)
    return paired(pet, ct, mask=tumour, spacing=spacing, box=box, seen=0.0)


@lru_cache(maxsize=2)
def _read(patient: str) -> tuple[Volume, Volume]:
    folder = Path(os.environ[LUNG_CT])
    ct = nrrd.read(folder / f"{patient}_image.nrrd", modality="CT", units="HU")
    return ct, nrrd.read(folder / f"{patient}_label.nrrd", units="1")


def _around(tumour: Volume, rng: np.random.Generator, size: int, spacing: float | None) -> Box:
    """A box that holds the tumour's middle somewhere in its inner half."""
    middle = place(tumour.affine, np.argwhere(tumour.data[0].numpy() > 0).mean(0))
    steps = np.broadcast_to(spacing or tumour.reoriented("RAS").spacing, 3)
    x, y, z = middle + rng.uniform(-0.25, 0.25, 3) * size * steps
    a, b, c = (float(size * step) for step in steps)
    return Box((float(x), float(y), float(z)), (a, b, c))


def _pet(ct: Volume, tumour: Volume, box: Box, rng: np.random.Generator) -> Volume:
    """A PET of the box and its surroundings, on a grid that is not the CT's."""
    x, y, z = np.array(box.centre) + rng.uniform(-PET_STEP, PET_STEP, 3)
    a, b, c = (s + 8 * PET_STEP for s in box.size)
    onto = grid(ct, step=PET_STEP, box=Box((x, y, z), (a, b, c)))
    density = smooth(ct, onto, fill=-1000.0).data[0]
    share = smooth(tumour, onto, fill=0.0).data[0]
    uptake = _uptake(density, rng)
    for node in _nodes(density, share, rng):
        uptake[node] = rng.uniform(3, 8)
    uptake += share * (rng.uniform(4, 10) - uptake)
    return scan(measured(uptake, onto[0], rng), onto[0], "SUV", "PT")


def _uptake(density: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Of tissues told by their CT number, each patient's a little different."""
    levels = rng.uniform(0.85, 1.15, 4) * [0.4, 1.0, 1.6, 1.2]  # lung, fat, soft tissue, bone
    which = np.digitize(density, [_LUNG, -30.0, _BONE])
    return np.where(density > _AIR, levels[which], 0.0)


def _nodes(
    density: NDArray[np.float32], share: NDArray[np.float32], rng: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """One to three balls in soft tissue, away from the tumour."""
    tissue = (density > -30) & (density < _TISSUE)
    away = np.asarray(ndimage.distance_transform_edt(share < 0.01)) * PET_STEP > 25
    places = np.argwhere(np.asarray(ndimage.binary_erosion(tissue), dtype=bool) & away)
    if not len(places):
        return []
    index = np.indices(density.shape)
    chosen = places[rng.integers(len(places), size=int(rng.integers(1, 4)))]
    return [
        PET_STEP * np.sqrt(((index - at[:, None, None, None]) ** 2).sum(0)) < rng.uniform(*_NODE)
        for at in chosen
    ]
