from .masks import read_segmentation as read_segmentation
from .parametric_map import read_parametric_map as read_parametric_map
from .parametric_map import write_parametric_map as write_parametric_map
from .reader import read as read
from .segmentation import write_segmentation as write_segmentation
from .series import SeriesInfo as SeriesInfo
from .series import list_series as list_series
from .source import DicomSource as DicomSource
from .writer import write as write

__all__ = [
    "DicomSource",
    "SeriesInfo",
    "list_series",
    "read",
    "read_parametric_map",
    "read_segmentation",
    "write",
    "write_parametric_map",
    "write_segmentation",
]
