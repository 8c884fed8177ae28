"""Measure a medical prior on the patient that its training never saw.

    python -m priors.recipes.held_out scans.npz ct
    python -m priors.recipes.held_out scans.npz mr --bm3d

writes, a line each, the mean PSNR of slices from the three planes, denoised at known noise levels:
by the prior, by `natural-gray`, and (slow) by BM3D. The peak is 1 in the units of the prior: 3000
HU for CT. Nothing is clipped. For MR, slices are measured as magnitudes and as the real part under
a smooth phase; there `natural-gray`, which knows no negative pixels, gets them moved into [0, 1].
"""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from priors.recipes.medical import START, load_stacks
from priors.recipes.scan_patches import smooth_phase
from priors.weights import load

log = logging.getLogger(__name__)

SIGMAS = (0.02, 0.05, 0.1, 0.3, 1.0)
BM3D_UP_TO = 0.1
SLICES = 4  # of every plane
Method = Callable[[Tensor, float], Tensor]


def held_out_slices(corpus: Path, modality: str, *, signed: bool = False) -> list[list[Tensor]]:
    """Return evenly spaced slices `(1, 1, H, W)` of the held-out patient, one list a plane."""
    (axes,) = load_stacks([corpus], modality, "held-out").values()
    generator = torch.Generator().manual_seed(0)
    planes = []
    for stack in axes:
        chosen = np.linspace(0, len(stack) - 1, SLICES + 2).round().astype(int)[1:-1]
        plane = [stack[i][None, None].float() for i in chosen]
        if signed:
            plane = [x * _phase_of(x, generator).cos() for x in plane]
        planes.append(plane)
    return planes


def _phase_of(x: Tensor, generator: torch.Generator) -> Tensor:
    """A smooth phase over a whole slice, four times as steep as over a patch."""
    height, width = x.shape[-2:]
    return 4 * smooth_phase(max(height, width), generator)[:height, :width]


def psnr(estimate: Tensor, clean: Tensor) -> float:
    """Peak signal to noise ratio in dB, for a peak of 1."""
    return -10 * float((estimate - clean).square().mean().log10())


def measure(planes: list[list[Tensor]], method: Method, sigma: float) -> list[float]:
    """Mean PSNR of every plane, with the same noise for every method."""
    generator = torch.Generator().manual_seed(int(1000 * sigma))
    means = []
    for plane in planes:
        values = []
        for x in plane:
            noisy = x + sigma * torch.randn(x.shape, generator=generator)
            values.append(psnr(method(noisy, sigma), x))
        means.append(sum(values) / len(values))
    return means


def in_unit_range(method: Method) -> Method:
    """Let a method for [0, 1] denoise images in [-1, 1]."""
    return lambda noisy, sigma: 2 * method((noisy + 1) / 2, sigma / 2) - 1


def _bm3d(noisy: Tensor, sigma: float) -> Tensor:
    import bm3d

    return torch.from_numpy(bm3d.bm3d(noisy[0, 0].numpy(), sigma)).float()[None, None]


@torch.no_grad()
def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("name", choices=("ct", "mr"))
    parser.add_argument("--weights", type=Path, help="a file to measure instead of what ships")
    parser.add_argument("--bm3d", action="store_true", help="measure BM3D as well")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    prior, photographs = load(args.weights or args.name), load(START)
    for signed in (False, True)[: 2 if args.name == "mr" else 1]:
        methods: dict[str, Method] = {args.name: prior, START: photographs}
        if signed:
            methods[START] = in_unit_range(photographs)
        if args.bm3d:
            methods["BM3D"] = _bm3d
        planes = held_out_slices(args.corpus, args.name, signed=signed)
        log.info("%s, PSNR by axis and mean, dB", "real part" if signed else "as stored")
        for sigma in SIGMAS:
            for name, method in methods.items():
                if name == "BM3D" and sigma > BM3D_UP_TO:
                    continue
                found = measure(planes, method, sigma)
                numbers = " ".join(f"{p:6.2f}" for p in [*found, sum(found) / len(found)])
                log.info("  sigma %.2f  %-14s %s", sigma, name, numbers)


if __name__ == "__main__":
    main()
