"""The operator doctor finds what is wrong, says so, and only that."""

import pytest
import torch
from deepinv.physics import Blur, LinearPhysics, Physics

import operators


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
    assert not report.ok
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


def test_stacked_physics():
    first, second = operators.denoise((1, 9, 8)), operators.mask((1, 9, 8), keep=0.5)
    assert operators.check(first.stack(second), (1, 9, 8)).ok


def test_report_reads_well_and_leaves_the_operator_alone():
    physics = operators.mri((2, 8, 16), coils=2)
    report = operators.check(physics, (2, 8, 16))
    lines = str(report).splitlines()
    assert lines[0] == "ManyCoils on 2x8x16: all pass"
    assert len(lines) == 1 + len(report.rows)
    assert all(line.startswith("pass") for line in lines[1:])
    assert physics.coil_maps.dtype == torch.complex64


def test_same_seed_same_report():
    physics = Blur(filter=torch.full((1, 1, 3, 3), 1 / 9), padding="circular")
    assert operators.check(physics, (1, 9, 8)) == operators.check(physics, (1, 9, 8))
