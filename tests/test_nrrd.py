"""NRRD files are read as SimpleITK reads them, or refused."""

import gzip

import nrrd
import numpy as np
import pytest
import SimpleITK
import torch

from medical import Refusal, geometry
from medical.nrrd import read

DIRECTIONS = np.array([[0.7, 0.1, 0], [-0.1, 0.7, 0], [0, 0, 3]])  # a row for each axis
HEADER = """NRRD0005
type: short
dimension: 3
space: left-posterior-superior
sizes: 3 4 5
space directions: (0.7,0.1,0) (-0.1,0.7,0) (0,0,3)
endian: little
encoding: gzip
space origin: (-20,31,7.5)
"""


def numbers(shape=(3, 4, 5)):
    return (np.arange(np.prod(shape)).reshape(shape) + 1).astype("<i2")


def saved(path, header=HEADER, data=None, tail=b""):
    content = (numbers() if data is None else data).tobytes(order="F")
    packed = gzip.compress(content) if "gzip" in header else content
    path.write_bytes(header.encode() + b"\n" + packed + tail)
    return path


def refused(code, path, **options):
    with pytest.raises(Refusal) as caught:
        read(path, **options)
    assert caught.value.code == code, caught.value
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_simpleitk_are_read_where_it_put_them(tmp_path, dtype, packed):
    data = numbers().astype(dtype)
    image = SimpleITK.GetImageFromArray(data.transpose(2, 1, 0))
    image.SetDirection([0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1])
    image.SetSpacing((0.7, 1.1, 3))
    image.SetOrigin((-20, 31, 7.5))
    path = tmp_path / "a.nrrd"
    SimpleITK.WriteImage(image, str(path), packed)
    found = read(path)
    np.testing.assert_array_equal(found.data[0].numpy(), data)
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(geometry.place(found.affine, index), (-x, -y, z), atol=1e-9)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
def test_anatomical_spaces(tmp_path, space, signs):
    found = read(saved(tmp_path / "a", HEADER.replace("left-posterior-superior", space)))
    np.testing.assert_array_equal(found.affine[:3, :3], np.diag(signs) @ DIRECTIONS.T)
    np.testing.assert_array_equal(found.affine[:3, 3], np.array(signs) * (-20, 31, 7.5))


def test_units_of_length(tmp_path):
    for unit, factor in (("mm", 1), ("cm", 10), ("um", 1e-3)):
        header = HEADER + f'space units: "{unit}" "{unit}" "{unit}"\n'
        found = read(saved(tmp_path / unit, header))
        np.testing.assert_allclose(found.spacing, factor * np.linalg.norm(DIRECTIONS, axis=1))
    refused("E_NRRD_HEADER", saved(tmp_path / "a", HEADER + 'space units: "in" "in" "in"\n'))


def extra(kind, count, *, first):
    """A header with a fourth axis, in front or behind."""
    sizes = f"{count} 3 4 5" if first else f"3 4 5 {count}"
    kinds = [kind, *["domain"] * 3] if first else [*["domain"] * 3, kind]
    header = HEADER.replace("dimension: 3", "dimension: 4").replace("3 4 5", sizes)
    old = "(0.7,0.1,0) (-0.1,0.7,0) (0,0,3)"
    header = header.replace(old, f"none {old}" if first else f"{old} none")
    return header + f"kinds: {' '.join(kinds)}\n"


@pytest.mark.parametrize("first", [False, True])
def test_vectors_become_channels_and_series_need_a_frame(tmp_path, first):
    data = numbers((2, 3, 4, 5) if first else (3, 4, 5, 2))
    expected = data if first else np.moveaxis(data, -1, 0)
    vectors = saved(tmp_path / "a", extra("vector", 2, first=first), data)
    np.testing.assert_array_equal(read(vectors).data.numpy(), expected)
    series = saved(tmp_path / "b", extra("list", 2, first=first), data)
    assert "frame=0 to 1" in refused("E_NRRD_4D", series)
    np.testing.assert_array_equal(read(series, frame=1).data[0].numpy(), expected[1])
    refused("E_NRRD_FRAME", series, frame=2)
    colours = saved(tmp_path / "c", extra("RGB-color", 2, first=first), data)
    refused("E_NRRD_COLOUR", colours)


def test_voxels_in_a_file_beside_the_header(tmp_path):
    nrrd.write(
        str(tmp_path / "a.nhdr"),
        numbers(),
        {
            "space": "left-posterior-superior",
            "space directions": DIRECTIONS,
            "space origin": [0, 0, 0],
        },
    )
    np.testing.assert_array_equal(read(tmp_path / "a.nhdr").data[0].numpy(), numbers())
    (tmp_path / "a.raw.gz").unlink()
    refused("E_NRRD_PAIR", tmp_path / "a.nhdr")


@pytest.mark.parametrize(
    ("code", "old", "new"),
    [
        ("E_NRRD_MAGIC", "NRRD0005", "NRRR0005"),
        ("E_NRRD_HEADER", "NRRD0005", "NRRD0009"),
        ("E_NRRD_HEADER", "type: short", "type short"),
        ("E_NRRD_HEADER", "sizes: 3 4 5", "sizes: 3 4"),
        ("E_NRRD_HEADER", "sizes: 3 4 5", "sizes: 3 -4 5"),
        ("E_NRRD_HEADER", "endian", "line skip: 2\nendian"),
        ("E_NRRD_HEADER", "endian", "byte skip: -1\nendian"),
        ("E_NRRD_SPACE", "space: left-posterior-superior\n", ""),
        ("E_NRRD_SPACE", "left-posterior-superior", "scanner-xyz"),
        ("E_NRRD_SPACE", "space origin: (-20,31,7.5)\n", ""),
        ("E_NRRD_AFFINE", "(0,0,3)", "(0.7,0.1,0)"),
        ("E_NRRD_4D", "(0,0,3)", "none"),
        ("E_NRRD_SHEAR", "(0,0,3)", "(0,0.4,3)"),
        ("E_NRRD_TYPE", "short", "block"),
        ("E_NRRD_TYPE", "short", "complex"),
        ("E_NRRD_TYPE", "endian: little\n", ""),
        ("E_NRRD_ENCODING", "gzip", "ascii"),
        ("E_NRRD_TRUNCATED", "sizes: 3 4 5", "sizes: 3 4 6"),
        ("E_TOO_LARGE", "sizes: 3 4 5", "sizes: 30000 40000 50000"),
        ("E_NRRD_PAIR", "endian", "data file: ../secret.raw\nendian"),
        ("E_NRRD_PAIR", "endian", "data file: /etc/passwd\nendian"),
        ("E_NRRD_PAIR", "endian", "data file: LIST\nendian"),
        ("E_NRRD_PAIR", "endian", "data file: a%03d.raw 1 9 1\nendian"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, code, old, new):
    assert old in HEADER
    (tmp_path / "secret.raw").write_bytes(numbers().tobytes())
    folder = tmp_path / "inside"
    folder.mkdir()
    sentence = refused(code, saved(folder / "jane_doe.nrrd", HEADER.replace(old, new)))
    assert "jane" not in sentence


def test_shear_is_accepted_when_asked(tmp_path):
    path = saved(tmp_path / "a", HEADER.replace("(0,0,3)", "(0,0.4,3)"))
    np.testing.assert_array_equal(read(path, sheared=True).affine[:3, 2], (0, -0.4, 3))


def test_filled_and_empty(tmp_path):
    header = HEADER.replace("short", "float")
    data = numbers().astype("<f4")
    data[0, 1, 2] = np.nan
    refused("E_NRRD_NOT_FINITE", saved(tmp_path / "a", header, data))
    found = read(tmp_path / "a", fill=0, modality="CT")
    assert found.valid is not None
    assert not found.valid[0, 1, 2]
    assert (found.valid.sum(), found.data[0, 0, 1, 2], found.units) == (59, 0, "HU")
    refused("E_NRRD_EMPTY", saved(tmp_path / "b", header, 0 * numbers().astype("<f4")))


def test_cut_files_are_refused_wherever_they_are_cut(tmp_path):
    whole = saved(tmp_path / "a").read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "b").write_bytes(whole[:end])
        with pytest.raises(Refusal, match=r"E_NRRD_"):
            read(tmp_path / "b")


def test_bombs_are_refused(tmp_path):
    header = HEADER.replace("3 4 5", "1000 1000 300")
    zeros = gzip.compress(bytes(2**20)) * 600
    refused("E_TOO_LARGE", saved(tmp_path / "a", header, np.zeros(0), zeros))
    refused("E_NRRD_DAMAGED", saved(tmp_path / "b", tail=zeros))
    (tmp_path / "c").write_bytes(b"NRRD0005\n" + b"x" * 2**22)  # a header without an end
    refused("E_NRRD_HEADER", tmp_path / "c")


def test_text_of_the_header_is_not_kept(tmp_path):
    found = read(saved(tmp_path / "a", HEADER + "content: DOE^JANE\npatient:=DOE^JANE\n"))
    assert "DOE" not in repr(found) + repr(vars(found.source))
    assert torch.equal(found.data[0], torch.from_numpy(numbers()).float())
