"""Magnetic resonance with part of k-space, slice by slice.

A scan of one channel is taken for magnitudes without phase: `y = M F x`, x real. A measurement from
a file has phase, and so do scans of two channels, real and imaginary part.
"""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from typing import Any, ClassVar

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

import operators
from medical.reconstruct.tasks import Scene, Task
from medical.refusal import Refusal


class MRI(Task):
    """Accelerated Cartesian MRI."""

    name: ClassVar[str] = "mri"
    title: ClassVar[str] = "accelerated MRI"
    reads: ClassVar[frozenset[str]] = frozenset({"acceleration", "vary"})
    of_image: ClassVar[bool] = False
    default: ClassVar[float] = 4.0
    noise_share: ClassVar[float] = 0.01

    def refuse(self, scene: Scene) -> None:
        """Refuse CT, and anything but one channel or two."""
        if scene.units == "HU" or scene.modality in ("CT", "PT"):
            raise Refusal(
                "E_MODALITY",
                f"the scan is {scene.modality} in {scene.units}, expected MR for task 'mri'; for "
                "CT there are ct-sparse and ct-limited.",
            )
        if scene.shape[0] not in (1, 2):
            raise Refusal(
                "E_CHANNELS",
                f"the scan has {scene.shape[0]} channels, expected 1, or 2 for real and imaginary "
                "part; combine the coils first.",
            )

    def operator(self, scene: Scene, y: Tensor | None = None, *, first: int = 0) -> Physics:
        """One coil; what a file left zero in k-space was not measured."""
        channels, slices, *size = scene.shape
        count = slices if scene.settings.vary or y is not None else 1
        each = [self._one(scene, (2, *size), k, y, first) for k in range(count)]
        if channels == 1 and y is None:
            each = [RealImages(a) for a in each]
        whole = (1 if channels == 1 and y is None else 2, slices, *size)
        return operators.slices(whole, operator=each if count > 1 else each[0])

    def _one(
        self, scene: Scene, shape: tuple[int, ...], k: int, y: Tensor | None, first: int
    ) -> LinearPhysics:
        if y is None:
            acceleration = scene.settings.acceleration or self.default
            seed = first + k if scene.settings.vary else 0
            return operators.mri(shape, acceleration=acceleration, seed=seed)
        return operators.mri(shape, mask=(y[0, k] != 0).any(0).float())

    def default_noise(self, scene: Scene) -> float | None:
        """A hundredth of the prior's range."""
        return self.noise_share / scene.map.slope

    def measured(self, scene: Scene, operator: Physics, y: Tensor) -> Tensor:
        """K-space in units of the volume, in the prior's."""
        return y * scene.map.slope

    def before(self, operator: Physics, y: Tensor) -> Tensor:
        """Zero filling."""
        assert isinstance(operator, LinearPhysics)
        return operator.A_adjoint(y)

    def words(self, scene: Scene) -> str:
        """Acceleration."""
        acceleration = scene.settings.acceleration or self.default
        return f"{self.title}, one sample of k-space in {acceleration:g}"


class RealImages(LinearPhysics):
    """An operator of complex images on real ones: `A (x + 0 i)`."""

    def __init__(self, operator: LinearPhysics) -> None:
        super().__init__(noise_model=operator.noise_model)  # pyright: ignore[reportArgumentType]
        self.operator = operator
        self.img_size = (1, *tuple(operator.img_size or ())[1:])

    def A(self, x: Tensor, **parameters: Any) -> Tensor:
        """Measure real images `(B, 1, H, W)`."""
        return self.operator.A(torch.cat([x, torch.zeros_like(x)], 1), **parameters)

    def A_adjoint(self, y: Tensor, **parameters: Any) -> Tensor:
        """Adjoint: the real part."""
        return self.operator.A_adjoint(y, **parameters)[:, :1]
