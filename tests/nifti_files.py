"""NIfTI files as nobody's library would write them, byte by byte."""

import gzip

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.5, 0, -40], [0, 0, 3, 10], [0, 0, 0, 1]])


def numbers(shape=(3, 4, 5), dtype="<i2"):
    return (np.arange(np.prod(shape)).reshape(shape) + 1).astype(dtype)


def nifti(data=None, *, version=1, sform=AFFINE, qform=AFFINE, pair=False, offset=None, **fields):
    """Bytes of a file; fields are set in the header as they are, however wrong."""
    data = numbers() if data is None else data
    order = ">" if data.dtype.byteorder == ">" else "<"
    kind = Nifti2Header if version == 2 else Nifti1PairHeader if pair else Nifti1Header
    header = kind(endianness=order)
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_xyzt_units("mm")
    if sform is not None:
        header.set_sform(sform, 1)
    if qform is not None:
        header.set_qform(qform, 1)
    start = 0 if pair else header.sizeof_hdr + 4 if offset is None else offset
    header["vox_offset"] = start
    for name, value in fields.items():
        header[name] = value
    block = header.binaryblock
    if pair:
        return block, data.tobytes(order="F")
    return block + bytes(start - len(block)) + data.tobytes(order="F")


def packed(data, **options):
    return gzip.compress(data, mtime=0, **options)
