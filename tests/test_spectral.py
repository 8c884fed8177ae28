"""Spectral operators against sums written out, and CASSI where deepinv's is wrong."""

import deepinv
import numpy as np
import pytest
import torch

import operators

F64 = torch.float64


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mismatch(physics, shape):
    u = rand(1, *shape) - 0.5
    y = physics.A(u)
    v = rand(*y.shape, seed=1) - 0.5
    gap = (y * v).sum() - (u * physics.A_adjoint(v)).sum()
    return float(gap.abs() / (y.norm() * v.norm()))


def test_response_curves_cover_the_bands():
    physics = operators.response((31, 4, 5), channels=3)
    curves = physics.matrix.master
    torch.testing.assert_close(curves.sum(1), torch.ones(3, dtype=F64))
    assert curves.argmax(1).tolist() == [5, 15, 25]
    x = rand(2, 31, 4, 5)
    torch.testing.assert_close(physics.A(x), torch.einsum("kb,nbhw->nkhw", curves, x))
    flat = torch.full((1, 31, 4, 5), 0.4, dtype=F64)
    torch.testing.assert_close(physics.A(flat), torch.full((1, 3, 4, 5), 0.4, dtype=F64))


def test_response_from_a_file(tmp_path):
    curves = np.random.default_rng(0).random((2, 6))
    np.save(tmp_path / "srf.npy", curves)
    physics = operators.parse(f"response:file={tmp_path / 'srf.npy'}", (6, 3, 3)).to(F64)
    x = rand(1, 6, 3, 3)
    expected = torch.einsum("kb,nbhw->nkhw", torch.from_numpy(curves), x)
    torch.testing.assert_close(physics.A(x), expected)
    with pytest.raises(ValueError, match="for 6 bands but the image has 7"):
        operators.response((7, 3, 3), file=tmp_path / "srf.npy")
    with pytest.raises(ValueError, match="channels is 9"):
        operators.response((7, 3, 3), channels=9)


def test_decolorise_is_luma():
    x = rand(2, 3, 4, 5)
    grey = operators.decolorise((3, 4, 5)).A(x)
    expected = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(grey, expected, rtol=0, atol=1e-7)


def test_fusion_is_its_two_cameras():
    shape = (8, 16, 20)
    physics = operators.fusion(shape, factor=4, channels=2).to(F64)
    x = rand(2, *shape)
    small, sharp = physics.split(physics.A(x))
    expected = operators.downsample(shape, factor=4, filter="gaussian").to(F64).A(x)
    torch.testing.assert_close(small, expected)
    torch.testing.assert_close(sharp, operators.response(shape, channels=2).A(x))
    assert mismatch(physics, shape) < 1e-12


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("size", [(7, 9), (8, 8), (5, 12)])
def test_cassi_is_code_shift_and_sum(step, size):
    bands = 4
    physics = operators.cassi((bands, *size), step=step).to(F64)
    x = rand(2, bands, *size)
    expected = torch.zeros(2, 1, size[0], size[1] + step * (bands - 1), dtype=F64)
    for b in range(bands):
        for i in range(size[0]):
            for j in range(size[1]):
                expected[:, 0, i, j + step * b] += physics.code[i, j] * x[:, b, i, j]
    torch.testing.assert_close(physics.A(x), expected)
    assert mismatch(physics, (bands, *size)) < 1e-12


def test_cassi_of_one_band_is_the_code():
    physics = operators.cassi((1, 4, 5)).to(F64)
    x = rand(1, 1, 4, 5)
    torch.testing.assert_close(physics.A(x), physics.code * x)
    torch.testing.assert_close(physics.A_adjoint(x), physics.code * x)


def test_cassi_is_right_where_deepinv_is_not():
    shape = (4, 16, 16)
    assert mismatch(operators.cassi(shape).to(F64), shape) < 1e-12
    theirs = deepinv.physics.CompressiveSpectralImaging(shape, mode="sd").to(F64)
    if mismatch(theirs, shape) < 1e-9:
        pytest.skip("deepinv has mended its adjoint")


def test_refusals():
    with pytest.raises(ValueError, match="step is 0"):
        operators.cassi((4, 8, 8), step=0)
    with pytest.raises(ValueError, match="3 does not divide"):
        operators.fusion((4, 8, 8), factor=3)
