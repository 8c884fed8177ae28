"""`restore priors --diagnose`: numbers, pictures, and refusals in one line."""

import json

import pytest
import torch

import priors
from priors.powerlaw import PowerLawDenoiser, fit_power_law
from restore import cli, examination
from restore.bench import denoising

pytest.importorskip("sklearn")
pytest.importorskip("pywt")

WORDS = ["priors", "--diagnose", "small", "--size", "16", "--sigma", "0.3", "--sigma", "0.1"]


@pytest.fixture(autouse=True)
def small_prior(monkeypatch, tmp_path):
    """A closed-form prior fitted to the photographs; any channels, instant."""
    monkeypatch.chdir(tmp_path)
    load = priors.load

    def fake(name):
        if name not in ("small", "small-colour"):
            return load(name)
        channels = 3 if name == "small-colour" else 1
        images = torch.cat(list(denoising.photographs(channels, size=64).values()))
        card = priors.Card(name=name, channels=channels, spatial_dims=2)
        return PowerLawDenoiser(card, fit_power_law(images))

    monkeypatch.setattr(priors, "load", fake)


def test_numbers_and_pictures(tmp_path, capsys):
    assert cli.main([*WORDS, "--out", "new/folder", "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err == ""
    assert report["prior"] == "small"
    assert report["images"] == 7
    assert report["image_shape"] == [1, 16, 16]
    assert [level["sigma"] for level in report["levels"]] == [0.1, 0.3]
    for level in report["levels"]:
        assert level["told"]["true"] < level["sigma"]
        assert level["asymmetry"] < 1e-3  # a Gaussian prior, in float32
        assert 0 < level["dimension"]["trace"]["mean"] < 256
    assert {v["about"] for v in report["verdicts"]} >= {"symmetry", "memory", "noise level"}
    assert set(report["pictures"]) == {"levels", "spectrum", "basis"}
    from matplotlib.image import imread

    for path in report["pictures"].values():
        picture = imread(tmp_path / path)
        assert picture[..., :3].std() > 0.05  # not an empty sheet
    assert len(list((tmp_path / "new/folder").iterdir())) == 3  # and no temporary file


def test_colour_and_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(examination, "save", lambda figure, path: path)
    words = ["priors", "--diagnose", "small-colour", "--size", "16", "--sigma", "0.3"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "prior 'small-colour' on 5 photographs" in out
    assert "Memory was not tested" in out
    assert "restore-diagnosis/small-colour-basis.png" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--diagnose", "naturel"], "did you mean 'natural'?"),
        (["--diagnose", "small", "--size", "8"], "--size is 8, expected a whole number from 16"),
        (["--diagnose", "small", "--size", "300"], "from 16 to 256"),
        (["--diagnose", "small", "--sigma", "0"], "--sigma is 0, expected noise levels above 0"),
        (["--diagnose", "small", "--sigma", "nan"], "--sigma is nan, expected noise levels"),
        (["--diagnose", "small", "--out", "file"], "'file' is a file; name another folder"),
        (["--diagnose", "small", "--out", "file/deeper"], "is a file; name another folder"),
        (["--size", "32"], "go with --diagnose"),
        (["--sigma", "0.1"], "go with --diagnose"),
    ],
)
def test_refusals(words, sentence, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["priors", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
