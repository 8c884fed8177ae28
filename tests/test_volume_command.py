"""`restore volume`, `scans` and `convert` as a user meets them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
import scans
import torch
import volumes
from scans import SECRET
from volumes import error, scan

import medical
import priors
from medical import dicom, nifti
from medical.reconstruct.filework import restore_scan
from medical.reconstruct.settings import Settings, slice_numbers
from restore import cli

FAST = ["--prior", "smooth", "--solver", "dds", "--steps", "4", "--samples", "2", "--quiet"]


@pytest.fixture(autouse=True)
def smooth_prior(monkeypatch):
    load = priors.load
    monkeypatch.setattr(
        priors, "load", lambda name: volumes.prior() if name == "smooth" else load(name)
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def restore(*arguments):
    return cli.main([str(a) for a in arguments])


def series(folder, volume=None, **options):
    """A DICOM series of a scan, full of identifiers."""
    volume = scan(orientation="LPS") if volume is None else volume
    return scans.ct_series(folder, volume.data[0].round().numpy(), volume.affine, **options)


def leftovers(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# --- in and out


def test_nifti_in_and_out(here, capsys):
    volume = scan()
    medical.write(volume, "head.nii.gz")
    code = restore(
        *("volume", "head.nii.gz", "-o", "out.nii.gz", "--task", "ct-sparse", "--modality", "CT"),
        *("--std", "std.nii.gz", "--report", "page.html", "--json", *FAST),
    )
    said = capsys.readouterr()
    assert code == 0
    story = json.loads(said.out)
    assert "simulated" in story["notes"][0]
    assert json.loads(Path("out.nii.gz.json").read_text()).items() >= story.items()
    mean, std = nifti.read("out.nii.gz", modality="CT"), nifti.read("std.nii.gz")
    assert np.array_equal(mean.affine, nifti.read("head.nii.gz").affine)
    assert mean.grid == std.grid == volume.grid
    assert float(std.data.min()) >= 0
    assert error(mean, volume) == pytest.approx(
        story["quality"]["restored"]["error"], rel=0.5
    )  # which counts the body only
    assert leftovers(here) == [
        "head.nii.gz",
        "out.nii.gz",
        "out.nii.gz.json",
        "page.html",
        "std.nii.gz",
    ]


def test_dicom_in_and_out(here, capfd):
    volume = scan(orientation="LPS")
    series("in", volume)
    code = restore(
        *("volume", "in", "-o", "out", "--task", "denoise", "--noise", 60, "--std", "std.dcm"),
        *("--report", "page.html", "--json", *FAST),
    )
    said = capfd.readouterr()
    assert code == 0, said.err
    mean = dicom.read("out")
    assert mean.grid == volume.grid
    assert np.abs(mean.affine - dicom.read("in").affine).max() < 1e-4
    header = pydicom.dcmread(next(Path("out").iterdir()))
    assert "not for diagnosis" in header.DerivationDescription
    assert "denoising" in header.DerivationDescription
    assert header.StudyInstanceUID == scans.uid(1)
    assert header.SeriesInstanceUID != scans.uid(1, 1)
    spread = dicom.read("std.dcm", single=True)
    assert spread.grid == volume.grid
    public = said.out + said.err + Path("page.html").read_text() + Path("out.json").read_text()
    assert SECRET not in public
    assert "IM0" not in public


def test_denoising_is_the_posterior_mean_and_tells_its_std(here):
    volume, sigma = scan(), 0.05
    noise = torch.randn(volume.data.shape, generator=torch.Generator().manual_seed(1))
    damaged = volume.derive(volume.data + 3000 * sigma * noise)
    medical.write(damaged, "head.nii")
    code = restore(
        *("volume", "head.nii", "-o", "out.nii", "--task", "denoise", "--noise", 3000 * sigma),
        *("--modality", "CT", "--prior", "smooth", "--std", "std.nii", "--quiet"),
    )
    assert code == 0
    story = json.loads(Path("out.nii.json").read_text())
    assert (story["solver"]["name"], story["samples"]) == ("posterior-mean", 1)
    slices = (damaged.stack().data[0] + 1000) / 3000
    expected = volume.unstack(3000 * volumes.Smooth()(slices[:, None], sigma)[None, :, 0] - 1000)
    mean, std = nifti.read("out.nii", modality="CT"), nifti.read("std.nii")
    assert error(mean, expected) < 0.1  # HU, of integers scaled by 1/16 or so
    known = 3000 * volumes.Smooth().std((20, 24), sigma)
    assert float(std.data.square().mean().sqrt()) == pytest.approx(known, rel=0.05)


def test_a_simulation_says_so_in_the_series(here):
    series("in")
    assert restore("volume", "in", "-o", "out", "--task", "ct-sparse", *FAST) == 0
    header = pydicom.dcmread(next(Path("out").iterdir()))
    assert "simulation" in header.SeriesDescription
    assert "Simulated" in header.DerivationDescription
    assert "8 views" in header.DerivationDescription


def test_deidentified_outputs_hold_no_identifier(here):
    series("in")
    code = restore(
        *("volume", "in", "-o", "out", "--task", "denoise", "--noise", 60, "--std", "std.dcm"),
        *("--report", "page.html", "--deidentify", *FAST),
    )
    assert code == 0
    written = [*Path("out").iterdir(), Path("std.dcm"), Path("page.html"), Path("out.json")]
    assert len(written) == 15
    for path in written:
        assert SECRET.encode() not in path.read_bytes()
        assert b"Planted" not in path.read_bytes()


def test_gaps_of_a_series_are_filled(here):
    volume = scan(orientation="LPS")
    series("in", volume, skip=(4, 5))
    assert restore("volume", "in", "-o", "plain", "--task", "denoise", "--noise", 9, *FAST) == 2
    assert restore("volume", "in", "-o", "out", "--task", "inpaint", "--noise", 9, *FAST) == 0
    story = json.loads(Path("out.json").read_text())
    assert story["missing"] == [4, 5]
    assert dicom.read("out").grid == volume.grid


def test_superresolution_writes_thin_slices(here):
    series("in")
    assert restore("volume", "in", "-o", "out", "--task", "superres", "--factor", 2, *FAST) == 0
    thin, thick = dicom.read("out"), dicom.read("in")
    assert thin.grid[2] == 2 * thick.grid[2]
    ends = np.array([[0, 0, 0.0, 1], [0, 0, thick.grid[2] - 1, 1]]).T
    fine = np.array([[0, 0, 0.5, 1], [0, 0, thin.grid[2] - 1.5, 1]]).T
    assert thin.affine @ fine == pytest.approx(thick.affine @ ends, abs=1e-3)


def test_measurements_come_from_a_file(here):
    import operators

    volume = scan("MR")
    medical.write(volume, "head.nii.gz")
    u = volume.stack().data[None]
    mri = operators.slices((2, 12, 20, 24), operator="mri:acceleration=2")
    y = mri.A(torch.cat([u, torch.zeros_like(u)], 1))
    np.save("k.npy", torch.view_as_complex(y.movedim(2, -1).contiguous()).numpy())
    code = restore(
        *("volume", "head.nii.gz", "-o", "out.nii", "--task", "mri", "--modality", "MR"),
        *("--measurements", "k.npy", "--noise", 5, *FAST),
    )
    assert code == 0
    story = json.loads(Path("out.nii.json").read_text())
    assert story["notes"] == []
    assert story["quality"] == {}


# --- listing and converting


def test_scans_lists_series_and_their_problems(here, capfd):
    series("in/a")
    series("in/b", series=2, skip=(3,))
    assert restore("scans", "in", "--json") == 0
    said = capfd.readouterr()
    first, second = json.loads(said.out)
    assert (first["series"], first["voxels"], first["problem"]) == (1, "24x20x12", "")
    assert second["problem"] == "E_MISSING_SLICES"
    assert SECRET not in said.out + said.err
    medical.write(scan(), "head.nii")
    assert restore("scans", "head.nii") == 0
    assert "24x20x12" in capfd.readouterr().out


def test_convert_there_and_back(here, capfd):
    series("in")
    before = dicom.read("in")
    assert restore("convert", "in", "-o", "head.nii.gz") == 0
    after = nifti.read("head.nii.gz", modality="CT")
    assert torch.equal(after.reoriented(before.orientation).data, before.data)
    assert np.abs(after.reoriented(before.orientation).affine - before.affine).max() < 1e-4
    assert SECRET.encode() not in Path("head.nii.gz").read_bytes()
    assert restore("convert", "head.nii.gz", "-o", "back", "--modality", "CT") == 0
    assert torch.equal(dicom.read("back").reoriented(before.orientation).data, before.data)
    assert restore("convert", "in", "-o", "nobody", "--deidentify") == 0
    assert all(SECRET.encode() not in path.read_bytes() for path in Path("nobody").iterdir())
    assert SECRET not in capfd.readouterr().err


def test_demonstration_compares_three_methods(here, monkeypatch, capfd):
    from PIL import Image

    from medical import demonstration, samples

    monkeypatch.setattr(samples, "ct_head", lambda: None)
    monkeypatch.setattr(demonstration, "SIDE", 32)
    options = ["--slices", 4, "--steps", 4, "--prior", "smooth", "--quiet", "--json"]
    assert restore("demo", "volume", "--out", "panel.png", *options) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["head"] == "phantom"
    assert list(told["quality"]) == ["back-projection", "total variation", "DDS"]
    assert Image.open("panel.png").width > 1500
    assert restore("demo", "volume", "--out", "panel.jpg", *options) == 2


# --- what is refused


def truncated(folder):
    (path, *_) = series(folder)
    path.write_bytes(path.read_bytes()[:-200])


def without_rows(image, k):
    del image.Rows


def colour(image, k):
    image.SamplesPerPixel, image.PhotometricInterpretation = 3, "RGB"
    image.PlanarConfiguration = 0
    image.PixelData = image.PixelData * 3


def tilted(folder):
    offsets = np.zeros((12, 3))
    offsets[:, 1] = np.arange(12)
    series(folder, offsets=offsets)


def uneven(folder):
    offsets = np.zeros((12, 3))
    offsets[6:, 2] = 0.7
    series(folder, offsets=offsets)


def duplicate(folder):
    volume = scan(orientation="LPS")
    paths = series(folder, volume, twice=(3,))
    image = pydicom.dcmread(paths[-1])
    image.PixelData = bytes(len(image.PixelData))
    image.save_as(paths[-1])


def two_series(folder):
    series(folder)
    series(Path(folder) / "more", series=2)


def bad_nifti(name, change):
    def make(path):
        from nifti_files import nifti as made

        Path(path).mkdir()
        data, fields = change()
        (Path(path) / name).write_bytes(made(data, **fields))
        return Path(path) / name

    return make


def with_nan():
    data = np.ones((8, 8, 8), np.float32)
    data[1, 2, 3] = np.nan
    return data, {}


BAD = {
    "missing slices": (lambda f: series(f, skip=(5,)), "E_MISSING_SLICES"),
    "duplicate slices": (duplicate, "E_DUPLICATE_POSITION"),
    "two series": (two_series, "E_AMBIGUOUS_SERIES"),
    "uneven slices": (uneven, "E_VARIABLE_SPACING"),
    "tilt": (tilted, "E_TILT"),
    "truncated": (truncated, "E_TRUNCATED"),
    "no Rows": (lambda f: series(f, edit=without_rows), "E_"),
    "colour": (lambda f: series(f, edit=colour), "E_PHOTOMETRIC"),
    "one slice": (lambda f: series(f, skip=range(1, 12)), "E_TOO_FEW_SLICES"),
    "nothing": (lambda f: Path(f).mkdir(), "E_NO_IMAGES"),
    "NaN affine": (
        bad_nifti("a.nii", lambda: (np.ones((8, 8, 8), np.float32), {"srow_x": [np.nan] * 4})),
        "E_NIFTI",
    ),
    "four dimensions": (
        bad_nifti("a.nii", lambda: (np.ones((8, 8, 8, 2), np.float32), {})),
        "E_NIFTI_4D",
    ),
    "NaN voxels": (bad_nifti("a.nii", with_nan), "E_NIFTI_NOT_FINITE"),
    "all zero": (
        bad_nifti("a.nii", lambda: (np.zeros((8, 8, 8), np.float32), {})),
        "E_NIFTI_EMPTY",
    ),
    "bomb": (
        bad_nifti(
            "a.nii",
            lambda: (np.ones((8, 8, 8), np.float32), {"dim": [3, 9000, 9000, 9000, 1, 1, 1, 1]}),
        ),
        "E_TOO_LARGE",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_nothing_written(name, here, capfd):
    make, expected = BAD[name]
    made = make("in")
    source = made if isinstance(made, Path) else "in"
    code = restore(
        *("volume", source, "-o", "out", "--std", "std.nii", "--report", "page.html"),
        *("--task", "denoise", "--noise", 9, *FAST),
    )
    said = capfd.readouterr()
    assert code == 2, said.err
    assert expected in said.err
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert SECRET not in said.err
    assert leftovers(here) == ["in"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nowhere.nii", "-o", "out.nii", "--task", "denoise"), "no such file"),
        (("head.nii", "-o", "out.png", "--task", "denoise"), "E_FORMAT"),
        (("head.nii", "-o", "head.nii", "--task", "denoise", "--overwrite"), "input itself"),
        (("head.nii", "-o", "there.nii", "--task", "denoise"), "--overwrite"),
        (("head.nii", "-o", "no/out.nii", "--task", "denoise"), "does not exist"),
        (("in", "-o", "in/out", "--task", "denoise"), "in it"),
        (("in", "-o", "in", "--task", "denoise", "--overwrite"), "scan itself"),
        (("in", "-o", "full", "--task", "denoise"), "holds files"),
        (("in", "-o", "full", "--task", "denoise", "--noise", "9", "--overwrite"), "other files"),
        (("head.nii", "-o", "out.nii", "--task", "denoise", "--std", "out.nii"), "one name"),
        (("head.nii", "-o", "out.nii", "--task", "denoise", "--std", "s.dcm"), "E_NO_SOURCE"),
        (("in", "-o", "out", "--task", "superres", "--std", "s.dcm"), "E_GRID_MISMATCH"),
        (("head.nii", "-o", "out.nii", "--task", "denoise", "--report", "p.pdf"), "E_FORMAT"),
        (("head.nii", "-o", "out.nii", "--task", "sharpen"), "E_TASK"),
        (("head.nii", "-o", "out.nii", "--task", "ct-sparse"), "--modality CT"),
        (("head.nii", "-o", "out.nii", "--task", "denoise", "--angles", "8"), "E_SETTING"),
        (("head.nii", "-o", "out.nii", "--task", "denoise", "--plane", "oblique"), "--plane"),
        (("head.nii", "-o", "out.nii", "--task", "inpaint", "--missing", "9-3"), "E_SETTING"),
        (("head.nii", "-o", "out.nii", "--task", "denoise", "--frame", "7"), "E_NIFTI_FRAME"),
        (("in", "-o", "out", "--task", "denoise", "--frame", "1"), "frame"),
        (("in", "-o", "out", "--task", "denoise", "--series", "9"), "E_NO_SUCH_SERIES"),
        (("in", "-o", "out", "--task", "denoise", "--on-gap", "guess"), "--on-gap"),
        (("in", "-o", "out", "--task", "mri"), "E_MODALITY"),
        (("in", "-o", "out", "--task", "ct-sparse", "--measurements", "no.npy"), "not a file"),
        (("in", "-o", "out", "--task", "ct-sparse", "--measurements", "t.npy"), "E_MEASUREMENT"),
    ],
)
def test_requests_that_cannot_be_met(arguments, expected, here, capfd):
    medical.write(scan(), "head.nii")
    medical.write(scan(), "there.nii")
    series("in")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    Path("t.npy").write_text("nothing")
    before = leftovers(here)
    code = restore("volume", *arguments, *FAST)
    said = capfd.readouterr()
    assert code == 2, said.err
    assert expected in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert SECRET not in said.err
    assert [name for name in leftovers(here) if not name.endswith(".unfinished")] == before


def test_slices_in_words():
    assert slice_numbers("10-12,20, 3") == (3, 10, 11, 12, 20)


# --- kills


RUN = """
import sys
sys.path[:0] = [sys.argv[1]]
import torch
torch.set_num_threads(1)
import priors, volumes
import restore.checkpoint
restore.checkpoint.EVERY = 0.0
priors.load = lambda name: volumes.prior()
from restore import cli
sys.exit(cli.main(sys.argv[2:]))
"""


def command(out):
    here = str(Path(__file__).parent)
    arguments = ["volume", "head.nii", "-o", out, "--task", "ct-sparse", "--modality", "CT"]
    options = ["--prior", "smooth", "--steps", "40", "--samples", "3", "--std", f"std-{out}"]
    return [sys.executable, "-c", RUN, here, *arguments, *options, "--quiet"]


@pytest.mark.slow
def test_killed_at_ten_random_times_the_output_is_the_same(here):
    medical.write(scan(shape=(24, 48, 48)), "head.nii")
    started = time.monotonic()
    subprocess.run(command("whole.nii"), check=True, timeout=600, capture_output=True)
    usual = time.monotonic() - started
    kills, draw = 0, random.Random(7)
    for _ in range(60):
        process = subprocess.Popen(
            command("out.nii"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            code = process.wait(draw.uniform(0.3, 1.0) * usual if kills < 10 else 600)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            at_work = Path("out.nii.unfinished").exists()
            kills += at_work
            if at_work or not Path("out.nii").exists():
                continue
            code = 0  # it was done, and on its way out
        assert code == 0
        if kills >= 10:
            break
        for path in ("out.nii", "std-out.nii", "out.nii.json"):
            Path(path).unlink()  # done too soon: once more
    assert kills >= 10
    for name in ("{}.nii", "std-{}.nii"):
        one, two = (Path(name.format(which)).read_bytes() for which in ("whole", "out"))
        assert one == two
    assert not Path("out.nii.unfinished").exists()


def test_outputs_half_written_by_a_kill_are_written_again(here, monkeypatch):
    import medical.reconstruct.filework as work

    medical.write(scan(), "head.nii")
    settings, reading = Settings(), {"modality": "CT"}
    given = {"prior": "smooth", "options": {"steps": 3}, "samples": 2, "reading": reading}
    given |= {"std": Path("std.nii"), "report": Path("page.html"), "progress": False}
    source, out = Path("head.nii"), Path("out.nii")

    def die(*_, **__):
        raise KeyboardInterrupt

    story = work.write_story
    monkeypatch.setattr(work, "write_story", die)
    with pytest.raises(KeyboardInterrupt):
        restore_scan(source, out, "ct-sparse", settings, **given)
    assert Path("std.nii").exists()
    assert not out.exists()
    monkeypatch.setattr(work, "write_story", story)
    restore_scan(source, out, "ct-sparse", settings, **given)
    assert out.exists()
    assert not Path("out.nii.unfinished").exists()
    with pytest.raises(FileExistsError):  # now they are the user's
        restore_scan(source, out, "ct-sparse", settings, **given)
