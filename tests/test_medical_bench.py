"""`restore bench volumes`: the phantom, where no real head is installed."""

import json

import pytest

from medical import samples
from restore.cli import main


@pytest.fixture(autouse=True)
def _no_real_head(monkeypatch):
    monkeypatch.setattr(samples, "ct_head", lambda: None)


def rows(capsys, task):
    arguments = ["--slices", "3", "--reduce", "4", "--task", task, "--json"]
    assert main(["bench", "volumes", *arguments, "--method", "FBP", "--method", "SIRT"]) == 0
    return {row["method"]: row for row in json.loads(capsys.readouterr().out)}


def test_a_row_a_method_and_better_ones_with_more_views(capsys):
    few, many = (rows(capsys, f"ct:angles={n}") for n in (4, 40))
    assert list(few) == list(many) == ["FBP", "SIRT"]
    for method in few:
        assert many[method]["scores"]["psnr"][0] > few[method]["scores"]["psnr"][0]


def test_an_unknown_method_is_refused_in_a_line(capsys):
    assert main(["bench", "volumes", "--slices", "2", "--reduce", "8", "--method", "FPB"]) == 2
    assert "FPB" in capsys.readouterr().err
