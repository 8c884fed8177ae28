"""The operator doctor finds what is wrong, says so, and only that."""

import importlib
import json
import re

import pytest
import torch
from deepinv.physics import Blur, LinearPhysics, Physics

import operators
from operators.repaired import Repaired
from operators.svd import SVD, Decomposed
from restore import cli


def failed(physics, shape=(1, 9, 8)):
    return {row.name for row in operators.check(physics, shape).rows if not row.ok}


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("denoise", (3, 7, 9)),
        ("blur:sigma=0.7", (3, 9, 8)),
        ("blur:boundary=valid,sigma=0.5", (1, 12, 11)),
        ("mask:keep=0.3", (3, 9, 8)),
        ("downsample:factor=2", (3, 14, 12)),
        ("cs", (1, 9, 8)),
        ("cs:kind=dense", (1, 9, 8)),
        ("ct:angles=6", (1, 9, 9)),
        ("mri", (2, 9, 16)),
        ("mri:coils=3", (2, 9, 16)),
        ("decolorise", (3, 9, 8)),
    ],
)
def test_our_operators_are_healthy(spec, shape):
    report = operators.check(operators.parse(spec, shape, noise=0.1), shape)
    assert report.ok, str(report)


def test_wrong_adjoint_is_found():
    flip = LinearPhysics(A=lambda x, **_: x.roll(1, -1), A_adjoint=lambda y, **_: y.roll(1, -1))
    assert failed(flip) >= {"adjoint", "gradient"}
    assert "linearity" not in failed(flip)


def test_affine_map_is_found():
    shifted = LinearPhysics(A=lambda x, **_: x + 1, A_adjoint=lambda y, **_: y)
    assert "linearity" in failed(shifted)


def test_change_of_the_input_is_found():
    class InPlace(Physics):
        def A(self, x, **kwargs):
            return x.mul_(2)

    assert "input unchanged" in failed(InPlace())


def test_coupled_batch_is_found():
    coupled = LinearPhysics(
        A=lambda x, **_: x - x.mean(0, keepdim=True),
        A_adjoint=lambda y, **_: y - y.mean(0, keepdim=True),
    )
    assert failed(coupled) == {"batch independence"}


def test_randomness_is_found():
    generator = torch.Generator().manual_seed(0)

    class Restless(Physics):
        def A(self, x, **kwargs):
            return x * torch.rand((), generator=generator)

    assert "determinism" in failed(Restless())


def test_lost_precision_is_found():
    rounded = LinearPhysics(
        A=lambda x, **_: x.float().to(x), A_adjoint=lambda y, **_: y.float().to(y)
    )
    rows = operators.check(rounded, (1, 9, 8)).rows
    assert {row.precision for row in rows if not row.ok} == {"float64"}
    narrow = LinearPhysics(A=lambda x, **_: x.float(), A_adjoint=lambda y, **_: y.float())
    assert "precision kept" in failed(narrow)


def test_crash_becomes_a_row():
    def crash(x, **_):
        raise RuntimeError("no detector\nat all")

    report = operators.check(LinearPhysics(A=crash, A_adjoint=crash), (1, 9, 8))
    assert [(row.name, row.ok) for row in report.rows] == [("measures", False)] * 2
    assert all(row.note == "RuntimeError: no detector" for row in report.rows)


def test_nonlinear_operator_gets_the_rows_that_apply():
    class Square(Physics):
        def A(self, x, **kwargs):
            return x**2

    report = operators.check(Square(), (1, 9, 8))
    assert report.ok, str(report)
    assert {"linearity", "adjoint", "norm"}.isdisjoint(row.name for row in report.rows)


def test_wrong_gradient_of_a_nonlinear_operator_is_found():
    class Half(Physics):
        def A(self, x, **kwargs):
            return x**2 - (x.detach() ** 2 - x**2)

    assert failed(Half()) == {"gradient"}


def test_stacked_physics_only_stays_where_it_is():
    first, second = operators.denoise((1, 9, 8)), operators.mask((1, 9, 8), keep=0.5)
    # deepinv keeps the parts in a plain list, which `.to` does not reach
    assert failed(first.stack(second)) == {"device"}


def test_report_reads_well_and_leaves_the_operator_alone():
    physics = operators.mri((2, 8, 16), coils=2)
    report = operators.check(physics, (2, 8, 16))
    lines = str(report).splitlines()
    assert lines[0] == f"{type(physics).__name__} on 2x8x16: all pass"
    assert len(lines) == 1 + len(report.rows)
    assert all(line.startswith("pass") for line in lines[1:])
    assert physics.coil_maps.dtype == torch.complex64


def test_same_seed_same_report():
    physics = Blur(filter=torch.full((1, 1, 3, 3), 1 / 9), padding="circular")
    assert operators.check(physics, (1, 9, 8)) == operators.check(physics, (1, 9, 8))


class Scaled(Decomposed, LinearPhysics):
    """`A x = w x` in any number of dimensions, with what a test wants to break."""

    weight: torch.Tensor

    def __init__(self, shape, *, dagger_tolerance=1e-4, **broken):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", 0.5 + torch.rand(shape, generator=generator).double())
        self.broken, self.dagger_tolerance = broken, dagger_tolerance

    def A(self, x, **_):
        return self.weight * x

    def A_adjoint(self, y, **_):
        return self.weight * y

    def svd(self):
        parts = {"s": self.weight, **dict.fromkeys(("Vt", "V", "U", "Ut"), lambda c: c)}
        return SVD(**{**parts, **self.broken})


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 4, 5, 6)])
def test_a_decomposition_passes_on_planes_and_volumes(shape):
    report = operators.check(Scaled(shape), shape)
    assert report.ok, str(report)
    limits = {r.precision: r.limit for r in report.rows if r.name == "pseudo-inverse"}
    assert limits == {"float32": 1e-4, "float64": 1e-9}


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ({"V": lambda c: 1.001 * c}, {"svd: V"}),
        ({"U": lambda c: c.flip(-1), "Ut": lambda y: y.flip(-1)}, {"svd: A"}),
        ({"U": lambda c: 2 * c}, {"svd: A", "svd: U"}),
        ({"s": -torch.ones(())}, {"svd: A"}),
    ],
)
def test_a_wrong_decomposition_is_found(broken, found):
    assert {n for n in failed(Scaled((1, 9, 8), **broken)) if n.startswith("svd")} == found


def test_a_wrong_proximal_map_and_a_wrong_inverse_are_found():
    class Careless(Scaled):
        def prox_l2(self, z, y, gamma, **_):
            return z + 0.1 * (y - z)

        def A_dagger(self, y, **_):
            return self.A_adjoint(y)

    assert failed(Careless((1, 9, 8))) == {"prox", "pseudo-inverse"}
    assert failed(Careless((1, 9, 8), dagger_tolerance=None)) == {"prox"}
    report = operators.check(Careless((1, 9, 8), dagger_tolerance=2.0), (1, 9, 8))
    assert {row.name for row in report.rows if not row.ok} == {"prox"}


def test_tensors_that_stay_behind_are_found():
    class Left(Scaled):
        def __init__(self, shape):
            super().__init__(shape)
            self.gain = torch.rand(8).double()

        def A(self, x, **_):
            return super().A(x) * self.gain.to(x.dtype)

        def A_adjoint(self, y, **_):
            return super().A_adjoint(y * self.gain.to(y.dtype))

    assert "device" in failed(Left((1, 9, 8)))
    assert "device" not in failed(Scaled((1, 9, 8)))


def test_a_declared_surrogate_is_reported_not_judged():
    class Clip(Physics):
        def A(self, x, **kwargs):
            return x.clamp(0.3, 0.6).detach() + x - x.detach()

    assert failed(Clip()) == {"gradient"}
    Clip.surrogate = "straight through"
    rows = operators.check(Clip(), (1, 9, 8)).rows
    assert all(row.ok for row in rows)
    assert [row.note for row in rows if row.limit is None] == ["surrogate: straight through"] * 2


def test_an_inverse_that_did_not_converge_is_told():
    class Stiff(Repaired):
        weight: torch.Tensor

        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.logspace(-9, 0, 72).reshape(1, 9, 8))

        def A(self, x, **_):
            return self.weight * x

        A_adjoint = A

        def A_dagger(self, y, **_):
            return super().A_dagger(y, tol=1e-12, max_iter=2)

    rows = operators.check(Stiff(), (1, 9, 8)).rows
    assert any("did not reach the tolerance" in r.warning for r in rows)
    assert {row.name for row in rows if row.warning} <= {"pseudo-inverse", "prox"}


# many sizes


def test_sweep_takes_the_channels_that_are_accepted_and_lists_refusals():
    sweep = operators.sweep(lambda shape: operators.parse("decolorise", shape), seed=1)
    assert {trial.image_shape[0] for trial in sweep.trials} == {3}
    sweep = operators.sweep(lambda shape: operators.parse("downsample:factor=4", shape))
    refused = [t for t in sweep.trials if t.refusal]
    assert any("which 4 does not divide" in t.refusal for t in refused)
    assert all(t.report is None and t.ok for t in refused)
    assert sweep.ok
    assert sweep.refusal == ""


def test_sweep_finds_what_only_odd_sizes_show():
    def make(shape):
        middle = shape[-1] // 2  # the classic: right only when halves are equal
        return LinearPhysics(
            A=lambda x, **_: x.roll(middle, -1), A_adjoint=lambda y, **_: y.roll(middle, -1)
        )

    sweep = operators.sweep(make)
    assert not sweep.ok
    assert {t.image_shape[-1] % 2 for t in sweep.trials if not t.ok} == {1}
    assert {t.image_shape[-1] % 2 for t in sweep.trials if t.ok} == {0}


def test_sweep_of_crashes_and_of_refusals_alone():
    def crash(shape):
        return {}[shape]

    sweep = operators.sweep(crash, [(1, 4, 4)])
    assert not sweep.ok
    assert "KeyError" in str(sweep)
    sweep = operators.sweep(lambda shape: operators.parse("ct:angles=0", shape))
    assert not sweep.ok
    assert "angles" in sweep.refusal
    with pytest.raises(TypeError, match="of type int, expected a deepinv Physics"):
        operators.sweep(lambda _: 3, [(1, 4, 4)])


EVERY = pytest.mark.parametrize("spec", sorted(operators.available()))


def healthy(spec):
    sweep = operators.sweep(lambda shape: operators.parse(spec, shape))
    assert sweep.ok, "\n".join(str(t) for t in sweep.trials if not t.ok) or sweep.refusal
    assert all(t.refusal.endswith(".") for t in sweep.trials if t.refusal)


@EVERY
def test_every_operator_is_healthy(spec, monkeypatch):
    module = importlib.import_module("operators.doctor.sweep")
    monkeypatch.setattr(module, "PLANES", ((24, 40), (31, 33)))
    monkeypatch.setattr(module, "VOLUMES", ((12, 12, 12),))
    healthy(spec)


@pytest.mark.slow
@EVERY
def test_every_operator_is_healthy_at_every_size(spec):
    healthy(spec)


# the command

MINE = """
import torch
from deepinv.physics import LinearPhysics

def good(image_shape):
    return LinearPhysics(A=lambda x, **_: 2 * x, A_adjoint=lambda y, **_: 2 * y)

def bad(image_shape):
    if image_shape[-1] % 2:
        raise ValueError("an odd number of columns.")
    return LinearPhysics(A=lambda x, **_: x.roll(1, -1), A_adjoint=lambda y, **_: y.roll(1, -1))

def crash(image_shape):
    return {}["key"]

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_for_check.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    return tmp_path


@pytest.mark.parametrize("target", ["mine_for_check.py:good", "mine_for_check:good"])
def test_command_on_a_users_function(here, capsys, target):
    assert cli.main(["check", target]) == 0
    out = capsys.readouterr().out
    assert "3x32x32" in out
    assert f"{target}: 11 sizes, all good." in out


def test_command_on_a_faulty_function(here, capsys):
    assert cli.main(["check", "mine_for_check.py:bad"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"FAIL adjoint at 8 of 8 sizes, worst at \S+ in float\d\d: \S+, allowed", out)
    assert "refused 1x31x31, 1x23x41, 1x17x19x21: an odd number of columns." in out
    assert cli.main(["check", "mine_for_check.py:crash"]) == 1
    assert "KeyError" in capsys.readouterr().out


def test_command_on_one_size_shows_every_number(here, capsys):
    assert cli.main(["check", "mask:keep=0.5", "--shape", "1x6x7"]) == 0
    out = capsys.readouterr().out
    assert "on 1x6x7" in out
    assert out.count("pass") == len(operators.check(operators.mask((1, 6, 7)), (1, 6, 7)).rows) / 2
    assert cli.main(["check", "denoise", "--shape", "1x4x6x7", "--json"]) == 0
    (size,) = json.loads(capsys.readouterr().out)["sizes"]
    assert size["image_shape"] == [1, 4, 6, 7]
    assert {"adjoint", "svd: V"} < {row["name"] for row in size["rows"]}
    assert cli.main(["check", "mask", "--verbose"]) == 0
    assert capsys.readouterr().out.count("what the number is") >= 8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["blurr:sigma=2"], "did you mean 'blur'"),
        (["blur:sigma=50"], "none of 11 sizes was accepted"),
        (["mask:file=none.png"], "'none.png' is not a file"),
        (["mine_for_check.py:goood"], "did you mean 'good'"),
        (["mine_for_check.py:number"], "no function 'number'"),
        (["mine_for_check.py"], "give file.py:function"),
        (["none.py:good"], "'none.py' is not a file"),
        (["broken.py:good"], "cannot be imported: ModuleNotFoundError"),
        (["no.such.module:good"], "cannot be imported: ModuleNotFoundError"),
        (["denoise", "--shape", "4x4"], "expected CxHxW"),
        (["cs", "--shape", "1x4x4x4x4"], "expected CxHxW"),
        (["cassi", "--shape", "3x4x8x8"], "slices:axis=0|cassi"),
    ],
)
def test_command_refuses_in_one_sentence(here, capsys, words, told):
    assert cli.main(["check", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"restore: [^\n]+\n", err), err
    assert told in err
