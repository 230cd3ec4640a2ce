"""The stacked form of the convolution is the native one, derivatives included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.ops.conv3d import conv3d, native, stacked


@pytest.mark.parametrize("taps", [(3, 3, 3), (1, 3, 2), (2, 1, 1)])
def test_stacked_equals_native(taps):
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 8, 5))
    kernel = jax.random.normal(jax.random.key(1), (*taps, 5, 4))
    np.testing.assert_allclose(stacked(x, kernel), native(x, kernel), atol=1e-5)

    def loss(function):
        return jax.jit(jax.grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))), argnums=(0, 1)))

    for a, b in zip(loss(stacked)(x, kernel), loss(native)(x, kernel), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(("size", "c", "o"), [((5, 4, 35), 6, 7), ((5, 4, 36), 8, 8), ((4, 5, 24), 32, 6)])
def test_derivatives_of_long_lines_equal_native(size, c, o):
    """Long lines of few channels, and of many to few, have products of their own."""
    x = jax.random.normal(jax.random.key(0), (2, *size, c))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, c, o)) / np.sqrt(27 * c)

    def derivatives(function):
        return jax.jit(jax.grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))), argnums=(0, 1)))(x, kernel)

    for a, b in zip(derivatives(stacked), derivatives(native), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_padding_is_of_zeros_on_the_side_that_is_asked_for():
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 5, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 2, 3))
    whole = conv3d(x, kernel, ((1, 1),) * 3)
    assert whole.shape == (1, 5, 5, 5, 3)
    part = conv3d(x, kernel, ((1, 0), (0, 0), (0, 1)))
    np.testing.assert_allclose(part, whole[:, :4, 1:4, 1:], atol=1e-5)


def test_single_taps_are_matrix_products_and_vmap_works():
    x = jax.random.normal(jax.random.key(0), (4, 2, 3, 3, 3, 2))
    kernel = jax.random.normal(jax.random.key(1), (1, 1, 1, 2, 3))
    np.testing.assert_allclose(conv3d(x[0], kernel), x[0] @ kernel[0, 0, 0], rtol=1e-6)
    wide = jax.random.normal(jax.random.key(2), (3, 3, 3, 2, 3))
    many = jax.vmap(lambda one: conv3d(one, wide))(x)
    np.testing.assert_allclose(many[2], conv3d(x[2], wide), atol=1e-5)
