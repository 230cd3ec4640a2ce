"""Layers of scalars and vectors against the equations written out edge by edge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.nn import gvp
from jaxprot.weights import module

NODES, EDGES, N, K = (12, 4), (5, 1), 7, 3


def filled(build):
    """(graph definition, state) of a module of random weights; biases are not 0, which would hide where they belong."""
    blueprint, rng = module.Blueprint(build), np.random.default_rng(1)
    names = module.shapes(blueprint)
    tensors = {name: rng.normal(size=shape).astype(np.float32) / shape[0] ** 0.5 for name, shape in names.items()}
    return nnx.split(module.assemble(blueprint, tensors))


def plain(layer: gvp.GVP, s, v):
    """A perceptron of one node or edge: scalars (s,), vectors (v, 3), in float64."""
    weights = [None if w is None else np.asarray(w.kernel[...], np.float64) for w in (layer.wh, layer.ws, layer.wv)]
    hidden = weights[0].T @ v
    norms = np.sqrt(np.maximum((hidden**2).sum(1), 1e-8))
    s = weights[1].T @ np.concatenate([s, norms]) + np.asarray(layer.ws.bias[...], np.float64)
    v = weights[2].T @ hidden
    if layer.gate:
        v = v / (1 + np.exp(-np.sqrt(np.maximum((v**2).sum(1, keepdims=True), 1e-8))))
    return (np.maximum(s, 0) if layer.relu else s), v


def plain_message(message: gvp.GVPMessage, s, v, edge_s, edge_v, index, present):
    """Means of the messages of one graph; vectors (n, v, 3)."""
    out_s, out_v = np.zeros(s.shape), np.zeros(v.shape)
    for i in range(len(s)):
        found = []
        for k in np.flatnonzero(present[i]):
            j = index[i, k]
            m = np.concatenate([s[j], edge_s[i, k], s[i]]), np.concatenate([v[j], edge_v[i, k], v[i]])
            for layer in (message.first, message.second, message.third):
                m = plain(layer, *m)
            found.append(m)
        if found:
            out_s[i], out_v[i] = (np.mean(x, 0) for x in zip(*found, strict=True))
    return out_s, out_v


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    present = rng.random((2, N, K)) < 0.8
    present[0, 2] = False  # nodes without edges, one of which sends messages
    present[1, 6] = False
    arrays = (
        rng.normal(size=(2, N, NODES[0])),
        rng.normal(size=(2, N, 3, NODES[1])),
        rng.normal(size=(2, N, K, EDGES[0])),
        rng.normal(size=(2, N, K, 3, EDGES[1])),
    )
    index = rng.integers(0, N, (2, N, K)).astype(np.int32)
    return (*(x.astype(np.float32) for x in arrays), index, present)


@pytest.fixture(scope="module")
def message():
    return filled(lambda rngs: gvp.GVPMessage(NODES, EDGES, rngs=rngs))


@pytest.fixture(scope="module")
def run(message):
    graphdef, state = message
    compiled = jax.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))
    return lambda *args: compiled(state, *args)


def test_messages_are_those_of_single_edges(message, run, inputs):
    s, v = run(*inputs)
    layers = nnx.merge(*message)
    for b in range(2):
        one = [x[b] for x in inputs]
        one[1], one[3] = one[1].swapaxes(-1, -2), one[3].swapaxes(-1, -2)
        plain_s, plain_v = plain_message(layers, *one)
        np.testing.assert_allclose(s[b], plain_s, atol=1e-5)
        np.testing.assert_allclose(np.swapaxes(v[b], -1, -2), plain_v, atol=1e-5)


def test_a_node_without_edges_hears_nothing(run, inputs):
    s, v = run(*inputs)
    for b, node in ((0, 2), (1, 6)):
        assert not np.any(s[b, node]) and not np.any(v[b, node])
    assert np.all(np.any(np.delete(s[0], 2, 0) != 0, -1))


def test_places_without_an_edge_do_not_count(run, inputs):
    changed = list(inputs)
    gone = ~inputs[5]
    changed[4] = np.where(gone, (inputs[4] + 1) % N, inputs[4])
    changed[2] = np.where(gone[..., None], np.float32(9), inputs[2])
    for a, b in zip(run(*inputs), run(*changed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_vectors_turn_with_the_molecule(inputs, key):
    graphdef, state = filled(lambda rngs: gvp.GVPLayer(NODES, EDGES, 0.4, rngs=rngs))
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0].astype(np.float32)
    s, v, edge_s, edge_v, index, present = inputs

    @jax.jit
    def whole(state, v, edge_v, key=None):
        return nnx.merge(graphdef, state)((s, v), (edge_s, edge_v), index, present, key)

    turned = [np.einsum("xy,...yc->...xc", turn, x) for x in (v, edge_v)]
    (s1, v1), (s2, v2) = whole(state, v, edge_v), whole(state, *turned)
    np.testing.assert_allclose(s1, s2, atol=2e-5)
    np.testing.assert_allclose(np.einsum("xy,bnyc->bnxc", turn, v1), v2, atol=2e-5)
    assert np.abs(v1 - v2).max() > 0.1
    dropped = whole(state, v, edge_v, key)
    assert np.abs(dropped[0] - s1).max() > 0.1
    np.testing.assert_array_equal(dropped[0], whole(state, v, edge_v, key)[0])


def test_whole_vectors_are_dropped(key):
    ones = np.ones((40, 50), np.float32), np.ones((40, 3, 20), np.float32)
    s, v = gvp.pair_dropout(ones, 0.25, key)
    assert np.array_equal(v.min(1), v.max(1))
    for x in (s, v[:, 0]):
        assert set(np.unique(x)) == {0.0, np.float32(4 / 3)}
        assert abs(np.mean(np.asarray(x) == 0) - 0.25) < 0.06
    assert gvp.dropout(ones[0], 0.25, None) is ones[0]


def test_short_vectors_have_finite_derivatives(message, inputs):
    graphdef, state = message
    zeros = [np.zeros_like(x) if i in (1, 3) else x for i, x in enumerate(inputs)]

    def loss(state, s, v):
        return jnp.sum(nnx.merge(graphdef, state)(s, v, *zeros[2:])[0] ** 2)

    slopes = jax.jit(jax.grad(loss, (0, 1, 2)))(state, *zeros[:2])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))
    assert np.abs(slopes[1]).max() > 0


def test_norm_leaves_vectors_of_unit_root_mean_square():
    graphdef, state = filled(lambda rngs: gvp.GVPNorm(8, rngs=rngs))
    run = jax.jit(lambda state, s, v: nnx.merge(graphdef, state)(s, v))
    rng = np.random.default_rng(0)
    v = 7 * rng.normal(size=(6, 3, 4)).astype(np.float32)
    v[0] = 0
    out_s, out_v = run(state, 5 * rng.normal(size=(6, 8)).astype(np.float32) + 3, v)
    np.testing.assert_allclose(np.mean(np.sum(np.square(out_v[1:]), 1), -1), 1, rtol=1e-5)
    assert not np.any(out_v[0])
    own = (np.asarray(out_s) - np.asarray(state["scalars"]["bias"][...])) / np.asarray(state["scalars"]["scale"][...])
    np.testing.assert_allclose(own.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(own.std(-1), 1, atol=1e-4)
