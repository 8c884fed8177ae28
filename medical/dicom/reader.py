"""A DICOM series read as a volume, or refused.

A scan that is stacked wrongly looks like a scan. What is not a regular grid of one kind of numbers
is refused, by one of these codes, and nothing is resampled unless asked for:

    E_NO_IMAGES, E_UNSUPPORTED_SOP    nothing to read here
    E_AMBIGUOUS_SERIES, E_NO_SUCH_SERIES    which one
    E_NO_GEOMETRY, E_BAD_GEOMETRY, E_FRAME_OF_REFERENCE    where is it
    E_MIXED_ORIENTATION, E_MIXED_GRID, E_MIXED_UNITS    not one volume
    E_MISSING_SLICES, E_VARIABLE_SPACING, E_DUPLICATE_POSITION, E_TILT, E_TOO_FEW_SLICES
    E_TRUNCATED, E_BAD_VALUE, E_TRANSFER_SYNTAX, E_DECODER, E_UNREADABLE    broken or unreadable
    E_PHOTOMETRIC, E_HU_RANGE, E_SUV_...    numbers that do not mean what is asked
    E_TOO_LARGE, E_PATH, E_MISSING_FILES    too much, elsewhere, not there
"""

import numpy as np
import torch

from medical.dicom.decode import refuse_undecodable
from medical.dicom.discover import Paths, described, discover
from medical.dicom.lattice import OnGap
from medical.dicom.load import Array, Mask, fill, load, refuse_too_large, same, scales_of
from medical.dicom.order import OnTilt, Stack, arrange
from medical.dicom.parts import Part, parts
from medical.dicom.plausible import check_hounsfield, check_uptake
from medical.dicom.quiet import quiet
from medical.dicom.resample import even, straighten
from medical.dicom.series import choose, modality_of
from medical.dicom.source import DicomSource
from medical.dicom.suv import suv_factor
from medical.volume import Volume

LIMIT = 2**33  # bytes: 2**31 voxels


def read(
    path: Paths,
    *,
    series: int | str | None = None,
    on_gap: OnGap = "error",
    on_tilt: OnTilt = "error",
    suv: bool = False,
    single: bool = False,
    limit: int = LIMIT,
) -> Volume:
    """Read a DICOM series.

    Files are told by what is in them, slices sorted by where they are. Numbers are Hounsfield units
    in CT, Bq/ml or SUV in PET as the file declares, the stored ones rescaled in MR. Padding and
    missing slices are False in `Volume.valid`.

    Args:
        path: a folder, a list of files, a DICOMDIR, or one multi-frame file.
        series: which one, if there are several: its number or alias from `list_series`.
        on_gap: where slices are missing or uneven: "error" refuses, "nan-fill" leaves room for
            missing slices, filled with air or zero and not valid, "resample" interpolates.
        on_tilt: where slices are sheared: "error" refuses, "resample" shifts them straight.
        suv: turn PET into standardised uptake values by body weight.
        single: take a single slice too.
        limit: bytes that a volume may take, as float32.

    Returns:
        Volume `(1, columns, rows, slices)` with a `DicomSource`.

    Raises:
        FileNotFoundError: nothing is there.
        Refusal: see the module's docstring.
    """
    with quiet():
        found = discover(path)
        part, notes = choose(parts(found), series)
        refuse_undecodable(part.slices[0])
        stack = arrange(part.slices, same=same, on_gap=on_gap, on_tilt=on_tilt, single=single)
        refuse_too_large(stack, limit)
        scales = scales_of(stack.slices)
        units = scales[0].units
        factor = suv_factor(stack.slices, units) if suv else 1.0
        notes += [described(found.skipped), *stack.notes, *_remarks(stack)]
        source = _source(part, stack)
        data, valid = load(stack, scales)
        if modality_of(part) == "CT" and (units == "HU" or not scales[0].rescaled):
            notes += check_hounsfield(data, valid, scales[0].rescaled)
        data, valid = _resampled(data, valid, stack, fill(scales[0]))
    if suv:
        data *= np.float32(factor)
        notes += check_uptake(data)
    return Volume(
        data=torch.from_numpy(data).permute(2, 1, 0)[None],
        affine=stack.affine,
        units="SUV" if suv else units,
        modality=modality_of(part),
        valid=None if valid is None else torch.from_numpy(valid).permute(2, 1, 0),
        source=source,
        notes=tuple(note for note in notes if note),
    )


def _resampled(
    data: Array, valid: Mask | None, stack: Stack, empty: float
) -> tuple[Array, Mask | None]:
    if stack.sideways is not None:
        data, valid = straighten(data, valid, stack, empty)
    if stack.lattice.slots is None:
        data, valid = even(data, valid, stack, empty)
    return data, valid


def _source(part: Part, stack: Stack) -> DicomSource:
    """Headers in slice order, and which slice of the volume is which frame of which."""
    files = {id(s.instance): s.instance for s in stack.slices}
    order = {key: n for n, key in enumerate(files)}
    slots = stack.lattice.slots
    frames: list[tuple[int, int] | None] = []
    if slots is not None and stack.sideways is None:
        frames = [None] * stack.lattice.count
        for slot, each in zip(slots.tolist(), stack.slices, strict=True):
            frames[slot] = (order[id(each.instance)], each.frame)
    return DicomSource(
        headers=tuple(file.header for file in files.values()),
        frames=tuple(frames),
        multiframe=any("PerFrameFunctionalGroupsSequence" in f.header for f in files.values()),
        series=part.series,
    )


def _remarks(stack: Stack) -> list[str]:
    """What headers say that users should know."""
    first, notes = stack.slices[0].attributes, []
    if first.text("PhotometricInterpretation") == "MONOCHROME1":
        notes.append("Large numbers are shown dark (MONOCHROME1); numbers are as measured.")
    if any(s.attributes.text("LossyImageCompression") == "01" for s in stack.slices):
        ratio = first.numbers("LossyImageCompressionRatio")
        by = "" if ratio is None else f" by {ratio[0]:.3g}"
        notes.append(f"The images were once compressed{by} with losses.")
    if len({s.attributes.text("AcquisitionNumber") for s in stack.slices}) > 1:
        notes.append("The slices were acquired in several parts.")
    return notes
