"""PSNR and SSIM against their definitions; the classical baselines that they choose between."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import operators
from restore import baselines
from restore.metrics import psnr, ssim


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(error=st.floats(1e-3, 0.5), batch=st.integers(1, 3), channels=st.sampled_from([1, 3]))
def test_psnr_of_a_known_error(error, batch, channels):
    truth = torch.full((batch, channels, 5, 6), 0.5, dtype=torch.float64)
    expected = -20 * torch.log10(torch.tensor(error, dtype=torch.float64))
    assert torch.allclose(psnr(truth + error, truth), expected.expand(batch))


def test_clipping_is_what_a_viewer_sees():
    truth = torch.ones(1, 1, 12, 12)
    assert psnr(truth + 1, truth).item() == float("inf")
    assert psnr(truth + 1, truth, clip=False).item() == pytest.approx(0)


def test_each_image_has_its_own_number():
    truth = images(2, 3, 16, 20)
    x = truth + 0.1 * torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    for metric in (psnr, ssim):
        both = metric(x, truth)
        alone = torch.cat([metric(x[:1], truth[:1]), metric(x[1:], truth[1:])])
        assert torch.equal(both, alone)
    assert torch.equal(psnr(x, truth[:1]), psnr(x, truth[:1].expand_as(x)))


def test_ssim_against_its_definition_in_one_window():
    x, y = images(1, 1, 11, 11), images(1, 1, 11, 11, seed=1)
    d = torch.arange(11, dtype=torch.float64) - 5
    g = torch.exp(-(d**2) / (2 * 1.5**2))
    w = torch.outer(g, g) / g.sum() ** 2
    a, b = x[0, 0], y[0, 0]
    ma, mb = (w * a).sum(), (w * b).sum()
    va, vb = (w * a * a).sum() - ma**2, (w * b * b).sum() - mb**2
    vab = (w * a * b).sum() - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    assert ssim(x, y).item() == pytest.approx(expected.item(), abs=1e-9)
    assert ssim(x, x).item() == pytest.approx(1)


def test_refusals():
    with pytest.raises(ValueError, match="of one size"):
        psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.zeros(1, 1, 10, 20), torch.zeros(1, 1, 10, 20))


SPECS = ["blur:sigma=1.5", "mask:keep=0.3", "downsample:factor=4", "denoise"]


@pytest.mark.parametrize("spec", SPECS)
def test_the_best_baseline_is_sound(spec):
    u = torch.linspace(0, 9, 48)
    board = (torch.sin(u)[:, None] * torch.cos(u) > 0.1).float()
    truth = 0.2 + 0.6 * board.expand(1, 3, 48, 48)
    operator = operators.parse(spec, (3, 48, 48), noise=0.05)
    y = operators.measure(operator, truth, seed=0)
    found, again = (baselines.best(y, operator, truth) for _ in range(2))
    assert torch.equal(found.image, again.image)  # scikit-image's unsharp_mask was not repeatable
    assert found.psnr == pytest.approx(psnr(found.image, truth).item())
    shown = torch.nn.functional.interpolate(y, size=(48, 48), mode="bicubic")
    assert found.psnr > psnr(shown, truth).item()


def test_no_baseline_for_other_operators():
    operator = operators.parse("ct:angles=5", (1, 16, 16))
    truth = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match="no classical baseline"):
        baselines.best(operator.A(truth), operator, truth)
