"""Superposition, RMSD, RMSF: values against scipy, derivatives, weights, degenerate points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxprot.ops import rigid


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 12, 3)).astype(np.float32), rng.uniform(0.1, 1, 12).astype(np.float32)


def test_equals_scipy(clouds):
    (x, y), w = clouds

    def centred(a):
        return a - (w[:, None] * a).sum(0) / w.sum()

    expected, distance = Rotation.align_vectors(centred(y), centred(x), weights=w)
    rotation, _ = rigid.superpose(x, y, w)
    np.testing.assert_allclose(rotation, expected.as_matrix(), atol=1e-5)
    np.testing.assert_allclose(rigid.rmsd(x, y, w), distance / np.sqrt(w.sum()), rtol=1e-5)


def test_recovers_a_rigid_motion_and_refuses_the_mirror_image(clouds):
    (x, _), _ = clouds
    moved = x @ Rotation.from_rotvec([0.3, -2.0, 1.0]).as_matrix().T.astype(np.float32) + np.float32(7)
    np.testing.assert_allclose(rigid.superposed(x, moved), moved, atol=1e-5)
    assert rigid.rmsd(x, moved) < 1e-5 < 0.1 < rigid.rmsd(x, -x)
    rotation, _ = rigid.superpose(x, -x)
    np.testing.assert_allclose(jnp.linalg.det(rotation), 1, atol=1e-5)


def test_zero_weight_hides_a_point_even_if_nan(clouds):
    (x, y), w = clouds
    holes = w.copy()
    holes[[2, 7]] = 0
    kept = holes > 0
    broken = x.copy()
    broken[2] = np.nan
    np.testing.assert_allclose(rigid.rmsd(broken, y, holes), rigid.rmsd(x[kept], y[kept], w[kept]), rtol=1e-5)
    assert np.isfinite(jax.grad(rigid.rmsd)(jnp.asarray(broken), y, jnp.asarray(holes))).all()
    rotation, translation = rigid.superpose(x, y, np.zeros(12, np.float32))
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(translation, 0, atol=1e-6)


@pytest.mark.slow
def test_derivatives_match_finite_differences(clouds):
    with jax.enable_x64(True):
        (x, y), w = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), clouds)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
        probe = jnp.asarray(np.random.default_rng(2).normal(size=x.shape))
        for function in (lambda a: jnp.sum(probe * rigid.superposed(a, y, w)), lambda a: rigid.rmsd(a, y, w)):
            step = 1e-5
            expected = (function(x + step * direction) - function(x - step * direction)) / (2 * step)
            np.testing.assert_allclose(jnp.sum(jax.grad(function)(x) * direction), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "points",
    [np.zeros((4, 3)), np.ones((1, 3)), np.arange(4.0)[:, None] * np.ones((1, 3)), np.eye(3)],
    ids=["one place", "one point", "a line", "an equilateral triangle"],
)
def test_gradients_stay_finite_where_the_rotation_is_not_unique(points):
    points = jnp.asarray(points, jnp.float32)
    for target in (points, points[::-1]):
        gradient = jax.grad(lambda a, b=target: jnp.sum(rigid.superposed(a, b)) + rigid.rmsd(a, b))(points)
        assert np.isfinite(gradient).all()


def test_batches_equal_a_loop(clouds):
    (x, y), _ = clouds
    batch = jax.jit(jax.vmap(rigid.rmsd))(jnp.stack([x, y]), jnp.stack([y, y + 1]))
    np.testing.assert_allclose(batch, [rigid.rmsd(x, y), 0], atol=1e-5)


@pytest.mark.slow
def test_rmsf(clouds):
    (x, _), _ = clouds
    turned = x @ Rotation.from_rotvec([1.0, 0.0, 0.4]).as_matrix().T.astype(np.float32)
    frames = jnp.stack([x, turned + 3, x - 5])
    np.testing.assert_allclose(rigid.rmsf(frames), 0, atol=1e-5)
    noisy = jnp.asarray(np.random.default_rng(3).normal(scale=0.2, size=(50, 12, 3)), jnp.float32) + x[None]
    plain = np.sqrt(((noisy - noisy.mean(0, keepdims=True)) ** 2).sum(-1).mean(0))
    np.testing.assert_allclose(rigid.rmsf(noisy, align=False), plain, rtol=1e-4)
    rmsf = jax.jit(rigid.rmsf)
    padded = jnp.concatenate([noisy, jnp.full((3, 12, 3), jnp.nan)])
    weights = jnp.concatenate([jnp.ones(50), jnp.zeros(3)])
    np.testing.assert_allclose(rmsf(padded, weights), rmsf(noisy), rtol=1e-4)
    assert np.isfinite(jax.grad(lambda f: jnp.sum(rmsf(f, weights)))(padded)).all()
