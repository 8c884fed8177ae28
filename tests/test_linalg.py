"""Batched linear solves against dense algebra, and each image alone against the same in a batch."""

import pytest
import torch
from deepinv.physics import LinearPhysics
from hypothesis import given, settings
from hypothesis import strategies as st

import operators
from operators.linalg import (
    conjugate_gradient,
    conjugate_residual,
    dot,
    proximal,
)

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def positive(batch, n, seed=0, floor=0.1):
    root = random(batch, n, n, seed=seed)
    return root @ root.mT / n + floor * torch.eye(n, dtype=F64)


def product(K):
    """Multiply every row `(B, n)` by its own matrix."""
    return lambda v: (K @ v[..., None])[..., 0]


def with_image(K, G=None):
    """The product, and a linear byproduct: an image `(B, 1, 2, n)` made by `G`."""
    G = random(len(K), 2 * K.shape[-1], K.shape[-1], seed=99) if G is None else G
    return lambda v: (product(K)(v), product(G)(v).reshape(len(v), 1, 2, -1))


def test_dot_is_an_inner_product_per_image():
    a, b = random(3, 2, 4, 5, seed=1), random(3, 2, 4, 5, seed=2)
    expected = torch.einsum("bchw,bchw->b", a, b)
    assert dot(a, b).shape == (3, 1, 1, 1)
    torch.testing.assert_close(dot(a, b).flatten(), expected)


# -- conjugate gradients -----------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 20), seed=st.integers(0, 10**6), start=st.booleans())
def test_conjugate_gradient_solves(n, seed, start):
    K, b = positive(3, n, seed), random(3, n, seed=seed + 1)
    x0 = random(3, n, seed=seed + 2) if start else None
    x = conjugate_gradient(product(K), b, x0=x0, tol=1e-12, max_iter=10 * n + 10)
    torch.testing.assert_close(x, torch.linalg.solve(K, b), rtol=1e-8, atol=1e-8)


def test_conjugate_gradient_ends_after_as_many_steps_as_distinct_eigenvalues():
    basis = torch.linalg.qr(random(12, 12))[0]
    K = basis @ torch.diag(torch.tensor([1.0, 4.0, 9.0] * 4, dtype=F64)) @ basis.T
    b = random(1, 12, seed=1)
    exact = torch.linalg.solve(K[None], b)
    errors = [
        (conjugate_gradient(product(K[None]), b, tol=0, max_iter=k) - exact).norm() for k in (2, 3)
    ]
    assert errors[0] > 1e-3
    assert errors[1] < 1e-12


def test_conjugate_gradient_meets_its_tolerance():
    K, b = positive(5, 30), random(5, 30, seed=1)
    for tol in (1e-1, 1e-4):
        residual = b - product(K)(conjugate_gradient(product(K), b, tol=tol))
        assert bool((residual.norm(dim=1) <= 1.01 * tol * b.norm(dim=1)).all())


@pytest.mark.parametrize("start", [False, True])
def test_conjugate_gradient_ignores_neighbours(start):
    """One easy, one hard, one zero and one huge image: each as if it were alone."""
    K, b = positive(4, 15), random(4, 15, seed=1)
    K[0], b[2], b[3] = torch.eye(15), 0, 1e6 * b[3]
    x0 = random(4, 15, seed=2) if start else None
    together = conjugate_gradient(product(K), b, x0=x0, tol=1e-3)
    for i in range(4):
        one = slice(i, i + 1)
        alone = conjugate_gradient(
            product(K[one]), b[one], x0=None if x0 is None else x0[one], tol=1e-3
        )
        torch.testing.assert_close(together[one], alone, rtol=1e-12, atol=1e-12)


def test_a_finished_image_is_frozen_and_asks_no_more_products():
    K, b = positive(2, 40, floor=1e-3), random(2, 40, seed=1)
    K[0] = torch.eye(40) + 1e-10 * K[0]  # done after one step, with something left over
    seen = []

    def matvec(v):
        seen.append(v.clone())
        return product(K)(v)

    x = conjugate_gradient(matvec, b, tol=1e-8)
    torch.testing.assert_close(x[0], b[0], rtol=0, atol=1e-8)
    assert len(seen) > 10
    assert all(not v[0].any() for v in seen[1:])


def test_exact_start_and_zero_right_side_need_no_product():
    def never(v):
        raise AssertionError("a product was asked for")

    assert not conjugate_gradient(never, torch.zeros(2, 3, dtype=F64)).any()
    K, x = positive(2, 6), random(2, 6, seed=1)
    calls = []

    def matvec(v):
        calls.append(v)
        return product(K)(v)

    torch.testing.assert_close(conjugate_gradient(matvec, product(K)(x), x0=x), x, rtol=0, atol=0)
    assert len(calls) == 1  # the residual of the start


# -- conjugate residuals -----------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 10), seed=st.integers(0, 10**6), preconditioned=st.booleans())
def test_conjugate_residual_equals_the_direct_solve_after_m_steps(m, seed, preconditioned):
    K, b = positive(3, m, seed, floor=0.3), random(3, m, seed=seed + 1)
    M = positive(3, m, seed + 2, floor=0.5)
    found = conjugate_residual(
        with_image(K),
        b,
        precondition=(lambda v: torch.linalg.solve(M, v)) if preconditioned else None,
        tol=1e-12,
        max_iter=m,
    )
    torch.testing.assert_close(found.x, torch.linalg.solve(K, b), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("max_step", [float("inf"), 3.0, 0.3])
def test_preconditioned_residual_never_grows(max_step):
    """Fifty random matrices, not symmetric and mostly indefinite; the norm is that of `M^-1`."""
    K = random(50, 12, 12) + 1.5 * torch.eye(12, dtype=F64)
    b, M = random(50, 12, seed=1), positive(50, 12, seed=2)
    assert bool((torch.linalg.eigvalsh(K + K.mT)[:, 0] < 0).any())

    def norm(z):  # z = M^-1 r
        return dot(z, product(M)(z)).flatten()

    norms = [norm(torch.linalg.solve(M, b))]
    for k in range(1, 13):
        found = conjugate_residual(
            with_image(K),
            b,
            precondition=lambda v: torch.linalg.solve(M, v),
            tol=0,
            max_iter=k,
            max_step=max_step,
        )
        # what it calls its residual is the residual
        expected = torch.linalg.solve(M, b - product(K)(found.x))
        torch.testing.assert_close(found.residual, expected, rtol=1e-7, atol=1e-7)
        norms.append(norm(found.residual))
    steps = torch.stack(norms)
    assert bool((steps[1:] <= steps[:-1] * (1 + 1e-10)).all())
    assert bool((steps[-1] < 0.9 * steps[0]).any())


def test_the_right_preconditioner_converges_in_one_step():
    K, b = positive(4, 9), random(4, 9, seed=1)
    found = conjugate_residual(
        with_image(K), b, precondition=lambda v: torch.linalg.solve(K, v), tol=1e-9
    )
    assert found.iterations == 1
    torch.testing.assert_close(found.x, torch.linalg.solve(K, b))


@pytest.mark.parametrize("max_step", [float("inf"), 0.4])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_images_are_the_linear_map_of_the_solution(k, max_step):
    """Measurements `(B, m)` and images `(B, 1, 2, m)` differ in dimensions, with B = m too."""
    K, b = random(6, 6, 6) + 2 * torch.eye(6, dtype=F64), random(6, 6, seed=1)
    found = conjugate_residual(with_image(K), b, tol=0, max_iter=k, max_step=max_step)
    assert found.iterations == k
    torch.testing.assert_close(found.images, with_image(K)(found.x)[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_no_or_negative_curvature_returns_zero(scale):
    """A Jacobian that is zero or negative definite: the answer is no step, not infinity."""
    K, b = scale * positive(3, 5), random(3, 5, seed=1)
    found = conjugate_residual(with_image(K), b)
    assert found.iterations == 1
    assert not found.x.any()
    assert not found.images.any()
    torch.testing.assert_close(found.residual, b)


def test_zero_right_side_needs_no_product():
    found = conjugate_residual(with_image(positive(2, 4)), torch.zeros(2, 4, dtype=F64))
    assert (found.iterations, found.images) == (0, None)
    assert not found.x.any()


def test_warm_start_is_judged_by_the_original_right_side():
    K, b = positive(3, 20), random(3, 20, seed=1)
    start = torch.linalg.solve(K, b) + 1e-4 * random(3, 20, seed=2)
    r = b - product(K)(start)
    assert conjugate_residual(with_image(K), r, reference=b, tol=0.05).iterations == 0
    assert conjugate_residual(with_image(K), r, tol=0.05).iterations > 0
    again = conjugate_residual(with_image(K), r, reference=b, tol=1e-10, max_iter=40)
    torch.testing.assert_close(start + again.x, torch.linalg.solve(K, b), rtol=1e-7, atol=1e-7)


def test_conjugate_residual_ignores_neighbours():
    """An easy, a hard, a zero and a negative image: each as if it were alone, and finite."""
    K, b = positive(4, 15, floor=1e-3), random(4, 15, seed=1)
    K[0], K[3], b[2] = torch.eye(15), -K[3], 0
    G = random(4, 30, 15, seed=3)
    options = {"tol": 1e-6, "max_iter": 25}
    together = conjugate_residual(with_image(K, G), b, **options)
    assert together.iterations > 10
    for i in range(4):
        one = slice(i, i + 1)
        alone = conjugate_residual(with_image(K[one], G[one]), b[one], **options)
        torch.testing.assert_close(together.x[one], alone.x, rtol=1e-9, atol=1e-9)
        images = torch.zeros(1, 1, 2, 15, dtype=F64) if alone.images is None else alone.images
        torch.testing.assert_close(together.images[one], images, rtol=1e-9, atol=1e-9)


def test_long_finished_images_stay_finite_in_float32():
    """Directions of a finished image are rounding noise; scaled up again they would overflow."""
    K, b = positive(2, 60, floor=1e-4).float(), random(2, 60, seed=1).float()
    K[0] = torch.eye(60)
    found = conjugate_residual(with_image(K, random(2, 8, 60).float()), b, tol=1e-7, max_iter=60)
    assert found.iterations > 30
    assert bool(found.x.isfinite().all() & found.images.isfinite().all())
    torch.testing.assert_close(found.x[0], b[0])


# -- on operators ------------------------------------------------------------------------------


def dense(A):
    """The matrix `(m, 9)` as physics on images `(B, 1, 3, 3)`."""
    return LinearPhysics(
        A=lambda x, **_: x.flatten(1) @ A.T,
        A_adjoint=lambda y, **_: (y @ A).reshape(-1, 1, 3, 3),
    )


@pytest.mark.parametrize("rows", [4, 9, 15])
def test_proximal_equals_the_dense_solution(rows):
    A, y, z = random(rows, 9), random(3, rows, seed=1), random(3, 1, 3, 3, seed=2)
    for rho in (0.7, torch.tensor([0.1, 1.0, 50.0], dtype=F64).reshape(3, 1, 1, 1)):
        found = proximal(dense(A), z, y, rho, tol=1e-12)
        r = torch.as_tensor(rho, dtype=F64).reshape(-1, 1, 1)
        normal = A.T @ A + r * torch.eye(9, dtype=F64)
        right = y @ A + r[..., 0] * z.flatten(1)
        expected = torch.linalg.solve(normal.expand(3, 9, 9), right).reshape(z.shape)
        torch.testing.assert_close(found, expected)


def test_proximal_of_a_consistent_image_is_that_image():
    z = random(2, 1, 3, 3)
    physics = dense(random(5, 9, seed=1))
    torch.testing.assert_close(proximal(physics, z, physics.A(z), 0.3), z, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [4, 9, 15])
def test_proximal_of_vanishing_weight_is_the_pseudo_inverse(rows):
    """The least change of `z` that fits: `z + A^+ (y - A z)`."""
    A, y, z = random(rows, 9), random(3, rows, seed=1), random(3, 1, 3, 3, seed=2)
    found = proximal(dense(A), z, y, 1e-10, tol=1e-12)
    change = (y - z.flatten(1) @ A.T) @ torch.linalg.pinv(A).T
    torch.testing.assert_close(found, z + change.reshape(z.shape), rtol=1e-6, atol=1e-6)


def test_proximal_on_a_masked_image_leaves_the_rest_alone():
    physics = operators.mask((1, 12, 12), keep=0.4, seed=3).to(F64)
    x, z, rho = random(2, 1, 12, 12), random(2, 1, 12, 12, seed=1), 0.5
    found = proximal(physics, z, physics.A(x), rho, tol=1e-12)
    seen = physics.A(torch.ones_like(x)) != 0
    torch.testing.assert_close(found, torch.where(seen, (x + rho * z) / (1 + rho), z))


def test_proximal_ignores_neighbours():
    """At a loose tolerance rounding may change an answer by some of that tolerance."""
    physics = operators.blur((1, 24, 24), sigma=1.0).to(F64)
    y, z = random(4, 1, 24, 24), random(4, 1, 24, 24, seed=1)
    rho = torch.tensor([0.01, 0.1, 1.0, 10.0], dtype=F64).reshape(4, 1, 1, 1)
    for tol, difference in ((1e-12, 1e-10), (1e-4, 1e-3)):
        parts = [(z[i : i + 1], y[i : i + 1], float(rho[i])) for i in range(4)]
        alone = torch.cat([proximal(physics, *part, tol=tol) for part in parts])
        found = proximal(physics, z, y, rho, tol=tol)
        torch.testing.assert_close(found, alone, rtol=0, atol=difference)


def test_an_inverse_that_stops_early_says_so():
    physics = operators.blur((1, 16, 16), sigma=1.0, boundary="valid").to(torch.float64)
    y = physics.A(torch.rand(2, 1, 16, 16, dtype=torch.float64))
    with pytest.warns(operators.ConvergenceWarning, match="2 of 2 images .* tolerance 1e-06 in 2 "):
        conjugate_gradient(
            lambda x: physics.A_adjoint(physics.A(x)), physics.A_adjoint(y), max_iter=2, warn=True
        )
