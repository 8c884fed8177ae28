"""PET: blur, attenuation and counts around the line integrals of CT."""

import math

import numpy as np
import pytest
import torch

import operators
from operators.pet import gaussian_matrix


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def plain(**options):
    """Without blur, attenuation or normalisation unless given."""
    neutral = {"fwhm": 0, "mu": 0, "normalise": False, "angles": 12}
    return operators.pet((1, 20, 26), **{**neutral, **options}).double()


def test_without_blur_and_attenuation_it_is_ct():
    x = normal(2, 1, 20, 26)
    ct = operators.ct((1, 20, 26), angles=12, pixel=2.0, normalise=False).double()
    torch.testing.assert_close(plain().A(x), ct.A(x))


def test_attenuation_is_the_same_for_every_source_along_a_ray():
    x = normal(1, 1, 20, 26).abs()
    body = torch.rand(20, 26, generator=torch.Generator().manual_seed(1))
    depth = 0.0096 * plain().A(body[None, None].double())
    found = plain(mu=0.0096, attenuation=body).A(x)
    torch.testing.assert_close(found, plain().A(x) * torch.exp(-depth), rtol=1e-5, atol=1e-5)


def test_the_default_body_is_an_ellipse_of_water():
    x = torch.ones(1, 1, 20, 26).double()
    share = plain(mu=0.0096).A(x) / plain().A(x).clamp(min=1e-9)
    bins = share.shape[2]
    # the rays through the centre, along the columns: 90 % of 20 pixels of 2 mm
    assert float(share[0, 0, bins // 2, 0]) == pytest.approx(math.exp(-0.0096 * 36), rel=0.02)


@pytest.mark.parametrize("fwhm", [3.0, 5.5])
def test_blur_has_its_width_and_loses_nothing_inside(fwhm):
    matrix = gaussian_matrix(61, fwhm)
    torch.testing.assert_close(matrix, matrix.T)
    response = matrix[30]
    assert float(response.sum()) == pytest.approx(1, abs=1e-12)
    place = torch.arange(61) - 30
    width = math.sqrt(8 * math.log(2) * float((response * place**2).sum()))
    assert width == pytest.approx(fwhm, rel=5e-3)
    assert torch.equal(gaussian_matrix(4, 0), torch.eye(4).double())


def test_blur_is_in_millimetres():
    point = torch.zeros(1, 1, 20, 26).double()
    point[..., 9, 12] = 1
    blurred = plain(fwhm=6.0).A(point)
    spread = gaussian_matrix(20, 3.0)[9][:, None] * gaussian_matrix(26, 3.0)[12]
    torch.testing.assert_close(blurred, plain().A(spread[None, None]), rtol=1e-5, atol=1e-6)


def test_norm_is_one():
    report = operators.check(operators.pet((1, 18, 18), angles=10), (1, 18, 18))
    assert report.ok, str(report)
    norms = [row.value for row in report.rows if row.name == "norm"]
    assert norms == pytest.approx([1, 1], abs=2e-3)


def test_counts_are_poisson():
    physics = operators.pet((1, 16, 16), angles=30, counts=50.0)
    x = torch.ones(8, 1, 16, 16)
    clean, y = physics.A(x), operators.measure(physics, x, seed=2)
    counted = 50 * y
    torch.testing.assert_close(counted, counted.round(), atol=1e-3, rtol=0)
    seen = clean > 0.1
    whitened = (counted - 50 * clean)[seen] / (50 * clean[seen]).sqrt()
    assert float(whitened.mean()) == pytest.approx(0, abs=5 / math.sqrt(whitened.numel()))
    assert float(whitened.square().mean()) == pytest.approx(1, abs=0.1)


def test_map_from_a_file(tmp_path):
    body = np.zeros((20, 26))
    body[4:15, 6:20] = 1
    np.save(tmp_path / "map.npy", body)
    x = normal(1, 1, 20, 26)
    spec = f"pet:angles=12,attenuation={tmp_path / 'map.npy'}"
    found = operators.parse(spec, (1, 20, 26)).double().A(x)
    given = operators.pet((1, 20, 26), angles=12, attenuation=torch.from_numpy(body)).double().A(x)
    assert torch.equal(found, given)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fwhm": -1}, "fwhm is -1"),
        ({"mu": -1}, "mu is -1"),
        ({"counts": 0}, "counts is 0"),
        ({"counts": 5, "noise": 0.1}, "give one"),
        ({"attenuation": torch.ones(3, 3)}, r"expected \(20, 26\)"),
        ({"attenuation": -torch.ones(20, 26)}, "values of at least 0"),
        ({"angles": [0, 180]}, "see the same rays"),
    ],
)
def test_impossible_scanners_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        operators.pet((1, 20, 26), **options)
