"""What is hidden in pre-training."""

import jax
import numpy as np
import pytest

from jaxprot.massa import masking
from jaxprot.massa.featurize import Features, Labels


@pytest.fixture(scope="module")
def inputs():
    """40 proteins of 1 to 120 residues and 0 to 8 GO terms; every value tells its protein and row."""
    rng = np.random.default_rng(0)
    b, n, g = 40, 128, 8
    mask = np.arange(n)[None] < np.concatenate([[1], rng.integers(60, 121, b - 1)])[:, None]
    go_mask = np.arange(g)[None] < np.arange(b)[:, None] % (g + 1)
    rows = (np.arange(b * n, dtype=np.float32) + 1).reshape(b, n)
    terms = (np.arange(b * g, dtype=np.float32) + 1).reshape(b, g)
    features = Features(
        np.repeat(rows[..., None], 2, -1),
        mask,
        np.repeat(rows[..., None], 6, -1),
        np.broadcast_to(rows[..., None, None], (b, n, 3, 3)),
        np.zeros((b, n, 1, 32), np.float32),
        np.zeros((b, n, 1, 3, 1), np.float32),
        np.zeros((b, n, 1), np.int32),
        np.zeros((b, n, 1), bool),
        np.repeat(terms[..., None], 2, -1),
        go_mask,
        np.arange(b) != 5,
    )
    pro = np.where(mask, np.arange(n)[None] % 20, -100).astype(np.int32)
    go = np.where(go_mask, np.arange(g)[None], -100).astype(np.int32)
    return features, Labels(pro, go, pro, pro, pro)


@pytest.fixture(scope="module")
def run():
    return jax.jit(masking.mask_batch)


def kinds(before, after, chosen, constant):
    """(replaced, swapped, kept) among the chosen."""
    replaced = chosen & (after == np.float32(constant))
    kept = chosen & (after == before)
    return replaced, chosen & ~replaced & ~kept, kept


def test_invariants_of_the_published_masking(inputs, run, key):
    features, labels = inputs
    masked, hidden = jax.device_get(run(features, labels, jax.random.split(key, 40)))
    for before, after, label, old, exists, constant in (
        (features.seq, masked.seq, hidden.pro, labels.pro, features.mask, 1e-3),
        (features.go, masked.go, hidden.go, labels.go, features.go_mask, 2e-3),
    ):
        assert (after[..., 0] == after[..., 1]).all()  # a whole row comes from one place
        before, after, chosen = before[..., 0], after[..., 0], label != -100
        np.testing.assert_array_equal(label[chosen], old[chosen])
        assert not (chosen & ~exists).any()
        np.testing.assert_array_equal(after[~chosen], before[~chosen])
        np.testing.assert_array_equal(chosen.any(1), exists.any(1))  # at least one in each that has any
        _, swapped, _ = kinds(before, after, chosen, constant)
        for i in range(len(before)):
            assert np.isin(after[i][swapped[i]], before[i][exists[i]]).all()  # from the same protein
    np.testing.assert_array_equal(hidden.motif, labels.motif)
    np.testing.assert_array_equal(masked.edge_s, features.edge_s)
    # Embedding and structure of a residue are hidden alike; a protein without structure has nothing to hide.
    with_structure = np.flatnonzero(features.has_structure)
    for part in (masked.node_s[..., 0], masked.node_v[..., 0, 0]):
        np.testing.assert_array_equal(part[with_structure], masked.seq[..., 0][with_structure])
    assert not (masked.node_s[5] == np.float32(1e-3)).any()


def test_shares_are_as_specified(inputs, run):
    features, labels = inputs
    counts, total = np.zeros(3), 0
    for seed in range(10):
        masked, hidden = jax.device_get(run(features, labels, jax.random.split(jax.random.key(seed), 40)))
        chosen = hidden.pro != -100
        counts += [x.sum() for x in kinds(features.seq[..., 0], masked.seq[..., 0], chosen, 1e-3)]
        total += features.mask.sum()
    # About 35,000 residues: three standard deviations are 0.6 % of all and 1.7 % of the chosen.
    assert abs(counts.sum() / total - 0.15) < 0.007
    np.testing.assert_allclose(counts / counts.sum(), [0.8, 0.1, 0.1], atol=0.018)


def test_a_protein_is_masked_alike_in_any_batch(inputs, run, key):
    features, labels = inputs
    keys = jax.random.split(key, 40)
    whole = run(features, labels, keys)
    order = np.arange(40)[::-1]
    turned = run(*jax.tree.map(lambda x: x[order], (features, labels)), keys[order])
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(turned), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[order], b)
    other = run(features, labels, jax.random.split(jax.random.key(9), 40))[1].pro
    assert (np.asarray(other) != np.asarray(whole[1].pro)).any()
