"""Drawing from a prior: the right law, one stream an image, and the command line."""

import json
import math

import pytest
import torch

from priors import Gaussian, ProductMixture
from priors.bases import Hartley
from restore import draw, images
from restore.cli import main
from restore.samplers import available
from restore.samplers.adaptive import Adaptive
from restore.sheet import arrange


def gaussian():
    variances = 0.02 * torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    return Gaussian(torch.full((1, 4, 4), 0.4), Hartley(), variances)


@pytest.mark.parametrize("sampler", ["dpm++-2m", "ancestral", "heun", "rk45"])
def test_draws_have_the_mean_and_the_variance_of_the_prior(sampler):
    prior = gaussian()
    calls = 200 if sampler == "ancestral" else 40
    drawn = draw.draw(prior, 400, (1, 4, 4), sampler=sampler, calls=calls, progress=False)
    x = drawn.samples
    error = (x.mean(0) - prior.mean).abs() / prior.covariance(
        torch.eye(16).double().reshape(16, 1, 4, 4)
    ).reshape(16, 16).diagonal().reshape(1, 4, 4).sqrt()
    # the largest of 16 standard normals / sqrt(400), and what starting around 0.5 leaves: 0.1 c/s
    assert float(error.max()) < 4 / math.sqrt(400) + 0.01
    power = prior.basis.analyse(x - prior.mean).square().mean() / prior.variances.mean()
    bias = 0.03 if sampler == "ancestral" else 0.01  # of order 1 and 2 in 1 / steps
    assert float(power) == pytest.approx(1, abs=5 * math.sqrt(2 / 400 / 8) + bias)


def test_an_image_of_a_seed_is_the_same_among_others():
    prior = ProductMixture((0.5, 0.5), (0.2, 0.8), (0.05, 0.1), (1, 2, 2))
    for name, sampler in available().items():
        if isinstance(sampler, Adaptive):
            continue
        many, few = (
            draw.draw(prior, n, (1, 2, 2), sampler=name, calls=12, seed=5, progress=False)
            for n in (3, 2)
        )
        assert float((many.samples[:2] - few.samples).abs().max()) < 1e-9, name
        assert many.calls <= 12


def test_the_sheet_holds_every_image():
    sheet = arrange(torch.rand(6, 3, 8, 8))
    assert sheet.shape == (1, 3, 2 * 10 + 2, 3 * 10 + 2)


def test_the_command_draws_a_sheet_and_tells_how(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["sample", "--prior", "natural-gray", "-n", "2", "--size", "32", "--calls", "6"]
    assert main([*command, "-o", "sheet.png", "--sampler", "adams-2"]) == 0
    assert "6 network calls each" in capsys.readouterr().out
    assert images.read(tmp_path / "sheet.png").shape == (1, 36, 70)
    story = json.loads((tmp_path / "sheet.png.json").read_text())
    assert story["sampler"] == "adams-2"
    assert main([*command, "-o", "sheet.png"]) == 2  # it exists


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sampler", "adams2"], "did you mean 'adams-2'?"),
        (["--grid", "edn"], "did you mean 'edm'?"),
        (["--sampler", "heun", "--calls", "2"], "needs at least 3 network calls"),
        (["--prior", "naturel"], "did you mean 'natural'?"),
        (["--student", "nobody"], "unknown student"),
    ],
)
def test_bad_requests_get_one_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "-o", "sheet.png", "--size", "16", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_samplers_are_listed(capsys):
    assert main(["samplers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["sampler"] for row in rows} == set(available())
