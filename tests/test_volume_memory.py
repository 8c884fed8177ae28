"""What a volume costs in memory: at most eight of its size at once, measurement and result too."""

import os
import subprocess
import sys

import pytest

# the largest resident size of a process, less what it had when its operator was built
SCRIPT = """
import resource, sys
import torch

torch.set_num_threads(1)
import operators
from priors import Card, Denoiser, per_image
from restore.solvers.dds import DDS


class Shrink(Denoiser):
    def forward(self, x, sigma, **kwargs):
        return (x - 0.5).mul_(0.04 / (0.04 + per_image(sigma, x) ** 2)).add_(0.5)


def build(n):
    return operators.parse({spec!r}, (1, n, n, n), noise=0.05)


def solve(operator, n):
    y = torch.rand(operator.A(torch.full((1, 1, n, n, n), 0.5)).shape)
    prior = Shrink(Card(name="shrink", channels=1, spatial_dims=2))
    found = DDS(steps=2, cg_steps=2)(y, operator, prior)
    assert found.samples.shape == (1, 1, 1, n, n, n)


solve(build(8), 8)  # what libraries load at first use
operator = build({n})
pages = int(open("/proc/self/statm").read().split()[1])
before = pages * resource.getpagesize()
solve(operator, {n})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


# what is freed goes back to the system at once, so that what is resident is what is in use
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}


def peak(spec, n):
    command = [sys.executable, "-c", SCRIPT.format(spec=spec, n=n)]
    done = subprocess.run(
        command, env=os.environ | GIVE_BACK, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("spec", ["denoise", "thick:factor=4", "slices|ct:angles=4"])
def test_at_most_eight_volumes(spec):
    """A few slices at work come on top: a quarter of a volume of 256 at most."""
    small, large = peak(spec, 128), peak(spec, 256)
    volumes = [4 * n**3 for n in (128, 256)]
    slope = (large - small) / (volumes[1] - volumes[0])
    assert slope < 8.1
    assert large < 8.25 * volumes[1]
