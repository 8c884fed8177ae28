"""Synthetic scans as DICOM files, sound ones and broken ones, for the tests of medical/.

Arrays are `(I, J, K)`, affines map their indices to RAS+ mm, as in `medical.Volume`. Every header
is full of identifiers, all of which contain `SECRET`, so that a test can look for leaks.
"""

from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset, Sequence
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

SECRET = "7319046258"
CT, MR, PET, ENHANCED_CT = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128", "2.1"))
LPS = np.diag([-1.0, -1, 1, 1])


def uid(*numbers):
    """A UID that holds the secret."""
    return ".".join(["1.2.826", SECRET, *map(str, numbers)])


def smooth(shape=(8, 7, 6), seed=0, low=-1000, high=2000):
    """Whole numbers `(I, J, K)`, no two slices alike."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float64)


def affine_of(spacing=(0.8, 0.7, 2.5), origin=(12.5, -30.25, 100), turn=None, flips=(1, 1, 1)):
    """An RAS affine: axes turned by a rotation matrix, some pointing backward."""
    affine = np.eye(4)
    turn = np.eye(3) if turn is None else np.asarray(turn)
    affine[:3, :3] = turn * (np.asarray(spacing) * flips)
    affine[:3, 3] = origin
    return affine


def rotation(degrees, axis=(1.0, 2, 3)):
    """Rotation matrix about an axis."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def ds(values):
    """Numbers as DICOM's decimal strings, at most 16 characters each."""
    return [DSfloat(float(v), auto_format=True) for v in np.ravel(values)]


def orientation(affine):
    """ImageOrientationPatient and PixelSpacing of an affine."""
    lps = LPS @ affine
    fine = np.linalg.norm(lps[:3, :2], axis=0)
    return ds((lps[:3, :2] / fine).T), ds(fine[::-1])


def position(affine, k):
    """ImagePositionPatient of slice k."""
    return ds((LPS @ affine @ [0, 0, k, 1])[:3])


def header(modality="CT", sop_class=CT, series=1, number=1):
    """A dataset with patient, study and series, but no image yet."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid(1, series, number)
    meta.ImplementationClassUID = "1.2.826.1"
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, uid(1, series, number)
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(1), uid(1, series)
    data.FrameOfReferenceUID = uid(2)
    data.PatientName, data.PatientID = f"Planted^{SECRET}", f"ID{SECRET}"
    data.PatientBirthDate, data.PatientSex, data.PatientWeight = "19530217", "F", 70
    data.AccessionNumber, data.StudyID = f"A{SECRET}", f"S{SECRET}"[:16]
    data.StudyDescription = data.SeriesDescription = f"Described {SECRET}"
    data.InstitutionName = data.ReferringPhysicianName = f"Hospital {SECRET}"
    data.Modality, data.SeriesNumber, data.InstanceNumber = modality, series, number
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = "20240305"
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = "101500"
    data.Manufacturer, data.ImageType = "Nobody", ["ORIGINAL", "PRIMARY", "AXIAL"]
    return data


def spoil(data, keyword, value):
    """Put bytes into a header that pydicom would not accept as a value."""
    tag = Tag(keyword)
    value = value + b" " * (len(value) % 2)
    data[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


def place(data, affine, k):
    """Geometry of slice k."""
    data.ImageOrientationPatient, data.PixelSpacing = orientation(affine)
    data.ImagePositionPatient = position(affine, k)
    data.SliceThickness = ds(np.linalg.norm(affine[:3, 2]))[0]


def pixels(data, stored, *, signed=True, bits=16):
    """Whole numbers `(rows, columns)` or `(frames, rows, columns)`."""
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated = 8 if bits <= 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, int(signed)
    kind = f"<{'i' if signed else 'u'}{data.BitsAllocated // 8}"
    values = np.rint(stored).astype(kind).tobytes()
    data.PixelData = values + b"\0" * (len(values) % 2)
    data["PixelData"].VR = "OW"


def ct_series(
    folder,
    data=None,
    affine=None,
    *,
    slope=1,
    intercept=-1024,
    modality="CT",
    sop_class=CT,
    series=1,
    skip=(),
    twice=(),
    offsets=None,
    shuffle=0,
    names="IM{SECRET}{n:04d}",
    edit=None,
):
    """Write a series of single images.

    Args:
        folder: made if absent.
        data: `(I, J, K)`, in physical units.
        affine: RAS.
        slope: one, or one a slice.
        intercept: one, or one a slice.
        modality: DICOM's word.
        sop_class: UID.
        series: its number, part of its UID.
        skip: slices left out: a gap.
        twice: slices written a second time, under another name and InstanceUID.
        offsets: `(K, 3)` mm in LPS added to the positions: tilt, uneven spacing.
        shuffle: seed of the order of file names and InstanceNumbers; None keeps that of slices.
        names: of files; no extension unless one is given.
        edit: `edit(dataset, k)` may spoil anything before the file is written; returning False
            leaves the file out.

    Returns:
        Paths in the order of slices, the copies of `twice` last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = smooth() if data is None else np.asarray(data)
    affine = affine_of() if affine is None else affine
    count = data.shape[2]
    slopes, intercepts = np.broadcast_to(slope, count), np.broadcast_to(intercept, count)
    wanted = [k for k in range(count) if k not in skip] + list(twice)
    numbers = np.arange(1, len(wanted) + 1)
    if shuffle is not None:
        np.random.default_rng(shuffle).shuffle(numbers)
    written = []
    for n, k in zip(numbers.tolist(), wanted, strict=True):
        image = header(modality, sop_class, series, n)
        place(image, affine, k)
        if offsets is not None:
            moved = np.array(image.ImagePositionPatient, float) + np.asarray(offsets)[k]
            image.ImagePositionPatient = ds(moved)
        pixels(image, (data[:, :, k].T - intercepts[k]) / slopes[k])
        image.RescaleSlope, image.RescaleIntercept = ds(slopes[k])[0], ds(intercepts[k])[0]
        if edit is None or edit(image, k) is not False:
            written.append(folder / names.format(SECRET=SECRET, n=n))
            image.save_as(written[-1], enforce_file_format=True)
    return written


def mr_series(folder, data=None, affine=None, **options):
    """The same as MR, without rescaling."""
    data = smooth(low=0, high=900) if data is None else data
    options = {"modality": "MR", "sop_class": MR, "intercept": 0} | options
    return ct_series(folder, data, affine, **options)


def pet_series(
    folder,
    data=None,
    affine=None,
    *,
    units="BQML",
    correction="START",
    weight=70.0,
    dose=370e6,
    half_life=6586.2,
    injected="091500",
    edit=None,
    **options,
):
    """Write a PET series, Bq/ml unless `units` says otherwise, injected an hour before the scan.

    Args:
        folder: made if absent.
        data: `(I, J, K)`, whole multiples of the slopes, which differ from slice to slice.
        affine: RAS.
        units: BQML, GML, CNTS, ...
        correction: DecayCorrection: START, ADMIN, NONE.
        weight: of the patient, kg; None leaves it out, as do the next three.
        dose: Bq.
        half_life: s.
        injected: RadiopharmaceuticalStartTime.
        edit: as in `ct_series`.
        **options: for `ct_series`.

    Returns:
        Paths in the order of slices.
    """
    count = 6 if data is None else np.asarray(data).shape[2]
    slopes = 0.5 + 0.25 * np.arange(count)
    data = smooth(low=0, high=30000) * slopes if data is None else data

    def finish(image, k):
        image.Units, image.DecayCorrection = units, correction
        image.CorrectedImage = ["ATTN", "DECY", "SCAT"]
        image.PatientWeight = weight
        tracer = Dataset()
        for name, value in [
            ("RadionuclideTotalDose", dose),
            ("RadionuclideHalfLife", half_life),
            ("RadiopharmaceuticalStartTime", injected),
        ]:
            if value is not None:
                setattr(tracer, name, value)
        image.RadiopharmaceuticalInformationSequence = Sequence([tracer])
        image.FrameReferenceTime, image.ActualFrameDuration = 0, 180000
        return None if edit is None else edit(image, k)

    options = {"slope": slopes, "intercept": 0} | options
    options |= {"modality": "PT", "sop_class": PET, "edit": finish}
    return ct_series(folder, data, affine, **options)


def _item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return Sequence([made])


def enhanced_ct(
    path, data=None, affine=None, *, slope=1, intercept=-1024, shuffle=0, series=1, edit=None
):
    """Write an Enhanced CT file; its frames lie in no spatial order, DimensionIndexValues tell.

    Args:
        path: of the file.
        data: `(I, J, K)` HU.
        affine: RAS.
        slope: one, or one a slice.
        intercept: one, or one a slice.
        shuffle: seed of the order of frames; None keeps that of slices.
        series: its number.
        edit: `edit(dataset)` before writing.

    Returns:
        The slice that each frame holds.
    """
    data = smooth() if data is None else np.asarray(data)
    affine = affine_of() if affine is None else affine
    count = data.shape[2]
    slopes, intercepts = np.broadcast_to(slope, count), np.broadcast_to(intercept, count)
    order = np.arange(count)
    if shuffle is not None:
        np.random.default_rng(shuffle).shuffle(order)
    image = header("CT", ENHANCED_CT, series)
    image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    stored = np.stack([(data[:, :, k].T - intercepts[k]) / slopes[k] for k in order])
    pixels(image, stored)
    image.NumberOfFrames = count
    cosines, fine = orientation(affine)
    shared = Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=cosines)
    thick = ds(np.linalg.norm(affine[:3, 2]))[0]
    shared.PixelMeasuresSequence = _item(PixelSpacing=fine, SliceThickness=thick)
    shared.CTImageFrameTypeSequence = _item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    pointer = dict(DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111)
    image.DimensionIndexSequence = _item(**pointer)
    image.PerFrameFunctionalGroupsSequence = Sequence(
        [_frame(affine, k, slopes[k], intercepts[k]) for k in order.tolist()]
    )
    if edit is not None:
        edit(image)
    image.save_as(path, enforce_file_format=True)
    return order


def _frame(affine, k, slope, intercept):
    frame = Dataset()
    frame.FrameContentSequence = _item(
        StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[k + 1]
    )
    frame.PlanePositionSequence = _item(ImagePositionPatient=position(affine, k))
    frame.PixelValueTransformationSequence = _item(
        RescaleSlope=ds(slope)[0], RescaleIntercept=ds(intercept)[0], RescaleType="HU"
    )
    return frame
