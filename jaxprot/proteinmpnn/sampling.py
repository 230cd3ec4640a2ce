"""Autoregressive sampling of sequences, free or tied, with the biases of the published tool.

One residue is decoded per step of a `lax.scan`. What a residue sends to its neighbours in each decoder layer is kept
projected in a cache, so a step multiplies only the 48 edges of one residue; samples are `vmap`ped over one encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxprot.proteinmpnn.decoding import rank_of
from jaxprot.proteinmpnn.model import VOCABULARY, Encoded, ProteinMPNN

# The published tool adds a thousandth of the distribution to the part that passes the PSSM threshold.
FAVOURED, HELD_BACK = np.float32(1.001), np.float32(0.001)


class Constraints(NamedTuple):
    """What steers the draw at each residue; `neutral` gives one without effect.

    Attributes:
      temperature: of the softmax, scalar.
      omit: 1 for letters never drawn (21,).
      bias: added to the logits of every residue (21,).
      bias_by_residue: added to the logits of each residue (n, 21).
      pssm_weight: mixing weight of `pssm` for each residue (n,), the tool's pssm_multi times pssm_coef.
      pssm: distribution mixed in (n, 21).
      favoured: weight of each letter by its PSSM log-odds (n, 21): `FAVOURED` above the threshold, `HELD_BACK` below,
        1 without log-odds.
      omit_by_residue: 1 for letters never drawn at a residue (n, 21).
    """

    temperature: Array
    omit: Array
    bias: Array
    bias_by_residue: Array
    pssm_weight: Array
    pssm: Array
    favoured: Array
    omit_by_residue: Array

    @classmethod
    def neutral(cls, n: int, temperature: float = 0.1, omit: str = "X") -> Constraints:
        """No bias; letters of `omit` are never drawn."""
        from jaxprot.core.residues import ALPHABET

        return cls(
            temperature=np.float32(temperature),
            omit=np.array([c in omit for c in ALPHABET], np.float32),
            bias=np.zeros(VOCABULARY, np.float32),
            bias_by_residue=np.zeros((n, VOCABULARY), np.float32),
            pssm_weight=np.zeros(n, np.float32),
            pssm=np.zeros((n, VOCABULARY), np.float32),
            favoured=np.ones((n, VOCABULARY), np.float32),
            omit_by_residue=np.zeros((n, VOCABULARY), np.float32),
        )


class Ties(NamedTuple):
    """Groups of residues that get one letter; a free residue is a group of its own.

    Attributes:
      group: number of the residue's group (n,).
      place: its place in the group's list (n,).
      last: True for the last of the list, at which the group's letter is drawn (n,).
      members: residues of the group, filled up with n (n, g).
      weight: share of the residue's logits in the group's (n,): β / size.
      computed: 0 for members listed after an unresolved one, which the published tool leaves out (n,).
      forced: letter the group must take because a member is unresolved, else -1 (n,).
    """

    group: Array
    place: Array
    last: Array
    members: Array
    weight: Array
    computed: Array
    forced: Array


def make_ties(
    sequence: Int[np.ndarray, "n"],
    mask: Float[np.ndarray, "n"],
    groups: Sequence[Sequence[int]] = (),
    weights: Float[np.ndarray, "n"] | None = None,
) -> Ties:
    """Ties of one structure (numpy).

    Args:
      sequence: native letters.
      mask: 1 where resolved.
      groups: 0-based residues of each tied group; residues in none are free.
      weights: β of each residue (1 where not given); negative ones design against a state.

    Raises:
      ValueError: a residue is in two groups or out of range.
    """
    n = len(sequence)
    beta = np.ones(n, np.float32) if weights is None else np.asarray(weights, np.float32)
    group, place, size = np.arange(n), np.zeros(n, np.int32), np.ones(n, np.int32)
    widest = max([1, *(len(g) for g in groups)])
    members = np.full((n, widest), n, np.int32)
    members[:, 0] = np.arange(n)
    computed, last = np.ones(n, np.float32), np.ones(n, bool)
    forced = np.where(mask > 0, -1, sequence).astype(np.int32)
    seen: set[int] = set()
    for g in groups:
        rows = np.asarray(g, np.int32)
        if len(rows) == 0:
            continue
        if rows.min() < 0 or rows.max() >= n:
            raise ValueError(f"tied residue out of range 0..{n - 1}: {list(g)}")
        if len(set(g)) < len(g) or seen & set(g):
            raise ValueError(f"a residue is tied twice: {sorted(seen & set(g)) or list(g)}")
        seen |= set(g)
        group[rows], place[rows], size[rows] = rows[0], np.arange(len(rows)), len(rows)
        last[rows[:-1]] = False
        members[rows] = n
        members[rows[:, None], np.arange(len(rows))[None]] = rows[None]
        unresolved = np.flatnonzero(mask[rows] == 0)
        if len(unresolved):
            computed[rows[unresolved[0] :]] = 0.0
            forced[rows] = sequence[rows[unresolved[0]]]
    return Ties(group.astype(np.int32), place, last, members, (beta / size).astype(np.float32), computed, forced)


def tied_order(order: Int[Array, "n"], ties: Ties) -> Int[Array, "n"]:
    """Rebuild an order so that a whole group is decoded where its first member stood."""
    n = order.shape[0]
    earliest = jax.ops.segment_min(rank_of(order), ties.group, n)
    return jnp.argsort(earliest[ties.group] * ties.members.shape[1] + ties.place).astype(jnp.int32)


class Prepared(NamedTuple):
    """Sample-independent parts of the decoder: edge terms (layers, n, k, c), start of the cache (n, layers, c), letter
    terms (layers, 21, c)."""  # noqa: D205, D209

    edges: Array
    cache: Array
    letters: Array


def prepare(model: ProteinMPNN, encoded: Encoded) -> Prepared:
    """Project the encoding once for all samples."""
    edges, cache, letters = [], [], []
    for layer in model.decoder:
        _, k_edge, k_letter, k_node = layer.parts()
        edges.append(encoded.edges @ k_edge)
        cache.append(encoded.nodes @ k_node)
        letters.append(model.letters.embedding[...] @ k_letter)
    return Prepared(jnp.stack(edges), jnp.stack(cache, axis=1), jnp.stack(letters))


def _probabilities(logits: Float[Array, "21"], t: Int[Array, ""], c: Constraints) -> Float[Array, "21"]:
    """Distribution of the letter at residue t; `logits` are already divided by the temperature."""
    p = jax.nn.softmax(logits - 1e8 * c.omit + (c.bias + c.bias_by_residue[t]) / c.temperature)
    p = (1.0 - c.pssm_weight[t]) * p + c.pssm_weight[t] * c.pssm[t]
    p = p * c.favoured[t] * (1.0 - c.omit_by_residue[t])
    return p / jnp.maximum(jnp.sum(p), 1e-30)


def sample(
    model: ProteinMPNN,
    encoded: Encoded,
    prepared: Prepared,
    native: Int[Array, "n"],
    design: Float[Array, "n"],
    order: Int[Array, "n"],
    uniforms: Float[Array, "n"],
    constraints: Constraints,
    ties: Ties,
    *,
    greedy: bool = False,
) -> tuple[Int[Array, "n"], Float[Array, "n 21"]]:
    """Draw one sequence.

    Args:
      model: the network.
      encoded: the backbone.
      prepared: from `prepare`.
      native: letters kept where nothing is designed.
      design: 1 where a letter is drawn (chain_M · chain_M_pos · mask).
      order: decoding order, groups together (`tied_order`).
      uniforms: numbers in [0, 1) that decide the draw at each residue (indexed by residue).
      constraints: temperature and biases.
      ties: groups; the biases and the design mask of a group are those of its last member.
      greedy: take the likeliest letter instead of drawing one (`uniforms` are not read).

    Returns:
      letters, and the distribution each designed letter was drawn from (zeros elsewhere, as in the published tool).
    """
    n = native.shape[0]
    layers = list(model.decoder)
    encoded, constraints, ties = jax.tree.map(jnp.asarray, (encoded, constraints, ties))

    def step(carry, t):
        cache, letters, total, probs = carry
        resolved = encoded.mask[t] * ties.computed[t]
        state, index = encoded.nodes[t], encoded.index[t]
        sent = cache[index]
        for depth, layer in enumerate(layers):
            own = state @ layer.parts()[0] + layer.w1.bias[...]
            before = own[None] + prepared.edges[depth, t] + sent[:, depth]
            state = layer.update(state[None], before[None], encoded.valid[t][None], resolved[None])[0]
            if depth + 1 < len(layers):
                cache = cache.at[t, depth + 1].set(state @ layers[depth + 1].parts()[3])
        share = model.output(state) * (ties.weight[t] / constraints.temperature)
        total = jnp.where(ties.place[t] == 0, 0.0, total) + share
        p = _probabilities(total, t, constraints)
        if greedy:
            drawn = jnp.argmax(p).astype(letters.dtype)
        else:
            drawn = jnp.minimum(jnp.sum(jnp.cumsum(p) <= uniforms[t]), VOCABULARY - 1).astype(letters.dtype)
        letter = jnp.where(design[t] > 0, drawn, native[t])
        letter = jnp.where(ties.forced[t] >= 0, ties.forced[t], letter)
        rows = jnp.where(ties.last[t], ties.members[t], n)
        cache = cache.at[rows].add(prepared.letters[:, letter], mode="drop")
        letters = letters.at[rows].set(letter, mode="drop")
        shown = jnp.where(ties.forced[t] >= 0, 0.0, jnp.where(rows.shape[0] > 1, 1.0, design[t]))
        probs = probs.at[rows].set(p * shown, mode="drop")
        return (cache, letters, total, probs), None

    start = (prepared.cache, native, jnp.zeros(VOCABULARY), jnp.zeros((n, VOCABULARY)))
    (_, letters, _, probs), _ = jax.lax.scan(step, start, order)
    return letters, probs
