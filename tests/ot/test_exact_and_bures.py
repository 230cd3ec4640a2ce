import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.ot import bures, exact, otdd


def test_assignment_and_program_agree(monkeypatch):
    monkeypatch.setattr(exact, "_WHOLE", 100)
    rng = np.random.default_rng(0)
    cost = rng.random((40, 40))
    weights = np.full(40, 1.0)
    weights[0] += 1e-12  # no longer an assignment
    plans = exact.exact_transport(cost), exact.exact_transport(cost, weights)
    np.testing.assert_allclose(plans[0].value, plans[1].value, rtol=1e-9)


def test_program_with_few_arcs_is_exact():
    """Larger than what is given to the solver at once; checked on a line, where sorting solves it."""
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.normal(size=150)), np.sort(rng.normal(size=200))
    plan = exact.exact_transport((x[:, None] - y[None]) ** 2)
    np.testing.assert_allclose(
        plan.value, (np.repeat(x, 4) - np.repeat(y, 3)) @ (np.repeat(x, 4) - np.repeat(y, 3)) / 600
    )
    np.testing.assert_allclose(np.bincount(plan.rows, plan.mass), 1 / 150, rtol=1e-6)


def test_root_is_a_metric():
    rng = np.random.default_rng(1)
    sets = [rng.normal(size=(12, 4)) * scale + shift for scale, shift in ((1, 0), (2, 1), (0.5, -1), (1, 0.3))]

    def root(p, q):
        return np.sqrt(exact.exact_transport(((p[:, None] - q[None]) ** 2).sum(-1)).value)

    table = np.array([[root(p, q) for q in sets] for p in sets])
    np.testing.assert_allclose(np.diag(table), 0)
    np.testing.assert_allclose(table, table.T)
    assert (table[:, None, :] <= table[:, :, None] + table[None] + 1e-12).all()


@pytest.mark.parametrize(
    ("cost", "weights", "message"),
    [
        (np.full((3, 3), np.nan), None, "finite"),
        (np.zeros((3, 3)), np.array([1.0, -1, 1]), "at least 0"),
        (np.zeros((3, 3)), np.ones(2), "3 numbers"),
        (np.broadcast_to(0.0, (6000, 2)), None, "take a sample"),
    ],
    ids=["NaN", "negative weight", "weights of another number", "too many points"],
)
def test_wrong_input(cost, weights, message):
    with pytest.raises(InputError, match=message):
        exact.exact_transport(cost, weights)


def test_sliced_distance_of_shifted_points():
    x = np.random.default_rng(0).normal(size=(30, 4))
    shift = np.array([1.0, 0, 0, 0])
    assert exact.sliced_wasserstein(x, x) == 0
    np.testing.assert_allclose(exact.sliced_wasserstein(x, x + shift, np.eye(4)), 0.5, rtol=1e-12)


def gaussians(d, rank, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, rank, d))
    return (*rng.normal(size=(2, d)), a.T @ a, b.T @ b)


@pytest.mark.parametrize("rank", [8, 3, 0], ids=["full", "singular", "points"])
def test_bures_wasserstein_is_finite_with_its_gradient(rank):
    with jax.enable_x64(True):
        m_a, m_b, s_a, s_b = (jnp.asarray(x) for x in gaussians(8, rank))
        value, slopes = jax.jit(jax.value_and_grad(bures.bures_wasserstein, argnums=(0, 1, 2, 3)))(m_a, s_a, m_b, s_b)
        assert value > 0 and all(np.isfinite(slope).all() for slope in slopes)
        # The root of a singular covariance keeps only half of the digits.
        assert abs(bures.bures_wasserstein(m_a, s_a, m_a, s_a)) < 1e-6


def test_gradient_of_bures_wasserstein():
    with jax.enable_x64(True):
        m_a, m_b, s_a, s_b = (jnp.asarray(x) for x in gaussians(5, 9))
        step = np.random.default_rng(1).normal(size=(5, 5))
        step = jnp.asarray(step + step.T)
        for place in (0, 1):
            covariances = [s_a, s_b]

            def value(t, place=place, covariances=covariances):
                moved = [s + t * step if k == place else s for k, s in enumerate(covariances)]
                return bures.bures_wasserstein(m_a, moved[0], m_b, moved[1])

            slope = (value(1e-5) - value(-1e-5)) / 2e-5
            np.testing.assert_allclose(jax.grad(value)(0.0), slope, rtol=1e-6)


def test_samples_and_covariances_agree():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, y = jnp.asarray(rng.normal(size=(9, 6))), jnp.asarray(rng.normal(size=(14, 6)) * 2 + 1)
        moments = [jnp.asarray(f) for z in (x, y) for f in (np.mean(z, 0), np.cov(z, rowvar=False))]
        of_covariances = jax.jit(bures.bures_wasserstein)(*moments)
        value, slope = jax.jit(jax.value_and_grad(bures.bures_wasserstein_samples))(x, y)
        np.testing.assert_allclose(value, of_covariances, rtol=1e-10)
        assert np.isfinite(slope).all()
        more = jnp.concatenate([x, jnp.full((3, 6), 50.0)])
        padded = jax.jit(bures.bures_wasserstein_samples)(more, y, jnp.arange(12) < 9)
        np.testing.assert_allclose(padded, of_covariances, rtol=1e-10)
        table = otdd.label_distances([np.asarray(x), np.asarray(y)])
        np.testing.assert_allclose(table[0, 1], of_covariances, rtol=1e-9)


def test_distances_of_classes_of_all_sizes():
    rng = np.random.default_rng(0)
    classes = [rng.normal(size=(n, 6)) + shift for shift, n in enumerate((1, 2, 3, 40, 7, 1))]
    table = otdd.label_distances(classes)
    assert (np.diag(table) == 0).all() and (table == table.T).all() and np.isfinite(table).all()
    # Of a point with a set: the squared distance of the means and the variance of the set.
    expected = ((classes[0][0] - classes[3].mean(0)) ** 2).sum() + classes[3].var(0, ddof=1).sum()
    np.testing.assert_allclose(table[0, 3], expected, rtol=1e-9)
    np.testing.assert_allclose(table[0, 5], ((classes[0] - classes[5]) ** 2).sum(), rtol=1e-9)
    for i, j in ((1, 3), (2, 4), (3, 4)):
        x, y = (classes[k] for k in (i, j))
        with jax.enable_x64(True):
            other = bures.bures_wasserstein(*(jnp.asarray(v) for z in (x, y) for v in (z.mean(0), np.cov(z.T))))
        np.testing.assert_allclose(table[i, j], other, rtol=1e-6)
    diagonal = otdd.label_distances(classes, diagonal=True)
    spread = [np.sqrt(c.var(0, ddof=1)) for c in (classes[3], classes[4])]
    expected = ((classes[3].mean(0) - classes[4].mean(0)) ** 2).sum() + ((spread[0] - spread[1]) ** 2).sum()
    np.testing.assert_allclose(diagonal[3, 4], expected, rtol=1e-9)
