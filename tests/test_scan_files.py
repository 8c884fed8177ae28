"""Scans at a path: the format is told by what is in the file."""

import shutil

import numpy as np
import pytest
import torch
from nifti_files import AFFINE, nifti, numbers, packed
from pydicom.data import get_testdata_file

import medical
from medical import Refusal, Volume
from medical import nifti as nifti_room
from medical.nifti import NiftiSource

NRRD = """NRRD0004
type: short
dimension: 3
space: RAS
sizes: 3 4 5
space directions: (1,0,0) (0,1,0) (0,0,1)
endian: little
encoding: raw
space origin: (0,0,0)

"""


def saved(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "scan", "a.nrrd", "a.dcm"])
def test_nifti_and_nrrd_are_told_whatever_their_names(tmp_path, name):
    for content in (nifti(), nifti(version=2), nifti(numbers(dtype=">i2")), packed(nifti())):
        found = medical.read(saved(tmp_path / name, content))
        assert isinstance(found.source, NiftiSource)
        np.testing.assert_array_equal(found.data[0].numpy(), numbers())
    content = NRRD.encode() + numbers().tobytes(order="F")
    found = medical.read(saved(tmp_path / name, content), modality="MR")
    np.testing.assert_array_equal(found.data[0].numpy(), numbers())
    assert found.modality == "MR"


def test_pairs_are_read_from_either_file(tmp_path):
    header, voxels = nifti(pair=True)
    saved(tmp_path / "a.hdr", header)
    saved(tmp_path / "a.img", voxels)
    for name in ("a.hdr", "a.img"):
        assert torch.equal(
            medical.read(tmp_path / name).data[0], torch.from_numpy(numbers()).float()
        )


@pytest.mark.parametrize("name", ["CT_small.dcm", "CT", "a.img", "a.nii"])
def test_dicom_is_told_whatever_its_name(tmp_path, name):
    shutil.copy(str(get_testdata_file("CT_small.dcm")), tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        found = medical.read(path, single=True)
        assert (found.modality, found.units, found.grid) == ("CT", "HU", (128, 128, 1))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x1f\x8bnot gzip", b"\x89PNG\r\n\x1a\n" + bytes(200), packed(b"hello")],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, content):
    with pytest.raises(Refusal, match="E_FORMAT") as caught:
        medical.read(saved(tmp_path / "jane_doe.bin", content))
    assert "jane" not in str(caught.value)
    with pytest.raises(Refusal, match="E_NIFTI"):  # says what is wrong with it
        medical.read(saved(tmp_path / "a.nii.gz", content))
    with pytest.raises(FileNotFoundError, match="check the path"):
        medical.read(tmp_path / "jane_doe")


def test_options_of_another_format_are_refused(tmp_path):
    path = saved(tmp_path / "a.nii", nifti())
    with pytest.raises(ValueError, match=r"NIfTI files are read without an option 'series'.*frame"):
        medical.read(path, series=1)
    volume = Volume(data=torch.ones(1, 2, 2, 2), affine=AFFINE)
    with pytest.raises(ValueError, match="'series'"):
        medical.write(volume, tmp_path / "b.nii", series=1)
    with pytest.raises(Refusal, match="E_FORMAT"):
        medical.write(volume, tmp_path / "b.png")


def test_nifti_is_written_where_the_name_says_so(tmp_path):
    volume = Volume(data=torch.ones(1, 2, 3, 4), affine=AFFINE)
    medical.write(volume, tmp_path / "a.nii.gz", dtype="label")
    found = nifti_room.read(tmp_path / "a.nii.gz")
    assert isinstance(found.source, NiftiSource)
    assert (found.grid, found.source.dtype) == ((2, 3, 4), np.uint8)


def test_dicom_is_written_to_a_folder(tmp_path):
    data = torch.arange(60.0).reshape(1, 3, 4, 5)
    medical.write(Volume(data=data, affine=AFFINE, units="HU", modality="CT"), tmp_path / "series")
    found = medical.read(tmp_path / "series").reoriented("LAS")
    assert torch.equal(found.data, data)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-4)
