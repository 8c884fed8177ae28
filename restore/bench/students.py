"""A student against its teacher under the same noise, at equal numbers of network calls.

    paired      rms distance to what the teacher itself makes of the same noise in 128 calls, in
                units of the spread of those images (their pixel std): 1 is no relation
    images      sliced 1-Wasserstein distance to the law of those images
    detail      the same of 8x8 patches without their means
    spectrum    rms difference of the log radial power spectra, in dB
    photos      the three distances to crops of held-out photographs instead

All methods start from the same noise, so that a law that is right shows distance 0 and not what
chance gives; the teacher's images of other noise stand in the table to tell how much chance gives.
`start` tells where the sampler takes over: "high" is level 40, as samplers are run; "closed" is the
level below which the teacher stops being a Gaussian, after the Gaussian's own exact flow, as the
student starts. The teacher's best few-step sampler from there is the student's real rival. Against
photographs the teacher's 128 calls show what no student need better.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

import priors
from priors.networks import Handover
from priors.schedules import EDM
from restore.bench.denoising import photographs
from restore.bench.scores import sliced_wasserstein
from restore.problem import stream
from restore.samplers import grid as grids
from restore.samplers.adams import Adams
from restore.samplers.ddim import DDIM
from restore.samplers.dpm_solver_pp import DPMSolverPPM
from restore.samplers.sampler import Sampler
from restore.students import Student
from restore.students.gaussian import gaussian_start

REFERENCE, REFERENCE_CALLS = Adams(k=2), 128
SAMPLERS = (DDIM(), DPMSolverPPM(k=2))
CALLS = (1, 2, 4, 10, 50)
STUDENT_CALLS = (1, 2, 4)
HIGH, LOW = 40.0, 0.01
_DETAIL = 8  # side of the patches whose law is compared, in pixels


@dataclass(frozen=True)
class Row:
    """One method at one number of calls; see the module's docstring.

    Attributes:
        method: "student", "student, fresh noise", or a sampler's name with the teacher.
        start: "closed" or "high".
        calls: network calls an image.
        n: images.
        paired: NaN where the method shares no noise with the reference.
        images, detail, spectrum: distances to the teacher's images of the same noise.
        photos: the same three distances to held-out photographs.
    """

    method: str
    start: str
    calls: int
    n: int
    paired: float
    images: float
    detail: float
    spectrum: float
    photos: tuple[float, float, float]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return asdict(self)


def run(
    student: Student,
    *,
    count: int = 128,
    size: int = 32,
    seed: int = 0,
    calls: Sequence[int] = CALLS,
    held_out: Tensor | None = None,
) -> Iterator[Row]:
    """Compare a student with its teacher.

    Args:
        student: with a teacher in its card that is a shipped prior.
        count: images of every method.
        size: their side in pixels.
        seed: of the noise.
        calls: at which the teacher's samplers are run.
        held_out: clean images `(count, C, size, size)`; crops of `photographs` by default.

    Yields:
        One `Row` a method and number of calls, the student first.

    Raises:
        ValueError: the student names no shipped teacher.
    """
    teacher = priors.load(str(student.card.extra.get("teacher")))
    assert isinstance(teacher, Handover)
    shape = (student.network.channels, size, size)
    photos = crops(count, shape) if held_out is None else held_out
    z = noise(count, shape, seed)

    def reference(z: Tensor) -> Tensor:
        return teach(student, teacher, z, REFERENCE, REFERENCE_CALLS, student.high)

    truth = reference(z)

    def row(method: str, start: str, calls: int, x: Tensor, *, paired: bool = True) -> Row:
        near = float(((x - truth).square().mean() / truth.var()).sqrt()) if paired else math.nan
        return Row(method, start, calls, len(x), near, *distances(x, truth), distances(x, photos))

    for n in STUDENT_CALLS:
        x = student.draw(count, shape, calls=n, seed=seed)
        yield row("student", "closed", n, x)
    x = student.draw(count, shape, calls=4, seed=seed, gamma=1.0)
    yield row("student, fresh noise", "closed", 4, x, paired=False)
    for start, high in (("closed", student.high), ("high", HIGH)):
        for sampler in SAMPLERS:
            for n in calls:
                if n == 1 and sampler != SAMPLERS[0]:
                    continue  # one call is one denoising, whatever the sampler
                yield row(sampler.name, start, n, teach(student, teacher, z, sampler, n, high))
    yield row(REFERENCE.name, "closed", REFERENCE_CALLS, truth)
    other = reference(noise(count, shape, seed + 1))
    yield row(f"{REFERENCE.name}, other noise", "closed", REFERENCE_CALLS, other, paired=False)


def teach(
    student: Student,
    teacher: priors.Denoiser,
    z: Tensor,
    sampler: Sampler,
    calls: int,
    high: float,
) -> Tensor:
    """Draw the teacher's images of standard normal noise `z`, from level `high` on.

    The noise is brought to `high` along the Gaussian's exact flow, so that every start lies on the
    same trajectory.
    """
    x = gaussian_start(student.network.law, z, high)
    with torch.no_grad():
        if calls == 1:
            return teacher(x, high)
        grid = grids.build("edm", EDM(), sampler.steps_within(calls), high, LOW)
        return sampler(teacher, x, grid)


def crops(count: int, shape: tuple[int, int, int], *, seed: int = 0) -> Tensor:
    """Cut `(count, *shape)` from held-out photographs, each at its own and at half resolution."""
    scenes = list(photographs(shape[0]).values())
    scenes += [F.avg_pool2d(scene, 2) for scene in scenes]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i in range(count):
        scene = scenes[i % len(scenes)]
        u = torch.rand(2, generator=generator).tolist()
        room = [n - side + 1 for n, side in zip(scene.shape[2:], shape[1:], strict=True)]
        top, left = int(u[0] * room[0]), int(u[1] * room[1])
        found.append(scene[0, :, top : top + shape[1], left : left + shape[2]])
    return torch.stack(found)


def distances(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Distances of laws: images, detail, spectrum; see the module's docstring."""
    spread = y.double().flatten(1).std(0).reshape(y.shape[1:])
    a, b = _detail(x), _detail(y)
    fine = b.double().std(0)
    power = [_radial_power(v) for v in (x, y)]
    decibels = 10 * (power[0] / power[1]).log10()
    return (
        sliced_wasserstein(x, y, spread),
        sliced_wasserstein(a, b, fine),
        float(decibels.square().mean().sqrt()),
    )


def _detail(x: Tensor) -> Tensor:
    """Return all patches `(M, C * 64)` side by side, without their means."""
    patches = F.unfold(x, _DETAIL, stride=_DETAIL).movedim(1, 2).reshape(-1, x.shape[1], _DETAIL**2)
    return (patches - patches.mean(-1, keepdim=True)).flatten(1)


def _radial_power(x: Tensor) -> Tensor:
    """Mean power of images `(B, C, H, W)` in rings of one cycle an image, 1 to half their side."""
    centred = x.double() - x.double().mean((2, 3), keepdim=True)
    window = torch.outer(*(torch.hann_window(n, dtype=torch.float64) for n in x.shape[2:]))
    power = torch.fft.fft2(window * centred).abs().square().mean((0, 1))
    axes = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in x.shape[2:]]
    ring = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt().round().long()
    return torch.stack([power[ring == r].mean() for r in range(1, min(x.shape[2:]) // 2 + 1)])


def noise(count: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return the standard normal noise from which `Student.draw` starts at this seed."""
    streams = (stream(seed, i) for i in range(count))
    return torch.stack(
        [torch.randn(shape, generator=g, dtype=torch.float64) for g in streams]
    ).float()


def table(rows: Sequence[Row]) -> Table:
    """Lay rows out."""
    table = Table(
        title="a student against its teacher, from the same noise; every distance: less is better",
        box=SIMPLE_HEAD,
    )
    for head in ("method", "start"):
        table.add_column(head)
    heads = ("calls", "paired", "images", "detail", "dB", "photos: images", "detail", "dB")
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        near = "" if math.isnan(row.paired) else f"{row.paired:.3f}"
        laws = ((row.images, row.detail, row.spectrum), row.photos)
        cells = [f"{a:.3f} {b:.3f} {c:.2f}".split() for a, b, c in laws]
        table.add_row(row.method, row.start, str(row.calls), near, *cells[0], *cells[1])
    return table
