"""Sine, cosine and GELU against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from jaxprot.ops import elementwise


@pytest.mark.parametrize("largest", [1.0, 100.0, 6000.0])
def test_sine_and_cosine_to_the_rounding_of_float32(largest):
    x = np.random.default_rng(0).uniform(-largest, largest, 200_000).astype(np.float32)
    x = np.concatenate([x, [0.0, -0.0], np.float32(np.pi / 4) * np.arange(-40, 40)]).astype(np.float32)
    sine, cosine = jax.jit(elementwise.sincos)(jnp.asarray(x))
    np.testing.assert_allclose(sine, np.sin(x.astype(np.float64)), atol=2e-7)
    np.testing.assert_allclose(cosine, np.cos(x.astype(np.float64)), atol=2e-7)
    np.testing.assert_allclose(elementwise.sin(jnp.asarray(x)), sine, atol=2e-7)


def test_gradients_of_sine_and_cosine():
    x = jnp.linspace(-30, 30, 1001)
    np.testing.assert_allclose(jax.vmap(jax.grad(elementwise.sin))(x), np.cos(np.float64(x)), atol=2e-7)
    slope = jax.vmap(jax.grad(lambda x: elementwise.sincos(x)[1]))(x)
    np.testing.assert_allclose(slope, -np.sin(np.float64(x)), atol=2e-7)
    assert not np.isfinite(elementwise.sin(jnp.array([np.inf, np.nan]))).any()


def test_gelu_and_its_derivatives():
    x = np.concatenate([np.linspace(-12, 12, 4001), [0, -40, 40]]).astype(np.float32)
    wide = x.astype(np.float64)
    bell = np.exp(-(wide**2) / 2) / np.sqrt(2 * np.pi)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(elementwise.gelu)))(jnp.asarray(x))
    np.testing.assert_allclose(value, wide * ndtr(wide), rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(slope, ndtr(wide) + wide * bell, atol=4e-7)
    second = jax.vmap(jax.grad(jax.grad(elementwise.gelu)))(jnp.asarray(x))
    np.testing.assert_allclose(second, (2 - wide**2) * bell, atol=1e-6)
    half = elementwise.gelu(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), wide * ndtr(wide), rtol=0.02, atol=0.02)
