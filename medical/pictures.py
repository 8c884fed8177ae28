"""Scans as pictures for people: three planes through a point, in grey, in colour, with a bar.

Pictures are PNG at the scan's own resolution; whoever shows them stretches them to `View.aspect`.
"""

import base64
import io
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from medical import geometry
from medical.geometry import Plane
from medical.volume import Volume

Scale = Literal["gray", "RdBu_r", "magma"]

SOFT_TISSUE = (-160.0, 240.0)
"""HU from black to white."""

EDGES: dict[Plane, tuple[str, str, str, str]] = {  # left, right, top, bottom
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}


class Window(NamedTuple):
    """Numbers that are drawn at the two ends of a scale."""

    low: float
    high: float
    scale: Scale
    units: str


class Point(NamedTuple):
    """A voxel of the axial stack, counted from feet, face and right."""

    d: int
    h: int
    w: int


@dataclass(frozen=True, kw_only=True)
class View:
    """A plane through a point.

    Attributes:
        plane: which.
        where: for example "S 12.5 mm".
        aspect: width over height of the patient.
        cross: share of width and height at which the two other planes cut this one.
        edges: directions at the left, right, top and bottom edge.
        pixels: `(rows, columns)`.
    """

    plane: Plane
    where: str
    aspect: float
    cross: tuple[float, float]
    edges: tuple[str, str, str, str]
    pixels: NDArray[np.float32]


def views(volume: Volume, point: Point) -> list[View]:
    """Axial, coronal and sagittal plane of a scan of one channel."""
    stack = volume.stack("axial")
    image = stack.data[0]
    (deep, high, wide), (d, h, w) = image.shape, point
    z, y, x = (float(s) for s in stack.spacing)
    at = geometry.place(stack.affine, point)
    across, down, up = (w + 0.5) / wide, (h + 0.5) / high, 1 - (d + 0.5) / deep
    cuts: dict[Plane, tuple[torch.Tensor, float, tuple[float, float], str]] = {
        "axial": (image[d], wide * x / (high * y), (across, down), _side(at[2], "SI")),
        "coronal": (image[:, h].flip(0), wide * x / (deep * z), (across, up), _side(at[1], "AP")),
        "sagittal": (image[..., w].flip(0), high * y / (deep * z), (down, up), _side(at[0], "RL")),
    }
    return [
        View(plane=p, where=s, aspect=a, cross=c, edges=EDGES[p], pixels=i.numpy())
        for p, (i, a, c, s) in cuts.items()
    ]


def middle(volume: Volume, window: Window) -> Point:
    """The centre of what is not black, in a scan of one channel."""
    stack = volume.stack("axial").data[0]
    bright = stack > window.low
    place = [0, 0, 0]
    for axis in range(3):
        weight = bright.double().mean([a for a in range(3) if a != axis])
        positions = torch.arange(len(weight)).double()
        total = float(weight.sum())
        centre = float((weight * positions).sum()) / total if total else (len(weight) - 1) / 2
        place[axis] = round(centre)
    return Point(*place)


def grey(volume: Volume) -> Window:
    """How a scan is shown: soft tissue in HU, otherwise from zero to its bright voxels."""
    if volume.units == "HU":
        return Window(*SOFT_TISSUE, "gray", "HU")
    some = volume.data[:, ::2, ::2, ::2].numpy()
    low, high = float(min(0.0, np.quantile(some, 0.005))), float(np.quantile(some, 0.995))
    return Window(low, max(high, low + 1e-6), "gray", volume.units)


def signed(volume: Volume) -> Window:
    """How differences are shown: blue below zero, red above."""
    top = _top(volume.data.abs())
    return Window(-top, top, "RdBu_r", volume.units)


def positive(volume: Volume) -> Window:
    """How a standard deviation is shown."""
    return Window(0.0, _top(volume.data), "magma", volume.units)


def png(pixels: NDArray[np.float32], window: Window) -> bytes:
    """A picture as a PNG file."""
    from matplotlib import colormaps
    from PIL import Image

    low, high, scale, _ = window
    share = np.clip((pixels - low) / (high - low), 0, 1)
    if scale == "gray":
        picture = Image.fromarray(np.rint(share * 255).astype(np.uint8))
    else:
        picture = Image.fromarray(colormaps[scale](share, bytes=True)[..., :3])
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def data_uri(pixels: NDArray[np.float32], window: Window) -> str:
    """A picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png(pixels, window)).decode()


def gradient(scale: Scale) -> str:
    """A scale as CSS, from left to right."""
    from matplotlib import colormaps

    colours = colormaps[scale](np.linspace(0, 1, 17), bytes=True)[:, :3]
    return f"linear-gradient(to right, {', '.join(f'rgb({r},{g},{b})' for r, g, b in colours)})"


def _side(mm: float, letters: str) -> str:
    return f"{letters[0] if mm >= 0 else letters[1]} {abs(mm):.1f} mm"


def _top(data: torch.Tensor) -> float:
    some = data[:, ::2, ::2, ::2] if min(data.shape[1:]) > 16 else data
    return max(float(np.quantile(some.numpy(), 0.998)), 1e-6)
