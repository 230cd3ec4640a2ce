import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.ot import exact, sinkhorn
from jaxprot.ot.sinkhorn import Factors


def factors(x, y):
    return Factors(-2 * x, y, (x * x).sum(1), (y * y).sum(1))


def points(n, m=None, d=3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m or n, d)) + 1
    return x.astype(dtype), y.astype(dtype), np.full(n, 1 / n), np.full(len(y), 1 / len(y))


def test_padding_and_points_without_weight_change_nothing():
    x, y, a, b = points(40, 50)
    plain = jax.jit(sinkhorn.solve)(factors(x, y).matrix(), *(jnp.asarray(w, jnp.float32) for w in (a, b)), 0.5)
    padded = sinkhorn.solve_padded(factors(x, y), a, b, 0.5)
    np.testing.assert_allclose(padded.value, plain.value, rtol=1e-5)
    # One more point, far away, of weight 0; also where it would be the nearest.
    for place in (100.0, 0.5):
        more = np.concatenate([x, np.full((1, 3), place, np.float32)])
        for dense in (True, False):
            out = sinkhorn.solve_padded(factors(more, y), np.append(a, 0), b, 0.5, dense=dense)
            assert out.converged and np.isfinite(out.f).all()
            np.testing.assert_allclose(out.value, plain.value, rtol=1e-5)


@pytest.mark.parametrize("symmetric", [True, False], ids=["with itself", "between sets"])
def test_plan_has_the_marginals_that_are_claimed(symmetric):
    x, y, a, b = points(60, 45)
    y, b = (x, a) if symmetric else (y, b)
    cost = factors(x, y).matrix()
    a32, b32 = (jnp.asarray(w, jnp.float32) for w in (a, b))
    for threshold in (1e-2, 1e-4):
        out = jax.jit(lambda t: sinkhorn.solve(cost, a32, b32, 0.3, threshold=t, symmetric=symmetric))(threshold)
        plan = np.asarray(sinkhorn.plan(cost, a32, b32, out, 0.3), np.float64)
        assert out.converged and out.error < threshold
        assert np.abs(plan.sum(1) - a).sum() <= out.error + 1e-5
        assert np.abs(plan.sum(0) - b).sum() <= (out.error if symmetric else 0) + 1e-5


def test_small_eps_comes_near_the_exact_value():
    x, y, a, b = points(64, dtype=np.float64)
    true = exact.exact_transport(factors(x, y).matrix()).value
    with jax.enable_x64(True):
        out = sinkhorn.solve_padded(factors(x, y), a, b, 0.02, threshold=1e-4, max_iterations=20000)
        assert out.converged
        assert true < out.value < true + 0.02 * np.log(64)


def test_what_has_not_converged_says_so():
    x, y, a, b = points(64)
    for dense in (True, False):
        out = sinkhorn.solve_padded(factors(x, y), a, b, 0.01, max_iterations=3, dense=dense)
        assert not out.converged and out.error > 1e-3 and out.iterations <= 20  # one for each stage of the annealing


def test_many_scales():
    """Potentials drift far; the kernel must be made anew, and nothing may overflow."""
    x, y, a, b = points(50, 70)
    for scale in (1e-3, 1e3):
        out = sinkhorn.solve_padded(factors(scale * x, scale * y), a, b, 0.05 * scale**2, max_iterations=20000)
        base = sinkhorn.solve_padded(factors(x, y), a, b, 0.05, max_iterations=20000)
        assert out.converged and base.converged
        np.testing.assert_allclose(out.value / scale**2, base.value, rtol=1e-4)
    y = y + 50  # sets far apart: all costs are hundreds of eps
    out = sinkhorn.solve_padded(factors(x, y), a, b, 2.0)
    assert out.converged and abs(out.value - 3 * 51**2) < 0.02 * 3 * 51**2


def test_start_from_the_solution_is_done_at_once():
    x, y, a, b = points(64)
    cost = factors(x, y).matrix()
    a, b = (jnp.asarray(w, jnp.float32) for w in (a, b))
    first = jax.jit(sinkhorn.solve)(cost, a, b, 0.5)
    again = jax.jit(sinkhorn.solve)(cost, a, b, 0.5, start=(first.f, first.g))
    assert again.iterations <= 3 < first.iterations
    np.testing.assert_allclose(again.value, first.value, rtol=1e-5)


def test_divergence_of_equal_and_of_other_sets():
    x, y, a, b = points(64)
    a, b = (jnp.asarray(w, jnp.float32) for w in (a, b))

    @jax.jit
    def divergence(x, y):
        costs = [sinkhorn.squared_distances(p, q).matrix() for p, q in ((x, y), (x, x), (y, y))]
        return sinkhorn.divergence_of(*costs, a, b, 0.5, threshold=1e-5)

    assert abs(divergence(x, x).value) < 1e-5
    assert divergence(x, y).value > 1
    np.testing.assert_allclose(divergence(x, y).value, divergence(y, x).value, rtol=1e-5)


def test_few_programs_serve_all_sizes():
    before = sinkhorn._compiled._cache_size()
    for n in (65, 80, 100, 128):
        x, y, a, b = points(n, d=5)
        assert sinkhorn.solve_padded(factors(x, y), a, b, 1.0).converged
    assert sinkhorn._compiled._cache_size() == before + 1


def test_mean_cost_needs_no_matrix():
    x, y, a, b = points(20, 30, dtype=np.float64)
    rng = np.random.default_rng(1)
    a, b = a * rng.random(20), b * rng.random(30)
    with jax.enable_x64(True):
        found = sinkhorn.mean_cost(factors(x, y), a, b)
        np.testing.assert_allclose(found, a @ ((x[:, None] - y[None]) ** 2).sum(-1) @ b, rtol=1e-12)
