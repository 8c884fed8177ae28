"""Real scans of installed packages: found or not, and refused when they are something else."""

import io
import plistlib
import tarfile

import numpy as np
import pytest
import torch

from medical import Refusal, samples


def archive(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def invesalius(shape=(3, 4, 5)):
    about = {"matrix": {"shape": list(shape)}, "spacing": [1.0, 2.0, 3.0], "name": "DOE^JANE"}
    matrix = np.arange(np.prod(shape), dtype="<i2")
    return {
        "x/main.plist": plistlib.dumps(about),
        "x/mask.dat": b"mask",
        "x/matrix.dat": matrix.tobytes(),
    }


def test_slices_run_up_and_rows_to_the_front(tmp_path, monkeypatch):
    monkeypatch.setenv(samples.CT_HEAD, str(archive(tmp_path / "a", invesalius())))
    head = samples.ct_head()
    assert head is not None
    assert (head.orientation, head.units, head.modality) == ("LAS", "HU", "CT")
    assert head.grid == (5, 4, 3)
    np.testing.assert_array_equal(head.spacing, (1, 2, 3))
    # fastest in the file are columns, then rows, then slices
    assert [int(head.data[0, *i]) for i in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))] == [
        0,
        1,
        5,
        20,
    ]
    np.testing.assert_allclose(head.affine[:3, 3], (2, -3, -3))
    assert "DOE" not in repr(head)


def test_nothing_installed_is_none_and_a_wrong_path_an_error(monkeypatch, tmp_path):
    monkeypatch.delenv(samples.CT_HEAD, raising=False)
    monkeypatch.setattr(samples, "_INSTALLED", tmp_path / "none")
    assert samples.ct_head() is None
    monkeypatch.setenv(samples.CT_HEAD, str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=samples.CT_HEAD):
        samples.ct_head()
    monkeypatch.setattr(samples, "_MNI", "none")
    assert samples.mni_t1() is None


@pytest.mark.parametrize(
    "change",
    [
        {"x/main.plist": b"no plist"},
        {"x/main.plist": plistlib.dumps({"matrix": {"shape": [3, 4, 6]}, "spacing": [1, 1, 1]})},
        {"x/main.plist": plistlib.dumps({"matrix": {"shape": [3, 4, 5]}, "spacing": [1, 1, 0]})},
        {"x/main.plist": plistlib.dumps([1, 2])},
        {"x/matrix.dat": b"abc"},
    ],
)
def test_other_archives_are_refused(tmp_path, monkeypatch, change):
    path = archive(tmp_path / "a", invesalius() | change)
    monkeypatch.setenv(samples.CT_HEAD, str(path))
    with pytest.raises(Refusal, match="E_SAMPLE"):
        samples.ct_head()


def test_damaged_and_huge_archives_are_refused(tmp_path, monkeypatch):
    path = archive(tmp_path / "a", invesalius())
    monkeypatch.setenv(samples.CT_HEAD, str(path))
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[:60], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(Refusal, match="E_SAMPLE"):
            samples.ct_head()
    monkeypatch.setattr(samples, "_MOST", 3)
    path.write_bytes(whole)
    with pytest.raises(Refusal, match="E_SAMPLE"):
        samples.ct_head()


def test_the_average_brain_stands_upright():
    pytest.importorskip("nilearn")
    brain = samples.mni_t1()
    assert brain is not None
    assert (brain.modality, brain.grid, brain.orientation) == ("MR", (197, 233, 189), "RAS")
    assert brain.data.max() == 255


def test_the_real_head_looks_to_the_front():
    head = samples.ct_head()
    if head is None:
        pytest.skip("the package invesalius-examples is not installed")
    assert (head.data.min(), head.data.max()) == (-1024, 2986)
    stack = head.stack("axial").data[0]  # slices from the feet to the head, rows front to back
    tissue = (stack > -300).float().mean((1, 2))
    assert tissue[-3:].mean() < tissue[40:60].mean() / 2  # the vertex is on top
    inside = stack[:20, :, 100:156]  # nose and throat are in front of the spine
    rows = torch.nonzero((inside > 300).any(0).any(1))[:, 0]
    cut = inside[:, rows.min() : rows.max()] < -500
    front, back = cut.chunk(2, dim=1)
    assert front.float().mean() > 2 * back.float().mean()
