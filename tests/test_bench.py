"""The benches: what they report is consistent, and a known truth is recognised as such."""

import json
import math
import sys
from functools import partial

import pytest
import torch

import priors
from priors.networks import Handover
from priors.powerlaw import PowerLawDenoiser, fit_power_law
from restore import cli
from restore.bench import denoising
from restore.bench.cli import denoising_table

SIGMA = 25 / 255


@pytest.fixture(scope="module")
def images():
    pytest.importorskip("sklearn")
    pytest.importorskip("pywt")
    return denoising.photographs(1)


@pytest.fixture
def two(images):
    return {name: images[name][..., 64:192, 64:192] for name in ("camera", "chelsea")}


def power_law_prior(two):
    """A prior as the ones that ship are built, but without a network of its own."""
    card = priors.Card(name="tiny", channels=1, spatial_dims=2)
    gaussian = PowerLawDenoiser(card, fit_power_law(torch.cat(list(two.values()))))
    return Handover(card, gaussian, gaussian, 0.4, 1.0)


def test_photographs(images):
    assert list(images) == ["camera", "astronaut", "chelsea", "coffee", "china", "flower", "aero"]
    for x in images.values():
        assert x.shape == (1, 1, 256, 256)
        assert 0 <= x.min() < 0.3 < 0.6 < x.max() <= 1
    colour = denoising.photographs(3, size=32)
    assert list(colour) == ["astronaut", "chelsea", "coffee", "china", "flower"]
    assert colour["coffee"].shape == (1, 3, 32, 32)
    luma = torch.tensor([0.2125, 0.7154, 0.0721])[:, None, None]
    centre = images["coffee"][..., 112:144, 112:144]
    assert torch.allclose((colour["coffee"] * luma).sum(1, keepdim=True), centre, atol=1e-5)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        denoising.photographs(2)


def test_denoising_rows(two):
    row, stronger = denoising.run(power_law_prior(two), two, sigmas=(SIGMA, 2 * SIGMA), bm3d=False)
    assert list(row.scores) == ["tiny", "NLM", "Wiener, corpus", "Wiener, test"]
    assert row.scores["tiny"] == row.scores["Wiener, corpus"]
    for method in row.scores:  # more noise, worse image, and never worse than no method at all
        assert stronger.psnr[method] < row.psnr[method]
        assert row.psnr[method] > -20 * math.log10(SIGMA) + 2
    assert row.psnr["Wiener, test"] > row.psnr["Wiener, corpus"]  # the oracle
    assert set(row.gaps) == {"NLM", "Wiener, test"}
    assert row.gaps["NLM"] == pytest.approx(row.psnr["tiny"] - row.psnr["NLM"])
    found = json.loads(json.dumps(row.as_dict()))
    assert found["n"] == len(found["scores"]["NLM"]) == 2
    (again,) = denoising.run(power_law_prior(two), two, sigmas=(SIGMA,), bm3d=False)
    assert again == row
    assert denoising_table([row, stronger]).row_count == 2


def test_high_noise_knows_only_wiener_rivals(two):
    (row,) = denoising.run(power_law_prior(two), two, sigmas=(1.0,))
    assert list(row.gaps) == ["Wiener, test"]
    assert row.gaps["Wiener, test"] < 0


def test_bm3d_beats_wiener(two):
    pytest.importorskip("bm3d")
    (row,) = denoising.run(power_law_prior(two), two, sigmas=(SIGMA,))
    assert row.psnr["BM3D"] > row.psnr["Wiener, test"] + 1
    assert row.gaps["BM3D"] < -1


def test_missing_package_is_told_in_a_sentence(two, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ValueError, match=r"needs 'bm3d', which is not installed; install restore"):
        next(denoising.run(power_law_prior(two), two, sigmas=(SIGMA,)))


def test_wiener_of_the_test_images_shrinks_best(two):
    clean = torch.cat(list(two.values())).double()
    denoise = denoising.fitted_wiener(clean)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).double()
    noisy = clean + 0.5 * noise

    def error(x):
        return (x - clean).square().mean()

    for other in (0.3, 0.8):  # the filter of another noise level
        assert error(denoise(noisy, 0.5)) < error(denoise(noisy, other))


def test_channels_that_do_not_fit(two):
    card = priors.Card(name="three", channels=3)
    law = fit_power_law(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="expects 3 channels, found 1"):
        next(denoising.run(PowerLawDenoiser(card, law), two))


@pytest.mark.parametrize("form", ["--json", None])
def test_denoising_command(two, monkeypatch, capsys, form):
    monkeypatch.setattr(priors, "load", lambda name: power_law_prior(two))
    monkeypatch.setattr(denoising, "photographs", lambda channels: two)
    monkeypatch.setattr(denoising, "run", partial(denoising.run, sigmas=(0.5,)))
    assert cli.main(["bench", "denoising", *([form] if form else [])]) == 0
    (row,) = denoising.run(power_law_prior(two), two)
    out = capsys.readouterr().out
    if form:
        assert json.loads(out)[0]["psnr"] == row.psnr
    else:
        assert f"{row.psnr['tiny']:.2f}" in out
        assert f"({row.gaps['Wiener, test']:+.2f})" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["posterior", "--solver", "moment-lader"], "did you mean 'moment-ladder'?"),
        (["posterior", "--prior", "nothing"], "choose one of"),
        (["posterior", "-n", "1"], "Invalid value for '-n'"),
        (["denoising", "--prior", "no.safetensors"], "no weights at 'no.safetensors'"),
    ],
)
def test_refusals(words, told, capsys):
    assert cli.main(["bench", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
