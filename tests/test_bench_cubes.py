"""The table of cubes: its metrics, its classical methods, its rows."""

import math

import pytest
import torch

import operators
from restore.bench import cubes
from restore.bench.cube_rivals import best_of_each, truncated
from restore.metrics import band_psnr, spectral_angle
from restore.solvers.fasthyde import FastHyDe
from restore.solvers.vs2m import FitVS2M


def scene(side=16):
    """Two materials in eight bands."""
    i = torch.linspace(0, 1, side)
    share = (0.5 + 0.5 * torch.cos(6 * i[:, None] + 3 * i))[None]
    spectra = torch.rand((2, 8), generator=torch.Generator().manual_seed(1))
    one, other = (spectrum[:, None, None] for spectrum in spectra)
    return (one * share + other * (1 - share))[None]


def test_metrics_of_cubes():
    x = torch.full((1, 2, 3, 4), 0.5)
    off = x.clone()
    off[:, 1] += 0.1
    assert band_psnr(off, x)[0, 1] == pytest.approx(20, abs=1e-4)
    assert band_psnr(off, x)[0, 0] == math.inf
    assert float(spectral_angle(3 * x, x)) == pytest.approx(0, abs=1e-4)  # brightness is no colour
    right = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 4)
    assert float(spectral_angle(right, right.flip(1))) == pytest.approx(90, abs=1e-4)
    with pytest.raises(ValueError, match="cannot compare"):
        spectral_angle(x, x[:, :1])


def test_a_cube_of_two_materials_has_rank_two():
    x = scene()
    errors = [float((cube - x).abs().max()) for _, cube in truncated(x)]
    assert errors[0] > 0.05 > 1e-5 > max(errors[1:])


@pytest.mark.parametrize("task", cubes.TASKS)
def test_classical_methods_are_better_than_doing_nothing(task):
    x = scene()
    spec, sigma = cubes.TASKS[task]
    operator = operators.parse(spec, tuple(x.shape[1:]), noise=sigma)
    y = operators.measure(operator, x, seed=1)
    before = float(band_psnr(operator.A_dagger(y), x).mean())
    found = dict(best_of_each(y, operator, x))
    assert len(found) == (3 if task == "denoise" else 4)
    for cube in found.values():
        assert cube.shape == x.shape
        assert cube.isfinite().all()
        assert float(band_psnr(cube, x).mean()) > before


def test_rows_of_the_table():
    solver = FitVS2M(steps=3, rank=2, map_channels=(4,), hidden=(8,))
    *_, row = cubes.run([solver], scene(), tasks=["denoise"], seeds=2, progress=False)
    assert (row.task, row.seeds) == ("denoise", 2)
    assert row.method == "vs2m, rank [2]"
    assert row.spread > 0
    assert row.oracle >= row.psnr


def test_solvers_with_a_prior_are_judged_by_the_mean_of_their_samples():
    """And one that only takes noise off has no row where entries are missing."""
    both = [FastHyDe(rank=2), FitVS2M(steps=2, rank=2, map_channels=(4,), hidden=(8,))]
    rows = list(cubes.run(both, scene(), tasks=["denoise", "complete"], seeds=2, progress=False))
    named = {(row.task, row.method.partition(",")[0]): row for row in rows}
    assert ("complete", "fasthyde") not in named
    assert named["denoise", "fasthyde"].spread == 0
    assert named["denoise", "fasthyde"].psnr > named["denoise", "measurement"].psnr


@pytest.mark.slow
def test_a_real_scene():
    """The figures that the method is held to; minutes."""
    pytest.importorskip("tensorly")
    from restore.solvers.dds2m import DDS2M

    sizes = {"map_channels": (8, 16, 32), "hidden": (64, 128)}
    solver = DDS2M(rank=8, **sizes)  # type: ignore[arg-type]
    noisy, svd, tv, _, row = cubes.run([solver], cubes.indian_pines(32), tasks=["denoise"], seeds=1)
    assert row.psnr > max(svd.psnr + 0.5, tv.psnr + 1)
    assert row.oracle - row.psnr < 0.5
    assert row.sam < 0.65 * noisy.sam
