"""Elastic networks in JAX against the definition in float64, with padding and in batches."""

import jax
import numpy as np
import pytest

from jaxprot.ops import elastic


@pytest.fixture
def chain():
    """A compact chain: a random walk with steps of 3.8 Å that is pulled to the middle."""
    rng = np.random.default_rng(3)
    x = [np.zeros(3)]
    while len(x) < 60:
        step = rng.normal(size=3) - 0.15 * x[-1]
        place = x[-1] + 3.8 * step / np.linalg.norm(step)
        if min(np.linalg.norm(place - other) for other in x) > 3:
            x.append(place)
    return np.array(x, np.float32)


def reference(xyz, cutoff, anisotropic):
    n = len(xyz)
    xyz = xyz.astype(np.float64)
    matrix = np.zeros((n, 3, n, 3)) if anisotropic else np.zeros((n, 1, n, 1))
    for i in range(n):
        for j in range(i):
            d = xyz[i] - xyz[j]
            if d @ d <= cutoff**2:
                block = np.outer(d, d) / (d @ d) if anisotropic else np.eye(1)
                matrix[i, :, j], matrix[j, :, i] = -block, -block
                matrix[i, :, i] += block
                matrix[j, :, j] += block
    size = n * matrix.shape[1]
    inverse = np.linalg.pinv(matrix.reshape(size, size), rcond=1e-9, hermitian=True)
    return inverse.diagonal().reshape(n, -1).sum(1) * (1 if anisotropic else 3), matrix.reshape(size, size)


def test_anm(chain):
    expected, hessian = reference(chain, 15.0, True)
    np.testing.assert_allclose(elastic.anm_hessian(chain), hessian, atol=1e-5)
    np.testing.assert_allclose(elastic.anm(chain), expected, rtol=1e-3)
    with jax.enable_x64(True):
        np.testing.assert_allclose(elastic.anm(chain.astype(np.float64)), expected, rtol=1e-9)


def test_gnm(chain):
    expected, kirchhoff = reference(chain, 10.0, False)
    np.testing.assert_allclose(elastic.gnm_kirchhoff(chain), kirchhoff, atol=0)
    np.testing.assert_allclose(elastic.gnm(chain), expected, rtol=1e-4)


@pytest.mark.parametrize("function", [elastic.anm, elastic.gnm, elastic.contact_number])
def test_padding_and_batch(chain, function):
    rng = np.random.default_rng(0)
    order = np.sort(rng.permutation(90)[:60])
    padded, mask = np.full((90, 3), np.nan, np.float32), np.zeros(90, bool)
    padded[order], mask[order] = chain, True
    other = np.pad(chain[:40], [(0, 50), (0, 0)], constant_values=7)
    found = jax.jit(jax.vmap(function))(np.stack([padded, other]), np.stack([mask, np.arange(90) < 40]))
    np.testing.assert_allclose(found[0][order], function(chain), rtol=2e-3)
    np.testing.assert_allclose(found[1][:40], function(chain[:40]), rtol=2e-3)
    assert not np.asarray(found[0])[~mask].any() and np.isfinite(found).all()


def test_nothing_at_all():
    xyz, mask = np.full((8, 3), np.nan, np.float32), np.zeros(8, bool)
    for function in (elastic.anm, elastic.gnm, elastic.contact_number):
        assert not np.asarray(function(xyz, mask)).any()


def test_loose_parts_do_not_blow_up(chain):
    """Two bodies out of touch: six (or one) more motions without cost."""
    far = np.concatenate([chain, chain + np.float32(500)])
    for function, tolerance in ((elastic.anm, 2e-2), (elastic.gnm, 2e-3)):
        np.testing.assert_allclose(function(far)[:60], function(chain), rtol=tolerance)


def test_contact_number(chain):
    distance = np.linalg.norm(chain[:, None] - chain[None], axis=-1)
    np.testing.assert_array_equal(elastic.contact_number(chain), (distance <= 13).sum(1) - 1)
    others = chain[::2] + np.float32(0.5)
    expected = (np.linalg.norm(chain[:, None] - others[None], axis=-1) <= 8).sum(1)
    np.testing.assert_array_equal(elastic.contact_number(chain, others=others, cutoff=8), expected)
    half = np.arange(30) < 10
    expected = (np.linalg.norm(chain[:, None] - others[None, :10], axis=-1) <= 8).sum(1)
    np.testing.assert_array_equal(elastic.contact_number(chain, None, others, half, 8), expected)
