"""Training loss of ProteinMPNN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def smoothed_cross_entropy(
    log_probs: Float[Array, "n 21"], sequence: Int[Array, "n"], smoothing: float = 0.1
) -> Float[Array, "n"]:
    """-Σ q log p with q = (one-hot + smoothing / 21) / (1 + smoothing), per residue, in nats."""
    target = (jax.nn.one_hot(sequence, 21, dtype=log_probs.dtype) + smoothing / 21) / (1 + smoothing)
    return -jnp.sum(target * log_probs, axis=-1)
