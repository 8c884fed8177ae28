"""Tensor files are whole or absent."""

import pytest
import torch
from safetensors.torch import load_file

from operators import files


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    files.write_tensors(path, {"a": torch.ones(2)})

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        files.write_tensors(path, {"a": torch.zeros(2)})
    assert load_file(path)["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_tensors_that_share_memory_are_written(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    files.write_tensors(tmp_path / "x", {"base": base, "turned": base.T, "row": base[0]})
    found = load_file(tmp_path / "x")
    assert torch.equal(found["turned"], base.T)
    assert torch.equal(found["row"], base[0])
