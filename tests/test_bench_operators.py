"""The operator bench: it finds a wrong adjoint, times in turns, and counts bytes rightly."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from deepinv.physics import LinearPhysics

import operators
from restore import cli
from restore.bench import adjoints, rivals
from restore.bench import operators as bench
from restore.bench.adjoints import Adjoint
from restore.bench.operators import Task

TINY = (
    Task("CT", "ct:angles=7", (1, 16, 16), lambda s: rivals.tomography(s, 7), 1e-9),
    Task("sensing", "cs:ratio=0.25", (1, 8, 8)),
)


def test_adjoints_of_ours_and_of_deepinv():
    ct, mask = adjoints.run(["ct", "mask:keep=0.5"], sizes=4, progress=False)
    assert ct.sizes == 4
    assert ct.ok
    assert 0 < ct.worst["float64"] < 1e-15 < ct.worst["float32"] < 1e-6
    assert 0 < ct.theirs < 1e-6
    assert mask.theirs is None
    assert mask.ok
    assert json.loads(json.dumps(ct.as_dict()))["ok"]


def test_operators_of_volumes_get_as_many_sizes():
    (row,) = adjoints.run(["slices|denoise"], sizes=4, progress=False)
    assert row.sizes == 4
    assert len(row.at["float32"]) == 4


def test_a_wrong_adjoint_does_not_pass():
    shift = LinearPhysics(A=lambda x, **_: x.roll(1, -1), A_adjoint=lambda y, **_: y.roll(1, -1))
    row = adjoints.measure("shift", [((1, 8, 9), shift), ((1, 7, 5), shift)])
    assert not row.ok
    assert row.worst["float32"] > 1e-3


def test_every_linear_operator_is_measured_and_no_other():
    specs = adjoints.linear_specs()
    assert {"denoise", "blur", "mask", "downsample", "cs", "ct", "mri", "slices"} < set(specs)
    assert set(adjoints.VARIANTS) < set(specs)
    for spec in specs:
        _, physics = next(adjoints.accepted(spec, adjoints.PLANES + adjoints.VOLUMES))
        assert isinstance(physics, LinearPhysics)


@pytest.mark.parametrize("spec", ["downsample", "downsample:factor=3,filter=gaussian", "mask"])
def test_a_dozen_flat_sizes_are_accepted(spec):
    shapes = [shape for shape, _ in adjoints.accepted(spec, adjoints.PLANES)]
    assert len(shapes) >= 12
    assert any(h != w for _, h, w in shapes)
    if spec == "mask":
        assert {(h % 2, w % 2) for _, h, w in shapes} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_contestants_take_turns(monkeypatch):
    calls = []
    contest = [lambda: calls.append("a"), lambda: calls.append("b")]
    times = bench.in_turns(contest, 3)
    assert len(times) == 30  # quick ones take ten times as many
    assert calls == ["a", "b"] * 31  # the first turn does not count
    assert all(a >= 0 and b >= 0 for a, b in times)
    monkeypatch.setattr(bench, "PATIENCE", 0.0)
    assert len(bench.in_turns(contest, 3)) == 3


def test_pairs_and_their_goals():
    ct, sensing = bench.pairs(TINY, turns=3, progress=False)
    assert ct.ours > 0 < ct.theirs
    assert ct.ratio > 0
    assert ct.ok
    assert sensing.theirs is sensing.ratio is None
    assert sensing.theirs_bytes == 2 * 4 * 16 * 64
    (slow,) = bench.pairs([TINY[0]._replace(goal=1e9)], turns=1, progress=False)
    assert not slow.ok


def test_the_dense_form_of_the_task_would_take_8_gibibytes():
    tasks = [task for task in bench.TASKS if task.spec.startswith("cs")]
    assert [bench._dense_bytes(task) for task in tasks] == [8 * 2**30] * 2


def test_bytes_count_every_storage_once_wherever_it_is_kept():
    physics = LinearPhysics()
    before = bench.nbytes(physics)
    physics.register_buffer("weight", torch.zeros(100))
    physics.view = physics.weight[:10]
    physics.more = [torch.zeros(7, dtype=torch.float64), {"a": SimpleNamespace(b=torch.zeros(3))}]
    assert bench.nbytes(physics) - before == 400 + 56 + 12


def test_the_plain_matrix_has_the_bytes_of_its_entries():
    row = bench.matrix("ct:angles=7", (1, 16, 16), turns=1)
    physics = operators.parse("ct:angles=7", (1, 16, 16))
    columns = physics.A(torch.eye(256).reshape(256, 1, 16, 16))
    entries = int((columns != 0).sum())
    rays = math.prod(columns.shape[1:])
    assert 8 * entries <= row.nbytes <= 8 * (entries + 4 * rays)
    assert min(row.read, row.pair, row.build, row.hit) > 0


@pytest.mark.parametrize("form", ["--json", None])
def test_command(monkeypatch, capsys, form):
    rows = list(adjoints.run(["mask", "mri:coils=8"], sizes=2, progress=False))
    monkeypatch.setattr(adjoints, "run", lambda **_: rows)
    monkeypatch.setattr(bench, "TASKS", TINY)
    monkeypatch.setattr(bench, "CASSI_SHAPES", ((3, 8, 8),))
    monkeypatch.setattr(bench, "CT_SPEC", "ct:angles=7")
    monkeypatch.setattr(bench, "CT_SHAPE", (1, 16, 16))
    assert (
        cli.main(["bench", "operators", "--quick", "--threads", "1", *([form] if form else [])])
        == 0
    )
    out = capsys.readouterr().out
    if form:
        found = json.loads(out)
        assert found["ok"]
        assert found["threads"] == 1
        assert [row["operator"] for row in found["adjoints"]] == ["mask", "mri:coils=8"]
        assert found["pairs"][1]["theirs_bytes"] == 2 * 4 * 16 * 64
        assert found["cassi"][0]["theirs"] > 1e-3 > 1e-6 > found["cassi"][0]["ours"]
    else:
        for words in ("mri:coils=8", "sensing", "plain matrix", "3x8x8", "deepinv", "pass"):
            assert words in out


def test_a_failure_is_told_by_the_exit_code(monkeypatch, capsys):
    wrong = Adjoint("shift", 2, {"float32": 0.1, "float64": 0.1}, {}, None)
    results = bench.Results((wrong,), (), bench.Matrix(1, 1.0, 1.0, 1.0, 1.0), (), 1)
    monkeypatch.setattr(bench, "run", lambda **_: results)
    assert cli.main(["bench", "operators"]) == 1
    assert "FAIL" in capsys.readouterr().out
