"""The priors of the posterior bench, and what is measured of each."""

from collections.abc import Callable
from functools import cache, partial

from priors import Gaussian
from restore.bench.mixtures import SHAPES, grid_case
from restore.bench.problems import (
    Task,
    counted_task,
    gaussian_task,
    glyphs,
    modulated_gaussian,
    power_law_image,
    small_gaussian,
)


def _tasks(prior: Callable[[], Gaussian], specs: dict[str, tuple[str, float]]) -> dict[str, Task]:
    kept = cache(prior)
    return {name: gaussian_task(kept, spec, sigma) for name, (spec, sigma) in specs.items()}


def _image_tasks(views: int) -> dict[str, tuple[str, float]]:
    return {
        "blur": ("blur:sigma=2", 0.02),
        "mask 80 %": ("mask:keep=0.2", 0.05),
        "x4": ("downsample:factor=4", 0.02),
        f"CT, {views} views": (f"ct:angles={views}", 0.02),
        "CS 25 %": ("cs:ratio=0.25", 0.02),
    }


SMALL = {
    "blur": ("blur:sigma=1", 0.1),
    "mask 50 %": ("mask:keep=0.5", 0.1),
    "x2": ("downsample:factor=2", 0.05),
    "CT, 8 views": ("ct:angles=8", 0.05),
    "CS 25 %": ("cs:ratio=0.25", 0.05),
}

# prior -> task -> maker of cases
FAMILIES: dict[str, dict[str, Task]] = {
    "gaussian 16x16": _tasks(small_gaussian, SMALL),
    "power law 64x64": _tasks(power_law_image, _image_tasks(20)),
    "modulated 32x32": _tasks(modulated_gaussian, _image_tasks(10)),
    **{f"mixture {d}": {"one number": partial(grid_case, s)} for d, s in SHAPES.items()},
    "data set 8x8": {"Poisson, 5 counts": counted_task(cache(glyphs), "blur:sigma=0.6", 5.0)},
}
