"""Scans restored: every task gains, on the scan's own grid, in its units, through every kill."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import volumes
from volumes import MM, error, scan

import operators
import priors
import restore
from medical import Refusal
from medical.reconstruct import Settings, ledger, reconstruct, slabs, tasks
from medical.reconstruct.noise import estimate
from medical.reconstruct.quality import quality
from medical.reconstruct.sampling import solver_for
from medical.reconstruct.scene import scene_of
from medical.reconstruct.tasks import task_named
from restore.solvers.dds import DDS
from restore.solvers.posterior_mean import PosteriorMean

FAST = {"steps": 10}


def run(volume, task, settings=None, *, solver="dds", **more):
    """With few steps of DDS, or a task's own solver (None) as it is."""
    options = FAST if solver == "dds" else {}
    given = {"prior": volumes.prior(), "samples": 1, "progress": False, "options": options} | more
    return reconstruct(volume, task, settings or Settings(), solver=solver, **given)


def code(*arguments, **options):
    with pytest.raises(Refusal) as refused:
        run(*arguments, **options)
    return refused.value.code


# --- every task


@pytest.mark.parametrize(
    ("task", "modality", "settings"),
    [
        ("denoise", "CT", Settings(noise=150)),
        ("ct-sparse", "CT", Settings(angles=6)),
        ("ct-limited", "CT", Settings(angles=24, arc=90)),
        ("mri", "MR", Settings(acceleration=2)),
        ("mri", "MR", Settings(acceleration=2, vary=True)),
        ("superres", "CT", Settings(factor=2)),
        ("inpaint", "CT", Settings(missing=(3, 4, 8))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_task_gains_on_the_same_grid(task, modality, settings):
    volume = scan(modality)
    solver = None if task in ("denoise", "inpaint") else "dds"
    found = run(volume, task, settings, solver=solver, simulate=True, samples=2)
    assert found.status != "diverged"
    assert error(found.mean, volume) < 0.9 * error(found.before, volume)
    assert found.mean.grid == volume.grid
    assert np.array_equal(found.mean.affine, volume.affine)
    assert (found.mean.units, found.mean.modality) == (volume.units, modality)
    assert found.std is not None
    assert found.std.units == volume.units
    assert float(found.std.data.min()) >= 0
    assert "simulated" in found.notes[0]
    assert found.quality["restored"].error < found.quality["before"].error


def test_every_task_is_tested():
    assert set(tasks()) == {"denoise", "ct-sparse", "ct-limited", "mri", "superres", "inpaint"}


def test_a_limited_arc_has_a_solver_of_its_own():
    task = task_named("ct-limited")
    thick = replace(scan(), affine=scan().affine @ np.diag([1, 1, 1.5, 1]))
    seen = scene(thick, "ct-limited")
    expected = replace(DDS.limited_angle(), axis=0, spacing=1.5)
    assert solver_for(None, task, seen, {}) == expected
    assert solver_for(None, task, seen, {"cg_steps": 7}) == replace(expected, cg_steps=7)
    assert solver_for("dds", task, seen, {}) == DDS(spacing=1.5)


def test_superresolution_refines_one_axis_and_keeps_what_was_measured():
    volume = scan()
    found = run(volume, "superres", Settings(factor=3, noise=1.0))
    assert found.truth is None
    assert not found.quality
    assert found.mean.spacing == pytest.approx([MM, MM, MM / 3])
    thick = found.mean.data.unflatten(3, (-1, 3)).mean(4)
    # a thick slice is the mean of its thin ones, but for what the term between planes takes
    assert error(volume.derive(thick), volume) < 0.1 * float(volume.data.std())
    corner = found.mean.affine @ [0, 0, 1, 1]  # the middle one of the first three
    assert corner == pytest.approx(volume.affine @ [0, 0, 0, 1])


def test_inpainting_finds_what_was_not_measured_and_fills_only_that():
    volume = scan()
    valid = torch.ones(volume.grid, dtype=torch.bool)
    valid[..., 5] = False  # a missing slice
    valid[0, 0, :] = False  # padding
    damaged = volume.data.clone()
    damaged[:, ~valid] = -1000
    given = replace(volume, data=damaged, valid=valid)
    found = run(given, "inpaint", Settings(noise=3.0), solver=None)
    assert found.story["missing"] == [5]
    kept = found.mean.valid
    assert kept is not None
    assert bool(kept[1, 1, 5])
    assert not bool(kept[0, 0, 0])
    assert float(found.mean.data[0, 0, 0, 0]) == -1000
    gap = (found.mean.data - volume.data)[0, 1:, 1:, 5]
    assert float(gap.square().mean().sqrt()) < 0.3 * float(
        (damaged - volume.data)[0, 1:, 1:, 5].square().mean().sqrt()
    )


def test_orientation_of_the_file_does_not_matter():
    one = run(scan(), "denoise", Settings(noise=100.0))
    for codes in ("RAS", "PSL", "IRA"):
        other = run(scan(orientation=codes), "denoise", Settings(noise=100.0))
        assert torch.equal(other.mean.reoriented("LAS").data, one.mean.data)


def test_sample_is_that_of_the_solver():
    volume = scan()
    found = run(volume, "denoise", Settings(noise=90.0), seed=5)
    u = (volume.stack().data[None] + 1000) / 3000
    physics = noisy(u, 90 / 3000)
    known = restore.solvers.available()["dds"](steps=10)
    result = restore.solve(u, physics, volumes.prior(), known, seed=5)
    expected = volume.unstack(3000 * result.samples[0, 0] - 1000)
    assert float((expected.data - found.mean.data).abs().max()) < 0.01  # HU, float32


def noisy(u, sigma):
    return operators.denoise(u.shape[1:], noise=sigma)


def test_slabs_are_the_whole_and_survive(tmp_path, monkeypatch):
    """A solver of flat images, 4 + 8 slices: each slab is what the solver makes of it alone."""
    volume, out = scan(), tmp_path / "out.nii"
    u = (volume.stack().data[None] + 1000) / 3000
    ddrm = restore.solvers.available()["ddrm"]()
    parts = []
    for k, first in enumerate((0, 8)):
        some = u[:, :, first : first + 8]
        physics = noisy(some, 0.03)
        seed = 3 + k * slabs._APART
        parts.append(restore.solve(some, physics, lifted(some), ddrm, seed=seed).samples[0, 0])
    expected = volume.unstack(3000 * torch.cat(parts, 1) - 1000)
    calls = 0

    def die(result):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return plain(result)

    plain = slabs.facts_of
    monkeypatch.setattr(slabs, "facts_of", die)
    with pytest.raises(KeyboardInterrupt):
        run(volume, "denoise", Settings(noise=90.0), solver="ddrm", seed=3, out=out)
    left = sorted(path.name for path in ledger.unfinished(out).glob("*.safetensors"))
    assert left == ["part-0000-0000.safetensors"]
    monkeypatch.setattr(slabs, "facts_of", plain)
    found = run(volume, "denoise", Settings(noise=90.0), solver="ddrm", seed=3, out=out)
    assert error(found.mean, expected) < 0.01  # HU, float32
    assert not list(ledger.unfinished(out).glob("part-*"))


def lifted(some):
    return priors.lift(volumes.prior(), tuple(some.shape))


def test_samples_differ_and_std_is_theirs(tmp_path):
    volume, out = scan(), tmp_path / "out.nii"
    found = run(volume, "ct-sparse", samples=3, out=out)
    book = ledger.Ledger(ledger.unfinished(out))
    from safetensors.torch import load_file

    drawn = torch.stack([load_file(book.sample(i))["x"] for i in range(3)])
    assert float(drawn.std(0).mean()) > 1e-4
    inverse = 3000.0
    assert torch.allclose(volume.unstack(inverse * drawn.std(0)).data, found.std.data, atol=0.01)
    assert torch.allclose(
        volume.unstack(inverse * drawn.mean(0) - 1000).data, found.mean.data, atol=0.01
    )


POINT = PosteriorMean()


def test_a_mean_tells_its_std_by_itself():
    """To Gaussian slices it is the posterior's, on a torus the same in every pixel."""
    volume, sigma = scan(), 0.05
    found = run(volume, "denoise", Settings(noise=3000 * sigma), solver=POINT, samples=4)
    again = run(volume, "denoise", Settings(noise=3000 * sigma), solver=POINT, samples=1, seed=0)
    assert torch.equal(again.mean.data, found.mean.data)
    assert again.std is None
    std = 3000 * volumes.Smooth().std((20, 24), sigma)
    # of every pixel 480 / 36 others share its lattice, and tell of the correlation of the result
    assert float(found.std.data.square().mean().sqrt()) == pytest.approx(std, rel=0.05)
    assert found.story["samples"] == 1
    assert (found.story["forwards"], found.story["vjps"]) == (2, 36)


def test_a_std_that_was_not_asked_for_is_computed_when_it_is(tmp_path, monkeypatch):
    """Slabs of 8 and 4 slices; killed after the first, without a std and with."""
    volume, out = scan(), tmp_path / "out.nii"
    plain, calls = slabs.drawn_of, []

    def die(result):
        calls.append(result)
        if len(calls) in (2, 4):
            raise KeyboardInterrupt
        return plain(result)

    def again(samples):
        return run(volume, "denoise", Settings(noise=90.0), solver=POINT, samples=samples, out=out)

    whole = run(volume, "denoise", Settings(noise=90.0), solver=POINT, samples=2)
    monkeypatch.setattr(slabs, "drawn_of", die)
    for samples in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            again(samples)
    assert torch.equal(again(2).std.data, whole.std.data)
    assert len(calls) == 5  # the first slab anew with a std, the second alone
    assert torch.equal(again(1).mean.data, whole.mean.data)
    assert len(calls) == 5


# --- physics in the user's units


def scene(volume, task, settings=None, **more):
    return scene_of(
        volume, task_named(task), settings or Settings(), volumes.prior(), None, True, **more
    )


def test_rays_measure_millimetres_of_water():
    air = torch.full((1, 12, 20, 24), -1000.0)
    block = air.clone()
    block[:, :, 6:14, 8:18] = 0  # water, 16 mm by 20 mm
    volume = scan().stack().derive(block)
    task = task_named("ct-sparse")
    seen = scene(volume, "ct-sparse", Settings(angles=2))
    operator = task.operator(seen)
    y = operator.A(seen.map.forward(block)[None]) / task.level(seen, operator, 1.0)
    # at 0 degrees rays run along the columns, at 90 along the rows
    assert float(y[..., 0].max()) == pytest.approx(16, rel=1e-5)
    assert float(y[..., 1].max()) == pytest.approx(20, rel=1e-5)
    back = task.measured(seen, operator, y)
    assert torch.allclose(back, operator.A(seen.map.forward(block)[None]), atol=1e-6)


def test_measurement_from_a_file_is_that_of_the_simulation(tmp_path):
    volume = scan()
    task = task_named("ct-sparse")
    seen = scene(volume, "ct-sparse")
    operator = task.operator(seen)
    u = seen.map.forward(volume.stack().data)[None]
    y = operator.A(u) / task.level(seen, operator, 1.0)
    empty = volume.derive(torch.full_like(volume.data, 40.0))  # gives the grid only
    found = run(empty, "ct-sparse", Settings(noise=0.5), measurement=y)
    assert found.truth is None
    assert found.notes == ()
    assert error(found.mean, volume) < error(found.before, volume)


def test_phase_is_recovered_from_k_space():
    volume = scan("MR")
    u = volume.stack().data[None] / 1000
    phase = volumes.waves(u.shape[2:]) * 2
    image = 1000 * torch.cat([u * phase.cos(), u * phase.sin()], 1)
    mri = operators.slices((2, 12, 20, 24), operator="mri:acceleration=2")
    found = run(volume, "mri", Settings(noise=5.0), measurement=mri.A(image))
    assert found.mean.data.shape == volume.data.shape
    assert error(found.mean, volume) < error(found.before, volume)


def test_noise_is_found_in_noise_and_not_in_ramps():
    n, sigma = 16 * 64 * 64, 0.03
    draw = torch.randn(1, 16, 64, 64, generator=torch.Generator().manual_seed(3))
    ramp = torch.linspace(0, 1, 64)[:, None] + torch.linspace(0, 2, 64)
    found = estimate(ramp + sigma * draw)
    # the median of n / 4 magnitudes has the relative standard error 1.17 / sqrt(n / 4)
    assert found == pytest.approx(sigma, rel=4 * 1.17 / math.sqrt(n / 4))
    assert estimate(ramp.expand(1, 2, 64, 64)) == pytest.approx(0, abs=1e-6)


def test_noise_that_nobody_stated_is_estimated_and_told():
    volume = scan()
    draw = torch.randn(volume.data.shape, generator=torch.Generator().manual_seed(1))
    found = run(volume.derive(volume.data + 200 * draw), "denoise")
    assert found.story["noise"]["std"] == pytest.approx(200, rel=0.1)
    assert "estimated" in found.notes[0]
    assert error(found.mean, volume) < 0.9 * 200


# --- quality


def test_quality_counts_the_body_and_knows_constants():
    truth = scan(shape=(12, 20, 24))
    body = torch.zeros(truth.grid, dtype=torch.bool)
    body[4:-4, 4:-4, 2:-2] = True
    noisy_air = truth.data + 500 * (~body)
    off = quality(truth.derive(noisy_air + 30 * body), truth, width=3000, plane="axial", body=body)
    for value in off.psnr.values():
        assert value == pytest.approx(20 * math.log10(3000 / 30), abs=1e-3)
    assert off.error == pytest.approx(30, rel=1e-4)


def test_steps_between_slices_are_seen():
    truth = scan()
    body = torch.ones(truth.grid, dtype=torch.bool)
    jumps = 10 * (-1.0) ** torch.arange(truth.grid[2])
    for x, expected in ((truth.data + 25, 0.0), (truth.data + jumps, 20.0)):
        found = quality(truth.derive(x), truth, width=3000, plane="axial", body=body)
        assert found.step == pytest.approx(expected, abs=1e-3)


# --- what is refused


@pytest.mark.parametrize(
    ("volume", "task", "settings", "expected"),
    [
        (scan("MR"), "ct-sparse", Settings(), "E_MODALITY"),
        (scan("OT"), "ct-limited", Settings(), "E_MODALITY"),
        (scan("CT"), "mri", Settings(), "E_MODALITY"),
        (scan("PT"), "mri", Settings(), "E_MODALITY"),
        (scan(shape=(1, 20, 24)), "denoise", Settings(noise=9.0), "E_TOO_FEW_SLICES"),
        (scan(), "inpaint", Settings(), "E_NOTHING_MISSING"),
        (scan(), "inpaint", Settings(missing=(12,)), "E_SETTING"),
        (scan(), "inpaint", Settings(missing=tuple(range(12))), "E_SETTING"),
        (scan(), "ct-limited", Settings(arc=180), "E_SETTING"),
        (scan(), "denoise", Settings(angles=8), "E_SETTING"),
        (scan(), "ct-sparse", Settings(factor=2, acceleration=3), "E_SETTING"),
        (scan(), "deblur", Settings(), "E_TASK"),
        (scan().derive(torch.zeros(3, 24, 20, 12)), "denoise", Settings(noise=9.0), "E_CHANNELS"),
        (scan().derive(torch.full((1, 24, 20, 12), 40.0)), "denoise", Settings(), "E_NOISE"),
    ],
)
def test_refused(volume, task, settings, expected):
    assert code(volume, task, settings) == expected


def test_refused_combinations():
    y = torch.zeros(1, 3, 1, 4, 5)
    assert code(scan(), "ct-sparse", measurement=y, simulate=True) == "E_SETTING"
    assert code(scan(), "denoise", measurement=y) == "E_SETTING"
    assert code(scan(), "ct-sparse", simulate=False) == "E_SETTING"
    assert code(scan(), "ct-sparse", Settings(noise=1.0), measurement=y) == "E_MEASUREMENT"
    assert code(scan(), "superres", Settings(factor=5), simulate=True) == "E_SETTING"
    assert code(scan(), "denoise", Settings(noise=9.0), samples=0) == "E_SETTING"
    assert code(scan(), "denoise", Settings(noise=9.0), options={"stepz": 3}) == "E_SOLVER"
    right = torch.zeros(1, 12, 1, 32, 8)
    assert code(scan(), "ct-sparse", measurement=right) in ("E_NOISE", "E_MEASUREMENT")


def test_oblong_pixels_are_no_ct():
    affine = scan().affine.copy()
    affine[:3, 0] *= 1.5
    assert code(replace(scan(), affine=affine), "ct-sparse") == "E_PIXELS"


@pytest.mark.parametrize("wrong", [{"noise": -1}, {"noise": math.nan}, {"angles": 0}, {"arc": 400}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(Refusal, match="expected"):
        Settings(**wrong)


# --- what survives


def test_more_samples_keep_the_old_ones(tmp_path):
    volume, out = scan(), tmp_path / "out.nii"
    one = run(volume, "ct-sparse", out=out)
    file = ledger.Ledger(ledger.unfinished(out)).sample(0)
    before = file.stat().st_mtime_ns
    two = run(volume, "ct-sparse", out=out, samples=2)
    assert file.stat().st_mtime_ns == before
    assert not torch.equal(one.mean.data, two.mean.data)


def test_another_request_is_refused_until_the_old_work_may_go(tmp_path):
    volume, out = scan(), tmp_path / "out.nii"
    run(volume, "ct-sparse", out=out)
    with pytest.raises(Refusal, match="another measurement, settings;") as refused:
        run(volume, "ct-sparse", Settings(angles=7), out=out)
    assert refused.value.code == "E_UNFINISHED"
    run(volume, "ct-sparse", Settings(angles=7), out=out, fresh=True)
    assert json.loads((ledger.unfinished(out) / "request.json").read_text())["settings"] == {
        "angles": 7
    }


def test_two_at_once_are_refused(tmp_path):
    out = tmp_path / "out.nii"
    with ledger.opened(out, {"seed": 1}), pytest.raises(Refusal) as refused:
        with ledger.opened(out, {"seed": 1}):
            pass
    assert refused.value.code == "E_BUSY"


def test_moments_are_those_of_all_samples_together(tmp_path):
    draw = torch.randn(5, 2, 11, 4, 3, generator=torch.Generator().manual_seed(0))
    book = ledger.Ledger(tmp_path)
    for i, x in enumerate(draw):
        book.keep(i, ledger.Drawn(x, {"status": "ok"}))
    mean, std = ledger.moments(book, 5, slab=4)
    assert torch.allclose(mean, draw.mean(0), atol=1e-6)
    assert torch.allclose(std, draw.std(0), atol=1e-6)
    assert ledger.moments(book, 1)[1] is None
    known = draw[0].abs()
    book.keep(0, ledger.Drawn(draw[0], {"status": "ok"}, known))
    assert torch.equal(ledger.moments(book, 1)[1], known)


DIE = """
import os, signal, sys
sys.path[:0] = [sys.argv[1]]
import torch
torch.set_num_threads(int(sys.argv[4]))
import volumes
import restore.checkpoint
from pathlib import Path
from medical.reconstruct import Settings, reconstruct
restore.checkpoint.EVERY = 0.0
known, calls, last = volumes.prior(), 0, int(sys.argv[3])
plain = known.forward
def forward(x, sigma, **_):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(x, sigma)
known.forward = forward
reconstruct(volumes.scan(), "ct-sparse", Settings(), prior=known, options={"steps": 10},
            samples=2, out=Path(sys.argv[2]), progress=False)
"""


def test_killed_in_the_second_sample_it_goes_on_to_the_same_bits(tmp_path):
    whole = run(scan(), "ct-sparse", samples=2)
    out = tmp_path / "out.nii"
    call = 10 * 2 + 2 * 6  # two calls of the prior a step: in step 6 of the second sample
    here, threads = str(Path(__file__).parent), str(torch.get_num_threads())
    command = [sys.executable, "-c", DIE, here, str(out), str(call), threads]
    died = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    left = sorted(path.name for path in ledger.unfinished(out).glob("*.safetensors"))
    assert left == ["checkpoint-0001.safetensors", "sample-0000.safetensors"]
    resumed = run(scan(), "ct-sparse", samples=2, out=out)
    assert torch.equal(resumed.mean.data, whole.mean.data)
    assert torch.equal(resumed.std.data, whole.std.data)


HUGE = """
import resource, sys
sys.path[:0] = [sys.argv[1]]
import torch
torch.set_num_threads(1)
import volumes
from medical.reconstruct import Settings, reconstruct
n = int(sys.argv[3])
def run(volume):
    options = {"steps": 3} if sys.argv[2] != "denoise" else {}
    settings = Settings(noise=None if sys.argv[4] == "MR" else 1.0)
    reconstruct(volume, sys.argv[2], settings, prior=volumes.prior(), simulate=True,
                options=options, samples=2, progress=False)
run(volumes.scan(sys.argv[4], (16, 16, 16)))  # imports
pages = int(open("/proc/self/statm").read().split()[1])
small = volumes.scan(sys.argv[4], (16, 16, 16))
cube = small.data[0, 0, 0].new_empty(1, n, n, n)
wave = 0.4 + 0.3 * torch.sin(torch.arange(n) * 12.6 / n)
for k in range(n):
    cube[0, k] = (wave[k] * wave[:, None] * wave).mul_(3000).sub_(1000)
if sys.argv[4] == "MR":
    cube.add_(1001)
from dataclasses import replace
run(replace(small, data=cube))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print((peak - pages * resource.getpagesize()) / (4 * n**3))
"""


# what is freed goes back to the system at once, so that what is resident is what is in use
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("task", "modality", "volumes_"),
    [
        # the scan, and eight of the solver's, measurement and result included
        ("ct-sparse", "CT", 9),
        ("superres", "CT", 9),
        # k-space is two volumes: the measurement, what of it is observed, that of the estimate,
        # and their difference; six of images; the scan
        ("mri", "MR", 15),
        # slabs of eight slices of the slow solver
        ("denoise", "CT", 9),
    ],
)
@pytest.mark.parametrize("n", [128, 192])
def test_memory_is_a_few_volumes(task, modality, volumes_, n):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", HUGE, here, task, str(n), modality]
    done = subprocess.run(
        command, env=os.environ | GIVE_BACK, capture_output=True, text=True, check=True
    )
    chunks = 6 * 32 / n if task == "mri" else 0  # of k-space, 32 slices at work
    assert float(done.stdout.split()[-1]) <= volumes_ + 0.5 + chunks
