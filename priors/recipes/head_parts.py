"""Parts of synthetic heads: a made-up face, cavities, jaws, lesions, a head rest."""

import numpy as np
from numpy.random import Generator

from priors.recipes.scan_files import Voxels
from priors.recipes.voxels import ball, extent, field, paint, smoothstep


def invented_head(beyond_skull: Voxels, rng: Generator) -> tuple[Voxels, Voxels]:
    """Put scalp around a skull and a made-up face below it in front.

    Args:
        beyond_skull: distance outside the skull, in voxels.
        rng: source of chance.

    Returns:
        Mask of the head, and a made-up T1 image whose bright parts are fat and dark parts cavities.
    """
    shape = beyond_skull.shape
    scalp = rng.uniform(4, 10) * (1 + 0.2 * field(shape, 40, rng))
    head = beyond_skull < scalp
    low, high = extent((beyond_skull < 0).astype(np.float32))
    size = high - low
    centre = low + size * [0.5, rng.uniform(0.62, 0.72), rng.uniform(0.02, 0.12)]
    box, inside = ball(shape, centre, size * [0.36, 0.42, rng.uniform(0.45, 0.6)])
    head[box] |= inside > 0
    neck = low + size * [0.5, 0.42, -0.1]
    box, inside = ball(shape, neck, size * [0.30, 0.32, 0.75])
    head[box] |= inside > 0
    t1 = 0.65 + 0.25 * field(shape, 12, rng) + 0.12 * field(shape, 4, rng)
    t1 = np.where(beyond_skull < scalp, 1.05 + 0.2 * field(shape, 8, rng), t1)
    return head.astype(np.float32), t1.astype(np.float32)


def lamellae(hu: Voxels, brain: Voxels, inside: Voxels, rng: Generator) -> None:
    """A face of thin bony plates between soft tissue and air: the sheets of a random field."""
    low, high = extent(brain)
    size = high - low
    centre = low + size * rng.uniform([0.45, 0.75, -0.2], [0.55, 0.9, 0.05])
    box, depth = ball(hu.shape, centre, size * rng.uniform([0.2, 0.15, 0.2], [0.4, 0.3, 0.4]))
    if 0 in depth.shape:
        return
    within = smoothstep(depth, 0, 4) * smoothstep(inside[box], 2, 4)
    sheets = field(depth.shape, rng.uniform(7, 18), rng) + 0.2 * field(depth.shape, 5, rng)
    width = rng.uniform(0.05, 0.25)
    hard = rng.uniform(300, 1300) + 200 * field(depth.shape, 5, rng)
    paint(hu[box], within * (1 - smoothstep(np.abs(sheets), width, width + 0.12)), hard)
    hollow = width + 0.12 + max(0.0, rng.uniform(-0.6, 1.2))  # often right behind the plate
    paint(hu[box], within * smoothstep(sheets, hollow, hollow + 0.1), -1000)


def sinuses(hu: Voxels, brain: Voxels, inside: Voxels, rng: Generator) -> None:
    """Air cavities with bony walls in front of and below the brain, eyes, and an airway."""
    low, high = extent(brain)
    size = high - low
    for _ in range(rng.integers(2, 9)):
        centre = low + size * rng.uniform([0.25, 0.75, -0.35], [0.75, 1.08, 0.35])
        _hollow(hu, inside, centre, rng.uniform(3, 15, 3), rng)
    height, spread = rng.uniform(0.05, 0.2), rng.uniform(0.2, 0.27)
    for side in (-spread, spread):
        eye = low + size * [0.5 + side, rng.uniform(0.95, 1.02), height]
        for radius, value in ((rng.uniform(15, 19), -90), (rng.uniform(11, 13), 15)):
            box, depth = ball(hu.shape, eye, np.full(3, radius))
            paint(hu[box], smoothstep(depth, -0.5, 0.5) * smoothstep(inside[box], 1, 2), value)
    centre = low + size * [0.5, rng.uniform(0.55, 0.7), -0.35]
    radii = np.array([rng.uniform(4, 10), rng.uniform(4, 8), size[2] * rng.uniform(0.2, 0.5)])
    box, depth = ball(hu.shape, centre, radii)
    paint(hu[box], smoothstep(depth, -0.5, 0.5) * smoothstep(inside[box], 2, 4), -1000)


def _hollow(
    hu: Voxels, inside: Voxels, centre: np.ndarray, radii: np.ndarray, rng: Generator
) -> None:
    """A cavity with a bony wall, filled with air or, sometimes, fluid."""
    box, depth = ball(hu.shape, centre, radii + 2)
    if 0 in depth.shape:
        return
    depth = depth + rng.uniform(0, 1.5) * field(depth.shape, 4, rng)
    within = smoothstep(inside[box], 2, 4)
    paint(hu[box], smoothstep(depth, -0.5, 0.5) * within, rng.uniform(300, 1300))
    filling = -1000.0 if rng.random() < 0.8 else rng.uniform(5, 40)
    wall = rng.uniform(1.0, 2.5)
    paint(hu[box], smoothstep(depth, wall - 0.5, wall + 0.5) * within, filling)


def mastoids(hu: Voxels, brain: Voxels, inside: Voxels, rng: Generator) -> None:
    """Two blocks of dense bone at the sides of the skull base, riddled with small air cells."""
    low, high = extent(brain)
    size = high - low
    back, height = rng.uniform(0.35, 0.5), rng.uniform(0.0, 0.18)
    for side in (rng.uniform(0.05, 0.15), rng.uniform(0.85, 0.95)):
        centre = low + size * [side, back, height]
        box, depth = ball(hu.shape, centre, rng.uniform([12, 11, 11], [26, 20, 20]))
        if 0 in depth.shape:
            continue
        block = smoothstep(depth + 1.5 * field(depth.shape, 6, rng), -0.5, 1)
        block *= smoothstep(inside[box], 3, 5)
        cells = smoothstep(field(depth.shape, rng.uniform(2, 3.5), rng), *_around(0.4, 0.3))
        hard = rng.uniform(700, 1900) + 250 * field(depth.shape, 3, rng)
        paint(hu[box], block, hard + cells * rng.uniform(0.3, 1) * (-950 - hard))


def _around(middle: float, width: float) -> tuple[float, float]:
    return middle - width, middle + width


def jaws(hu: Voxels, brain: Voxels, inside: Voxels, rng: Generator) -> None:
    """Rows of teeth on arcs of bone, some filled with metal, and a vertebra behind them."""
    low, high = extent(brain)
    size = high - low
    centre = low + size * [0.5, rng.uniform(0.8, 0.95), 0]
    width, length = rng.uniform(20, 28), rng.uniform(22, 34)
    for height in low[2] - size[2] * np.array([0.28, 0.42]) + rng.uniform(-6, 6, 2):
        for angle in np.linspace(-1.4, 1.4, rng.integers(10, 16)):
            spot = [centre[0] + width * np.sin(angle), centre[1] + length * np.cos(angle), height]
            box, depth = ball(hu.shape, np.array(spot), rng.uniform([4, 4, 7], [6, 6, 11]))
            paint(hu[box], smoothstep(depth, -0.5, 1) * 0.9, rng.uniform(500, 1300))
            if rng.random() < 0.85:
                metal = rng.random() < 0.06
                value = 3071.0 if metal else rng.uniform(1500, 2800)
                box, depth = ball(hu.shape, np.array(spot), rng.uniform([2, 2, 4], [3.5, 3.5, 8]))
                paint(hu[box], smoothstep(depth, -0.5, 0.5), value)
    spot = low + size * [0.5, rng.uniform(0.32, 0.42), -0.3]
    for radius, value in ((rng.uniform(14, 20), rng.uniform(300, 900)), (rng.uniform(6, 9), 30.0)):
        box, depth = ball(hu.shape, spot, np.array([radius, 0.8 * radius, 0.35 * size[2]]))
        if 0 not in depth.shape:
            paint(hu[box], smoothstep(depth, -0.5, 1) * smoothstep(inside[box], 2, 4), value)


def findings(hu: Voxels, outside_brain: Voxels, rng: Generator) -> None:
    """Bleedings, infarcts and calcifications inside the brain."""
    inner = np.argwhere(outside_brain[::4, ::4, ::4] < -6) * 4.0
    for _ in range(rng.integers(0, 5)):
        box, depth = ball(hu.shape, rng.choice(inner), rng.uniform(4, 22, 3))
        depth = depth + rng.uniform(0, 3) * field(depth.shape, 6, rng)
        edge = rng.uniform(0.5, 4)
        value = rng.uniform(55, 85) if rng.random() < 0.5 else rng.uniform(8, 24)
        within = smoothstep(-outside_brain[box], 0, 1)
        paint(hu[box], smoothstep(depth, 0, edge) * within * rng.uniform(0.4, 1), value)
    for _ in range(rng.integers(0, 7)):
        box, depth = ball(hu.shape, rng.choice(inner), rng.uniform(0.8, 4, 3))
        paint(hu[box], smoothstep(depth, -0.4, 0.6), rng.uniform(80, 900))


def head_rest(hu: Voxels, inside: Voxels, rng: Generator) -> None:
    """A curved plate behind the head, of one or two thin layers, sometimes with padding."""
    if rng.random() < 0.3:
        return
    shape = hu.shape
    backmost = np.nonzero(inside.max((0, 2)) > 0)[0][0] - rng.uniform(2, 12)
    radius = rng.uniform(70, 200)
    i, j = np.ogrid[: shape[0], : shape[1]]
    away = np.hypot(i - shape[0] / 2, j - (backmost + radius)) - radius
    behind = (j < backmost + rng.uniform(10, 90)) & np.ones_like(away, bool)
    plate = np.zeros_like(away)
    for offset in (0.0, rng.uniform(4, 14)):
        line = 1 - smoothstep(np.abs(away - offset), *_around(rng.uniform(0.5, 1.5), 0.4))
        plate = np.maximum(plate, line * rng.uniform(0.3, 1.1))
    foam = rng.uniform(0, 0.15) * smoothstep(away, 0, 1) * (1 - smoothstep(away, 4, 5))
    rest = ((np.maximum(plate, foam)) * behind)[:, :, None]
    paint(hu, rest * (1 - smoothstep(inside, -1.5, -0.5)), rng.uniform(-300, 300))
