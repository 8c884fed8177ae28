"""Volumes as DICOM series: a derived series beside its source, or a study of nobody.

One file a slice, of the classic kind (CT, MR, PET image), uncompressed, little endian: what every
viewer, archive and toolkit reads. Enhanced multi-frame sources become such series too.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from medical.deidentification import deidentify as deidentified
from medical.dicom.codes import DERIVATIONS, item
from medical.dicom.derive import Series, derive, plain, tell
from medical.dicom.discover import discover
from medical.dicom.flat import flat
from medical.dicom.folder import check_free, whole
from medical.dicom.load import same
from medical.dicom.order import arrange
from medical.dicom.parts import parts
from medical.dicom.planes import Origin, Planes, affine_of, origins, planes, refuse_tilt
from medical.dicom.quantise import PADDING, Coding, codings, decimal
from medical.dicom.quiet import quiet
from medical.dicom.series import choose
from medical.dicom.source import DicomSource
from medical.dicom.study import nobodys
from medical.geometry import same_grid
from medical.refusal import Refusal
from medical.volume import Volume


def write(
    volume: Volume,
    folder: str | Path,
    *,
    source: DicomSource | None = None,
    description: str = "restored",
    algorithm: str = "Restored from a degraded image",
    parameters: Mapping[str, object] | None = None,
    number_offset: int = 1000,
    deidentify: bool = False,
    key: bytes | None = None,
    phi_checked: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a volume as a DICOM series.

    With a source, the series is derived from it: same patient, study and frame of reference, new
    series and images that refer to the source's. Where the volume's voxels are where the source's
    were, the attributes that say so are the source's, letter by letter. Without one, the series is
    a study of its own, of nobody.

    Args:
        volume: one channel, on a straight grid.
        folder: to be made; holds one file a slice. Appears whole or not at all.
        source: what the volume derives from, if not `volume.source`.
        description: put behind the source's SeriesDescription.
        algorithm: what was done, for DerivationDescription.
        parameters: its settings.
        number_offset: added to the source's SeriesNumber.
        deidentify: take the patient out of the header, see `medical.deidentify`; call that on
            the source first for its options.
        key: for `deidentify`.
        phi_checked: for `deidentify`: somebody has looked at the pixels.
        overwrite: replace a folder that holds nothing but an earlier derived series.

    Returns:
        The folder.

    Raises:
        Refusal: several channels, oblique axes, values that 16 bits cannot hold, pixels that may
            show the patient (with `deidentify`).
        FileExistsError: the folder holds files, or the source itself.
        FileNotFoundError: there is no folder to put it in.
    """
    folder = Path(folder)
    source = source or (volume.source if isinstance(volume.source, DicomSource) else None)
    sources = () if source is None else source.headers
    check_free(folder, sources, overwrite=overwrite)
    with quiet():
        if source is not None and deidentify:
            source = deidentified(source, key=key, phi_checked=phi_checked)
        headers = [] if source is None else flat(source)
        cut = planes(volume, affine_of(headers) if headers else None)
        found = origins(cut, headers) if headers else nobodys(volume, cut)
        if not all(origin.same for origin in found):
            refuse_tilt(cut.affine)
        series = Series(
            description=plain(description)[:40],
            story=tell(algorithm, parameters or {}),
            number_offset=number_offset,
            derivation=_derivation(found),
        )
        with whole(folder) as part:
            for number, file in enumerate(_files(volume, cut, found, series), 1):
                file.save_as(part / f"{number:04d}.dcm", enforce_file_format=True)
            _check_written(part, cut)
    return folder


def _derivation(found: Sequence[Origin]) -> tuple[Dataset, ...]:
    names = ["smoothing"] if all(origin.same for origin in found) else ["smoothing", "resampling"]
    return tuple(item(DERIVATIONS[name]) for name in names)


def _files(
    volume: Volume, cut: Planes, found: Sequence[Origin], series: Series
) -> Iterator[FileDataset]:
    """The files of a series, one after the other; no two at a time in memory."""
    own = [_own_coding(origin.header) for origin in found]
    codes = codings(cut.slices, valid=cut.valid, units=volume.units, own=own)
    window = _window(volume, cut)
    for k, (origin, coding) in enumerate(zip(found, codes, strict=True)):
        file = derive(origin, series, k + 1)
        if not origin.same:
            for keyword, value in cut.tags(k).items():
                setattr(file, keyword, value)
        _place_pixels(file, cut, k, coding)
        _describe_values(file, volume, coding, origin.header, window)
        if volume.modality == "PT" and "NumberOfSlices" in file:
            file.NumberOfSlices, file.ImageIndex = len(found), k + 1
        yield file


def _own_coding(header: Dataset) -> tuple[str, str]:
    slope, intercept = header.get("RescaleSlope", None), header.get("RescaleIntercept", None)
    texts = (str(1 if slope is None else slope), str(0 if intercept is None else intercept))
    return tuple(text if len(text) <= 16 else decimal(float(text)) for text in texts)  # pyright: ignore


def _place_pixels(file: FileDataset, cut: Planes, k: int, coding: Coding) -> None:
    stored = coding.store(cut.slices[k], None if cut.valid is None else cut.valid[k])
    file.Rows, file.Columns = stored.shape
    file.SamplesPerPixel = 1
    if file.get("PhotometricInterpretation") != "MONOCHROME1":  # shown inverted, stored as it is
        file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit = 15
    file.PixelRepresentation = int(coding.signed)
    if cut.valid is not None:
        file.add_new("PixelPaddingValue", "SS", PADDING)
    file.add_new("PixelData", "OW", stored.tobytes())


def _describe_values(
    file: FileDataset,
    volume: Volume,
    coding: Coding,
    header: Dataset,
    window: tuple[float, float],
) -> None:
    """Slope, unit and a window to look through."""
    plain_numbers = (float(coding.slope), float(coding.intercept)) == (1, 0)
    if volume.modality in ("CT", "PT") or "RescaleSlope" in header or not plain_numbers:
        file.RescaleSlope, file.RescaleIntercept = coding.slope, coding.intercept
        if volume.modality != "PT":
            file.RescaleType = "HU" if volume.units == "HU" else "US"
    if volume.modality == "PT" and volume.units in ("SUV", "Bq/ml"):
        file.Units = "GML" if volume.units == "SUV" else "BQML"
        if volume.units == "SUV":
            file.SUVType = "BW"
    if volume.units == "HU" and "WindowWidth" in header:
        for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
            if keyword in header:
                file[keyword] = header[keyword]
        return
    low, high = window
    file.WindowCenter, file.WindowWidth = decimal((low + high) / 2), decimal(high - low)
    if high - low < 1:  # which the usual function does not allow
        file.VOILUTFunction = "LINEAR_EXACT"


def _window(volume: Volume, cut: Planes) -> tuple[float, float]:
    """From black to white: all but the most extreme values of some slices."""
    if volume.units == "HU":
        return -160.0, 240.0
    some = cut.slices[:: max(1, len(cut.slices) // 32)]
    low, high = (float(q) for q in np.quantile(some[:, ::2, ::2], (0.01, 0.995)))
    return (low, high) if high > low else (low, low + 1)


def _check_written(part: Path, cut: Planes) -> None:
    """Read back where the slices are; files that lie about that must not leave this house."""
    found, _ = choose(parts(discover(part)), None)
    stack = arrange(found.slices, same=same, single=True)
    # where some slices were missing, those of an uneven source may be off by 1 % of their distance
    within = max(1e-4, 0.01 * float(np.linalg.norm(cut.affine[:3, 2])))
    if stack.grid != cut.grid or not same_grid(stack.affine, cut.affine, cut.grid, within=within):
        raise Refusal(
            "E_WRITTEN_GEOMETRY",
            "the written slices are not where the volume's are, expected the same places; this is "
            "a bug, nothing was kept.",
        )
