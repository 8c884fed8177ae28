"""Total variation: the minimum that others find too, and a certificate that does not flatter."""

import deepinv
import numpy as np
import pytest
import torch
from toys import F64

import operators
from restore.metrics import psnr
from restore.total_variation import Gradient, sweep, total_variation

WEIGHT = 3e-3


def noisy_steps(shape=(1, 1, 32, 1, 1)):
    """A profile of three levels and noise of std 0.2."""
    profile = torch.cat([torch.zeros(10), torch.ones(8), 0.4 * torch.ones(14)]).to(F64)
    noise = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=F64)
    return (profile + 0.2 * noise).reshape(shape)


def noise(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def scan(noise=0.01):
    """A box and a rod in 4 slices of 16x16 pixels, seen from 6 directions."""
    truth = torch.zeros((1, 1, 4, 16, 16), dtype=F64)
    truth[:, :, 1:, 4:12, 5:11] = 0.5
    truth[..., 7:9, 7:9] = 1.0
    operator = operators.slices((1, 4, 16, 16), operator="ct:angles=6", noise=noise).to(F64)
    return truth, operator, operators.measure(operator, truth, seed=1)


def objective(x, y, operator, lam):
    """`P(x)` by hand, isotropic, spacing 1."""
    squares = torch.zeros_like(x)
    for axis in (2, 3, 4):
        n = x.shape[axis]
        squares.narrow(axis, 0, n - 1).add_(x.diff(dim=axis).square())
    return float((operator.A(x) - y).square().sum() / 2 + lam * squares.sqrt().sum())


def test_the_adjoint_of_the_gradient():
    G = Gradient((0.5, 2.0, 1.0), "isotropic")
    x, p = noise((2, 1, 4, 3, 5)), noise((3, 2, 1, 4, 3, 5), seed=1)
    torch.testing.assert_close((G(x) * p).sum(), (x * G.adjoint(p)).sum(), rtol=1e-12, atol=0)


def test_every_penalty_finds_the_minimum_and_the_duality_gap_closes():
    """`|y|^2 / 2 - |y - G^T p|^2 / 2` is a lower bound that owes nothing to our certificate."""
    y = noisy_steps()
    operator = operators.denoise(tuple(y.shape[1:]))
    found = []
    for rho in (0.1, 1.0, 10.0):
        at = total_variation(y, operator, 0.2, rho_rel=rho, tol=1e-10, max_iter=1000)
        assert bool((at.p.abs() <= 0.2 + 1e-12).all())
        left = y - Gradient((1.0, 1.0, 1.0), "isotropic").adjoint(at.p)
        below = float(y.square().sum() - left.square().sum()) / 2
        assert 0 <= at.objective - below + 1e-12 < 1e-8, rho
        found.append(at.objective)
    assert max(found) - min(found) < 1e-8


def test_anisotropic_denoising_is_the_box_constrained_dual():
    """`x = y - G^T p`, `p` the bounded least squares fit that scipy solves by an active set."""
    from scipy.optimize import lsq_linear

    y, spacing, lam = noise((1, 1, 3, 4, 3)), (2.0, 1.0, 0.5), 0.1
    G = Gradient(spacing, "anisotropic")
    unit = torch.eye(36, dtype=F64).reshape(36, 1, 3, 4, 3)
    matrix = torch.stack([G(e[None]).flatten() for e in unit], 1)  # (3 * 36, 36)
    used = matrix.abs().sum(1) > 0
    fit = lsq_linear(matrix[used].T.numpy(), y.flatten().numpy(), (-lam, lam), tol=1e-14)
    expected = y.flatten().numpy() - matrix[used].T.numpy() @ fit.x
    found = total_variation(
        y, operators.denoise((1, 3, 4, 3)), lam, kind="anisotropic", spacing=spacing, tol=1e-10
    )
    # strong convexity: |x - x*|^2 / 2 is at most the error of the objective
    slack = (2 * 1e-10 * found.objective) ** 0.5
    assert np.abs(found.x.flatten().numpy() - expected).max() <= slack + 1e-7


def test_isotropic_denoising_is_deepinvs():
    y = noise((1, 1, 3, 6, 7))
    other = deepinv.models.TVDenoiser(crit=0, n_it_max=2000, tau=0.1)(y, 0.15)
    found = total_variation(y, operators.denoise((1, 3, 6, 7)), 0.15, tol=1e-8)
    slack = (2 * 1e-8 * found.objective) ** 0.5
    torch.testing.assert_close(found.x, other, rtol=0, atol=slack + 1e-6)


@pytest.fixture(scope="module")
def tight():
    """The minimum of the scan, as near as 0.02 %."""
    _, operator, y = scan()
    return total_variation(y, operator, WEIGHT, tol=2e-4)


def test_tomography_converges_from_any_penalty(tight):
    _, operator, y = scan()
    assert tight.gap <= 2e-4
    # the operator's norm is 1, so that weight and lambda are the same
    assert objective(tight.x, y, operator, WEIGHT) == pytest.approx(tight.objective, rel=1e-6)
    for rho in (0.03, 30.0):
        other = total_variation(y, operator, WEIGHT, rho_rel=rho)
        assert abs(other.objective - tight.objective) <= 1e-3 * other.objective
    # no image nearby is better than the certificate admits
    for seed in range(5):
        other = tight.x + 1e-2 * (noise(tight.x.shape, seed) - 0.5)
        assert objective(other, y, operator, WEIGHT) >= tight.objective * (1 - 2e-4)


def test_the_gap_bounds_the_error_of_an_early_stop(tight):
    _, operator, y = scan()
    for iterations in (1, 3, 10, 30):
        early = total_variation(y, operator, WEIGHT, tol=0, max_iter=iterations)
        excess = early.objective - tight.objective
        assert 1e-3 * early.objective < excess <= early.gap * early.objective


def test_stopping_early_is_said(caplog):
    _, operator, y = scan()
    assert total_variation(y, operator, WEIGHT, max_iter=2).gap > 1e-2
    assert "has not converged in 2 iterations" in caplog.text


def test_a_minimum_starts_another_run(tight):
    _, operator, y = scan()
    near = total_variation(y, operator, 1.1 * WEIGHT, start=tight, tol=1e-2)
    assert near.iterations < total_variation(y, operator, 1.1 * WEIGHT, tol=1e-2).iterations


def test_twice_the_spacing_is_half_the_weight():
    _, operator, y = scan()
    one = total_variation(y, operator, WEIGHT, max_iter=20)
    two = total_variation(
        y, operator, 2 * WEIGHT, spacing=(2.0, 2.0, 2.0), rho_rel=4.0, max_iter=20
    )
    torch.testing.assert_close(two.x, one.x, rtol=0, atol=1e-9)


def test_far_slices_are_less_alike():
    _, operator, y = scan()
    jumps = []
    for apart in (0.1, 10.0):
        found = total_variation(y, operator, WEIGHT, spacing=(apart, 1.0, 1.0), tol=1e-2)
        jumps.append(float(found.x.diff(dim=2).abs().sum()))
    assert 1.2 * jumps[0] < jumps[1]


def test_the_best_weight_beats_filtered_back_projection_by_far():
    """A few views of something piecewise constant: what total variation was made for."""
    truth, operator, y = scan()
    minima = list(sweep(y, operator, (1e-1, 1e-2, 1e-3), tol=1e-2))
    assert [m.weight for m in minima] == [1e-1, 1e-2, 1e-3]
    scores = [float(psnr(m.x, truth)) for m in minima]
    assert max(scores) > float(psnr(operator.A_dagger(y), truth)) + 6  # an error halved


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": 0.0}, "weight > 0"),
        ({"rho_rel": -1.0}, "rho_rel > 0"),
        ({"max_iter": 0}, "max_iter"),
        ({"spacing": (1.0, 1.0)}, "each of 3 axes"),
        ({"spacing": (0.0, 1.0, 1.0)}, "above 0"),
        ({"kind": "isotropc"}, "isotropic"),
    ],
)
def test_impossible_numbers_are_refused(options, words):
    _, operator, y = scan()
    with pytest.raises(ValueError, match=words):
        total_variation(y, operator, **{"weight": 0.1, **options})


def test_two_measurements_are_refused():
    y = noise((2, 1, 4, 4))
    with pytest.raises(ValueError, match="found 2 measurements"):
        total_variation(y, operators.denoise((1, 4, 4)), 0.1)
