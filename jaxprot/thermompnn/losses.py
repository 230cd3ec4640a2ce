"""Training losses of ThermoMPNN."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def huber(error: Float[Array, "..."], width: float = 2.0) -> Float[Array, "..."]:
    """Half the squared error up to `width` kcal/mol, linear beyond: assay outliers pull less."""
    size = jnp.abs(error)
    return jnp.where(size <= width, 0.5 * error**2, width * (size - 0.5 * width))


def correlation_loss(
    prediction: Float[Array, "..."], target: Float[Array, "..."], weight: Float[Array, "..."]
) -> Float[Array, ""]:
    """1 - weighted Pearson correlation; 0 weight leaves an entry out."""
    total = jnp.maximum(jnp.sum(weight), 1.0)
    p = (prediction - jnp.sum(weight * prediction) / total) * weight
    t = (target - jnp.sum(weight * target) / total) * weight
    norm = jnp.sqrt(jnp.sum(p**2) * jnp.sum(t**2) + 1e-6)
    return 1.0 - jnp.sum(p * t) / norm
