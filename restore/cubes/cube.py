"""A hyperspectral cube: values in their own units, and what a tensor cannot hold."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

FEWEST = 8  # bands: below, an image in colour


class Georeference(NamedTuple):
    """Where the pixels lie.

    Attributes:
        crs: coordinate reference system as WKT or "EPSG:number"; empty when unknown.
        transform: `(a, b, c, d, e, f)`, corner of pixel (column, row) at
            `x = a column + b row + c`, `y = d column + e row + f`.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]

    def finer(self, factor: int) -> "Georeference":
        """The same ground under pixels `factor` times smaller."""
        a, b, c, d, e, f = self.transform
        small = (a / factor, b / factor, c, d / factor, e / factor, f)
        return self._replace(transform=small)


@dataclass(frozen=True, kw_only=True)
class Cube:
    """A cube and what its file said beside the values.

    Attributes:
        data: float32 `(C, H, W)` in its own units, NaN where there is no value.
        wavelengths: nanometres, one a band, or None when not told.
        georeference: where the pixels lie, or None when not told.
        dtype: numpy name of the file's type, in which it is written again.
        nodata: what the file writes where there is no value, or None.
        header: more that the file's format tells and its writer gives back.
        notes: what was found out on the way, one sentence each.
        path: the file it came from.

    Raises:
        ValueError: fewer than 8 bands or pixels a side, or as many wavelengths as bands are not.
    """

    data: Tensor
    wavelengths: tuple[float, ...] | None = None
    georeference: Georeference | None = None
    dtype: str = "float32"
    nodata: float | None = None
    header: tuple[tuple[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    path: Path | None = None

    def __post_init__(self) -> None:
        bands, height, width = self.data.shape
        if bands < FEWEST:
            raise ValueError(
                f"the cube has {bands} bands, expected at least {FEWEST}; give --bands-axis if the "
                "bands lie along another axis, or use `restore image` for pictures."
            )
        if min(height, width) < FEWEST:
            raise ValueError(
                f"the cube has {height}x{width} pixels, expected at least {FEWEST} a side; give "
                "--bands-axis if the bands lie along another axis, or take more of the scene."
            )
        if self.wavelengths is not None and len(self.wavelengths) != bands:
            raise ValueError(
                f"the cube has {bands} bands and {len(self.wavelengths)} wavelengths; correct the "
                "header."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)`."""
        bands, height, width = self.data.shape
        return bands, height, width

    @property
    def seen(self) -> Tensor:
        """Where there is a value, boolean `(C, H, W)`."""
        return torch.isfinite(self.data)

    def derive(self, data: Tensor, *notes: str) -> Self:
        """The same cube with other values; finer pixels when it has grown."""
        factor, rest = divmod(data.shape[-1], self.data.shape[-1])
        where = self.georeference
        if where is not None and not rest:
            where = where.finer(factor)
        return replace(self, data=data, georeference=where, notes=(*self.notes, *notes))

    def stored(self) -> np.ndarray:
        """`(C, H, W)` in the file's type: whole numbers rounded and held to their range.

        Raises:
            ValueError: missing values in whole numbers, with no number that stands for them.
        """
        kind = np.dtype(self.dtype)
        values = self.data.detach().cpu().numpy().astype(np.float64)
        missing = ~np.isfinite(values)
        if self.nodata is not None:
            values[missing] = self.nodata
        if kind.kind == "f":
            return values.astype(kind)
        if missing.any() and self.nodata is None:
            raise ValueError(
                f"{int(missing.sum())} values are missing and {kind.name} has no number for them; "
                "pass --fill, or convert the cube to float first."
            )
        info = np.iinfo(kind)
        # the largest whole numbers of 64 bits are no floats: converting them would wrap around
        top = np.nextafter(float(info.max), 0) if info.bits == 64 else info.max
        return np.rint(values).clip(info.min, top).astype(kind)


def values(array: np.ndarray, nodata: float | None) -> Tensor:
    """Float32 of a file's numbers, NaN where it says that there is none.

    Raises:
        ValueError: numbers that are not real.
    """
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"the cube holds {array.dtype.name} values, expected real numbers; convert it first."
        )
    floats = np.ascontiguousarray(array, dtype=np.float32)
    if nodata is not None and np.isfinite(nodata):
        floats = np.where(array == nodata, np.float32(np.nan), floats)
    else:
        floats = np.where(np.isfinite(floats), floats, np.float32(np.nan))
    return torch.from_numpy(floats.astype(np.float32))
