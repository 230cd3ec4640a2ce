"""What MASSA's pre-training hides of its input: residues and GO terms, which are then to be predicted.

Of 15 % of the residues that are chosen, 80 % are replaced by a constant, 10 % by another residue of the same protein,
and 10 % are left as they are; at least one is chosen. The graph's edges stay. GO terms likewise.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from jaxprot.massa.featurize import IGNORE, Features, Labels

RATE = 0.15
REPLACED, SWAPPED = 0.8, 0.5
"""Share of what is chosen that is replaced; share of the rest that is swapped."""
RESIDUE, TERM = 1e-3, 2e-3
"""What stands in place of a residue's and of a term's values."""


def choose(
    key: PRNGKeyArray, mask: Bool[Array, "n"], rate: float = RATE
) -> tuple[Bool[Array, "n"], Bool[Array, "n"], Int[Array, "n"]]:
    """(chosen, replaced, source): what is to be predicted, what becomes a constant, and whose values the rest has.

    Args:
      key: PRNG key.
      mask: what exists; nothing else is chosen.
      rate: chance of each.
    """
    n = mask.shape[0]
    k_choose, k_replace, k_swap, k_source = jax.random.split(key, 4)
    score = jnp.where(mask, jax.random.uniform(k_choose, (n,)), 2.0)
    # The lowest score is chosen in any case, so that none goes without.
    chosen = mask & ((score < rate) | (jnp.arange(n) == jnp.argmin(score)))
    replaced = chosen & (jax.random.uniform(k_replace, (n,)) < REPLACED)
    swapped = chosen & ~replaced & (jax.random.uniform(k_swap, (n,)) < SWAPPED)
    place = (jax.random.uniform(k_source, (n,)) * jnp.sum(mask)).astype(jnp.int32)
    rank = jnp.minimum(place, jnp.maximum(jnp.sum(mask) - 1, 0))
    # The rank-th of those that exist; they need not be the first ones.
    order = jnp.argsort(~mask, stable=True).astype(jnp.int32)
    return chosen, replaced, jnp.where(swapped, order[rank], jnp.arange(n, dtype=jnp.int32))


def _apply(x: Array, replaced: Array, source: Array, value: float) -> Array:
    shape = (-1,) + (1,) * (x.ndim - 1)
    return jnp.where(replaced.reshape(shape), jnp.asarray(value, x.dtype), x[source])


def mask_one(features: Features, labels: Labels, key: PRNGKeyArray) -> tuple[Features, Labels]:
    """Masked input and labels of one protein (arrays without an axis in front), see `mask_batch`."""
    k_residue, k_term = jax.random.split(key)
    chosen, replaced, source = choose(k_residue, features.mask)
    with_structure = replaced & features.has_structure
    term, term_replaced, term_source = choose(k_term, features.go_mask)
    features = features._replace(
        seq=_apply(features.seq, replaced, source, RESIDUE),
        node_s=_apply(features.node_s, with_structure, source, RESIDUE),
        node_v=_apply(features.node_v, with_structure, source, RESIDUE),
        go=_apply(features.go, term_replaced, term_source, TERM),
    )
    labels = labels._replace(pro=jnp.where(chosen, labels.pro, IGNORE), go=jnp.where(term, labels.go, IGNORE))
    return features, labels


def mask_batch(features: Features, labels: Labels, keys: PRNGKeyArray) -> tuple[Features, Labels]:
    """Masked input, and labels of residues and GO terms only where something is masked.

    Motifs, domains and regions keep all their labels. The published code takes the sum of node vectors for a sign that
    there is no structure, and leaves one unmasked by accident where that sum is below 1; here `has_structure` tells.

    Args:
      features: arrays with an axis of proteins in front.
      labels: the same.
      keys: one per protein, so that what is masked does not depend on the batch.
    """
    return jax.vmap(mask_one)(jax.tree.map(jnp.asarray, features), jax.tree.map(jnp.asarray, labels), keys)
