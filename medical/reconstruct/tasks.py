"""Tasks: what is measured of a stack of slices, as an operator in the range of a prior."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from medical.geometry import Plane
from medical.intensity import IntensityMap
from medical.reconstruct.settings import Settings
from medical.refusal import Refusal
from operators.words import nearest

Shape = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a task may know of a scan.

    Attributes:
        shape: `(C, D, H, W)` of its stack of slices.
        spacing: mm along D, H, W.
        units: of its numbers.
        modality: DICOM's word.
        plane: of its slices.
        missing: slices without a measurement.
        map: to the prior's range.
        settings: what the user said.
    """

    shape: Shape
    spacing: tuple[float, float, float]
    units: str
    modality: str
    plane: Plane
    missing: tuple[int, ...]
    map: IntensityMap
    settings: Settings


class Task:
    """Base of the tasks.

    Class attributes:
        name: the word that users type.
        title: what it does, in words.
        reads: the settings that it reads, besides noise.
        of_image: whether a scan is itself the measurement, unless one is simulated.
        plane: of the slices, where the user says nothing; None is that of square pixels.
        axis: spatial axis of the stack along which the prior's slices follow each other.
        noise_unit: of `Settings.noise`; "" is the volume's.
        solver: what restores, where the user says nothing.
        options: its, then.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reads: ClassVar[frozenset[str]] = frozenset()
    of_image: ClassVar[bool] = True
    plane: ClassVar[Plane | None] = None
    axis: ClassVar[int] = 0
    noise_unit: ClassVar[str] = ""
    solver: ClassVar[str] = "dds"
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def refuse(self, scene: Scene) -> None:
        """Refuse a scan that the task is not for.

        Raises:
            Refusal: one sentence.
        """
        if scene.shape[0] != 1:
            raise Refusal(
                "E_CHANNELS",
                f"the scan has {scene.shape[0]} channels, expected 1 for task '{self.name}'; "
                "give one of them.",
            )

    def refined(self, scene: Scene) -> int:
        """How many slices are restored where the scan has one."""
        return 1

    def operator(self, scene: Scene, y: Tensor | None = None, *, first: int = 0) -> Physics:
        """Build the operator on stacks `(B, C, D, H, W)` in the prior's range, without noise.

        Args:
            scene: of the scan.
            y: a measurement that was given, which may tell more than the settings.
            first: number of the first slice along `axis`, where this is a slab of a scan.
        """
        raise NotImplementedError

    def cut(self, y: Tensor, first: int, count: int) -> Tensor:
        """The measurement of some slices along `axis`."""
        return y.narrow(2 + self.axis if self.of_image else 1, first, count)

    def level(self, scene: Scene, operator: Physics, noise: float) -> float:
        """Std of the noise in the prior's range."""
        return noise * scene.map.slope

    def default_noise(self, scene: Scene) -> float | None:
        """Std to simulate where the user says nothing, in `noise_unit`; None estimates it."""
        return None

    def taken(self, operator: Physics, stack: Tensor) -> Tensor:
        """What of a scan is its measurement, both in the prior's range."""
        return operator.A(stack)

    def measured(self, scene: Scene, operator: Physics, y: Tensor) -> Tensor:
        """A measurement from a file, in the prior's range."""
        return y

    def before(self, operator: Physics, y: Tensor) -> Tensor:
        """What a scanner would show without a prior, `(1, C, D, H, W)`."""
        assert isinstance(operator, LinearPhysics)
        return operator.A_dagger(y)

    def words(self, scene: Scene) -> str:
        """What is measured, in a few words."""
        return self.title


def image_size(operator: Physics) -> tuple[int, ...]:
    """`(C, D, H, W)` of the images that an operator of ours was built for."""
    return tuple(operator.img_size)  # pyright: ignore[reportArgumentType]


def task_named(name: str) -> Task:
    """The task of a name.

    Raises:
        Refusal: E_TASK.
    """
    known = tasks()
    if name not in known:
        raise Refusal("E_TASK", f"unknown task '{name}'; {nearest(name, list(known))}")
    return known[name]


def tasks() -> dict[str, Task]:
    """Name -> task."""
    from medical.reconstruct.magnetic import MRI
    from medical.reconstruct.stacks import Denoise, Inpaint, SuperResolve
    from medical.reconstruct.tomography import LimitedAngle, SparseView

    known = (Denoise(), SparseView(), LimitedAngle(), MRI(), SuperResolve(), Inpaint())
    return {task.name: task for task in known}
