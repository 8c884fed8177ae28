"""What ties slices together: differences, ADMM with shared variables, whole-volume steps."""

import logging
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import columns, matrix_operator

import operators
from restore.consistency import approach
from restore.coupling import (
    NoCoupling,
    Quadratic,
    TotalVariation,
    coupling,
    differences,
    differences_adjoint,
)
from restore.gain import squared_norm
from restore.problem import Problem, stream

F64 = torch.float64


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def posed(operator, y, shape):
    """A problem of the shape of the images, without noise."""
    return Problem(
        y=y,
        operator=operator,
        prior=None,
        shape=shape,
        sigma_y=y.new_zeros(shape[0], *[1] * (len(shape) - 1)),
        streams=[stream(0, 0)],
        observed=torch.ones_like(y),
    )


def dense(term, shape):
    """`rho D^T D` of one volume as a matrix."""
    n = torch.Size(shape).numel()
    units = torch.eye(n, dtype=F64).reshape(n, *shape)
    out = torch.zeros_like(units)
    term.add_gram(units, out)
    return out.flatten(1)


# -- differences -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 11), st.integers(1, 9)),
    axis=st.integers(0, 2),
    boundary=st.sampled_from(["neumann", "periodic"]),
)
def test_differences_and_their_adjoint(size, axis, boundary):
    x, w = normal(2, 1, *size), normal(2, 1, *size, seed=2)
    Dx = differences(x, axis, boundary)
    periodic = x.roll(-1, 2 + axis) - x
    expected = periodic.clone()
    if boundary == "neumann":
        expected.select(2 + axis, -1).zero_()
    torch.testing.assert_close(Dx, expected, rtol=0, atol=1e-14)
    gap = (Dx * w).sum() - (x * differences_adjoint(w, axis, boundary)).sum()
    assert abs(float(gap)) < 1e-12 * float(x.norm() * w.norm())


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1, 2)])
def test_every_piece_is_that_of_the_differences(boundary, axes):
    """Against the formulas of scaled ADMM, with a weight for every volume and distances."""
    shape = (3, 1, 11, 6, 5)
    weights = torch.tensor([0.5, 1.0, 3.0], dtype=F64).reshape(3, 1, 1, 1, 1)
    spacing = tuple(1.0 + 0.5 * i for i in range(len(axes)))
    term = TotalVariation(
        lam=0.3 * weights, rho=weights**2, axes=axes, spacing=spacing, boundary=boundary
    )
    pairs = list(zip(axes, spacing, strict=True))

    def D(x, axis, h):
        return differences(x, axis, boundary) / h

    def DT(w, axis, h):
        return differences_adjoint(w, axis, boundary) / h

    x, v = normal(*shape), term.start(normal(*shape))
    u = [torch.zeros_like(x) for _ in axes]
    d = [torch.zeros_like(x) for _ in axes]
    for seed in range(3):
        gram, pull = normal(*shape, seed=9), normal(*shape, seed=8)
        expected_gram = gram + sum(term.rho * DT(D(x, a, h), a, h) for a, h in pairs)
        expected_pull = pull + sum(
            term.rho * DT(d[i] - u[i], a, h) for i, (a, h) in enumerate(pairs)
        )
        term.add_gram(x, gram)
        term.add_pull(v, pull)
        torch.testing.assert_close(gram, expected_gram, rtol=0, atol=1e-12)
        torch.testing.assert_close(pull, expected_pull, rtol=0, atol=1e-12)
        x = normal(*shape, seed=20 + seed)
        for i, (a, h) in enumerate(pairs):
            w = D(x, a, h) + u[i]
            d[i] = w.sign() * (w.abs() - term.lam / term.rho).clamp_min(0)
            u[i] = w - d[i]
        term.update(x, v)


def test_distances_of_slices_scale_the_differences():
    shape = (1, 4, 3, 3)
    near, far = (Quadratic(lam=1.0, axes=(0,), spacing=(h,)) for h in (1.0, 2.5))
    torch.testing.assert_close(dense(far, shape), dense(near, shape) / 2.5**2)


# -- ADMM alone --------------------------------------------------------------------------------


def test_admm_reaches_the_minimum_for_every_rho():
    """Denoising a piecewise constant profile: primal and dual value meet."""
    n, lam = 32, 0.2
    steps = torch.tensor([0.0, 1.0, 0.3, 0.8], dtype=F64).repeat_interleave(8)
    y = (steps + 0.2 * normal(n)).expand(3, n).reshape(3, 1, n, 1, 1)
    rho = torch.tensor([0.1, 1.0, 10.0], dtype=F64).reshape(3, 1, 1, 1, 1)
    term = TotalVariation(lam=lam, rho=rho)
    gram = torch.stack([dense(TotalVariation(lam=lam, rho=float(r)), (1, n, 1, 1)) for r in rho])
    inverse = torch.linalg.inv(torch.eye(n, dtype=F64) + gram)
    v = term.start(y)
    x = y
    for _ in range(1000):
        b = y.clone()
        term.add_pull(v, b)
        x = (inverse @ b.reshape(3, n, 1)).reshape(y.shape)
        term.update(x, v)
    primal = 0.5 * (x - y).square().sum((1, 2, 3, 4)) + lam * differences(x, 0).abs().sum(
        (1, 2, 3, 4)
    )
    w = (rho * term.dual(v[0])).clamp(-lam, lam)
    rest = y - differences_adjoint(w, 0)
    dual = 0.5 * (y.square() - rest.square()).sum((1, 2, 3, 4))
    gap = primal - dual
    assert bool((gap > -1e-12).all())
    assert bool((gap < 1e-8).all())
    torch.testing.assert_close(primal, primal[:1].expand(3), rtol=0, atol=1e-8)


@dataclass(frozen=True, kw_only=True)
class Shrinking(TotalVariation):
    """ADMM for `l2/2 |D x|^2`: soft thresholding replaced by shrinking."""

    l2: float

    def dual(self, v):
        return v * self.l2 / (self.rho + self.l2)


def test_the_fixed_point_of_a_quadratic_term_is_closed_form():
    shape, l2 = (1, 1, 6, 4, 3), 0.7
    A = normal(20, 72) / 5
    operator = matrix_operator(A, shape[1:])
    y = operator.A(normal(*shape, seed=2))
    problem = posed(operator, y, shape)
    quadratic = Quadratic(lam=l2)
    K = A.T @ A + dense(quadratic, shape[1:])
    expected = torch.linalg.solve(K, A.T @ y.flatten()).reshape(shape)
    # without splitting
    x = torch.zeros(shape, dtype=F64)
    for _ in range(5):  # restarts, because rounding costs conjugate directions their conjugacy
        approach(problem, quadratic, x, [], iterations=200, tol=1e-15)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)
    # split, by the ADMM that total variation uses
    term = Shrinking(lam=0.0, rho=1.0, l2=l2)
    inverse = torch.linalg.inv(A.T @ A + dense(term, shape[1:]))
    v = term.start(x)
    for _ in range(400):
        b = operator.A_adjoint(y)
        term.add_pull(v, b)
        x = (inverse @ b.flatten()).reshape(shape)
        term.update(x, v)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


# -- conjugate gradients -----------------------------------------------------------------------


def test_conjugate_gradients_reach_a_hundredth_in_as_many_steps_as_unknowns():
    """Condition 1000, 60 unknowns; a routine whose search directions are overwritten stalls."""
    n = 60
    Q = columns(n, n)
    roots = torch.logspace(0, -1.5, n, dtype=F64)  # singular values; squares span 1000
    operator = matrix_operator(Q @ torch.diag(roots) @ Q.T, (1, n, 1, 1))
    truth = normal(1, 1, n, 1, 1)
    problem = posed(operator, operator.A(truth), tuple(truth.shape))
    x = torch.zeros_like(truth)
    approach(problem, NoCoupling(), x, [], iterations=n, tol=0.0)
    assert float((x - truth).norm() / truth.norm()) < 1e-2


def test_steps_are_those_of_the_textbook_over_the_whole_volume():
    """One step size a volume and one volume's own, warm start, weight on it, and a term."""
    shape, weight = (2, 1, 4, 3, 3), 0.3
    operator = operators.slices(
        shape[1:],
        operator=[matrix_operator(normal(5, 9, seed=s) * (1 + s), (1, 3, 3)) for s in range(4)],
    )
    y, x_0 = operator.A(normal(*shape, seed=5)), normal(*shape, seed=6)
    term = TotalVariation(lam=0.1, rho=0.4)
    v = [normal(*shape, seed=7)]
    v[0][:, :, -1] = 0
    for m in (1, 2, 5):
        x = x_0.clone()
        approach(posed(operator, y, shape), term, x, v, iterations=m, weight=weight)
        for b in range(2):
            rhs = operator.A_adjoint(y[b : b + 1]) + weight * x_0[b : b + 1]
            term.add_pull([v[0][b : b + 1]], rhs)

            def K(p):
                q = operator.A_adjoint(operator.A(p)) + weight * p
                term.add_gram(p, q)
                return q

            z = x_0[b : b + 1].clone()
            r = rhs - K(z)
            p = r.clone()
            for _ in range(m):
                q = K(p)
                a = (r * r).sum() / (p * q).sum()
                z, new = z + a * p, r - a * q
                p = new + (new * new).sum() / (r * r).sum() * p
                r = new
            torch.testing.assert_close(x[b : b + 1], z, rtol=0, atol=1e-10)


def test_a_converged_image_stays_while_others_move():
    operator = operators.denoise((1, 4, 3, 3)).to(F64)
    y = normal(2, 1, 4, 3, 3)
    x = y.clone()
    x[1] += 1
    approach(posed(operator, y, tuple(y.shape)), NoCoupling(), x, [], iterations=3)
    torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    assert torch.equal(x[0], y[0])


def test_the_norm_of_an_operator():
    A = normal(12, 36, seed=3)
    operator = matrix_operator(A, (1, 4, 3, 3))
    problem = posed(operator, normal(1, 1, 12, 1), (1, 1, 4, 3, 3))
    exact = float(torch.linalg.matrix_norm(A, 2) ** 2)
    found = float(squared_norm(problem, 20))
    assert 0.95 * exact < found <= exact * (1 + 1e-12)  # from below, by 20 iterations
    assert found == float(squared_norm(problem, 20))


# -- building it -------------------------------------------------------------------------------


def build(z_prior, **options):
    numbers = {"rho_rel": 0.1, "lambda_rel": 0.01, "width": 2.0} | options
    return coupling(z_prior, 5.0, **numbers)


def test_weights_are_relative_to_operator_and_range():
    tv = build("tv")
    assert (tv.rho, tv.lam) == pytest.approx((0.5, 0.1))
    assert build("quadratic").lam == pytest.approx(0.05)


def test_none_is_no_term_at_all(caplog):
    term = build("none", rho_rel=2.0)
    x, out = normal(1, 1, 4, 3, 3), torch.zeros(1, 1, 4, 3, 3, dtype=F64)
    assert term.start(x) == []
    term.add_gram(x, out)
    term.add_pull([], out)
    term.update(x, [])
    assert not out.any()
    assert not caplog.records


def test_a_strong_rho_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "restore"):
        build("tv", rho_rel=0.5)
        build("quadratic", rho_rel=2.0)
        assert not caplog.records
        build("tv", rho_rel=0.51)
    assert "lower rho_rel" in caplog.text
