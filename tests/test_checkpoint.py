"""A run that is killed at any time goes on to the same result, bit by bit."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import operators
import restore
from priors import Gaussian
from restore import checkpoint
from restore.solvers.dds import DDS
from restore.solvers.diffpir import DiffPIR

F64 = torch.float64
SHAPE = (1, 4, 6, 6)
PRIOR = Gaussian.power_law((1, 6, 6))


def slices(spec, noise):
    return operators.parse(f"slices|{spec}", SHAPE, noise=noise).to(F64)


OPERATOR = slices("mask:keep=0.5", 0.1)
FLAT = operators.parse("mask:keep=0.5", SHAPE[:1] + SHAPE[2:], noise=0.1).to(F64)
TRUTH = PRIOR.sample(4, torch.Generator().manual_seed(1)).transpose(0, 1)[None]
Y = operators.measure(OPERATOR, TRUTH, seed=2)
KEEPS, FORGETS = DDS(steps=6), DiffPIR(steps=6)


class Killed(BaseException):
    """Nobody catches it, as nobody catches a signal."""


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


def problem(solver):
    return (Y, OPERATOR, PRIOR) if solver is KEEPS else (Y[:, 0], FLAT, PRIOR)


def solve(solver, path=None, killed_after=None, seen=None, **options):
    """Five samples in chunks of two; killed in the callback of some step."""
    steps = 0

    def callback(step):
        nonlocal steps
        steps += 1
        if seen is not None:
            seen.append(step.index)
        if steps == killed_after:
            raise Killed

    options = {"samples": 5, "batch_size": 2, "seed": 3} | options
    return restore.solve(
        *problem(solver), solver, checkpoint=path, callback=callback, progress=False, **options
    )


@pytest.mark.parametrize("solver", [KEEPS, FORGETS], ids=lambda s: s.name)
@pytest.mark.parametrize("killed_after", [1, 2, 6, 7, 11, 18])
def test_killed_once(solver, killed_after, tmp_path):
    whole, path = solve(solver), tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        solve(solver, path, killed_after)
    again = solve(solver, path)
    assert torch.equal(again.samples, whole.samples)
    assert torch.equal(again.misfit, whole.misfit)
    assert (again.cost.forwards, again.notes) == (whole.cost.forwards, whole.notes)
    assert list(tmp_path.iterdir()) == []  # it is gone with the run


def test_killed_again_and_again(tmp_path):
    path, kills = tmp_path / "run.safetensors", 0
    while True:
        try:
            result = solve(KEEPS, path, killed_after=2)
            break
        except Killed:
            kills += 1
    assert torch.equal(result.samples, solve(KEEPS).samples)
    assert kills >= 3 * 6 - 2  # a step is not done twice, but for the one that the kill hit


def test_steps_that_are_done_are_not_done_again(tmp_path):
    path, seen = tmp_path / "run.safetensors", []
    with pytest.raises(Killed):
        solve(KEEPS, path, killed_after=9)  # in the third step of the second chunk
    solve(KEEPS, path, seen=seen)
    assert seen == [2, 3, 4, 5, *range(6)]
    with pytest.raises(Killed):
        solve(FORGETS, path, killed_after=9)
    seen.clear()
    solve(FORGETS, path, seen=seen)
    assert seen == [*range(6), *range(6)]  # the chunk at work begins anew


def test_what_is_read_lies_as_what_was_computed(tmp_path, monkeypatch):
    path, read = tmp_path / "run.safetensors", []
    with pytest.raises(Killed):
        solve(KEEPS, path, killed_after=9)
    unpacked = checkpoint._unpacked

    def watch(tensors, about):
        read.extend(tensors.values())
        return unpacked(tensors, about)

    monkeypatch.setattr(checkpoint, "_unpacked", watch)
    solve(KEEPS, path)
    assert len(read) >= 3  # sums of the same numbers differ where their addresses do
    assert all(tensor.data_ptr() % 64 == 0 for tensor in read)


def test_killed_while_it_writes(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        solve(KEEPS, path, killed_after=8)
    before = path.read_bytes()
    with monkeypatch.context() as patch:

        def killed(*_):
            raise Killed

        patch.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            solve(KEEPS, path)
    assert path.read_bytes() == before
    assert torch.equal(solve(KEEPS, path).samples, solve(KEEPS).samples)
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_now_and_then_only(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 3600.0)
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        solve(KEEPS, path, killed_after=9)
    assert not path.exists()


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"seed": 4}, "seed"),
        ({"samples": 4}, "number of samples"),
        ({"batch_size": 1}, "number of samples"),
        ({"solver": replace(KEEPS, eta=0.5)}, "solver"),
        ({"y": Y + 1e-9}, "measurement"),
        ({"operator": slices("mask:keep=0.5,seed=1", 0.1)}, "operator"),
        ({"operator": slices("mask:keep=0.5", 0.2)}, "operator"),
        ({"prior": Gaussian.power_law((1, 6, 6), std=0.2)}, "prior"),
        ({"init": torch.zeros(1, *SHAPE, dtype=F64)}, "start"),
    ],
)
def test_another_request_is_refused(other, word, tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        solve(KEEPS, path, killed_after=3)
    kept = path.read_bytes()
    asked = {"y": Y, "operator": OPERATOR, "prior": PRIOR, "solver": KEEPS}
    options = {"samples": 5, "batch_size": 2, "seed": 3, "checkpoint": path}
    with pytest.raises(ValueError, match=rf"belongs to another request \(different .*{word}") as e:
        restore.solve(**(asked | options | other))
    assert "\n" not in str(e.value)
    assert path.read_bytes() == kept


def test_a_file_of_the_users_is_neither_read_nor_overwritten(tmp_path):
    path = tmp_path / "result.safetensors"
    solve(KEEPS).save(path)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="is not a checkpoint of a run"):
        solve(KEEPS, path)
    assert path.read_bytes() == kept
    text = tmp_path / "notes.txt"
    text.write_text("precious")
    with pytest.raises(ValueError, match="is not a checkpoint of a run"):
        solve(KEEPS, text)
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        solve(KEEPS, tmp_path / "nowhere" / "run.safetensors")


SCRIPT = """
import os, signal, sys
sys.path[:0] = {paths!r}
import test_checkpoint as t
t.checkpoint.EVERY = 0.0
left = {killed_after}

def callback(step):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

t.restore.solve(*t.problem(t.KEEPS), t.KEEPS, samples=5, batch_size=2, seed=3,
                checkpoint={path!r}, callback=callback)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [3, 10])
def test_killed_by_a_signal(killed_after, tmp_path):
    path = tmp_path / "run.safetensors"
    here = os.path.dirname(os.path.abspath(__file__))
    script = SCRIPT.format(
        paths=[here, os.path.dirname(here)], killed_after=killed_after, path=str(path)
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert torch.equal(solve(KEEPS, path).samples, solve(KEEPS).samples)
