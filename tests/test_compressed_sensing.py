"""Compressed sensing: orthonormal rows at every size, in little memory."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators
from operators.groups import GroupSensing, chunks, orthonormal_rows, tiles

F64 = torch.float64
SHAPES = [(1, 8, 8), (2, 9, 13), (1, 17, 6), (1, 3, 4, 5)]
GROUPED = ["block", "scrambled"]


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def sense(shape, **options):
    return operators.compressed_sensing(shape, **options).to(F64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, *[{"kind": k, "block": 4} for k in GROUPED]])
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-6), (F64, 1e-12)])
def test_rows_are_orthonormal(options, shape, dtype, tol):
    physics = operators.compressed_sensing(shape, ratio=0.3, **options).to(dtype)
    size = physics.A(torch.zeros(1, *shape, dtype=dtype)).shape[2:]
    m = math.prod(size)
    unit = torch.eye(m, dtype=dtype).reshape(m, 1, *size).expand(m, shape[0], *size)
    gram = physics.A(physics.A_adjoint(unit))
    assert float((gram - unit).abs().max()) < tol


@pytest.mark.parametrize("kind", ["structured", "block", "scrambled", "dense"])
def test_projection_onto_the_measurement_is_idempotent(kind):
    physics = sense((1, 10, 9), kind=kind)
    truth, x = rand(2, 1, 10, 9), rand(2, 1, 10, 9, seed=1)
    y = physics.A(truth)
    once = x - physics.A_dagger(physics.A(x) - y)
    torch.testing.assert_close(physics.A(once), y, rtol=0, atol=1e-10)
    twice = once - physics.A_dagger(physics.A(once) - y)
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-10)
    # nearest to x: what it moved lies in the rows of A
    assert abs(float(((once - x) * (once - truth)).sum())) < 1e-10


@settings(max_examples=30, deadline=None)
@given(
    size=st.lists(st.integers(1, 9), min_size=1, max_size=3), side=st.integers(1, 6), data=st.data()
)
def test_groups_hold_every_pixel_once_and_differ_little(size, side, data):
    n = math.prod(size)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    for groups, most in ((tiles(size, side), side ** len(size)), (chunks(order, side), side)):
        pixels = torch.cat([g.pixels.flatten() for g in groups])
        numbers = torch.cat([g.numbers for g in groups])
        assert pixels.sort().values.tolist() == list(range(n))
        assert numbers.sort().values.tolist() == list(range(len(numbers)))
        assert all(g.pixels.shape == (len(g.numbers), len(g.columns)) for g in groups)
        assert max(g.pixels.shape[1] for g in groups) == groups[0].pixels.shape[1] <= most
    lengths = [g.pixels.shape[1] for g in chunks(order, side)]
    assert max(lengths) - min(lengths) <= 1


def test_blocks_are_tiles_through_one_matrix():
    physics = sense((1, 8, 12), kind="block", block=4, ratio=0.5)
    tile = torch.eye(16, dtype=F64).reshape(16, 1, 4, 4)
    phi = sense((1, 4, 4), kind="block", block=4, ratio=0.5).A(tile)[:, 0, 0].T
    torch.testing.assert_close(phi @ phi.T, torch.eye(8, dtype=F64))
    x = rand(1, 1, 8, 12)
    # in reading order
    blocks = x[0, 0].unfold(0, 4, 4).unfold(1, 4, 4).reshape(6, 16)
    torch.testing.assert_close(physics.A(x)[0, 0], blocks @ phi.T)


def test_smaller_blocks_are_padded_ones_made_orthonormal():
    """Tiles of 3 x 3 and fewer pixels of a 5 x 5 image."""
    physics = sense((1, 5, 5), kind="block", block=3, ratio=0.4)
    assert isinstance(physics, GroupSensing)
    phi = sense((1, 3, 3), kind="block", block=3, ratio=0.4)
    full = phi.A(torch.eye(9, dtype=F64).reshape(9, 1, 3, 3))[:, 0, 0].T
    x = rand(1, 1, 5, 5)
    corner = orthonormal_rows(full.reshape(-1, 3, 3)[:, :2, :2].flatten(1))
    expected = corner @ x[0, 0, 3:, 3:].flatten()
    torch.testing.assert_close(physics.A(x)[0, 0, -1], expected)


def test_scrambling_is_a_permutation_that_spreads_every_tile():
    physics = sense((1, 16, 16), kind="scrambled", block=8, ratio=1.0)
    x = rand(1, 1, 16, 16)
    torch.testing.assert_close(physics.A_adjoint(physics.A(x)), x)
    corner = torch.zeros(1, 1, 16, 16, dtype=F64)
    corner[..., :8, :8] = 1
    energy = physics.A(corner).square().sum(-1)[0, 0]
    assert energy.shape == (4,)
    assert bool((energy > 0).all())
    assert float(energy.sum()) == pytest.approx(64)
    other = sense((1, 16, 16), kind="scrambled", block=8, ratio=1.0, seed=1)
    assert not torch.equal(other.A(x), physics.A(x))


def test_structured_columns_are_incoherent():
    columns = sense((1, 16, 16)).A(torch.eye(256, dtype=F64).reshape(-1, 1, 16, 16))
    unit = torch.nn.functional.normalize(columns[:, 0], dim=1)
    coherence = (unit @ unit.T).fill_diagonal_(0).abs().max()
    # 64 random numbers give about sqrt(2 log(256^2 / 2) / 64) = 0.57; one layer gives 0.99
    assert coherence < 0.7


def test_dense_matrix_is_decomposed_once():
    physics = sense((1, 6, 7), kind="dense")
    y = physics.A(rand(1, 1, 6, 7))
    first = physics.A_dagger(y)
    # the same decomposition answers although the matrix has gone
    physics.matrix.zero_()
    assert torch.equal(physics.A_dagger(y), first)
    assert physics.svd().s.dtype == F64
    assert operators.compressed_sensing((1, 6, 7), kind="dense").svd().s.dtype == torch.float32


@pytest.mark.parametrize("kind", GROUPED)
@pytest.mark.parametrize(("ratio", "q"), [(0.25, 256), (0.1, 103)])
def test_measurements_are_rounded_up_in_every_group(kind, ratio, q):
    physics = operators.compressed_sensing((1, 64, 96), kind=kind, ratio=ratio)
    assert physics.A(torch.zeros(2, 1, 64, 96)).shape == (2, 1, 6, q)


@pytest.mark.parametrize("kind", ["structured", "block", "scrambled"])
def test_a_large_image_needs_little_memory(kind):
    """A dense matrix for 256 x 256 at 25 % would take 4 GiB, and its pseudo-inverse as much."""
    physics = operators.compressed_sensing((1, 256, 256), kind=kind)
    assert physics.A(torch.rand(1, 1, 256, 256)).numel() == 16384
    held = [b for b in physics.buffers()]
    if isinstance(physics, GroupSensing):
        kept = [*physics._pixels, *physics._numbers, *physics._phi, physics._order, physics._back]
        held += [t for c in kept for t in (c.master, *c._casts.values())]
    assert 0 < sum(t.numel() * t.element_size() for t in held) <= 64 * 2**20
    with pytest.raises(ValueError, match="16384x65536 matrix with its decomposition needs 171798"):
        operators.compressed_sensing((1, 256, 256), kind="dense")


def test_dense_matrix_is_refused_above_its_budget_in_bytes():
    need = 16 * 64 * 256
    options = {"kind": "dense", "ratio": 0.25}
    operators.compressed_sensing((3, 16, 16), **options, memory_budget=need)
    with pytest.raises(ValueError, match=f"needs {need} bytes"):
        operators.compressed_sensing((3, 16, 16), **options, memory_budget=need - 1)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 8, 8), {"kind": "scramble"}, "did you mean 'scrambled'"),
        ((1, 8, 8), {"kind": "block", "block": 0}, "block is 0, expected"),
        ((1, 8, 8), {"block": 8}, "kind=structured has no blocks"),
        ((1, 8, 8), {"ratio": 1.1}, "ratio is 1.1, expected"),
        ((1, 64, 64), {"kind": "block", "memory_budget": 1000}, "more than memory_budget=1000"),
        (
            (1, 9, 9),
            {"kind": "block", "block": 8, "ratio": 1.0},
            "25 measurements of every group but the smallest has 16 pixels; lower it to 0.64",
        ),
    ],
)
def test_refusals(shape, options, message):
    with pytest.raises(ValueError, match=message):
        operators.compressed_sensing(shape, **options)


def test_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected \(B, C, 8, 8\)"):
        operators.compressed_sensing((1, 8, 8), kind="block").A(torch.zeros(1, 1, 9, 9))
