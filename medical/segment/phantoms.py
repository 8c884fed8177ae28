"""Heads and necks in PET/CT whose tumour neither scan shows alone.

Lumps lie in the neck, each of one to three spheres. Some take up tracer, some are denser than
muscle, and a tumour is what does both: in the PET it looks like an inflamed node, in the CT like a
scar, by construction, since all three kinds have the same shapes, uptake and density. The brain
glows brighter than any of them. A mask is known exactly, which no reader's is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medical.geometry import Affine
from medical.phantoms import Ellipsoid, render
from medical.segment.pair import AIR, Pair
from medical.volume import Volume

FWHM = 6.0  # mm, of the PET
COUNTS = 60.0  # expected in a voxel of 64 mm3 and 1 SUV
_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))  # of a Gaussian of full width at half maximum 1
_NOTE = ("this is a phantom, not a patient.",)
_TRIES = 1000

Kind = Literal["tumour", "node", "scar"]
Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class Tissue:
    """What fills a shape.

    Attributes:
        hu: CT number.
        suv: uptake.
        shape: where.
    """

    hu: float
    suv: float
    shape: Ellipsoid


@dataclass(frozen=True)
class Lump:
    """One to three spheres that overlap.

    Attributes:
        kind: "tumour" takes up tracer and is dense, "node" only takes up, "scar" is only dense.
        spheres: centre in mm, radius in mm.
        suv: uptake where there is any.
        hu: above muscle, where it is dense.
    """

    kind: Kind
    spheres: tuple[tuple[Numbers, float], ...]
    suv: float
    hu: float

    @property
    def shapes(self) -> tuple[Ellipsoid, ...]:
        """The spheres as they are rendered."""
        return tuple(_shape((r, r, r), centre) for centre, r in self.spheres)


def phantom(
    seed: int,
    *,
    size: int = 32,
    spacing: float = 4.0,
    fwhm: float = FWHM,
    counts: float = COUNTS,
) -> Pair:
    """A head and neck with one tumour, one or two nodes and one or two scars.

    Args:
        seed: of shapes, places and noise.
        size: voxels along each axis.
        spacing: mm; size and spacing of 32 and 4 make a cube of 128 mm, and smaller ones cut it.
        fwhm: of the PET's blur, mm.
        counts: expected in a voxel of 64 mm3 at 1 SUV; larger is less noise.

    Returns:
        A pair with its mask, axes "RAS", the head above.

    Raises:
        ValueError: numbers that are not positive, or no room for the lumps.
    """
    if not (size > 0 and spacing > 0 and fwhm > 0 and counts > 0):
        raise ValueError(
            f"a phantom has size {size}, spacing {spacing:g}, fwhm {fwhm:g} and counts "
            f"{counts:g}, expected positive numbers."
        )
    rng = np.random.default_rng(seed)
    tissues, reach = _anatomy(rng), size * spacing / 2
    lumps = _lumps(rng, tissues, reach)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (size - 1) / 2
    shape = (size, size, size)
    density, uptake, mask = _rendered(tissues, lumps, affine, shape)
    ct = density + rng.normal(0, rng.uniform(10, 20), shape)
    pet = measured(uptake, affine, rng, fwhm=fwhm, counts=counts)
    return Pair(
        pet=scan(pet, affine, "SUV", "PT"),
        ct=scan(ct, affine, "HU", "CT"),
        mask=scan(mask > 0.5, affine, "1", "SEG"),
    )


def measured(
    uptake: NDArray[np.floating],
    affine: Affine,
    rng: np.random.Generator,
    *,
    fwhm: float = FWHM,
    counts: float = COUNTS,
) -> NDArray[np.float64]:
    """What a PET makes of uptake: a Gaussian blur, then counts by Poisson.

    Args:
        uptake: `(I, J, K)` SUV.
        affine: of its grid.
        rng: of the counts.
        fwhm: of the blur, mm.
        counts: expected in 64 mm3 at 1 SUV.
    """
    fine = np.linalg.norm(affine[:3, :3], axis=0)
    blurred = ndimage.gaussian_filter(np.asarray(uptake, np.float64), fwhm * _SIGMA / fine)
    scale = counts * fine.prod() / 64
    return rng.poisson(np.maximum(blurred, 0) * scale) / scale


def scan(data: NDArray, affine: Affine, units: str, modality: str) -> Volume:
    """Numbers `(I, J, K)` of a phantom as a volume that says what it is."""
    return Volume(
        data=torch.from_numpy(np.asarray(data, np.float32))[None],
        affine=affine,
        units=units,
        modality=modality,
        notes=_NOTE,
    )


def _anatomy(rng: np.random.Generator) -> list[Tissue]:
    """Body, skull, brain, jaw, spine and airway; no two patients alike."""
    s, (x, y) = rng.uniform(0.92, 1.08), rng.uniform(-3, 3, 2)

    def at(hu: float, suv: float, half: Numbers, centre: Numbers) -> Tissue:
        a, b, c = (s * h for h in half)
        return Tissue(hu, suv, _shape((a, b, c), (x + centre[0], y + centre[1], centre[2])))

    return [
        at(40, 1.0, (54, 56, 120), (0, 0, -20)),  # muscle
        at(800, 0.6, (44, 50, 40), (0, 2, 52)),  # skull
        at(35, rng.uniform(6, 10), (39, 45, 35), (0, 2, 52)),  # brain
        at(500, 0.8, (9, 9, 90), (0, -36, -40)),  # spine
        at(AIR, 0.1, (8, 7, 60), (0, 16, -50)),  # airway
    ]


def _lumps(rng: np.random.Generator, tissues: Sequence[Tissue], reach: float) -> list[Lump]:
    """One of both scans, one or two of each alone, all drawn alike."""
    nodes, scars = (int(n) for n in rng.integers(1, 3, size=2))
    other: tuple[tuple[Kind, int], ...] = (("node", nodes), ("scar", scars))
    kinds: list[Kind] = ["tumour", *(kind for kind, count in other for _ in range(count))]
    lumps: list[Lump] = []
    for kind in kinds:
        for _ in range(_TRIES):
            lump = _lump(rng, kind, reach)
            if _fits(lump, lumps, tissues):
                lumps.append(lump)
                break
        else:
            raise ValueError(
                f"a phantom of {2 * reach:g} mm has no room for {len(kinds)} lumps, expected about "
                "128 mm; enlarge it."
            )
    return lumps


def _lump(rng: np.random.Generator, kind: Kind, reach: float) -> Lump:
    x, y, z = np.minimum(max(reach - 8, 0.0), [46.0, 48.0, 60.0])  # not at the edge of the grid
    first = rng.uniform([-x, -y, -z], [x, y, 0.0])
    radius = rng.uniform(8, 12)
    spheres = [(first, radius)]
    for _ in range(int(rng.integers(0, 3))):
        way = rng.normal(size=3)
        spheres.append(
            (first + way / np.linalg.norm(way) * rng.uniform(0.5, 0.9) * radius, rng.uniform(8, 10))
        )
    numbers = tuple(((float(c[0]), float(c[1]), float(c[2])), float(r)) for c, r in spheres)
    return Lump(kind, numbers, suv=rng.uniform(3, 10), hu=rng.uniform(30, 50))


def _fits(lump: Lump, others: Sequence[Lump], tissues: Sequence[Tissue]) -> bool:
    """Inside the muscle, clear of the rest, and of other lumps by a blur of the PET."""
    body, *rest = tissues
    inside = all(_depth(body.shape, c, -r - 2) < 1 for c, r in lump.spheres)
    clear = all(_depth(t.shape, c, r + 3) > 1 for t in rest for c, r in lump.spheres)
    apart = all(
        np.linalg.norm(np.subtract(c, d)) > r + q + FWHM
        for other in others
        for c, r in lump.spheres
        for d, q in other.spheres
    )
    return inside and clear and apart


def _depth(shape: Ellipsoid, point: Numbers, margin: float) -> float:
    """Below 1 inside an ellipsoid that is larger all round by a margin in mm."""
    half = np.maximum(np.array(shape.half) + margin, 1e-3)
    return float((((np.array(point) - shape.centre) / half) ** 2).sum())


def _rendered(
    tissues: Sequence[Tissue], lumps: Sequence[Lump], affine: Affine, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """CT numbers, uptake, and the tumour's share of each voxel."""
    muscle = tissues[0]
    ct = [(t.shape, t.hu) for t in tissues]
    pet = [(t.shape, t.suv) for t in tissues]
    tumour: list[tuple[Ellipsoid, float]] = []
    for lump in lumps:
        ct += [(s, muscle.hu + lump.hu) for s in lump.shapes if lump.kind != "node"]
        pet += [(s, lump.suv) for s in lump.shapes if lump.kind != "scar"]
        tumour += [(s, 1.0) for s in lump.shapes if lump.kind == "tumour"]
    return (
        render(ct, affine, shape, AIR),
        render(pet, affine, shape),
        render(tumour, affine, shape),
    )


def _shape(half: Numbers, centre: Numbers) -> Ellipsoid:
    return Ellipsoid(ct=0, mr=0, half=half, centre=centre)
