"""`restore cube` as a user meets it: a cube in, a cube out, one line when it cannot be."""

import json

import numpy as np
import pytest
import torch
from deepinv.models import Denoiser

import priors
from restore import checkpoint, cli, images
from restore.cubes import files
from restore.cubes.cube import Cube, Georeference
from restore.solvers.dds2m import DDS2M

pytest.importorskip("rasterio")
pytest.importorskip("spectral")

NANOMETRES = tuple(430.0 + 40.5 * i for i in range(12))
UTM = Georeference("EPSG:32616", (20.0, 0.0, 500000.0, 0.0, -20.0, 4480000.0))


class Smooth(Denoiser):
    """A Gaussian prior of smooth images about grey, exact and instant, for any size."""

    def forward(self, x, sigma, **_):
        level = torch.as_tensor(sigma).reshape(-1, 1, 1, 1)
        f2 = torch.fft.fftfreq(x.shape[-2])[:, None] ** 2 + torch.fft.rfftfreq(x.shape[-1]) ** 2
        power = 1e-5 / (f2 + 5e-4) ** 2
        shrunk = torch.fft.rfft2(x - 0.5) * power / (power + level**2)
        return 0.5 + torch.fft.irfft2(shrunk, s=x.shape[-2:])


def smooth_prior(*_, **__):
    adapter = priors.from_deepinv(Smooth())
    adapter.card = priors.Card(name="natural-gray", channels=1, spatial_dims=2)
    return adapter


def clean(bands=12, height=32, width=32):
    """Three smooth materials, 0 to 4000."""
    generator = torch.Generator().manual_seed(0)
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    maps = torch.stack([torch.cos(0.2 * i), torch.sin(0.25 * j), torch.cos(0.15 * (i + j))])
    cube = torch.einsum("cr,rhw->chw", torch.rand((bands, 3), generator=generator), maps)
    return 4000 * (cube - cube.min()) / (cube.max() - cube.min())


def noisy(std=200.0):
    generator = torch.Generator().manual_seed(1)
    x = clean()
    return x + std * torch.randn(x.shape, generator=generator)


def save(name, data, **changes):
    known = {"wavelengths": NANOMETRES, "georeference": UTM, "dtype": "int16", "nodata": -9999.0}
    files.write(name, Cube(data=data, **{**known, **changes}), overwrite=True)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(priors, "load", smooth_prior)
    save("truth.tif", clean())
    save("noisy.tif", noisy())
    return tmp_path


def restore(*arguments):
    return cli.main(["cube", *map(str, arguments)])


def quality(name):
    return json.loads(open(f"{name}.json").read())["quality"]


def rms(name, data):
    return float((files.read(name).data - data).square().mean().sqrt())


@pytest.mark.parametrize("name", ["x.tif", "x.hdr", "x.mat", "x.npy"])
def test_noise_is_taken_off_and_everything_else_kept(here, name):
    assert restore("noisy.tif", "-o", name, "--task", "denoise", "--quiet") == 0
    # a projection onto three spectra of twelve bands alone would halve the noise
    assert rms(name, clean()) < 0.5 * 200
    found = files.read(name)
    assert found.wavelengths == pytest.approx(NANOMETRES)
    assert found.georeference.transform == pytest.approx(UTM.transform)
    assert found.dtype == "int16"
    assert found.nodata == -9999
    story = json.loads((here / f"{name}.json").read_text())
    assert story["task"] == "denoise"
    assert story["provenance"]["solver"]["solver"] == "fasthyde"
    assert str(here) not in json.dumps(story)
    assert [p.name for p in here.iterdir() if p.name.startswith(".")] == []


def test_pictures_and_quality(here, capsys):
    pictures = ["--preview", "p.png", "--spectra", "s.png", "--truth", "truth.tif", "--json"]
    assert restore("noisy.tif", "-o", "x.tif", "--task", "denoise", *pictures) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)["quality"]
    assert told == quality("x.tif")
    assert told["after"]["psnr"] > told["before"]["psnr"] + 6
    assert told["after"]["sam"] < 0.6 * told["before"]["sam"]
    assert len(told["after"]["band psnr"]) == 12
    assert "Wrote x.tif" in err
    assert images.read("p.png").shape == (3, 32, 68)
    assert images.read("s.png").shape[0] == 3


def test_missing_entries_are_completed(here):
    args = ["--keep", 0.3, "--noise", 0.05, "--truth", "truth.tif", "--samples", 1, "--quiet"]
    assert restore("noisy.tif", "-o", "x.tif", "--task", "complete", *args) == 0
    assert bool(files.read("x.tif").seen.all())
    found = quality("x.tif")
    assert found["after"]["psnr"] > found["before"]["psnr"] + 10
    np.save("mask.npy", np.arange(32 * 32).reshape(32, 32) % 5 > 0)
    args = ["--mask", "mask.npy", "--solver", "eigen", "--samples", 1, "--quiet"]
    assert restore("noisy.tif", "-o", "y.tif", "--task", "complete", *args) == 0
    assert rms("y.tif", clean()) < 200


def test_finer_pixels(here):
    small = torch.nn.functional.interpolate(clean()[None], scale_factor=0.5, mode="area")[0]
    save("small.tif", small)
    args = ["--samples", 1, "--noise", 0.01, "--quiet"]
    assert restore("small.tif", "-o", "x.tif", "--task", "superres", *args) == 0
    found = files.read("x.tif")
    assert found.shape == (12, 32, 32)
    assert found.georeference.transform[0] == 10
    again = torch.nn.functional.interpolate(found.data[None], scale_factor=0.5, mode="area")[0]
    # noise of 0.01 of a range of 4000, and what a bicubic filter and a box do differently
    assert float((again - small).square().mean().sqrt()) < 2 * 0.01 * 4000


def test_stripes_are_taken_off(here):
    # 48 bands: what lies inside the subspace of spectra stays
    x = 1000 + clean(bands=48)[:, :24]
    generator = torch.Generator().manual_seed(2)
    striped = x * (1 + 0.1 * torch.randn((48, 1, 32), generator=generator))
    striped[5, :, 7] = 0
    striped = striped + 10 * torch.randn(x.shape, generator=generator) * (striped != 0)
    save("striped.tif", striped, wavelengths=None)
    save("even.tif", x, wavelengths=None)
    args = ["--samples", 1, "--truth", "even.tif", "--quiet"]
    assert restore("striped.tif", "-o", "x.tif", "--task", "destripe", *args) == 0
    found = quality("x.tif")
    assert found["after"]["psnr"] > found["before"]["psnr"] + 3
    assert "1 of 1536 lines dead" in json.loads((here / "x.tif.json").read_text())["notes"][-1]
    turned = ["--direction", "horizontal", *args[:2], "--quiet"]
    save("turned.tif", striped.transpose(1, 2), wavelengths=None)
    assert restore("turned.tif", "-o", "y.tif", "--task", "destripe", *turned) == 0
    assert rms("y.tif", x.transpose(1, 2)) == pytest.approx(rms("x.tif", x), rel=0.2)


def test_broken_bands_and_pixels_are_told_and_filled_only_when_asked(here):
    data = noisy()
    data[3] = torch.nan
    data[6] = 77
    data[:, 4, 5] = torch.nan
    save("broken.tif", data)
    run = ["broken.tif", "--task", "denoise", "--samples", 1, "--quiet"]
    assert restore(*run, "-o", "x.tif") == 0
    found = files.read("x.tif")
    assert bool(found.data[3].isnan().all())
    assert int((found.data[6] == 77).sum()) == 32 * 32 - 1
    assert bool(found.data[:6, 4, 5].isnan().all())
    notes = " ".join(json.loads((here / "x.tif.json").read_text())["notes"])
    for words in ("without any value: 4.", "one value only: 7.", "1 pixel without a value"):
        assert words in notes
    assert restore(*run, "-o", "y.tif", "--fill") == 0
    assert bool(files.read("y.tif").seen.all())
    filled = files.read("y.tif").data
    between = (filled[2] + filled[4]) / 2
    assert float((filled[3] - between).abs().max()) <= 1  # rounded


@pytest.mark.parametrize(
    "solver", ["dds2m", pytest.param("vs2m", marks=pytest.mark.slow), "eigen", "fasthyde"]
)
def test_every_solver(here, solver):
    steps = ["--steps", 20] if solver.endswith("2m") else []
    args = ["--solver", solver, "--rank", 3, "--samples", 1, *steps, "--quiet"]
    save("small.tif", noisy()[:, :16, :16])
    assert restore("small.tif", "-o", "x.tif", "--task", "denoise", *args) == 0
    story = json.loads((here / "x.tif.json").read_text())
    assert story["provenance"]["solver"]["solver"] == solver
    assert story["provenance"]["solver"]["rank"] == 3


def test_a_killed_run_goes_on_to_the_same_cube(here, monkeypatch):
    save("small.tif", noisy()[:, :16, :16])
    told = ["--solver", "dds2m", "--steps", 12, "--rank", 2, "--quiet"]
    run = ["small.tif", "--task", "denoise", *told]
    assert restore(*run, "-o", "straight.tif") == 0
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    iterate = DDS2M.iterate

    def killed(self, problem):
        for i, x in enumerate(iterate(self, problem)):
            if i == 4:
                raise KeyboardInterrupt
            yield x

    monkeypatch.setattr(DDS2M, "iterate", killed)
    assert restore(*run, "-o", "x.tif") == 130
    assert (here / ".x.tif.checkpoint").exists()
    assert not (here / "x.tif").exists()
    starts = []

    def again(self, problem):
        starts.append(problem.done)
        return iterate(self, problem)

    monkeypatch.setattr(DDS2M, "iterate", again)
    assert restore(*run, "-o", "x.tif") == 0
    assert starts == [4]
    assert torch.equal(files.read("x.tif").data, files.read("straight.tif").data)
    assert not (here / ".x.tif.checkpoint").exists()


GOOD = ["noisy.tif", "-o", "new.tif", "--task", "denoise"]
REFUSED = {
    "missing file": (["no.tif", *GOOD[1:]], "'no.tif' does not exist"),
    "task": ([*GOOD[:-1], "sharpen"], "sharpen"),
    "format": (["noisy.tif", "-o", "new.png", *GOOD[3:]], "cubes are written as"),
    "the input": (["noisy.tif", "-o", "noisy.tif", *GOOD[3:], "--overwrite"], "input itself"),
    "taken": (["noisy.tif", "-o", "truth.tif", *GOOD[3:]], "--overwrite"),
    "picture": ([*GOOD, "--preview", "p.tiff.x"], "images are written as"),
    "solver": ([*GOOD, "--solver", "bm3d"], "expected one of fasthyde"),
    "steps": ([*GOOD, "--steps", 5], "leave --steps out"),
    "noise": ([*GOOD, "--noise", "-1"], "--noise is -1"),
    "no noise": ([*GOOD, "--noise", 0], "--noise is 0, expected more"),
    "no array": (["junk.npy", *GOOD[1:]], "cannot be read as .npy (it is none)"),
    "wavelengths": (["odd.mat", *GOOD[1:]], "nor do its 11 wavelengths"),
    "samples": ([*GOOD, "--samples", "-1"], "--samples is -1"),
    "nothing missing": ([*GOOD[:-1], "complete"], "no entry of the cube is missing"),
    "factor": ([*GOOD[:-1], "superres", "--factor", 1], "--factor is 1"),
    "two masks": ([*GOOD, "--mask", "m.npy", "--keep", 0.5], "give one"),
    "truth": ([*GOOD, "--truth", "small.tif"], "does not fit"),
    "fasthyde": ([*GOOD, "--solver", "fasthyde", "--keep", 0.5], "noise alone"),
    "key": ([*GOOD, "--key", "x"], "leave it out"),
    "axis": ([*GOOD, "--bands-axis", "last"], "tells its bands itself"),
    "colours": (["colours.tif", *GOOD[1:]], "3 bands"),
    "empty": (["empty.tif", *GOOD[1:]], "no value at all"),
    "bands": (["dead.tif", *GOOD[1:]], "5 of 12 bands hold something"),
    "superres with holes": (["holes.tif", *GOOD[1:-1], "superres"], "--task complete first"),
    "device": ([*GOOD, "--device", "abacus"], "device 'abacus'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_and_nothing_is_written(here, capsys, case):
    import rasterio
    from scipy.io import savemat

    np.save("m.npy", np.ones((32, 32)))
    open("junk.npy", "wb").write(b"junk")
    savemat("odd.mat", {"cube": np.ones((16, 17, 12)), "wavelengths": NANOMETRES[:11]})
    save("small.tif", noisy()[:, :16, :16])
    save("empty.tif", torch.full((12, 16, 16), torch.nan))
    dead = noisy()
    dead[5:] = 3
    save("dead.tif", dead)
    holes = noisy()
    holes[0, 0, 0] = torch.nan
    save("holes.tif", holes)
    with rasterio.open(
        "colours.tif", "w", driver="GTiff", count=3, height=16, width=16, dtype="uint8"
    ) as file:
        file.write(np.zeros((3, 16, 16), np.uint8))
    before = {p.name: p.read_bytes() for p in here.iterdir()}
    arguments, words = REFUSED[case]
    capsys.readouterr()
    assert restore(*arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert {p.name: p.read_bytes() for p in here.iterdir()} == before
