"""Computed tomography with few views, or with views over part of the half circle.

A ray measures the water it would cross: `p = integral (1 + HU / 1000) dl` in mm, the logarithm of
its attenuation over that of a millimetre of water (about 0.02 at 60 keV).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from deepinv.physics import Physics
from torch import Tensor

import operators
from medical.geometry import Plane
from medical.intensity import AIR
from medical.reconstruct.tasks import Scene, Task
from medical.refusal import Refusal
from operators.ct import ComputedTomography

PHOTON_NOISE = 0.5
"""mm of water: some 10^4 detected photons."""

_SQUARE = 1e-3  # relative difference of the sides of a pixel
_HALF_CIRCLE = 180.0


class SparseView(Task):
    """Views evenly over the half circle."""

    name: ClassVar[str] = "ct-sparse"
    title: ClassVar[str] = "sparse-view CT"
    reads: ClassVar[frozenset[str]] = frozenset({"angles", "arc"})
    of_image: ClassVar[bool] = False
    plane: ClassVar[Plane | None] = "axial"
    noise_unit: ClassVar[str] = "mm of water"
    views: ClassVar[int] = 8
    degrees: ClassVar[float] = _HALF_CIRCLE

    def refuse(self, scene: Scene) -> None:
        """See `Task`; also other numbers than HU, other planes, oblong pixels."""
        super().refuse(scene)
        if scene.units != "HU":
            raise Refusal(
                "E_MODALITY",
                f"the scan is {scene.modality} in {scene.units}, expected Hounsfield units for "
                f"task '{self.name}'; if they are, say so with --modality CT.",
            )
        _, rows, columns = scene.spacing
        if abs(rows - columns) > _SQUARE * columns:
            raise Refusal(
                "E_PIXELS",
                f"pixels are {rows:.4g} x {columns:.4g} mm, expected squares for task "
                f"'{self.name}'; resample the scan, or choose another --plane.",
            )

    def operator(self, scene: Scene, y: Tensor | None = None, *, first: int = 0) -> Physics:
        """Parallel rays through every slice, one operator of norm 1 for all."""
        angles, arc = self._views(scene)
        _, _, height, width = scene.shape
        one = operators.ct((1, height, width), angles=angles, span=arc, pixel=scene.spacing[2])
        return operators.slices(scene.shape, operator=one)

    def level(self, scene: Scene, operator: Physics, noise: float) -> float:
        """Std of normalised integrals from that of mm of water."""
        return noise * self._gain(scene, operator)

    def default_noise(self, scene: Scene) -> float | None:
        """Of some 10^4 detected photons a ray."""
        return PHOTON_NOISE

    def measured(self, scene: Scene, operator: Physics, y: Tensor) -> Tensor:
        """Mm of water as normalised integrals, of air where the prior puts it."""
        shift = scene.map.forward(torch.tensor(AIR)).to(y)
        path = y * self._gain(scene, operator)
        return path if shift.abs() < 1e-6 else path + operator.A(shift.expand(1, *scene.shape))

    def _gain(self, scene: Scene, operator: Physics) -> float:
        """What a mm of water becomes: `1 + HU / 1000` is `1000 slope` in the prior's range."""
        (one,) = operator.operators  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
        assert isinstance(one, ComputedTomography)
        return one.scale * scene.map.slope * -AIR

    def words(self, scene: Scene) -> str:
        """Views and arc."""
        angles, arc = self._views(scene)
        return f"{self.title}, {angles} view{'s' * (angles != 1)} over {arc:g} degrees"

    def _views(self, scene: Scene) -> tuple[int, float]:
        said = scene.settings
        arc = self.degrees if said.arc is None else said.arc
        return said.angles or self.views, float(arc)


class LimitedAngle(SparseView):
    """Views closely over an arc; the rest of the half circle is not seen."""

    name: ClassVar[str] = "ct-limited"
    title: ClassVar[str] = "limited-angle CT"
    views: ClassVar[int] = 90
    degrees: ClassVar[float] = 90.0
    # those of `DDS.limited_angle`
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"cg_steps": 50, "s_max": 6.0})

    def refuse(self, scene: Scene) -> None:
        """See `Task`; also a full arc."""
        super().refuse(scene)
        if scene.settings.arc == _HALF_CIRCLE:
            raise Refusal(
                "E_SETTING",
                "an arc of 180 degrees is not limited; give a smaller --arc, or --task ct-sparse.",
            )
