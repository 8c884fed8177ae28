"""Matrices along axes: whatever their pattern, they are applied, transposed and decomposed."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.separable import Along, Separable

F64 = torch.float64


def normal(*shape, seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64).to(dtype)


def banded(rows, columns, width, seed=0):
    """Rows that read `width` columns about the diagonal, wrapping around."""
    row, column = torch.arange(rows)[:, None], torch.arange(columns)
    offset = (column - row * columns // rows) % columns
    return torch.where(offset < width, normal(rows, columns, seed=seed), 0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(0, 70), st.integers(-3, -1), st.integers(0)
)
def test_a_matrix_along_an_axis_is_a_sum_over_that_axis(rows, columns, width, axis, seed):
    matrix = banded(rows, columns, width, seed % 1000)
    shape = [2, 3, 2, 3]
    shape[axis] = columns
    x = normal(*shape, seed=1)
    expected = torch.tensordot(matrix, x, dims=([1], [4 + axis])).movedim(0, axis)
    along = Along(matrix)
    torch.testing.assert_close(along(x, axis), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(along.T.matrix, matrix.T)


@pytest.mark.parametrize(("rows", "columns", "width"), [(128, 512, 16), (500, 512, 13)])
def test_narrow_bands_are_applied_in_blocks_and_full_matrices_whole(rows, columns, width):
    count, b, w = Along(banded(rows, columns, width))._values.master.shape
    assert count * b * w < rows * columns / 6
    assert Along(normal(rows, columns))._values.master.shape == (1, rows, columns)


def test_values_that_are_not_finite_stay_where_they_are_read():
    x = torch.zeros(1, 1, 300, 300, dtype=F64)
    x[..., 0, 0] = torch.nan
    along = Along(torch.eye(300, dtype=F64).roll(1, 0))
    y = along(along(x, -2), -1)
    assert y[..., 100:, 100:].isfinite().all()


@pytest.mark.parametrize("sizes", [((5, 8), (9, 9)), ((3, 4), (6, 5), (2, 7))])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_svd_is_that_of_the_dense_matrix(sizes, dtype):
    matrices = [normal(*size, seed=i) for i, size in enumerate(sizes)]
    physics = Separable([Along(m) for m in matrices]).to(dtype)
    dense = matrices[0]
    for matrix in matrices[1:]:
        dense = torch.kron(dense, matrix)
    s = physics.svd().s
    assert s.dtype == dtype
    tol = 1e-5 if dtype == torch.float32 else 1e-11
    found, expected = s.flatten().sort(descending=True)[0], torch.linalg.svdvals(dense)
    torch.testing.assert_close(found.double(), expected[: len(found)], rtol=0, atol=tol)
    assert expected[len(found) :].abs().max() < 1e-11 if len(found) < len(expected) else True
    x = normal(2, 3, *[n for _, n in sizes], dtype=dtype)
    y = (x.double().flatten(2) @ dense.T).reshape(2, 3, *[m for m, _ in sizes])
    torch.testing.assert_close(physics.A(x).double(), y, rtol=0, atol=100 * tol)


def test_images_of_another_size_are_refused():
    physics = Separable([Along(normal(3, 4)), Along(normal(5, 6))])
    with pytest.raises(ValueError, match=r"images have shape \(1, 1, 4, 5\), expected \(B, C, 4"):
        physics.A(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"measurements have shape \(1, 3, 5\)"):
        physics.A_adjoint(torch.zeros(1, 3, 5))


def test_an_operator_used_without_gradients_is_differentiable_later():
    physics = Separable([Along(banded(64, 256, 16)), Along(normal(5, 6))])
    with torch.inference_mode():
        physics.A(torch.zeros(1, 1, 256, 6))
        physics.svd().Vt(torch.zeros(1, 1, 256, 6))
    x = torch.ones(1, 1, 256, 6, requires_grad=True)
    (physics.A(x).square().sum() + physics.svd().Vt(x).square().sum()).backward()
    assert x.grad.isfinite().all()
    assert torch.equal(copy.deepcopy(physics).A(x), physics.A(x))
