"""Time-Shift: ask the network about the time whose noise the image really holds.

Li, Qu, Yao, Sun, Moens, *Alleviating Exposure Bias in Diffusion Models through Sampling with
Shifted Time Steps*, ICLR 2024, arXiv:2305.15583. A sampler's own errors change the variance of
`x_t`, and the network, trained on true `x_t`, misjudges it. Before every call the pixel variance of
each image is compared with those expected at times near `t`; the noise is asked for at the time
that fits best, and the step is made with the nominal `alpha` and `sigma`.

    symbol    name here    meaning
    w         window       how far the time may move, in thousandths of the grid's span of time
    t_c       cutoff       no shift within this many thousandths of the grid's end
    -         rule         "marginal": expect alpha^2 c^2 + sigma^2; "noise": sigma^2, as released
    c         std          pixel standard deviation within a clean image

The released rule leaves the image's own variance out and takes a correct `x_t` for one of another
time. Neither rule helps everywhere; of Gaussian data with c = 1/2, ten steps even in time under VP
and a window of 30, there remains of the standard deviation at the last point

    cutoff    plain    marginal    noise
    0         0.803    0.837       0.797
    100       0.803    0.795       0.821

Near the image a small shift of time is a large one of noise, the more so where time is the noise
level itself (EDM): a cutoff of zero or a wrong `std` can then leave most of the noise in. Where the
expected variance hardly depends on time, as for data of unit variance under VP, it tells nothing,
and the marginal rule stays at the nominal time. Data consistency changes variances as well: inside
a posterior solver the shift answers the wrong question.

A correction of bias, without an order of its own. Cost: as the sampler it wraps; images of a batch
that moved to different times are asked about in turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from operators.validate import one_of
from restore.samplers.ddim import DDIM
from restore.samplers.grid import Point
from restore.samplers.sampler import Path, Sampler, noise_in

RULES = ("marginal", "noise")
FINE = 1000  # points of the fine grid in the span of a coarse one


@dataclass(frozen=True, kw_only=True)
class TimeShift(Sampler):
    """Shift the times at which a sampler asks its denoiser; see the module's docstring.

    Args:
        sampler: whose calls are shifted.
        window: largest shift, in thousandths of the grid's span of time.
        cutoff: last part of the span that is left alone, in thousandths.
        rule: "marginal" or "noise".
        std: pixel standard deviation of clean images, in their units.
    """

    name: ClassVar[str] = "time-shift"
    paper: ClassVar[str] = "Li et al. 2024, Time-Shift sampler"

    sampler: Sampler = field(default_factory=DDIM)
    window: int = 10
    cutoff: int = 300
    rule: str = "marginal"
    std: float = 0.25

    def __post_init__(self) -> None:
        one_of("time-shift's rule", self.rule, RULES)
        if self.window < 0 or not 0 <= self.cutoff <= FINE or not self.std >= 0:
            raise ValueError(
                f"time-shift needs window >= 0, cutoff in [0, {FINE}] and std >= 0, found "
                f"{self.window}, {self.cutoff} and {self.std}; correct these."
            )

    @property
    def order(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Order of what is wrapped, which the shift interrupts."""
        return "none"

    @property
    def memory(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As of the sampler that is wrapped."""
        return self.sampler.memory

    @property
    def random(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As of the sampler that is wrapped."""
        return self.sampler.random

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Walk as the wrapped sampler, on a path that shifts its questions."""
        yield from self.sampler.steps(ShiftedPath(path, self), x)

    def calls(self, steps: int) -> int:
        """As of the sampler that is wrapped."""
        return self.sampler.calls(steps)

    def shifted(self, path: Path, x: Tensor, at: Point) -> list[Point]:
        """Point at which to ask about each image."""
        times = torch.tensor(path.grid.times, dtype=torch.float64)
        low, high = times.min(), times.max()
        fine = (high - low) / FINE
        if at.t <= low + self.cutoff * fine:
            return [at] * len(x)

        # nominal time first, so that it wins what is a tie up to rounding
        shifts = torch.arange(-self.window, self.window + 1, dtype=torch.float64)
        shifts = shifts[shifts.abs().argsort(stable=True)]
        near = (at.t + shifts * fine).clamp(low, high)
        near[0] = at.t
        alpha, sigma = path.grid.schedule.alpha(near), path.grid.schedule.sigma(near)
        expected = sigma**2 + (alpha * self.std) ** 2 * (self.rule == "marginal")

        found = x.flatten(1).double().var(1).cpu()
        miss = (found[:, None] - expected).abs()
        chosen = (miss <= miss.amin(1, keepdim=True) + 1e-6 * found[:, None]).int().argmax(1)
        return [Point(float(near[k]), float(alpha[k]), float(sigma[k])) for k in chosen.tolist()]


class ShiftedPath(Path):
    """A path whose noise is that of a shifted time: `D` is what the nominal time makes of it."""

    def __init__(self, path: Path, shift: TimeShift) -> None:
        super().__init__(path.denoise, path.grid, path.noise)
        self.path, self.shift = path, shift

    def D(self, x: Tensor, at: Point) -> Tensor:
        """Clean image `(x - sigma eps) / alpha`, `eps` of each image at its shifted time."""
        points = self.shift.shifted(self.path, x, at)
        if all(point == at for point in points):
            return self.path.D(x, at)
        eps, calls = torch.empty_like(x), self.path.calls
        for point in dict.fromkeys(points):
            own = torch.tensor([p == point for p in points], device=x.device)
            eps[own] = noise_in(x[own], self.path.D(x[own], point), point)
        self.path.calls = calls + 1  # one an image
        return (x - at.sigma * eps) / at.alpha
