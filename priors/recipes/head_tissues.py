"""Hounsfield units of the tissues of a synthetic head, from the intensity of an MR image."""

import numpy as np
from numpy.random import Generator

from priors.recipes.scan_files import Voxels
from priors.recipes.voxels import field, paint, smoothstep

# T1 intensity relative to white matter: fluid, fluid with some brain, then grey and white matter
_T1 = (0.20, 0.35, 0.60, 0.72, 0.85, 1.0)
_ABOVE_WHITE = np.array([10.0, 9.0, 1.0, 0.0])  # HU of the last four above those of white matter


def soft_tissue(t1: Voxels, inside: Voxels, never_air: Voxels, rng: Generator) -> Voxels:
    """Muscle and fat by brightness; what is dark is bone or, unless forbidden, air by chance."""
    shape = t1.shape
    hu = rng.uniform(35, 65) + 6 * field(shape, 3, rng)
    paint(hu, smoothstep(t1, rng.uniform(0.75, 0.95), 1.15), rng.uniform(-115, -75))
    dark = 1 - smoothstep(t1, *sorted(rng.uniform([0.12, 0.28], [0.22, 0.42])))
    hard = rng.uniform(300, 1100) + 250 * field(shape, 4, rng) + 150 * field(shape, 1.7, rng)
    is_bone = smoothstep(field(shape, 9, rng) + rng.uniform(-0.3, 0.8), -0.15, 0.15)
    is_bone = np.maximum(is_bone, never_air)
    paint(hu, dark * is_bone * smoothstep(inside, 1.5, 3.5), hard)
    paint(hu, dark * (1 - is_bone), -1000 + rng.uniform(0, 80))
    return hu


def bone(position: Voxels, rng: Generator) -> Voxels:
    """Skull across its thickness: two hard tables and a spongy middle.

    Args:
        position: 0 at the inner, 1 at the outer surface.
        rng: source of chance.
    """
    table = rng.uniform(0.18, 0.4)
    edge = np.minimum(position, 1 - position)
    hard = 1 - smoothstep(edge, 0, table)
    shape = position.shape
    tables = rng.uniform(1000, 1900) + 120 * field(shape, 12, rng)
    marrow = rng.uniform(200, 900) + 200 * field(shape, 2, rng) + 150 * field(shape, 6, rng)
    marrow = marrow.clip(20)
    return marrow + (tables - marrow) * hard


def brain_tissue(t1: Voxels, rng: Generator) -> Voxels:
    """Hounsfield units of the brain from its T1 intensity: grey matter a little above white."""
    white, contrast, fluid = rng.uniform(22, 34), rng.uniform(0.5, 1.5), rng.uniform(0, 14)
    heights = [fluid, fluid + 4, *(white + contrast * _ABOVE_WHITE)]
    hu = np.interp(t1, _T1, heights).astype(np.float32)
    return hu + rng.uniform(0, 2.5) * field(t1.shape, 3, rng)
