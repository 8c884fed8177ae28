"""The bench of volumes: what its scores measure, and that it runs."""

import io
import json
import math
from itertools import islice

import pytest
import torch
from rich.console import Console
from toys import F64

import operators
from priors import Gaussian
from restore.bench import volumes as bench
from restore.bench.planes import body, score
from restore.sirt import sirt
from restore.solvers.dds import DDS
from restore.solvers.diffusion_mbir import DiffusionMBIR


def ellipsoid(depth=12, side=16):
    """A body that brightens along D, with a bright rod, in air."""
    axes = [torch.linspace(-1, 1, n, dtype=F64) for n in (depth, side, side)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    truth = (0.5 + 0.05 * z) * ((z / 1.2) ** 2 + (y / 0.9) ** 2 + (x / 0.7) ** 2 < 1)
    truth[(y.abs() < 0.3) & (x.abs() < 0.2)] += 0.3
    return truth.to(F64)[None, None]


def noise(like, seed=0):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_air_does_not_raise_the_scores():
    truth = 0.1 + 0.8 * torch.rand(1, 1, 12, 16, 16, generator=torch.Generator().manual_seed(1))
    truth = truth.double()
    x = truth + 0.05 * noise(truth)
    padded = torch.nn.functional.pad(truth, (8, 8, 8, 8))
    wide = torch.nn.functional.pad(x, (8, 8, 8, 8))
    tight, loose = score(x, truth), score(wide, padded)
    # air widens the range of a slice from 0.8 to 0.9, which is 1.0 dB, and nothing else
    assert 0.5 < loose.psnr[0] - tight.psnr[0] < 1.1
    assert loose.jump == pytest.approx(tight.jump)
    everywhere = score(wide, padded, torch.ones(padded.shape[2:], dtype=torch.bool))
    assert everywhere.psnr[0] > loose.psnr[0] + 5  # four times as many voxels, without error


def test_the_body_encloses_its_holes():
    truth = ellipsoid()
    hollow = truth.clone()
    hollow[..., 7:9, 7:9] = 0
    assert torch.equal(body(hollow), body(truth))
    assert not bool(body(truth)[:, 0].any())


def test_planes_are_told_apart():
    """An error that alternates along D is seen across D alone by the structure of slices."""
    truth = ellipsoid(16)
    stripes = truth + 0.05 * (-1.0) ** torch.arange(16)[:, None, None]
    found = score(stripes.clamp(0, 1), truth)
    assert found.ssim[0] > found.ssim[1] + 0.02
    assert found.ssim[0] > found.ssim[2] + 0.02
    assert found.jump == pytest.approx(0.1)
    assert found.roughness > 1


def test_scores_of_one_slice_by_hand():
    truth, x = ellipsoid(), ellipsoid() + 0.1
    inside = body(truth)
    found = score(x, truth)
    widths = truth[0, 0].flatten(1).amax(1)
    area = inside.flatten(1).sum(1)
    kept = area >= 0.25 * area.max()
    expected = (20 * torch.log10(widths[kept] / 0.1)).mean()
    assert found.psnr[0] == pytest.approx(float(expected), abs=1e-6)
    assert found.jump == pytest.approx(0.0, abs=1e-12)
    assert found.roughness == pytest.approx(1.0)


def test_small_planes_have_no_ssim():
    truth = ellipsoid(5)
    found = score(truth + 0.01, truth)
    assert not math.isnan(found.ssim[0])
    assert math.isnan(found.ssim[1])
    assert math.isnan(found.ssim[2])


def test_sirt_comes_to_least_squares():
    operator = operators.ct((1, 8, 8), angles=12).to(F64)
    truth = ellipsoid(8, 8)[:, :, 4]
    y = operator.A(truth)
    *_, x = sirt(y, operator, 300)
    residuals = [float((operator.A(x) - y).norm()) for x in islice(sirt(y, operator, 50), 50)]
    # the step is a descent in the norm of R, and that of 12 views of 64 pixels has a solution
    assert residuals[-1] < 0.05 * residuals[0]
    torch.testing.assert_close(x, truth, rtol=0, atol=0.05)


def test_sirt_leaves_what_no_ray_meets():
    operator = operators.ct((1, 8, 8), angles=1, detectors=4).to(F64)
    (x,) = sirt(operator.A(torch.ones(1, 1, 8, 8, dtype=F64)), operator, 1)
    unseen = operator.A_adjoint(operator.A(torch.ones_like(x))) == 0
    assert bool(unseen.any())
    assert bool((x[unseen] == 0).all())
    assert bool(torch.isfinite(x).all())


def test_sirt_refuses_negative_weights():
    operator = operators.compressed_sensing((1, 8, 8), ratio=0.5)
    with pytest.raises(ValueError, match="negative weights"):
        next(sirt(operator.A(torch.ones(1, 1, 8, 8)), operator, 1))


def test_every_method_gives_a_row():
    scan = bench.measure(ellipsoid().float(), "ct:angles=6", noise=0.01, spacing=1.5)
    rows = list(
        bench.run(
            scan,
            Gaussian.power_law((1, 16, 16), mean=0.2, std=0.25),
            dds=DDS(steps=10),
            mbir=DiffusionMBIR(steps=20),
            weights=(1e-2, 1e-3),
            tol=1e-2,
        )
    )
    assert [row.method for row in rows] == list(bench.METHODS)
    found = {row.method: row for row in rows}
    assert found["dds"].calls == 10
    assert found["diffusion-mbir"].calls == 39
    assert found["FBP"].calls == 0
    # a few views of something piecewise constant, which total variation knows
    assert found["total variation"].scores.psnr[0] > found["FBP"].scores.psnr[0] + 3
    assert "chosen on the truth" in found["total variation"].setting
    assert json.loads(json.dumps([row.as_dict() for row in rows]))[0]["method"] == "FBP"
    text = io.StringIO()
    Console(width=220, file=text).print(bench.table(rows))
    assert "PSNR sag." in text.getvalue()
    assert all(method in text.getvalue() for method in bench.METHODS)


@pytest.mark.parametrize(
    ("spec", "limited"),
    [("ct:angles=12,span=90", True), ("ct:angles=12", False), ("mask:keep=0.5", False)],
)
def test_dds_of_a_limited_arc_fits_to_the_end(spec, limited):
    scan = bench.measure(ellipsoid(4).float(), spec, noise=0.01)
    assert scan.limited == limited
    prior = Gaussian.power_law((1, 16, 16), mean=0.2, std=0.25)
    (row,) = bench.run(scan, prior, methods=["dds"])
    assert row.setting.startswith(f"50 steps of {50 if limited else 5},")


def test_other_operators_have_no_sirt():
    scan = bench.measure(ellipsoid(), "mask:keep=0.5", noise=0.01)
    prior = Gaussian.power_law((1, 16, 16))
    rows = list(bench.run(scan, prior, methods=["FBP", "SIRT"]))
    assert [(row.method, row.setting) for row in rows] == [("FBP", "pseudo-inverse")]


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda x: x[0], "expected"), (lambda x: 300 * x, r"expected \[0, 1\]")],
)
def test_bad_volumes_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        bench.measure(change(ellipsoid()), "ct:angles=6", noise=0.01)


def test_unknown_methods_are_refused():
    scan = bench.measure(ellipsoid(), "ct:angles=6", noise=0.01)
    with pytest.raises(ValueError, match="SIRT"):
        list(bench.run(scan, Gaussian.power_law((1, 16, 16)), methods=["SIRTT"]))
