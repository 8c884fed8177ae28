"""Where a measurement comes from: the scan itself, a file, or a simulation that says it is one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from deepinv.physics import Physics
from safetensors import SafetensorError, safe_open
from torch import Tensor

import operators
from medical.intensity import IntensityMap
from medical.reconstruct.noise import estimate
from medical.reconstruct.quality import body_of
from medical.reconstruct.tasks import Scene, Task, image_size
from medical.refusal import Refusal
from operators.noise import noise_model
from operators.slices import Slices

_SALT = 0x5CA1AB1E  # the noise of a measurement is not that of a sample
_APART = 1_000_003  # between seeds: more than slices


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measurement in the range of the prior.

    Attributes:
        y: `(1, ...)`.
        operator: with its noise.
        noise: its std as a user says it, in `Task.noise_unit` or the volume's units.
        notes: what was simulated or estimated, a sentence each.
        given: whether it is from a file.
    """

    y: Tensor
    operator: Physics
    noise: float
    notes: tuple[str, ...]
    given: bool = False


def measured(
    task: Task, scene: Scene, stack: Tensor, *, given: Tensor | None, simulate: bool, seed: int
) -> Measured:
    """Find, load or simulate the measurement of a task.

    Args:
        task: the task.
        scene: of the clean stack that is sought, before refinement.
        stack: the scan in the prior's range `(1, C, D, H, W)`.
        given: a measurement from a file, in the user's units.
        simulate: whether to measure the scan.
        seed: of simulated noise.

    Raises:
        Refusal: E_MEASUREMENT, E_NOISE.
    """
    operator, said = task.operator(scene, given), scene.settings.noise
    if given is not None:
        _refuse_shape(operator, given)
        if said is None:
            raise Refusal(
                "E_NOISE",
                "a measurement from a file does not tell its noise; give --noise, its std in "
                f"{task.noise_unit or scene.units}.",
            )
        set_noise(operator, task.level(scene, operator, said))
        return Measured(
            y=task.measured(scene, operator, given),
            operator=operator,
            noise=said,
            notes=(),
            given=True,
        )
    if simulate and (added := said if said is not None else task.default_noise(scene)) is not None:
        set_noise(operator, task.level(scene, operator, added))
        y = _measure(operator, scene, stack, seed)
        note = _simulated(task, scene, added)
        return Measured(y=y, operator=operator, noise=added, notes=(note,))
    y = operator.A(stack) if simulate else task.taken(operator, stack)
    notes = [_simulated(task, scene, 0.0)] if simulate else []
    if said is None:
        said = _estimated(task, scene, stack if scene.missing else y)
        notes.append(
            f"Nobody said how noisy the scan is; from its finest detail, {said:.3g} {scene.units} "
            "were estimated, too little if the scanner has smoothed it."
        )
    set_noise(operator, task.level(scene, operator, said))
    return Measured(y=y, operator=operator, noise=said, notes=tuple(notes))


def _measure(operator: Physics, scene: Scene, stack: Tensor, seed: int) -> Tensor:
    """Measure with noise, slice by slice: that of a whole volume would be many volumes."""
    if isinstance(operator, Slices):
        each = list(operator.operators)
        parts = (
            operators.measure(each[k % len(each)], x, seed=seed * _APART + k + _SALT)  # pyright: ignore[reportArgumentType]
            for k, x in enumerate(stack.unbind(2))
        )
        y = None
        for k, part in enumerate(parts):
            y = part.new_empty(1, stack.shape[2], *part.shape[1:]) if y is None else y
            y[:, k] = part
        assert y is not None
        return y
    y, level = operator.A(stack), float(operators.noise_sigma(operator))
    generator = torch.Generator().manual_seed(seed * _APART + _SALT)
    for k in (k for k in range(y.shape[2]) if k not in scene.missing):
        y[:, :, k] += level * torch.randn(y[:, :, k].shape, generator=generator)
    return y


def _estimated(task: Task, scene: Scene, pictures: Tensor) -> float:
    """Noise of slices `(1, C, D, H, W)` in units of the scan."""
    there = [k for k in range(pictures.shape[2]) if k not in scene.missing]
    some = pictures[0][:, there]
    unit = IntensityMap(slope=1.0)  # they are in the prior's range
    noise = estimate(some, body_of(unit, some[0])) / scene.map.slope
    if noise == 0 and task.name == "denoise":
        raise Refusal("E_NOISE", "no noise was found in the scan, expected some; give --noise.")
    return noise


def _simulated(task: Task, scene: Scene, noise: float) -> str:
    unit = task.noise_unit or scene.units
    return (
        f"The measurement was simulated from the scan: {task.words(scene)}, noise of "
        f"{noise:.3g} {unit}."
    )


def set_noise(operator: Physics, level: float) -> None:
    """Give an operator, and those of its slices, noise of a std in the prior's range."""
    operator.noise_model = noise_model(level)
    for one in getattr(operator, "operators", ()):
        one.noise_model = operator.noise_model


def _refuse_shape(operator: Physics, y: Tensor) -> None:
    with torch.no_grad():
        expected = tuple(operator.A(torch.zeros(1, *image_size(operator))).shape)
    if tuple(y.shape) != expected:
        raise Refusal(
            "E_MEASUREMENT",
            f"the measurement has shape {tuple(y.shape)}, expected {expected} for this scan and "
            "these settings; check views, acceleration and --plane.",
        )


def read_measurement(path: Path) -> Tensor:
    """Read `(1, slices, ...)` from a `.npy` file, or the only tensor of a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        Refusal: E_MEASUREMENT.
    """
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' is not a file; name a measurement.")
    try:
        y = _loaded(path)
    except (SafetensorError, ValueError, EOFError, OSError) as error:
        raise Refusal(
            "E_MEASUREMENT",
            "the measurement cannot be read; write one array as .npy or .safetensors.",
        ) from error
    if not (y.is_floating_point() or y.is_complex()) or y.ndim < 3 or not y.isfinite().all():
        raise Refusal(
            "E_MEASUREMENT",
            f"the measurement is {y.dtype} of shape {tuple(y.shape)}, expected finite floating "
            "point numbers (1, slices, ...).",
        )
    if y.is_complex():  # k-space (1, slices, H, W) as real and imaginary parts
        y = torch.view_as_real(y).movedim(-1, 2)
    return y.float()


def _loaded(path: Path) -> Tensor:
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False))
    with safe_open(path, framework="pt") as file:
        (name,) = file.keys()
        return file.get_tensor(name)
