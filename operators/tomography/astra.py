"""Weights of the ASTRA toolbox instead of our own, where it is installed.

W. van Aarle and others, "Fast and flexible X-ray tomography using the ASTRA toolbox", Optics
Express 24 (2016). Its processor code interpolates parallel beams linearly, as Joseph does, and
takes the length of the ray in every pixel for fan beams.
"""

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .geometry import FanBeam, Geometry
from .system_matrix import compressed


def astra_matrix(geometry: Geometry) -> dict[str, Tensor]:
    """All rows of the system matrix as ASTRA computes them.

    Raises:
        ValueError: the package is not installed.
    """
    astra = _toolbox()
    kind, beam, volume = _scanner(astra, geometry)
    projector = astra.create_projector(kind, beam, volume)
    matrix = astra.projector.matrix(projector)
    try:
        found = astra.matrix.get(matrix).tocsr()
    finally:
        astra.matrix.delete(matrix)
        astra.projector.delete(projector)
    start, column, weight = map(torch.from_numpy, (found.indptr, found.indices, found.data))
    return compressed(start, column, weight, math.prod(geometry.size))


def _scanner(astra: ModuleType, geometry: Geometry) -> tuple[str, Any, Any]:
    height, width = (n * geometry.pixel / 2 for n in geometry.size)
    volume = astra.create_vol_geom(*geometry.size, -width, width, -height, height)
    radians = [math.radians(angle) for angle in geometry.angles]
    if not isinstance(geometry, FanBeam):
        beam = ("parallel", geometry.spacing, geometry.detectors, radians)
        return "linear", astra.create_proj_geom(*beam), volume
    # source, middle of the detector and step from bin to bin, each as x and y
    beyond = geometry.detector_distance - geometry.source_distance
    vectors = [
        [
            *(-geometry.source_distance * sin, geometry.source_distance * cos),
            *(beyond * sin, -beyond * cos),
            *(geometry.spacing * cos, geometry.spacing * sin),
        ]
        for cos, sin in zip(*(d.tolist() for d in geometry.directions()), strict=True)
    ]
    beam = ("fanflat_vec", geometry.detectors, torch.tensor(vectors).double().numpy())
    return "line_fanflat", astra.create_proj_geom(*beam), volume


def _toolbox() -> ModuleType:
    try:
        import astra  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "backend='astra' needs the package astra-toolbox, which is not installed; "
            "run `pip install astra-toolbox`, or leave backend out."
        ) from error
    return astra
