"""Decoding orders (spec of the published tool: fixed and unresolved residues first, designed ones in random order)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


def decoding_order(key_or_draw: PRNGKeyArray | Float[Array, "n"], design: Float[Array, "n"]) -> Int[Array, "n"]:
    """Residues in the order they are decoded: argsort((design + 1e-4) · |draw|).

    Args:
      key_or_draw: a key, or the normal draw itself (to replay a published run).
      design: 1 where the residue is designed and resolved (chain_M · chain_M_pos · mask).
    """
    draw, design = jnp.asarray(key_or_draw), jnp.asarray(design)
    if jnp.issubdtype(draw.dtype, jax.dtypes.prng_key):
        draw = jax.random.normal(draw, design.shape)
    return jnp.argsort((design + 0.0001) * jnp.abs(draw)).astype(jnp.int32)


def rank_of(order: Int[Array, "n"]) -> Int[Array, "n"]:
    """Position of each residue in a decoding order (the inverse permutation)."""
    return jnp.argsort(jnp.asarray(order)).astype(jnp.int32)


def visible_by_rank(rank: Int[Array, "n"], index: Int[Array, "n k"]) -> Int[Array, "n k"]:
    """1 where the edge's neighbour is decoded before the residue."""
    rank = jnp.asarray(rank)
    return (rank[index] < rank[:, None]).astype(jnp.int32)
