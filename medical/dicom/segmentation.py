"""Masks of a scan as DICOM Segmentations (PS3.3 A.51)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medical.dicom.codes import DISCLAIMER, FAMILY, SEGMENTS, version
from medical.dicom.companion import arranged, identity, images, onto, source_of
from medical.dicom.derive import plain
from medical.dicom.flat import flat
from medical.dicom.planes import affine_of, planes
from medical.dicom.quiet import quiet
from medical.refusal import Refusal
from medical.volume import Volume
from restore.files import atomic

Kind = Literal["binary", "fractional"]


def write_segmentation(
    mask: Volume | Tensor,
    file: str | Path,
    *,
    source: Volume,
    label: str | Sequence[str] = "tissue",
    kind: Kind = "binary",
    algorithm: str | None = "restore",
    number_offset: int = 2000,
    overwrite: bool = False,
) -> Path:
    """Write masks of a scan as one DICOM Segmentation.

    Args:
        mask: `(S, I, J, K)`, or a tensor `(I, J, K)`, on the grid of `source`; zeros and ones, or
            probabilities in [0, 1] if `kind` is "fractional".
        file: to be made, whole or not at all.
        source: the scan, as read from DICOM.
        label: what each of the S segments is; "lesion", "tumour", "liver" and other words of
            `codes.SEGMENTS` are coded as such, others as tissue.
        kind: "binary" holds one bit a voxel, "fractional" 255 steps.
        algorithm: what drew it; None if a person did.
        number_offset: added to the source's SeriesNumber.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        Refusal: "E_NO_SOURCE", "E_GRID_MISMATCH", or "E_MASK_VALUES" for other numbers.
        ValueError: not one label a segment.
    """
    from highdicom.seg import Segmentation

    origin = source_of(source)
    masks = _on_grid(mask, source)
    labels = [label] if isinstance(label, str) else list(label)
    if len(labels) != len(masks):
        raise ValueError(f"found {len(labels)} labels for {len(masks)} segments; give one each.")
    numbers = _numbers(masks, source, kind)
    with quiet():
        made = Segmentation(
            source_images=images(origin),
            pixel_array=arranged(numbers, source),
            segmentation_type=kind.upper(),
            segment_descriptions=[_described(n, w, algorithm) for n, w in enumerate(labels, 1)],
            content_description=DISCLAIMER,
            **identity(origin, number_offset),
        )
        with atomic(file, overwrite=overwrite) as part:
            made.save_as(part)
    return Path(file)


def _on_grid(mask: Volume | Tensor, source: Volume) -> Tensor:
    if isinstance(mask, Volume):
        return onto(mask, source).data
    masks = mask[None] if mask.ndim == 3 else mask
    if masks.shape[1:] != source.grid:
        shape = tuple(masks.shape[1:])
        raise Refusal(
            "E_GRID_MISMATCH",
            f"the mask is {shape}, expected the volume's {tuple(source.grid)}; resample it to that "
            "grid first, knowingly.",
        )
    return masks


def _numbers(masks: Tensor, source: Volume, kind: Kind) -> NDArray:
    """`(K, rows, columns, S)` for highdicom."""
    low, high = float(masks.min()), float(masks.max())
    whole = kind == "fractional" or bool((masks == (masks != 0)).all())
    if not (0 <= low <= high <= 1 and whole):
        raise Refusal(
            "E_MASK_VALUES",
            f"a {kind} mask has values from {low:.4g} to {high:.4g}, expected "
            f"{'zeros and ones' if kind == 'binary' else 'values in [0, 1]'}; threshold or scale "
            "it first.",
        )
    like = affine_of(flat(source_of(source)))
    cut = [planes(source.derive(m[None].float()), like).slices for m in masks]
    return np.stack(cut, axis=-1).astype(np.uint8 if kind == "binary" else np.float32)


def _described(number: int, label: str, algorithm: str | None):  # noqa: ANN202 - highdicom's
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription

    category, kind = SEGMENTS.get(label.lower(), SEGMENTS["tissue"])
    by = None
    if algorithm is not None:
        by = AlgorithmIdentificationSequence(plain(algorithm)[:64], FAMILY, version())
    return SegmentDescription(
        segment_number=number,
        segment_label=plain(label)[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="MANUAL" if by is None else "AUTOMATIC",
        algorithm_identification=by,
    )
