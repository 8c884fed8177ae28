"""The command line as a user meets it: files in, files out, one line when it cannot be."""

import json
import re
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from deepinv.models import Denoiser

import operators
import priors
from restore import cli, images
from restore.measurements import Measurement, portable, read_measurement, write_measurement
from restore.metrics import psnr

FAST = ["--samples", "2", "--quiet"]


class Smooth(Denoiser):
    """A Gaussian prior of smooth images about grey, exact and instant, for any size."""

    def forward(self, x, sigma, **_):
        level = torch.as_tensor(sigma).reshape(-1, 1, 1, 1)
        f2 = torch.fft.fftfreq(x.shape[-2])[:, None] ** 2 + torch.fft.rfftfreq(x.shape[-1]) ** 2
        power = 1e-5 / (f2 + 5e-4) ** 2
        shrunk = torch.fft.rfft2(x - 0.5) * power / (power + level**2)
        return 0.5 + torch.fft.irfft2(shrunk, s=x.shape[-2:])


@pytest.fixture
def smooth_prior(monkeypatch):
    load = priors.load

    def fake(name):
        if name not in ("natural", "natural-gray"):
            return load(name)
        card = priors.Card(name=name, channels=3 if name == "natural" else 1, spatial_dims=2)
        adapter = priors.from_deepinv(Smooth())
        adapter.card = card
        return adapter

    monkeypatch.setattr(priors, "load", fake)


@pytest.fixture
def here(tmp_path, monkeypatch, smooth_prior):
    monkeypatch.chdir(tmp_path)
    u, v = torch.meshgrid(torch.arange(32) / 32, torch.arange(40) / 40, indexing="ij")
    waves = [torch.sin(6.2832 * (k * u + m * v)) for k, m in ((1, 1), (1, -2), (2, 1))]
    clean = torch.stack(waves)[None] * 0.4 + 0.5
    images.write("clean.png", clean)
    images.write("grey.png", clean[:, :1])
    return tmp_path


def restore(*arguments):
    return cli.main([str(a) for a in arguments])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("source", ["clean.png", "grey.png"])
@pytest.mark.parametrize("spec", ["blur:sigma=1", "mask:keep=0.5", "downsample:factor=2"])
def test_degrade_then_restore(here, source, spec):
    assert restore("degrade", source, "-o", "y.png", "--operator", spec, "--noise", 0.05) == 0
    assert restore("image", "y.png", "-o", "x.png", "--std", "std.tif", *FAST) == 0
    truth, restored = images.read(source), images.read("x.png")
    y = images.read("y.png").data
    shown = torch.nn.functional.interpolate(y, size=truth.data.shape[-2:])
    assert restored.shape == truth.shape
    assert psnr(restored.data, truth.data) > psnr(shown, truth.data) + 1
    assert images.read("std.tif").depth == "float"
    story = json.loads((here / "x.png.json").read_text())
    assert story["operator"] == spec
    assert story["noise"] == 0.05
    assert str(here) not in json.dumps(story)


def test_measurements_that_are_no_pictures(here):
    degrade = ["degrade", "grey.png", "--operator", "cs:ratio=0.5", "--noise", 0.02]
    assert restore(*degrade, "-o", "y.png") == 2
    assert restore(*degrade, "-o", "y.npz") == 0
    assert restore("image", "y.npz", "-o", "x.png", *FAST) == 0
    assert images.read("x.png").shape == (1, 32, 40)


def test_depth_alpha_and_range_of_the_result(here):
    clean = images.read("clean.png")
    alpha = torch.linspace(0, 1, 40).expand(1, 1, 32, 40)
    deep = images.Image(data=clean.data, alpha=alpha, depth=16)
    images.write("deep.png", clean.data, deep)
    told = ["--operator", "denoise", "--noise", 0.05]
    assert restore("image", "deep.png", "-o", "x.png", *told, *FAST) == 0
    found = images.read("x.png")
    assert found.depth == 16
    assert torch.allclose(found.alpha, alpha, atol=1e-4)
    assert restore("image", "deep.png", "-o", "std.png", "--std", "std.png", *told, *FAST) == 2


def test_std_picture_says_what_white_is(here):
    told = ["--operator", "denoise", "--noise", 0.2]
    save = ["image", "grey.png", *told, *FAST, "--overwrite", "-o", "x.png", "--std"]
    assert restore(*save, "std.tif") == 0
    assert restore(*save, "std.png") == 0
    white = json.loads((here / "std.png.json").read_text())["white"]
    values = images.read("std.tif").data
    assert white == pytest.approx(values.max().item())
    assert torch.allclose(images.read("std.png").data * white, values, atol=white / 255)


def test_same_seed_same_file_for_every_batch_size(here):
    told = ["--operator", "mask:keep=0.5", "--noise", 0.05, "--solver", "diffpir", "--quiet"]
    for name, size in (("a.tif", 1), ("b.tif", 3)):
        run = ["image", "grey.png", "-o", name, *told, "--samples", 3, "--batch-size", size]
        assert restore(*run) == 0
    a, b = images.read("a.tif").data, images.read("b.tif").data
    assert torch.allclose(a, b, atol=1 / 255)


def test_json_alone_on_standard_output(here, capsys):
    run = ["image", "grey.png", "-o", "x.png", "--operator", "denoise", "--noise", 0.1, "--json"]
    assert restore(*run, "--solver", "diffpir", "--samples", 1) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "ok"
    assert "Wrote x.png" in err


GOOD = ["image", "clean.png", "-o", "new.png", "--operator", "blur:sigma=1", "--noise", "0.1"]
REFUSED = {
    "missing file": (["image", "no.png", *GOOD[2:]], "'no.png' does not exist"),
    "a folder": (["image", ".", *GOOD[2:]], "is a folder"),
    "unreadable": (["image", "text.png", *GOOD[2:]], "not a PNG, JPEG or TIFF"),
    "one pixel": (["image", "one.png", *GOOD[2:]], "at least 2"),
    "negative noise": ([*GOOD[:-1], "-0.1"], "--noise is -0.1"),
    "noise not finite": ([*GOOD[:-1], "nan"], "--noise is nan"),
    "noise no number": ([*GOOD[:-1], "much"], "see `restore image --help`"),
    "noise out of 255": ([*GOOD[:-1], "25"], "divide a level out of 255 by 255"),
    "no noise": (GOOD[:-2], "give --noise"),
    "no operator": ([*GOOD[:4], "--noise", "0.1"], "give --operator"),
    "operator": ([*GOOD, "--operator", "blurr"], "did you mean 'blur'"),
    "option": ([*GOOD, "--operator", "blur:sgima=1"], "did you mean 'sigma'"),
    "mask size": ([*GOOD, "--operator", "mask:file=grey9.png"], "9x9"),
    "shape": ([*GOOD, "--shape", "3x32"], "expected CxHxW"),
    "other shape": ([*GOOD, "--shape", "3x16x16"], "check --operator and --shape"),
    "solver": ([*GOOD, "--solver", "difpir"], "did you mean 'diffpir'"),
    "empty solver": ([*GOOD, "--solver", ""], "unknown solver ''"),
    "empty prior": ([*GOOD, "--prior", ""], "unknown prior ''"),
    "prior": ([*GOOD, "--prior", "nature"], "unknown prior 'nature'"),
    "prior channels": ([*GOOD, "--prior", "natural-gray"], "1 channel, found 3"),
    "device": ([*GOOD, "--device", "quantum"], "device 'quantum'"),
    "samples": ([*GOOD, "--samples", "0"], "--samples is 0"),
    "batch": ([*GOOD, "--batch-size", "0"], "--batch-size is 0"),
    "std is out": ([*GOOD, "--std", "../{}/new.png"], "name different files"),
    "std of one": ([*GOOD, "--samples", "1", "--std", "s.png"], "at least 2 samples"),
    "suffix": ([*GOOD[:3], "new.gif", *GOOD[4:]], "'.gif'"),
    "exists": ([*GOOD[:3], "grey.png", *GOOD[4:]], "'grey.png' exists"),
    "itself": ([*GOOD[:3], "clean.png", *GOOD[4:], "--overwrite"], "the input itself"),
    "folder": ([*GOOD[:3], "no/new.png", *GOOD[4:]], "folder 'no' does not exist"),
    "command": (["imag"], "Did you mean 'image'"),
    "no option": ([*GOOD, "--colour"], "--colour"),
    "degrade itself": (["degrade", *GOOD[1:3], "clean.png", *GOOD[4:]], "the input itself"),
    "degrade size": (
        ["degrade", *GOOD[1:4], "--operator", "downsample:factor=3"],
        "which 3 does not divide",
    ),
    "degrade below factor": (
        ["degrade", *GOOD[1:4], "--operator", "downsample:factor=64"],
        "smaller than factor 64",
    ),
    "check": (["check", "downsampel"], "did you mean 'downsample'"),
    "photograph": (["demo", "--photograph", "dog"], "choose from"),
    "demo": (["demo", "nothing"], "nothing"),
    "demo picture": (["demo", "--out", "new.xyz"], "end it with .png"),
    "demo folder": (["demo", "--out", "clean.png/new.png"], "'clean.png' is no folder"),
}


def test_transparency_that_jpeg_cannot_hold_is_refused_before_the_work(here, monkeypatch, capsys):
    import restore

    clean = images.read("clean.png").data
    images.write("clear.png", clean, images.Image(data=clean, alpha=clean[:, :1]))
    monkeypatch.setattr(restore, "solve", lambda *_, **__: pytest.fail("solved before the check"))
    assert cli.main(["image", "clear.png", "-o", "new.jpg", *GOOD[4:]]) == 2
    assert "transparency" in capsys.readouterr().err


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_and_write_nothing(here, capsys, case):
    (here / "text.png").write_text("hello")
    import PIL.Image

    PIL.Image.new("L", (1, 1)).save("one.png")
    PIL.Image.new("L", (9, 9), 255).save("grey9.png")
    before = files(here)
    arguments, words = REFUSED[case]
    arguments = [word.replace("{}", here.name) for word in arguments]
    assert restore(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"restore: [^\n]+\n", err), err
    assert words in err
    assert files(here) == before


def test_defects_of_ours_are_not_dressed_as_the_users(here, monkeypatch):
    def broken(*_, **__):
        raise KeyError("a defect")

    monkeypatch.setattr(operators, "parse", broken)
    with pytest.raises(KeyError, match="a defect"):
        restore(*GOOD)


def test_interruption_leaves_nothing(here, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    before = files(here)
    monkeypatch.setattr(images, "write", interrupted)
    assert restore(*GOOD, *FAST) == 130
    assert "interrupted" in capsys.readouterr().err
    assert files(here) == before


def test_a_diverged_run_writes_nothing(here, monkeypatch, capsys):
    class Runaway(Denoiser):
        def forward(self, x, sigma, **_):
            return x * 1e9

    def load(name):
        runaway = priors.from_deepinv(Runaway())
        runaway.card = priors.Card(name=name)
        return runaway

    monkeypatch.setattr(priors, "load", load)
    before = files(here)
    assert restore(*GOOD, *FAST) == 1
    assert "diverged" in capsys.readouterr().err
    assert files(here) == before


def test_lists_and_check(here, capsys):
    for words in (["solvers"], ["operators"], ["priors"], ["solvers", "--json"]):
        assert restore(*words) == 0
    assert restore("check", "blur:sigma=1", "--shape", "1x16x16") == 0
    out, _ = capsys.readouterr()
    assert "diffpir" in out
    assert "downsample" in out
    assert "adjoint" in out


def test_demo_numbers_and_picture(here, capsys):
    assert restore("demo", "--size", 64, "--samples", 2, "--solver", "diffpir", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [task["operator"] for task in report["tasks"]] == [
        "blur:sigma=2",
        "mask:keep=0.2",
        "downsample:factor=4",
    ]
    for task in report["tasks"]:
        assert task["gain"] == pytest.approx(task["restored"]["psnr"] - task["classical"]["psnr"])
        assert task["calls"] > 0
    assert images.read("restore-demo/panel.png").shape[0] == 3


def test_commands_of_other_packages(monkeypatch, capsys):
    points = {
        "restore.commands": [
            EntryPoint("scan", "json:dumps", "restore.commands"),
            EntryPoint("lost", "no_such_package:run", "restore.commands"),
        ],
        "restore.demos": [EntryPoint("guest", "test_cli_guest:guest", "restore.demos")],
    }
    monkeypatch.setattr("restore.extensions.entry_points", lambda group: points[group])
    assert restore("--help") == 0  # neither is imported
    out, _ = capsys.readouterr()
    assert "scan" in out
    assert "by no_such_package" in out
    assert restore("lost") == 2
    assert "cannot be loaded" in capsys.readouterr().err

    import types

    module = types.ModuleType("test_cli_guest")
    calls = []

    def guest(times: int = 1) -> None:
        calls.append(times)

    module.guest = guest
    monkeypatch.setitem(sys.modules, "test_cli_guest", module)
    assert restore("demo", "guest", "--times", "3") == 0
    assert calls == [3]


@pytest.mark.skipif(sys.platform != "linux", reason="reads its own memory from /proc")
def test_help_is_instant_and_imports_nothing_heavy():
    code = (
        "import sys, time; from restore.cli import main; main(['--help']);"
        "heavy = {'torch', 'numpy', 'rich', 'deepinv'} & set(sys.modules);"
        "peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0];"
        "sys.stderr.write(f'{time.process_time()} {peak} {heavy}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, kibibytes, heavy = done.stderr.split(" ", 2)
    assert "image" in done.stdout
    assert heavy == "set()"
    assert float(seconds) <= 0.3
    assert float(kibibytes) <= 60 * 1024


def test_npz_round_trip_and_damage(tmp_path):
    y = torch.randn(1, 7, generator=torch.Generator().manual_seed(0))
    made = Measurement(y=y, operator="cs:ratio=0.1", image_shape=(1, 8, 8), noise=0.1)
    path = write_measurement(tmp_path / "y.npz", made)
    found = read_measurement(path)
    assert torch.equal(found.y, y)
    assert (found.operator, found.image_shape, found.noise) == ("cs:ratio=0.1", (1, 8, 8), 0.1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="no readable measurement"):
        read_measurement(path)
    np.savez(path, y=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="no readable measurement"):
        read_measurement(path)


def test_a_float_tiff_measurement_keeps_its_noise(tmp_path):
    y = torch.tensor([[[[-0.1, 0.5], [0.7, 1.2]]]])
    like = images.Image(data=y.clamp(0, 1), depth="float")
    made = Measurement(y=y, operator="denoise", image_shape=(1, 2, 2), noise=0.1, image=like)
    found = read_measurement(write_measurement(tmp_path / "y.tif", made))
    assert torch.equal(found.y, y)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("mask:file=/home/me/m.png", "mask:file=m.png"),
        ("blur:file=~/k.npy,boundary=valid", "blur:file=k.npy,boundary=valid"),
        ("mask:file=C:\\me\\m.png", "mask:file=m.png"),
        ("mask:file=here/m.png", "mask:file=here/m.png"),
        ("mask:keep=0.2,seed=3", "mask:keep=0.2,seed=3"),
    ],
)
def test_records_do_not_tell_whose_disk_it_was(spec, expected):
    assert portable(spec) == expected
