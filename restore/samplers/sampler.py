"""The base of every sampler: one integrator of a diffusion from noise to image.

A sampler is a frozen dataclass whose fields are its paper's constants; its algorithm is one
generator, `steps`, that walks a `Path` from point to point of its grid. What it walks on is only a
denoiser, so that it serves every prior, every posterior mean `E[x_0 | x_t, y]`, and every
restoration diffusion, which is an ordinary one of `u = x - y_0`.

Guidance must enter through the denoiser. Whoever edits `x` between two steps must use a sampler
without memory (`memory = False`), because multistep history no longer fits an edited state.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from restore.samplers.grid import Grid, Point

Denoise = Callable[[Tensor, float], Tensor]
"""`D(y, s) = E[x_0 | x_0 + s n = y]`: any prior, or any function like one."""

Noise = Callable[[Tensor], Tensor]
"""Fresh standard normal noise shaped like its argument."""


def no_noise(like: Tensor) -> Tensor:
    """Stand where a deterministic sampler needs no noise.

    Raises:
        ValueError: always; the sampler at hand is random.
    """
    raise ValueError("this sampler draws noise and none was given; give noise=, or set eta to 0.")


@dataclass
class Path:
    """A denoiser along a grid: all that an integrator sees.

    Attributes:
        denoise: see `Denoise`.
        grid: the points to visit.
        noise: see `Noise`.
        calls: denoiser calls so far.
    """

    denoise: Denoise
    grid: Grid
    noise: Noise = no_noise
    calls: int = field(default=0, init=False)

    def D(self, x: Tensor, at: Point) -> Tensor:
        """Clean image expected at `x`, `alpha x_0 + sigma eps` of point `at`; one call."""
        self.calls += 1
        return self.denoise(x / at.alpha, at.level)

    def eps(self, x: Tensor, at: Point) -> Tensor:
        """Noise expected in `x`; one call."""
        return noise_in(x, self.D(x, at), at)


def noise_in(x: Tensor, D: Tensor, at: Point) -> Tensor:
    """Noise `eps` that `x = alpha D + sigma eps` holds."""
    return (x - at.alpha * D) / at.sigma


def transfer(x: Tensor, start: Point, end: Point, eps: Tensor) -> Tensor:
    """Carry `x` from one point to another along the noise `eps`: the step that all methods share.

    `x / alpha` moves by `eps` times the change of level; with the `eps` of `start` it is DDIM.
    """
    return end.alpha * (x / start.alpha + (end.level - start.level) * eps)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Base class; see the module's docstring.

    Class attributes, shown by `restore samplers`:
        name: the word users type; a class with variants gives them as `variants`.
        paper: authors, year, equation or algorithm.
        order: order of convergence, in words.
        memory: whether a step uses evaluations of earlier steps.
        random: whether it draws noise, at the class's defaults.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    order: ClassVar[str]
    memory: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def steps(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Walk from `x` at the first point of the grid; yield `x` at each later point."""
        raise NotImplementedError

    def calls(self, steps: int) -> int:
        """Denoiser calls of `steps` steps; one a step unless a sampler says otherwise."""
        return steps

    def steps_within(self, calls: int) -> int:
        """Most steps that, with the final denoising, take at most `calls` calls.

        Raises:
            ValueError: when not even one step fits.
        """
        steps = 0
        while self.calls(steps + 1) + 1 <= calls:
            steps += 1
        if steps == 0:
            raise ValueError(
                f"sampler '{self.name}' needs at least {self.calls(1) + 1} network calls, found "
                f"{calls}; raise it or choose ddim."
            )
        return steps

    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        grid: Grid,
        *,
        noise: Noise = no_noise,
        clean: bool = True,
    ) -> Tensor:
        """Carry `x` along the grid.

        Args:
            denoise: `D(y, s)`; a prior will do.
            x: `(N, C, *spatial)` at the first point of the grid, `alpha x_0 + sigma eps`.
            grid: the points to visit.
            noise: of random samplers.
            clean: end with one more denoising, which removes the noise of the last point.

        Returns:
            The clean image (`clean`), or `x` at the last point. Same shape and dtype as `x`.
        """
        path = Path(denoise, grid, noise)
        for step in self.steps(path, x):
            x = step
        return path.D(x, grid[-1]) if clean else x
