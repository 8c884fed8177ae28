"""Compressed sensing: orthonormal rows at every size, in little memory."""

import math

import pytest
import torch

import operators
from operators.compressed_sensing import GroupSensing

F64 = torch.float64
SHAPES = [(1, 8, 8), (2, 9, 13), (1, 17, 6), (1, 3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["structured", "block", "scrambled"])
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-6), (F64, 1e-12)])
def test_rows_are_orthonormal(kind, shape, dtype, tol):
    physics = operators.compressed_sensing(shape, kind=kind, block=4, ratio=0.3).to(dtype)
    m = physics.A(torch.zeros(1, *shape, dtype=dtype)).shape[-1]
    unit = torch.eye(m, dtype=dtype)[:, None].expand(m, shape[0], m)
    gram = physics.A(physics.A_adjoint(unit))
    assert float((gram - unit).abs().max()) < tol


@pytest.mark.parametrize("kind", ["structured", "block", "scrambled", "dense"])
def test_projection_is_idempotent_and_consistent(kind):
    physics = operators.compressed_sensing((1, 10, 9), kind=kind, block=4).to(F64)
    x = torch.rand(2, 1, 10, 9, dtype=F64)
    y = physics.A(x)
    once = x - physics.A_dagger(physics.A(x) - y) - physics.A_dagger(y)
    torch.testing.assert_close(physics.A(once), torch.zeros_like(y), rtol=0, atol=1e-10)


def test_blocks_are_tiles_through_one_matrix():
    physics = operators.compressed_sensing((1, 8, 12), kind="block", block=4, ratio=0.5).to(F64)
    assert isinstance(physics, GroupSensing)
    assert len(physics._matrices) == 1
    x = torch.rand(1, 1, 8, 12, dtype=F64)
    y = physics.A(x).unflatten(-1, (6, 8))
    tiles = x[0, 0].unfold(0, 4, 4).unfold(1, 4, 4).reshape(6, 16)
    torch.testing.assert_close(y[0, 0], tiles @ physics._matrices[0].master.T)
    # a change inside one tile changes the measurements of that tile only
    x[..., 5, 6] += 1
    changed = (physics.A(x).unflatten(-1, (6, 8)) - y).abs().sum(-1)[0, 0]
    assert changed.nonzero().flatten().tolist() == [4]


def test_scrambling_is_a_permutation_that_spreads_every_tile():
    physics = operators.compressed_sensing((1, 16, 16), kind="scrambled", block=8, ratio=1.0)
    x = torch.rand(1, 1, 16, 16, dtype=F64)
    torch.testing.assert_close(physics.A_adjoint(physics.A(x)), x)
    x = torch.zeros(1, 1, 16, 16, dtype=F64)
    x[..., :4, :4] = 1
    groups = physics.A(x).unflatten(-1, (4, 64)).square().sum(-1)[0, 0]
    assert bool((groups > 0).all())
    assert float(groups.sum()) == pytest.approx(16)
    other = operators.compressed_sensing((1, 16, 16), kind="scrambled", block=8, seed=1)
    assert not torch.equal(other.A(x), physics.A(x)[..., : other.A(x).shape[-1]])


@pytest.mark.parametrize(("ratio", "block"), [(0.25, 32), (0.1, 32), (0.3, 10)])
def test_measurements_are_rounded_up_a_group(ratio, block):
    physics = operators.compressed_sensing((1, 64, 64), kind="block", block=block, ratio=ratio)
    tiles = [
        (min(block, 64 - i), min(block, 64 - j))
        for i in range(0, 64, block)
        for j in range(0, 64, block)
    ]
    expected = sum(math.ceil(ratio * a * b) for a, b in tiles)
    assert physics.A(torch.zeros(1, 1, 64, 64)).shape == (1, 1, expected)


@pytest.mark.parametrize("kind", ["structured", "block", "scrambled"])
def test_a_large_image_needs_little_memory(kind):
    """A dense matrix for 256 x 256 at 25 % would take 4 GiB, and its pseudo-inverse as much."""
    physics = operators.compressed_sensing((1, 256, 256), kind=kind)
    held = sum(b.numel() * b.element_size() for b in physics.buffers())
    if isinstance(physics, GroupSensing):
        parts = [*physics._groups, *physics._matrices, physics._back]
        held += sum(p.master.numel() * p.master.element_size() for p in parts)
    assert held <= 64 * 2**20
    y = physics.A(torch.rand(1, 1, 256, 256))
    assert y.numel() == 16384
    with pytest.raises(ValueError, match="16384x65536 matrix needs 4294967296 bytes, more than"):
        operators.compressed_sensing((1, 256, 256), kind="dense")


def test_refusals():
    with pytest.raises(ValueError, match="did you mean 'scrambled'"):
        operators.compressed_sensing((1, 8, 8), kind="scramble")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="block is 0"):
        operators.compressed_sensing((1, 8, 8), kind="block", block=0)
    with pytest.raises(ValueError, match="more than memory_budget=1000"):
        operators.compressed_sensing((1, 64, 64), kind="block", memory_budget=1000)
