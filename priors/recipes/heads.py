"""Synthetic CT heads made from real MR anatomy, for the training of the prior `ct`.

    python -m priors.recipes.heads unpacked heads.npz

No package carries several real CT heads, and one of the few must stay unseen for evaluation. MR
heads show where brain, skull and skin are, though not bone from air, both of which are black. Every
head is warped, its tissues are given Hounsfield units, the skull becomes a shell around the brain
with two hard tables and a spongy middle, black parts of the face become bone or air by chance, and
sinuses, teeth, lesions, calcifications and a head rest are added (`priors.recipes.head_parts`).
None of these heads is meant to deceive a radiologist: variety matters, not likeness.
"""

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from scipy import ndimage
from skimage import measure
from torch.nn import functional as F

from priors.recipes import head_parts
from priors.recipes.ellipses import ellipses
from priors.recipes.head_tissues import bone, brain_tissue, soft_tissue
from priors.recipes.scan_files import Voxels
from priors.recipes.scans import catalogue, ct_range, in_range, save, slices
from priors.recipes.voxels import depth_in, field, paint, smoothstep

log = logging.getLogger(__name__)

HEADS = {"heads-colin27": 24, "heads-mni152": 16}
SLICES = (14, 14, 26)  # of a head, along each axis (sagittal, coronal, axial)
ELLIPSES = 120


@dataclass(frozen=True)
class Anatomy:
    """What an MR head tells.

    Attributes:
        t1: intensity `(I, J, K)`, voxel axes to the right, to the front and up, 1 mm; white matter
            is about 1.
        brain: 1 inside the brain and its ventricles, 0 outside.
        face: whether `t1` shows the whole head; else only the brain, and the rest is invented.
    """

    t1: Voxels
    brain: Voxels
    face: bool


def load_anatomy(unpacked: Path) -> dict[str, Anatomy]:
    """Read the anatomies of `HEADS` from the packages of the catalogue."""
    entries = {e["id"]: e for e in catalogue()[0]}

    def scan(name: str) -> Voxels:
        return in_range(entries[name], unpacked)

    brain = scan("colin27-brain") > 0.1
    white = np.percentile(scan("colin27")[brain], 97)
    colin = Anatomy(scan("colin27") / white, filled(brain), face=True)
    t1 = np.pad(scan("mni152"), ((6, 6), (12, 28), (48, 6)))  # room for what is invented
    mni = Anatomy(t1 / np.percentile(t1[t1 > 0.1], 97), filled(t1 > 0.1), face=False)
    return {"heads-colin27": colin, "heads-mni152": mni}


def filled(mask: np.ndarray) -> Voxels:
    """Close the gaps and fill the holes of a mask."""
    closed = ndimage.binary_closing(mask, iterations=2)
    return np.asarray(ndimage.binary_fill_holes(closed)).astype(np.float32)


def warped(anatomy: Anatomy, rng: Generator) -> Anatomy:
    """Turn, stretch and bend a head; its height most, as if slices were 0.9 to 1.6 mm thick."""
    shape = anatomy.t1.shape
    turn = np.linalg.qr(np.eye(3) + 0.10 * rng.standard_normal((3, 3)))[0]
    turn *= np.sign(np.diag(turn))  # near the identity
    stretch = 1 / np.array([*rng.uniform(0.88, 1.12, 2), rng.uniform(0.62, 1.1)])
    if rng.random() < 0.5:
        stretch[0] *= -1
    axes = [torch.linspace(-1, 1, n) for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    half = torch.tensor(shape, dtype=torch.float32) / 2
    matrix = torch.from_numpy(turn * stretch[None, :]).float()
    grid = (grid * half) @ matrix.T / half
    amplitude = rng.uniform(1.5, 4.5)
    for axis in range(3):
        bend = field(shape, 45, rng) * amplitude
        grid[..., axis] += torch.from_numpy(bend) / half[axis]
    both = torch.from_numpy(np.stack([anatomy.t1, anatomy.brain]))[None].float()
    found = F.grid_sample(both, grid.flip(-1)[None], align_corners=True)[0].numpy()
    return Anatomy(found[0], found[1], anatomy.face)


def pseudo_ct(anatomy: Anatomy, rng: Generator) -> Voxels:
    """Make one head in Hounsfield units from a warped anatomy."""
    outside_brain = -depth_in(anatomy.brain)
    gap, thickness = rng.uniform(1.5, 4.0), rng.uniform(3.5, 9.0)
    shape = anatomy.t1.shape
    thickness = thickness * (1 + 0.25 * field(shape, 30, rng)).clip(0.4, 1.8)
    base = below_brain(anatomy)
    thickness = thickness * (1 - rng.uniform(0.3, 0.7) * base)
    if anatomy.face:
        head = head_of(anatomy.t1)
        t1 = anatomy.t1
    else:
        head, t1 = head_parts.invented_head(outside_brain - gap - thickness, rng)
    inside, in_skull = depth_in(head), outside_brain - gap
    never_air = np.maximum(1 - smoothstep(inside, 4, 7), (1 - base) * (in_skull < 16))
    hu = np.full(shape, -1000.0, dtype=np.float32)
    paint(hu, smoothstep(inside, -0.5, 0.5), soft_tissue(t1, inside, never_air, rng))
    head_parts.lamellae(hu, anatomy.brain, inside, rng)
    shell = smoothstep(in_skull, -0.4, 0.4) * smoothstep(thickness - in_skull, -0.4, 0.4)
    paint(hu, shell * smoothstep(inside, 1.0, 2.5), bone(in_skull / thickness, rng))
    for part in (head_parts.sinuses, head_parts.mastoids, head_parts.jaws):
        part(hu, anatomy.brain, inside, rng)
    paint(hu, 1 - smoothstep(in_skull, -0.4, 0.4), rng.uniform(0, 14))
    paint(hu, smoothstep(anatomy.brain, 0.3, 0.7), brain_tissue(anatomy.t1, rng))
    head_parts.findings(hu, outside_brain, rng)
    head_parts.head_rest(hu, inside, rng)
    blur = [*[rng.uniform(0.3, 0.75)] * 2, rng.uniform(0.3, 1.1)]
    return ndimage.gaussian_filter(hu, blur)


def below_brain(anatomy: Anatomy) -> Voxels:
    """Return `(1, 1, K)`: 0 at the height of the skull's vault, 1 at and below its base."""
    heights = np.nonzero(anatomy.brain.max((0, 1)) > 0.5)[0]
    low, high = heights[0], heights[-1]
    k = np.arange(anatomy.t1.shape[2], dtype=np.float32)
    return smoothstep((high - k) / (high - low), 0.45, 0.75)[None, None, :]


def head_of(t1: Voxels) -> Voxels:
    """Mask of the whole head: what is not air around it, cavities filled slice by slice."""
    bright = ndimage.gaussian_filter(t1, 1.5) > 0.10
    labels = np.asarray(measure.label(bright, connectivity=1))
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    closed = np.asarray(ndimage.binary_closing(largest, iterations=4))
    whole = [np.asarray(ndimage.binary_fill_holes(s)) for s in np.moveaxis(closed, 2, 0)]
    return np.stack(whole, 2).astype(np.float32)


def chosen(volume: Voxels, rng: Generator) -> list[np.ndarray]:
    """Slices of a head along every axis, at random places where there is something to see."""
    picked = []
    for axis, count in enumerate(SLICES):
        stack = slices(volume, axis, "ct")
        picked.append(stack[np.sort(rng.choice(len(stack), min(count, len(stack)), replace=False))])
    return picked


def build(unpacked: Path, counts: Mapping[str, int] = HEADS) -> dict[str, np.ndarray]:
    """Build the synthetic part of the corpus: heads and ellipses.

    Args:
        unpacked: the folder with one unpacked package per sub-folder.
        counts: how many heads to make of each anatomy.

    Returns:
        Slices `(N, H, W)`, float16, by `ct/train/heads-.../axis`; the same for equal arguments.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for name, anatomy in load_anatomy(unpacked).items():
        for seed in range(counts[name]):
            rng = np.random.default_rng([*name.encode(), seed])
            head = ct_range(pseudo_ct(warped(anatomy, rng), rng))
            for axis, picked in enumerate(chosen(head, rng)):
                parts.setdefault(f"ct/train/{name}/{axis}", []).append(picked)
            log.info("%s %d", name, seed)
    corpus = {name: np.concatenate(stacks) for name, stacks in parts.items()}
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([ellipses(192, generator) for _ in range(ELLIPSES)])
    return corpus | {"ct/train/ellipses/0": drawn.numpy().astype(np.float16)}


def main() -> None:
    """Command line: `python -m priors.recipes.heads UNPACKED_DIR heads.npz`."""
    parser = argparse.ArgumentParser(description="Build synthetic CT heads from MR anatomy.")
    parser.add_argument("unpacked", type=Path, help="folder of unpacked packages")
    parser.add_argument("target", type=Path, help="file to write, .npz")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    save(build(arguments.unpacked), arguments.target)


if __name__ == "__main__":
    main()
