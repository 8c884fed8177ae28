"""Numbers over a scan as a DICOM Parametric Map (PS3.3 A.75): float32, with unit and meaning.

For what is no image of a patient: standard deviations, differences, probabilities.
"""

from pathlib import Path

import numpy as np

from medical.dicom.codes import DISCLAIMER, QUANTITIES, UNITS
from medical.dicom.companion import arranged, identity, images, onto, source_of
from medical.dicom.derive import plain
from medical.dicom.flat import flat
from medical.dicom.planes import affine_of, planes
from medical.dicom.quiet import quiet
from medical.dicom.reader import read
from medical.refusal import Refusal
from medical.volume import Volume
from restore.files import atomic


def write_parametric_map(
    volume: Volume,
    file: str | Path,
    *,
    source: Volume | None = None,
    quantity: str = "standard deviation",
    description: str = "Standard deviation of restored samples",
    recognizable_visual_features: bool = True,
    number_offset: int = 3000,
    overwrite: bool = False,
) -> Path:
    """Write a volume of numbers as one DICOM Parametric Map.

    Args:
        volume: one channel, in `units` that UCUM knows; others are written as arbitrary.
        file: to be made, whole or not at all.
        source: the scan it is about, as read from DICOM; `volume` itself if it has a source.
        quantity: what the numbers are: a word of `codes.QUANTITIES`.
        description: in words.
        recognizable_visual_features: whether somebody could tell the patient by the map; of a head
            that is so.
        number_offset: added to the source's SeriesNumber.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        Refusal: "E_NO_SOURCE", "E_GRID_MISMATCH", "E_CHANNELS", "E_TILT".
        ValueError: an unknown quantity.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    if quantity not in QUANTITIES:
        raise ValueError(f"quantity '{quantity}' has no code, expected one of {list(QUANTITIES)}.")
    scan = volume if source is None else source
    origin = source_of(scan)
    here = onto(volume, scan, "the map")
    numbers = np.ascontiguousarray(planes(here, affine_of(flat(origin))).slices)
    low, high = float(numbers.min()), float(numbers.max())
    with quiet():
        mapping = RealWorldValueMapping(
            lut_label="VALUE",
            lut_explanation=plain(description)[:64],
            unit=UNITS.get(volume.units, UNITS["a.u."]),
            value_range=(low, high),
            slope=1.0,
            intercept=0.0,
            quantity_definition=QUANTITIES[quantity],
        )
        made = ParametricMap(
            source_images=images(origin),
            pixel_array=arranged(numbers, here),
            contains_recognizable_visual_features=recognizable_visual_features,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[VOILUTTransformation((low + high) / 2, max(high - low, 1.0))],
            content_description=plain(f"{DISCLAIMER}. {description}")[:64],
            **identity(origin, number_offset),
        )
        with atomic(file, overwrite=overwrite) as part:
            made.save_as(part)
    return Path(file)


def read_parametric_map(file: str | Path, *, like: Volume | None = None) -> Volume:
    """Read a DICOM Parametric Map.

    Args:
        file: the map.
        like: the scan whose grid it must be on.

    Returns:
        Volume `(1, I, J, K)` in the units of the map, on the axes of `like`.

    Raises:
        FileNotFoundError: nothing is there.
        Refusal: "E_GRID_MISMATCH"; or what `read` refuses.
    """
    found = read(file, single=True)
    if found.modality not in ("OT", "RWV"):
        raise Refusal(
            "E_UNSUPPORTED_SOP",
            f"the file is of modality {found.modality}, expected a parametric map; read it as a "
            "scan.",
        )
    return found if like is None else onto(found, like, "the map")
